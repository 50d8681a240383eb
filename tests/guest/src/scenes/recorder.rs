//! What our own servers tell: the flight recorder, the watchdog, the probes.

use crate::support::device::{block, gone, in_flight};
use crate::support::process::send;
use crate::support::runner::tests;
use crate::support::special::{Offer, SPECIAL, Special};
use crate::support::usdt::{Fired, Uprobes, probes};
use crate::support::{
    Added, LONG, Process, SOON, Scene, note, ok, procfs, run, wait_for, wait_until,
};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const SCENE: Scene = Scene {
    name: "recorder",
    needs: "timeout=300",
    tests: tests![
        the_record_of_a_stopped_server_is_read,
        a_server_that_does_not_answer_is_asked_through_its_record,
        the_watchdog_tells_a_stuck_request_once,
        a_request_that_ends_after_all_is_stuck_no_longer,
        the_programs_watch,
        every_request_fires_the_probes,
    ],
};

const BLOCK: u64 = 4096;

/// Reads the special block past the page cache.
fn read_special(disk: &str) -> Result<Process> {
    let line = format!(
        "if={disk} of=/dev/null bs=4096 count=1 iflag=direct skip={}",
        SPECIAL / BLOCK
    );
    Process::start("dd", &line.split(' ').collect::<Vec<_>>())
}

/// What doctor reads of a device's record. It may find the device in whatever health.
fn record(id: u32) -> Result<Value> {
    let report = run(
        "oxublk",
        &["doctor", &id.to_string(), "--no-kernel", "--json"],
    )?
    .json()?;
    Ok(report["snapshot"]["devices"][0]["recorder"].clone())
}

/// The one request of a record.
fn only_request(id: u32) -> Result<Value> {
    let record = record(id)?;
    let requests = record["requests"].as_array().context("no record")?;
    ensure!(requests.len() == 1, "one request expected: {record}");
    Ok(requests[0].clone())
}

fn the_record_of_a_stopped_server_is_read() -> Result<()> {
    let offer = Offer {
        queues: 2,
        ..Offer::default()
    };
    let disk = Special::start("stuck", offer)?;
    let reader = read_special(&disk.block())?;
    in_flight(disk.id)?;
    wait_until("the server has the request", SOON, || {
        only_request(disk.id).map_err(|error| error.to_string())
    })?;
    disk.process.signal(Signal::STOP)?;
    wait_for("every thread is stopped", SOON, || {
        procfs::threads(disk.process.pid())
            .iter()
            .all(|task| task.state == 'T')
    })?;
    let request = only_request(disk.id)?;
    let expected = json!({
        "station": "with_disk", "operation": "read", "sector": SPECIAL / 512, "bytes": BLOCK,
    });
    for (name, value) in expected.as_object().context("an object")? {
        ensure!(request[name] == *value, "{name}: {request}");
    }
    ensure!(record(disk.id)?["pid"] == disk.process.pid(), "{request}");
    let later = only_request(disk.id)?;
    ensure!(
        later["age_ms"].as_u64() > request["age_ms"].as_u64()
            && later["since_ms"].as_u64() >= request["since_ms"].as_u64()
            && later["number"] == request["number"],
        "first {request}, then {later}"
    );
    let text = run("oxublk", &["doctor", &disk.id.to_string(), "--verbose"])?;
    ensure!(text.output.contains("with the disk"), "{text}");
    note(format!("the record of a stopped server: {later}"));
    killed(disk, reader)
}

/// Ends a server that does not end by itself.
fn killed(disk: Special, reader: Process) -> Result<()> {
    disk.process.signal(Signal::KILL)?;
    disk.process.wait(SOON)?;
    reader.wait(SOON)?.failure()?;
    procfs::nobody_is_stuck()?;
    run("oxublk", &["del", &disk.id.to_string()])?.success()?;
    gone(disk.id)
}

fn a_server_that_does_not_answer_is_asked_through_its_record() -> Result<()> {
    let device = Added::new("mem --size 16M")?;
    send(device.server, Signal::STOP)?;
    let info = device.info()?;
    let notes = info["notes"].to_string();
    ensure!(
        notes.contains("flight recorder: no request"),
        "what it wrote down expected in {info}"
    );
    send(device.server, Signal::CONT)?;
    device.delete()
}

