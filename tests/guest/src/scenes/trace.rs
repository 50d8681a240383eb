//! `oxublk trace`: every request is followed to its end, and what is wrong is named.

use crate::support::device::in_flight;
use crate::support::faulty::{Faulty, TRIGGER_BLOCK, read};
use crate::support::runner::tests;
use crate::support::traced::{Told, Traced};
use crate::support::{Added, LONG, SOON, Scene, note, ok, run, run_for, wait_until};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::time::Duration;

pub(crate) const SCENE: Scene = Scene {
    name: "trace",
    needs: "timeout=900",
    tests: tests![
        every_request_is_followed_from_station_to_station,
        a_replay_tells_the_same_and_filters,
        commands_of_right_servers_are_as_they_should_be,
        fifty_thousand_requests_are_followed_or_the_lost_are_told,
        what_finds_no_room_is_told,
        a_killed_trace_leaves_nothing_after_the_next,
        an_answer_of_a_foreign_thread_is_named,
        bytes_at_the_wrong_place_are_named,
        what_was_stuck_before_is_shown,
        without_types_issue_and_completion_are_left,
        without_tracefs_or_root_it_says_what_is_missing,
    ],
};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Requests that a disk has completed: reads, writes, discards.
fn completed(device: &Added) -> Result<[u64; 3]> {
    let stat = device.sys("stat")?;
    let fields: Vec<u64> = stat
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let field = |index: usize| fields.get(index).copied().with_context(|| stat.clone());
    Ok([field(0)?, field(4)?, field(11)?])
}

/// Some of everything, from several processes and processors.
fn load(disk: &str) -> Result<()> {
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=4K count=40 oflag=direct"
    ))?;
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=64K count=40 conv=fsync"
    ))?;
    ok(&format!(
        "dd if={disk} of=/dev/null bs=1M count=8 iflag=direct"
    ))?;
    ok(&format!(
        "blkdiscard --force --offset 4M --length 1M {disk}"
    ))?;
    fio(disk, "randrw", 600)
}

fn fio(disk: &str, how: &str, requests: u64) -> Result<()> {
    let line = format!(
        "--name=load --filename={disk} --direct=1 --ioengine=libaio --rw={how} --bs=4k --iodepth=16 --size=16M \
         --io_size={}k --numjobs=2 --randseed=4711 --norandommap --output-format=terse",
        requests * 4 / 2
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    run_for("fio", &words, Duration::from_secs(400))?
        .success()
        .map(drop)
}

fn every_request_is_followed_from_station_to_station() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    // Nobody else reads the disk any more.
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=1 iflag=direct",
        device.block()
    ))?;
    let traced = Traced::start(device.id, "--stuck-after 60")?;
    let before = completed(&device)?;
    load(&device.block())?;
    let after = completed(&device)?;
    let told = traced.end()?;
    told.clean()?;
    let requests = told.kind("request");
    for (index, operation) in ["read", "write", "discard"].iter().enumerate() {
        let followed = requests
            .iter()
            .filter(|request| request["operation"] == *operation)
            .count();
        let counted = after[index] - before[index];
        ensure!(counted > 0, "no {operation}");
        ensure!(
            followed as u64 == counted,
            "{operation}: {followed} followed, the disk counts {counted}"
        );
    }
    for request in &requests {
        let steps: Vec<&str> = request["steps"]
            .as_array()
            .map(|steps| {
                steps
                    .iter()
                    .filter_map(|step| step["step"].as_str())
                    .collect()
            })
            .unwrap_or_default();
        ensure!(
            steps == ["handed", "delivered", "posted", "answered", "completed"],
            "not all stations: {request}"
        );
        ensure!(
            request["steps"][3]["result"] == request["bytes"],
            "{request}"
        );
    }
    let queues = |queue: u64| {
        requests
            .iter()
            .any(|request| request["slot"]["queue"] == queue)
    };
    ensure!(queues(0) && queues(1), "not both queues");
    let legs = told.summary()?["latencies"].as_array().map_or(0, Vec::len);
    ensure!(legs == 5, "{}", told.finished);
    note(format!("{} requests followed", requests.len()));
    device.delete()
}

