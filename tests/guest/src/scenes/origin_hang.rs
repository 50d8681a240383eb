//! The scene that this project began from: a server that locks itself up while it serves START_DEV's own scan for
//! partitions. START_DEV is its own command, and `dd` waits behind the scan in open().
//!
//! Up to 6.17 killing such a server makes the hang permanent: its end waits for START_DEV, that for the scan, and the scan for
//! the server's end. Rescued first, it can be killed.

use super::rescue::{ended, rescue};
use crate::support::device::{block, gone, in_flight};
use crate::support::faulty::{Faulty, about, holds, old_kernel};
use crate::support::runner::tests;
use crate::support::trace::Trace;
use crate::support::{Process, SOON, Scene, note, procfs, run, wait_until};
use anyhow::{Context as _, Result, bail, ensure};
use oxublk_diag::finding::Cause;
use rustix::process::Signal;
use std::time::Instant;

pub(crate) const SCENE: Scene = Scene {
    name: "origin-hang",
    needs: "timeout=300",
    tests: tests![the_first_hang_is_rescued],
};

fn the_first_hang_is_rescued() -> Result<()> {
    let trace = Trace::start("origin-hang")?;
    let mut server = Faulty::start("deadlock", "--start-inside")?;
    let disk = block(server.id);
    in_flight(server.id)?;
    let reader = Process::start(
        "dd",
        &[&format!("if={disk}"), "of=/dev/null", "bs=4096", "count=1"],
    )?;
    let pid = reader.pid();
    wait_until("dd waits in open()", SOON, || {
        let tasks = procfs::uninterruptible();
        let found = tasks.iter().find(|task| task.pid == pid);
        let stack = found.map(ToString::to_string).unwrap_or_default();
        stack.contains("bdev_open").then_some(()).ok_or(stack)
    })?;
    let started = || server.process.output_so_far().contains("ready");
    if old_kernel()? {
        ensure!(!started(), "START_DEV returned without its scan");
    }
    the_line_that_its_authors_posted(&trace)?;
    doctor_explains_it(server.id, pid)?;
    let begun = Instant::now();
    let finished = rescue(server.id, &["--yes", "--json"])?.success()?;
    let ended = ended(&finished)?;
    note(format!(
        "the origin's hang: {} requests were ended in {:.1} s",
        ended.len(),
        begun.elapsed().as_secs_f64()
    ));
    if old_kernel()? {
        let notes = finished.json()?["plan"]["notes"].to_string();
        ensure!(notes.contains("do not end process"), "{notes}");
    }
    server.ready()?;
    reader.wait(SOON)?.fails(1, &["Input/output error"])?;
    procfs::nobody_is_stuck()?;
    let Faulty { id, process, .. } = server;
    process.signal(Signal::KILL)?;
    process.wait(SOON)?;
    run("oxublk", &["del", &id.to_string()])?.success()?;
    procfs::nobody_is_stuck()?;
    wait_until("the device is gone", SOON, || {
        gone(id).map_err(|error| error.to_string())
    })
}

/// One request was issued, of sector 0, by the scan: a worker of io_uring that executes START_DEV, later one of the kernel's own.
fn the_line_that_its_authors_posted(trace: &Trace) -> Result<()> {
    let events = trace.all()?;
    let [issue] = events.as_slice() else {
        bail!("one event expected: {events:?}");
    };
    let issuer = if old_kernel()? {
        "iou-wrk-"
    } else {
        "kworker/"
    };
    ensure!(
        (issue.name.as_str(), issue.kind.as_str()) == ("block_rq_issue", "R")
            && (issue.sector, issue.sectors) == (0, 8)
            && issue.comm.starts_with(issuer),
        "{issue:?}"
    );
    Ok(())
}

/// What the line is, who sent it, and why `dd` never issued anything.
fn doctor_explains_it(id: u32, dd: u32) -> Result<()> {
    let report = holds("origin-hang", Some(id), Cause::HandlerLocked)?;
    let findings = about(&report, Some(id));
    let finding = findings.first().context("nothing")?;
    ensure!(finding.cause == Cause::HandlerLocked, "{findings:#?}");
    let says = [
        "read of 4096 bytes at sector 0",
        "reaped by its server, and never answered",
        "the reader is the scan for partitions",
    ];
    for words in says {
        ensure!(finding.says.contains(words), "{words}: {finding:#?}");
    }
    let waits = format!("(pid {dd}) waits in open of");
    let line = finding.evidence.iter().find(|line| line.contains(&waits));
    let line = line.with_context(|| format!("{waits}: {finding:#?}"))?;
    ensure!(line.contains("it issued no request itself"), "{line}");
    let kill = finding.not_now.iter().any(|line| line.contains("kill"));
    ensure!(kill == old_kernel()?, "{:#?}", finding.not_now);
    Ok(())
}
