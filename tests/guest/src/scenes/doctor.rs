//! `oxublk doctor` as a whole: no false alarm, many devices, and sight that is limited.

use crate::support::device::{block, in_flight};
use crate::support::faulty::{Faulty, Provoke, about, doctor, load, provoke, read};
use crate::support::runner::tests;
use crate::support::special::{Offer, SPECIAL, Special};
use crate::support::{Added, LONG, Process, SOON, Scene, note, ok, run, wait_for, wait_until};
use anyhow::{Context as _, Result, ensure};
use oxublk_diag::decide::Limits;
use oxublk_diag::doctor::Doctor;
use oxublk_diag::finding::{Cause, Health, Report};
use oxublk_diag::observe::Options;
use rustix::process::Signal;
use std::time::Instant;

pub(crate) const SCENE: Scene = Scene {
    name: "doctor",
    needs: "timeout=700 with=rublk",
    tests: tests![
        no_alarm_while_fio_runs,
        a_slow_medium_is_called_slow,
        a_recovery_under_way_is_called_that,
        sixty_four_devices_are_examined_within_five_seconds,
        what_cannot_be_seen_is_said,
        what_was_seen_can_be_examined_elsewhere,
        changes_are_told_as_they_come,
        a_device_that_is_not_there_is_an_error,
    ],
};