fn a_replay_tells_the_same_and_filters() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    let file = "/tmp/trace.jsonl";
    let traced = Traced::start(device.id, &format!("--stuck-after 60 --output {file}"))?;
    load(&device.block())?;
    let told = traced.end()?;
    let replay = |options: &str| {
        let line = format!("--json trace --replay {file} --stuck-after 60 {options}");
        let words: Vec<&str> = line.split_whitespace().collect();
        Told::new(run("oxublk", &words)?.success()?)
    };
    ensure!(
        replay("")?.finished.output == told.finished.output,
        "the replay differs"
    );
    let all = told.count("requests")?;
    let writes = replay("--op write")?;
    ensure!(
        writes
            .kind("request")
            .iter()
            .all(|request| request["operation"] == "write"),
        "{}",
        writes.finished
    );
    let others = replay("--op read,flush,discard,write-zeroes")?;
    ensure!(
        writes.count("requests")? + others.count("requests")? == all,
        "{}",
        others.finished
    );
    ensure!(
        replay("--slower-than 1000s")?.count("requests")? == 0,
        "slow ones"
    );
    ensure!(
        replay("--queue 1")?.count("requests")? == 0,
        "a second queue"
    );
    ensure!(replay("--count 7")?.kind("request").len() == 7, "not seven");
    let first = replay("--sectors 0-7")?;
    ensure!(
        !first.kind("request").is_empty()
            && first
                .kind("request")
                .iter()
                .all(|request| request["sector"] == 0),
        "{}",
        first.finished
    );
    let text = run(
        "oxublk",
        &["trace", "--replay", file, "--stuck-after", "60"],
    )?
    .success()?;
    for words in [
        "handed to ublk0q0/",
        "→ accepted",
        "completed  (",
        "posted → answered",
        "no event was lost",
    ] {
        ensure!(text.output.contains(words), "`{words}` expected in {text}");
    }
    fs::write(file, "nonsense\n")?;
    run("oxublk", &["trace", "--replay", file])?
        .fails(2, &["is not what `trace --output` writes"])?;
    fs::remove_file(file)?;
    device.delete()
}

fn commands_of_right_servers_are_as_they_should_be() -> Result<()> {
    for (fault, options) in [
        ("healthy", "--queues 2"),
        ("healthy-deferred", ""),
        ("healthy-user-copy", ""),
        ("healthy-sqpoll", ""),
        ("healthy-legacy-opcodes", ""),
    ] {
        let mut server = Faulty::start(fault, options)?;
        server.ready()?;
        let traced = Traced::start(server.id, "--raw --stuck-after 60")?;
        read(&crate::support::device::block(server.id), TRIGGER_BLOCK, 30)?
            .wait(LONG)?
            .success()?;
        let told = traced.end()?;
        told.clean().with_context(|| fault.to_owned())?;
        ensure!(told.count("commands")? >= 30, "{fault}: {}", told.finished);
        server.clear(Vec::new())?;
    }
    let device = Added::new("mem --size 64M --queues 2")?;
    let traced = Traced::start(device.id, "--raw --stuck-after 60")?;
    load(&device.block())?;
    let told = traced.end()?;
    ensure!(told.clean()?.count("commands")? > 500, "{}", told.finished);
    let remarks = told.kind("command");
    ensure!(
        remarks
            .iter()
            .all(|command| command["remarks"] == Value::Array(Vec::new())),
        "{}",
        told.finished
    );
    device.delete()
}

fn fifty_thousand_requests_are_followed_or_the_lost_are_told() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    let traced = Traced::start(device.id, "--quiet --stuck-after 120")?;
    let before = completed(&device)?;
    fio(&device.block(), "randread", 50_000)?;
    let after = completed(&device)?;
    let told = traced.end()?;
    let counted = after[0] - before[0];
    let (followed, lost) = (told.count("requests")?, told.count("lost")?);
    note(format!(
        "of {counted} requests {followed} were followed, {lost} events lost"
    ));
    ensure!(counted >= 50_000, "{counted}");
    ensure!(
        followed == counted || lost > 0,
        "{followed} of {counted} followed, and nothing lost: {}",
        told.finished
    );
    device.delete()
}

fn what_finds_no_room_is_told() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    let traced = Traced::start(device.id, "--quiet --buffer 1M --stuck-after 120")?;
    // A reader that is stopped reads nothing: 12,000 requests are more than a mebibyte has room for.
    traced.0.signal(Signal::STOP)?;
    fio(&device.block(), "randread", 12_000)?;
    traced.0.signal(Signal::CONT)?;
    let told = traced.end()?;
    let (followed, lost) = (told.count("requests")?, told.count("lost")?);
    note(format!(
        "with a buffer of 1 MiB and no reader: {followed} followed, {lost} events lost"
    ));
    ensure!(
        lost > 0 && !told.kind("lost").is_empty(),
        "{}",
        told.finished
    );
    device.delete()
}

fn groups() -> Result<(Vec<String>, usize)> {
    let names = fs::read_dir(INSTANCES)?.flatten();
    let names = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let events = fs::read_to_string("/sys/kernel/tracing/dynamic_events")?;
    Ok((names, events.lines().count()))
}

fn a_killed_trace_leaves_nothing_after_the_next() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    let first = Traced::start(device.id, "--no-snapshot")?;
    let (names, _) = groups()?;
    ensure!(names.len() == 1, "{names:?}");
    first.0.signal(Signal::KILL)?;
    first.0.wait(LONG)?;
    let (names, events) = groups()?;
    ensure!(
        names.len() == 1 && events >= 8,
        "{names:?}, {events} probes"
    );
    // Two at once: each removes what is stale, and not what the other uses.
    let second = Traced::start(device.id, "--no-snapshot --stuck-after 60")?;
    let third = Traced::start(device.id, "--no-snapshot --stuck-after 60")?;
    let (left, _) = groups()?;
    ensure!(left.len() == 2 && !left.contains(&names[0]), "{left:?}");
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=20 iflag=direct",
        device.block()
    ))?;
    for traced in [second, third] {
        let told = traced.end()?;
        ensure!(told.clean()?.count("requests")? == 20, "{}", told.finished);
    }
    ensure!(groups()? == (Vec::new(), 0), "{:?}", groups()?);
    device.delete()
}