/// Waits until a server has logged a line with all of these words; returns how many such lines there are.
fn logged(process: &Process, words: &[&str]) -> Result<usize> {
    let count = || {
        let log = process.errors_so_far();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(has_all).count()
    };
    wait_until(format!("it logs {words:?}"), SOON, || match count() {
        0 => Err(process.errors_so_far()),
        lines => Ok(lines),
    })
}

/// SIGUSR1 until the server prints this.
fn says(disk: &mut Special, words: &str) -> Result<()> {
    wait_until(format!("it says {words}"), SOON, || {
        let asked = disk.process.signal(Signal::USR1);
        asked.map_err(|error| error.to_string())?;
        let output = disk.process.output_so_far();
        output.contains(words).then_some(()).ok_or(output)
    })
}

fn watched() -> Offer {
    Offer {
        stuck_after: Duration::from_secs(1),
        ..Offer::default()
    }
}

fn the_watchdog_tells_a_stuck_request_once() -> Result<()> {
    let mut disk = Special::start("stuck", watched())?;
    let reader = read_special(&disk.block())?;
    let sector = format!("sector={}", SPECIAL / 512);
    let words = [
        "a request takes too long",
        "device=0",
        "queue=0",
        "tag=",
        "operation=\"read\"",
        &sector,
        "bytes=4096",
        "station=\"with the disk\"",
    ];
    logged(&disk.process, &words)?;
    says(&mut disk, "1 of them stuck, 1 so far")?;
    let request = format!(
        "read of 4096 bytes at sector {}, with the disk, for ",
        SPECIAL / 512
    );
    says(&mut disk, &request)?;
    note(format!(
        "the watchdog: {}",
        disk.process.errors_so_far().trim()
    ));
    ensure!(logged(&disk.process, &words)? == 1, "told more than once");
    killed(disk, reader)
}

fn a_request_that_ends_after_all_is_stuck_no_longer() -> Result<()> {
    let mut disk = Special::start("slow", watched())?;
    let reader = read_special(&disk.block())?;
    logged(&disk.process, &["a request takes too long"])?;
    reader.wait(LONG)?.success()?;
    logged(
        &disk.process,
        &[
            "a request that took too long has ended",
            "operation=\"read\"",
        ],
    )?;
    says(&mut disk, "0 of them stuck, 1 so far")?;
    disk.stop()
}

fn the_programs_watch() -> Result<()> {
    let device = Added::new("mem --size 16M --stuck-after 2.5s")?;
    let info = device.info()?;
    ensure!(
        info["description"]["options"]["stuck_after_ms"] == 2500
            && info["metrics"]["stuck_now"] == 0
            && info["metrics"]["stuck_total"] == 0,
        "{info}"
    );
    device.delete()?;
    let device = Added::new("mem --size 16M --stuck-after 0")?;
    let info = device.info()?;
    ensure!(info["metrics"]["stuck_now"] == Value::Null, "{info}");
    device.delete()
}

/// Where a program is in `$PATH`.
fn program(name: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").context("no PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("no {name} in PATH"))
}

fn every_request_fires_the_probes() -> Result<()> {
    const READS: usize = 16;
    let program = std::fs::canonicalize(program("oxublk")?)?;
    let probes = probes(&program)?;
    let uprobes = Uprobes::listen("oxublk_usdt", &program, &probes)?;
    let device = Added::new("mem --size 16M --depth 8")?;
    ok(&format!(
        "dd if={} of=/dev/null bs=4096 count={READS} skip=1024 iflag=direct",
        block(device.id)
    ))?;
    let fired = uprobes.fired()?;
    let of = |name: &str| {
        fired
            .iter()
            .filter(|fired| fired.name == name)
            .cloned()
            .collect::<Vec<Fired>>()
    };
    ensure!(
        of("armed").len() == 8,
        "one for each tag: {:?}; in all {} at {} places",
        of("armed"),
        fired.len(),
        probes.len()
    );
    let id = i64::from(device.id);
    for name in ["reaped", "handed", "answered", "submitted"] {
        for read in 0..READS as i64 {
            let sector = (1024 + read) * 8;
            let here = |fired: &&Fired| {
                matches!(fired.arguments.as_slice(),
                    [device, 0, tag, 0, at, 4096] if *device == id && *tag < 8 && *at == sector)
            };
            let times = of(name).iter().filter(here).count();
            ensure!(
                times == 1,
                "{name} of sector {sector} {times} times in {:?}",
                of(name)
            );
        }
    }
    note(format!("{} probes fired", fired.len()));
    drop(uprobes);
    device.delete()
}