/// How often a healthy host is examined: `OXUBLK_DOCTOR_RUNS`, or a few times.
fn runs() -> u32 {
    let wanted = std::env::var("OXUBLK_DOCTOR_RUNS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(8)
}

fn examine(times: u32, judge: impl FnMut(&Report) -> Result<()>) -> Result<()> {
    examine_with(Limits::default(), times, judge)
}

fn examine_with(
    limits: Limits,
    times: u32,
    mut judge: impl FnMut(&Report) -> Result<()>,
) -> Result<()> {
    let mut doctor = Doctor::new(Options::default(), limits);
    for _ in 0..times {
        judge(&doctor.examine())?;
    }
    Ok(())
}

fn is_healthy(report: &Report) -> Result<()> {
    ensure!(
        report.health == Health::Healthy && about(report, None).is_empty(),
        "healthy expected: {:#?}\nrequests: {:#?}",
        report.findings,
        report.requests
    );
    Ok(())
}

/// rublk's null disk, and its id.
fn rublk(options: &[&str]) -> Result<u32> {
    let id = 20;
    let number = id.to_string();
    let words = [&["add", "null", "--quiet", "-n", &number], options].concat();
    run("/with/rublk", &words)?.success()?;
    wait_until("rublk's disk is there", SOON, || {
        std::fs::metadata(block(id)).map_err(|error| error.to_string())
    })?;
    Ok(id)
}

fn delete_rublk(id: u32) -> Result<()> {
    run("/with/rublk", &["del", "-n", &id.to_string()])?
        .success()
        .map(drop)
}

fn no_alarm_while_fio_runs() -> Result<()> {
    let ours = Added::new("mem --size 64M --queues 2")?;
    let theirs = rublk(&[])?;
    let disks = [ours.block(), block(theirs)];
    let loads = disks.iter().map(|disk| load(disk, "--iodepth=16"));
    let loads: Vec<Process> = loads.collect::<Result<_>>()?;
    let (runs, started) = (runs(), Instant::now());
    let told = examine(runs, is_healthy);
    note(format!(
        "doctor: {runs} examinations under load took {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    drop(loads);
    told?;
    delete_rublk(theirs)?;
    ours.delete()
}

/// Every answer takes ten seconds: true is what says so, and nothing else.
fn a_slow_medium_is_called_slow() -> Result<()> {
    let disk = Special::start("slow", Offer::default())?;
    let reader = read(&block(disk.id), SPECIAL / 4096, 1)?;
    in_flight(disk.id)?;
    let mut seen = Vec::new();
    // How long a look takes depends on the machine: the read is called stuck only if it takes far longer than it does.
    let limits = Limits {
        stuck: LONG,
        ..Limits::default()
    };
    examine_with(limits, runs().min(8), |report| {
        for finding in about(report, None) {
            ensure!(
                finding.cause == Cause::SlowMedium && finding.tags.len() == 1,
                "{finding:#?}"
            );
            seen.push(finding.health);
        }
        Ok(())
    })?;
    ensure!(
        seen.contains(&Health::Warning),
        "a read of ten seconds was never called slow: {seen:?}"
    );
    reader.wait(SOON)?.success()?;
    disk.stop()
}

/// A server dies and another takes over, under load: what is said is healthy, or that.
fn a_recovery_under_way_is_called_that() -> Result<()> {
    let mut server = Faulty::start("healthy", "--recovery reissue")?;
    server.ready()?;
    // Fewer than there are tags: 6.12 sees the death of a server that holds all of them only after 30 s.
    let load = load(&block(server.id), "--iodepth=4")?;
    in_flight(server.id)?;
    server.process.signal(Signal::KILL)?;
    let mut causes = Vec::new();
    let mut judge = |report: &Report| {
        for finding in about(report, None) {
            causes.push(finding.cause);
            ensure!(finding.cause == Cause::AwaitsRecovery, "{finding:#?}");
        }
        Ok(())
    };
    examine(3, &mut judge)?;
    let server = std::thread::scope(|scope| {
        let recovery = scope.spawn(|| server.recovered());
        examine(10, &mut judge)?;
        recovery
            .join()
            .map_err(|_| anyhow::anyhow!("the recovery panicked"))?
    })?;
    ensure!(
        causes.contains(&Cause::AwaitsRecovery),
        "the death of the server was never told"
    );
    examine(3, is_healthy)?;
    server.clear(vec![load])
}

/// Sixty healthy devices of one process, and four that are stuck, each in its own way.
fn sixty_four_devices_are_examined_within_five_seconds() -> Result<()> {
    let devices: Vec<oxublk::Device> = (0..60)
        .map(|_| {
            let disk = oxublk_targets::Null::new(1 << 30);
            oxublk::Device::builder(disk).depth(16).start()
        })
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let faults = ["locked", "forgotten", "blocked-pipe", "spin"];
    let mut stuck = Vec::new();
    for fault in faults {
        let mut server = Faulty::start(fault, "")?;
        let clients = provoke(&mut server, Provoke::Reads)?;
        stuck.push((server, clients));
    }
    let report = wait_until("all four are stuck", LONG, || {
        let report = doctor(&["--stuck-after", "2"]).map_err(|error| error.to_string())?;
        let told = about(&report, None).len();
        if told >= faults.len() && report.health == Health::Stuck {
            Ok(report)
        } else {
            Err(format!("{told} findings"))
        }
    })?;
    let started = Instant::now();
    doctor(&[])?;
    note(format!(
        "doctor with 64 devices, 4 of them stuck: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    ensure!(report.snapshot.devices.len() == 64, "64 devices expected");
    let wrong = about(&report, None).iter().any(|finding| {
        stuck
            .iter()
            .all(|(server, _)| finding.device.map(|id| id.0) != Some(server.id))
    });
    ensure!(
        !wrong,
        "a healthy device is complained of: {:#?}",
        report.findings
    );
    for (server, _) in &stuck {
        server.process.signal(Signal::KILL)?;
    }
    for (server, clients) in stuck {
        server.clear(clients)?;
    }
    for device in devices {
        device
            .stop()
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    Ok(())
}

/// A way to see less, how to make it so, and how to undo that.
struct Blindness {
    what: &'static str,
    make: &'static str,
    undo: &'static str,
    /// Runs doctor.
    command: &'static str,
    /// What the report must say of it.
    says: &'static str,
    /// What can still be told: that the server has it, and what its threads do; or only that somebody waits.
    told: Option<Cause>,
}

const BLIND: &[Blindness] = &[
    Blindness {
        what: "without debugfs",
        make: "umount /sys/kernel/debug",
        undo: "mount -t debugfs debugfs /sys/kernel/debug",
        command: "oxublk doctor --json --stuck-after 1",
        says: "debugfs",
        told: Some(Cause::HandlerLocked),
    },
    Blindness {
        what: "without the kernel's structures",
        make: "true",
        undo: "true",
        command: "oxublk doctor --json --no-kernel --slow 1 --stuck-after 1",
        says: "switched off",
        told: Some(Cause::Unexplained),
    },
    Blindness {
        what: "without type information",
        make: "mkdir /tmp/empty && mount --bind /tmp/empty /sys/kernel/btf",
        undo: "umount /sys/kernel/btf && rmdir /tmp/empty",
        command: "oxublk doctor --json --slow 1 --stuck-after 1",
        says: "btf",
        told: Some(Cause::Unexplained),
    },
    Blindness {
        what: "without root",
        make: "true",
        undo: "true",
        command: "setpriv --reuid 1000 --regid 1000 --clear-groups oxublk doctor --json",
        says: "root",
        told: None,
    },
];

/// Whether the thread that is in its own lock is named, as what has the request or among what the server does.
fn tells_of_the_thread(report: &Report) -> bool {
    let lines = report.findings.iter().flat_map(|finding| {
        let evidence = finding.evidence.iter();
        evidence.chain(std::iter::once(&finding.says))
    });
    let mut told = lines.filter(|line| line.contains("(queue0)"));
    told.any(|line| line.contains("is in futex"))
}

fn what_cannot_be_seen_is_said() -> Result<()> {
    let mut server = Faulty::start("locked", "")?;
    let clients = provoke(&mut server, Provoke::Reads)?;
    wait_for("it is stuck for doctor", LONG, || {
        doctor(&["--stuck-after", "2"]).is_ok_and(|report| report.health == Health::Stuck)
    })?;
    for blind in BLIND {
        run("sh", &["-c", blind.make])?.success()?;
        let told = run("sh", &["-c", blind.command]);
        run("sh", &["-c", blind.undo])?.success()?;
        let told = told?;
        let report: Report = serde_json::from_str(&told.output)
            .with_context(|| format!("{}: {told}", blind.what))?;
        let gaps: Vec<String> = report
            .gaps
            .iter()
            .map(|gap| format!("{} ({})", gap.what, gap.remedy))
            .collect();
        ensure!(
            gaps.iter().any(|gap| gap.contains(blind.says)),
            "{}: {} expected among {gaps:#?}",
            blind.what,
            blind.says
        );
        let causes: Vec<Cause> = about(&report, Some(server.id))
            .iter()
            .map(|finding| finding.cause)
            .collect();
        note(format!(
            "doctor {}: {causes:?}, {} gaps",
            blind.what,
            gaps.len()
        ));
        if let Some(cause) = blind.told {
            ensure!(
                causes == [cause] && tells_of_the_thread(&report),
                "{}: {:#?}",
                blind.what,
                report.findings
            );
        }
        let known = report
            .snapshot
            .devices
            .iter()
            .any(|device| device.id.0 == server.id);
        ensure!(known, "{}: the device is not even named", blind.what);
    }
    server.clear(clients)
}

fn what_was_seen_can_be_examined_elsewhere() -> Result<()> {
    let mut server = Faulty::start("blocked-pipe", "")?;
    let clients = provoke(&mut server, Provoke::Reads)?;
    wait_for("it is stuck", LONG, || {
        doctor(&["--stuck-after", "1"]).is_ok_and(|report| report.health == Health::Stuck)
    })?;
    let words = ["doctor", "--snapshot", "/tmp/seen", "--stuck-after", "1"];
    let here = run("oxublk", &words)?.fails(9, &[])?;
    server.clear(clients)?;
    let there = run(
        "oxublk",
        &["doctor", "--from", "/tmp/seen", "--stuck-after", "1"],
    )?
    .fails(9, &[])?;
    ensure!(here.output == there.output, "{here}\n{there}");
    ensure!(here.output.contains("handler_blocked"), "{here}");
    run("oxublk", &["doctor", "--from", "/etc/passwd"])?.fails(2, &["/etc/passwd"])?;
    std::fs::remove_file("/tmp/seen")?;
    Ok(())
}

fn changes_are_told_as_they_come() -> Result<()> {
    let mut watch = Process::start("oxublk", &["doctor", "--watch=1", "--stuck-after", "2"])?;
    watch.wait_line("the summary", LONG, |line| {
        line.starts_with("ublk: no devices").then_some(())
    })?;
    let mut server = Faulty::start("locked", "")?;
    let clients = provoke(&mut server, Provoke::Reads)?;
    watch.wait_line("the finding", LONG, |line| {
        (line.contains("STUCK") && line.contains("handler_locked")).then_some(())
    })?;
    server.clear(clients)?;
    watch.wait_line("its end", LONG, |line| {
        line.starts_with("ended: ").then_some(())
    })?;
    watch.signal(Signal::INT)?;
    watch.wait(SOON)?.fails(9, &[]).map(drop)
}

fn a_device_that_is_not_there_is_an_error() -> Result<()> {
    run("oxublk", &["doctor", "7"])?.fails(4, &["device 7", "oxublk list"])?;
    let report = doctor(&[])?;
    ensure!(report.health == Health::Healthy && report.schema == 1);
    ok("oxublk doctor").map(drop)
}
