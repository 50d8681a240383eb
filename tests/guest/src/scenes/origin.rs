//! Where it began: a disk in memory from another terminal, one `dd`, and every request answered.

use crate::support::data;
use crate::support::device::{block, gone};
use crate::support::runner::tests;
use crate::support::trace::{Trace, unanswered};
use crate::support::{LONG, Process, SOON, Scene, ok, wait_until};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::fs;

pub(crate) const SCENE: Scene = Scene {
    name: "origin",
    needs: "timeout=240",
    tests: tests![
        every_request_of_ublk_mem_is_answered,
        ublk_mem_says_what_it_made_and_how_to_use_it,
        usr1_shows_queues_and_tags,
        sigint_stops_and_deletes,
        sigterm_stops_and_deletes,
        the_example_of_fifteen_lines_serves_zeroes,
    ],
};

/// Starts a memory disk and waits until it is ready.
fn ublk_mem(options: &[&str]) -> Result<(Process, u32)> {
    let mut process = Process::start("ublk-mem", options)?;
    let id = process.wait_line("its block device", LONG, |line| {
        line.strip_prefix("Block device:")?
            .trim()
            .strip_prefix("/dev/ublkb")?
            .parse()
            .ok()
    })?;
    process.wait_line("how to stop it", LONG, |line| {
        line.starts_with("Ctrl-C").then_some(())
    })?;
    Ok((process, id))
}

fn stop(process: Process, id: u32, signal: Signal) -> Result<()> {
    process.signal(signal)?;
    let finished = process.wait(LONG)?.success()?;
    ensure!(
        finished
            .output
            .contains(&format!("{} is deleted", block(id))),
        "{finished}"
    );
    gone(id)
}

fn every_request_of_ublk_mem_is_answered() -> Result<()> {
    let trace = Trace::start("origin")?;
    let (process, id) = ublk_mem(&["--size=16M"])?;
    let number = fs::read_to_string(format!("/sys/block/ublkb{id}/dev"))?;
    let number = number.trim().replace(':', ",");
    // The kernel looks for partitions: inside START_DEV up to 6.17, soon after it since.
    wait_until("the partition scan read the first sectors", SOON, || {
        let events = trace.events(&number).map_err(|error| error.to_string())?;
        let scan = events.iter().any(|event| {
            event.name == "block_rq_complete" && event.kind.starts_with('R') && event.sector == 0
        });
        scan.then_some(()).ok_or_else(|| format!("{events:?}"))
    })?;
    let disk = block(id);
    let dd = ok(&format!("dd if=/dev/zero of={disk} bs=512 count=1"))?;
    ensure!(dd.errors.contains("512 bytes"), "{dd}");
    data::file("/tmp/data", 4 << 20)?;
    ok(&format!("dd if=/tmp/data of={disk} bs=64K conv=fsync"))?;
    fs::remove_file("/tmp/data")?;
    ok(&format!("dd if={disk} of=/dev/null bs=64K iflag=direct"))?;
    wait_until("every request was answered", SOON, || {
        let events = trace.events(&number).map_err(|error| error.to_string())?;
        let open = unanswered(&events);
        open.is_empty()
            .then_some(())
            .ok_or_else(|| format!("issued and not completed: {open:?}"))
    })?;
    stop(process, id, Signal::INT)?;
    let events = trace.events(&number)?;
    let count = |name: &str, kind: char| {
        events
            .iter()
            .filter(|event| event.name == name && event.kind.starts_with(kind))
            .count()
    };
    for kind in ['R', 'W'] {
        let (issued, completed) = (
            count("block_rq_issue", kind),
            count("block_rq_complete", kind),
        );
        ensure!(
            issued > 0 && issued == completed,
            "{kind}: {issued} issued, {completed} completed"
        );
    }
    ensure!(
        events.iter().all(|event| event.name != "block_rq_requeue"),
        "requests went round: {events:?}"
    );
    ensure!(unanswered(&events).is_empty(), "{events:?}");
    Ok(())
}

fn ublk_mem_says_what_it_made_and_how_to_use_it() -> Result<()> {
    let (process, id) = ublk_mem(&["--size=16M", "--queues=2", "--depth=32"])?;
    let text = process.output_so_far();
    for words in [
        &block(id),
        &format!("/dev/ublkc{id}"),
        "16 MiB",
        "16777216 bytes",
        "2 of 32 requests",
        &format!("mkfs.ext4 {}", block(id)),
        &format!("kill -USR1 {}", process.pid()),
    ] {
        ensure!(text.contains(words), "`{words}` expected in:\n{text}");
    }
    stop(process, id, Signal::INT)
}

fn usr1_shows_queues_and_tags() -> Result<()> {
    let (mut process, id) = ublk_mem(&["--size=16M", "--queues=2", "--depth=16"])?;
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=16 iflag=direct",
        block(id)
    ))?;
    process.signal(Signal::USR1)?;
    process.wait_line("its second queue", SOON, |line| {
        line.starts_with("queue 1:").then_some(())
    })?;
    process.wait_line("its tags", SOON, |line| {
        (line.trim() == "tags 0-15: armed, no request").then_some(())
    })?;
    stop(process, id, Signal::INT)
}

fn sigint_stops_and_deletes() -> Result<()> {
    let (process, id) = ublk_mem(&["--size=16M"])?;
    stop(process, id, Signal::INT)
}

fn sigterm_stops_and_deletes() -> Result<()> {
    let (process, id) = ublk_mem(&["--size=16M"])?;
    stop(process, id, Signal::TERM)
}

fn the_example_of_fifteen_lines_serves_zeroes() -> Result<()> {
    let mut process = Process::start("zeroes", &[] as &[&str])?;
    let disk = "/dev/ublkb0";
    wait_until("the example's disk is there", LONG, || {
        let runs = process.runs().map_err(|error| error.to_string())?;
        let size = fs::read_to_string("/sys/block/ublkb0/size").unwrap_or_default();
        (size.trim() == "2097152")
            .then_some(())
            .ok_or_else(|| format!("size {size:?}, runs: {runs}"))
    })?;
    ok(&format!(
        "dd if={disk} of=/tmp/zeroes bs=1M count=8 iflag=direct"
    ))?;
    ok("cmp --bytes=8388608 /tmp/zeroes /dev/zero")?;
    fs::remove_file("/tmp/zeroes")?;
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=1M count=1 oflag=direct"
    ))?;
    process.signal(Signal::INT)?;
    process.wait(LONG)?.success()?;
    gone(0)
}