fn an_answer_of_a_foreign_thread_is_named() -> Result<()> {
    let mut server = Faulty::start("foreign-thread", "")?;
    server.ready()?;
    let disk = crate::support::device::block(server.id);
    let mut traced = Traced::start(server.id, "--stuck-after 2")?;
    let client = read(&disk, TRIGGER_BLOCK, 4)?;
    traced.wait("that an answer was refused", |line| {
        line["kind"] == "refused"
    })?;
    traced.wait("that its request does not move", |line| {
        line["kind"] == "late"
    })?;
    let told = traced.end()?;
    let refused = told.kind("refused");
    let refusal = refused.first().context("none")?;
    ensure!(
        refusal["error"] == -22 && refusal["command"] == "COMMIT_AND_FETCH_REQ",
        "{refusal}"
    );
    ensure!(
        refusal["by"]["tid"] != refusal["handed_to"]["tid"] && refusal["handed_to"]["tid"].is_u64(),
        "{refusal}"
    );
    ensure!(told.finished.status.code() == Some(9), "{}", told.finished);
    ensure!(told.count("stuck")? == 1, "{}", told.finished);
    server.clear(vec![client])
}

fn bytes_at_the_wrong_place_are_named() -> Result<()> {
    for (fault, words) in [
        ("payload-at-64", "at byte 64 of the submission"),
        ("payload-by-pointer", "a pointer to the 16 bytes"),
    ] {
        let id = 5;
        let mut traced = Traced::start(id, "--wait --raw")?;
        let server = Faulty::start(fault, &format!("--id {id}"))?;
        traced.wait("that a fetch was refused", |line| line["kind"] == "refused")?;
        let told = traced.end()?;
        let named = told.kind("command").iter().any(|command| {
            let says = command["remarks"][0]["says"].as_str().unwrap_or_default();
            says.contains(words)
        });
        ensure!(named, "{fault}: {}", told.finished);
        ensure!(told.finished.status.code() == Some(8), "{}", told.finished);
        server.clear(Vec::new())?;
    }
    Ok(())
}

fn what_was_stuck_before_is_shown() -> Result<()> {
    let mut server = Faulty::start("forgotten", "")?;
    server.ready()?;
    let client = read(&crate::support::device::block(server.id), TRIGGER_BLOCK, 1)?;
    in_flight(server.id)?;
    let told = Traced::start(server.id, "--stuck-after 1 --duration 2")?
        .0
        .wait(LONG)?;
    let told = Told::new(told)?;
    let open = &told.summary()?["open"][0];
    ensure!(
        open["began_before"] == true && open["found_at"] == "posted" && open["operation"] == "read",
        "{}",
        told.finished
    );
    ensure!(told.finished.status.code() == Some(9), "{}", told.finished);
    server.clear(vec![client])
}

/// Nothing is at a path while this lives.
struct Hidden(&'static str);

impl Hidden {
    fn new(path: &'static str, by: &str) -> Result<Self> {
        run("mount", &["--bind", by, path])?.success()?;
        Ok(Self(path))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = run("umount", &[self.0]);
    }
}

fn without_types_issue_and_completion_are_left() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    let hidden = Hidden::new("/sys/kernel/btf/vmlinux", "/dev/null")?;
    let traced = Traced::start(device.id, "--stuck-after 60")?;
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=20 iflag=direct",
        device.block()
    ))?;
    let told = traced.end()?;
    drop(hidden);
    ensure!(told.clean()?.count("requests")? == 20, "{}", told.finished);
    ensure!(
        told.finished.errors.contains("not seen: probes"),
        "{}",
        told.finished
    );
    let legs = told.summary()?["latencies"].as_array().map_or(0, Vec::len);
    ensure!(legs == 1, "{}", told.finished);
    device.delete()
}

fn without_tracefs_or_root_it_says_what_is_missing() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    let id = device.id.to_string();
    let user = [
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "oxublk",
        "trace",
        &id,
    ];
    run("setpriv", &user)?.fails(6, &["cannot trace", "run as root"])?;
    fs::create_dir("/tmp/empty")?;
    let hidden = [
        Hidden::new("/sys/kernel/tracing", "/tmp/empty")?,
        Hidden::new("/sys/kernel/debug", "/tmp/empty")?,
    ];
    let told = run("oxublk", &["trace", &id])?;
    drop(hidden);
    fs::remove_dir("/tmp/empty")?;
    told.fails(
        5,
        &["cannot trace", "mount -t tracefs none /sys/kernel/tracing"],
    )?;
    run("oxublk", &["trace", "99"])?.fails(4, &["there is no device 99", "--wait"])?;
    wait_until("the tracing is back", SOON, || {
        fs::metadata(INSTANCES)
            .map(drop)
            .map_err(|error| error.to_string())
    })?;
    device.delete()
}
