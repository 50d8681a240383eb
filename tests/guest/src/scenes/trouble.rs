//! Disks that panic, fail, think for long, or never answer.

use crate::support::device::{gone, in_flight};
use crate::support::process::Finished;
use crate::support::runner::tests;
use crate::support::special::{FILL, Offer, SIZE, SLOW, SPECIAL, Special};
use crate::support::{LONG, Process, SOON, Scene, ok, procfs, run, wait_for};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub(crate) const SCENE: Scene = Scene {
    name: "trouble",
    needs: "timeout=180",
    tests: tests![
        a_panic_fails_its_request_alone,
        an_error_of_the_disk_reaches_the_client,
        a_slow_request_is_waited_for_and_holds_no_other_queue,
        stopping_a_stuck_disk_ends_in_time_and_names_the_request,
        a_disk_stuck_from_the_start_does_not_hang_its_server,
    ],
};

const BLOCK: u64 = 4096;

/// Reads the 4 KiB at an offset past the page cache.
fn read(disk: &str, offset: u64) -> Result<Process> {
    let (from, skip) = (format!("if={disk}"), format!("skip={}", offset / BLOCK));
    Process::start(
        "dd",
        &[
            &from,
            "of=/dev/null",
            "bs=4096",
            "count=1",
            &skip,
            "iflag=direct",
        ],
    )
}

fn read_now(disk: &str, offset: u64) -> Result<Finished> {
    read(disk, offset)?.wait(LONG)
}

fn others_are_fine(disk: &str) -> Result<()> {
    for offset in [0, SPECIAL - BLOCK, SPECIAL + BLOCK, SIZE - BLOCK] {
        read_now(disk, offset)?.success()?;
    }
    Ok(())
}

fn a_panic_fails_its_request_alone() -> Result<()> {
    let disk = Special::start("panics", Offer::default())?;
    for _ in 0..3 {
        read_now(&disk.block(), SPECIAL)?.fails(1, &["Input/output error"])?;
        others_are_fine(&disk.block())?;
    }
    let write = [
        "if=/dev/zero",
        &format!("of={}", disk.block()),
        "bs=4096",
        "count=1",
        "oflag=direct",
    ];
    run("dd", &write)?.success()?;
    disk.stop()
}

fn an_error_of_the_disk_reaches_the_client() -> Result<()> {
    for (name, message) in [
        ("no-space", "No space left on device"),
        ("timed-out", "timed out"),
        ("other-error", "Input/output error"),
    ] {
        let disk = Special::start(name, Offer::default())?;
        read_now(&disk.block(), SPECIAL)?.fails(1, &[message])?;
        others_are_fine(&disk.block())?;
        disk.stop()?;
    }
    Ok(())
}

/// Pinned, since a client's CPU decides which queue it uses.
fn read_on(cpu: usize, disk: &str, offset: u64) -> Result<Process> {
    let line = format!(
        "taskset -c {cpu} dd if={disk} of=/tmp/read{cpu} bs=4096 count=1 iflag=direct skip={}",
        offset / BLOCK
    );
    Process::start("sh", &["-c", &format!("exec {line}")])
}

fn a_slow_request_is_waited_for_and_holds_no_other_queue() -> Result<()> {
    let offer = Offer {
        queues: 2,
        ..Offer::default()
    };
    let disk = Special::start("slow", offer)?;
    let started = Instant::now();
    let mut slow = read_on(0, &disk.block(), SPECIAL)?;
    in_flight(disk.id)?;
    for _ in 0..5 {
        read_on(1, &disk.block(), 0)?.wait(LONG)?.success()?;
    }
    let others = started.elapsed();
    ensure!(
        slow.runs()?,
        "five reads on the other queue took {others:?}, until the slow one was done"
    );
    slow.wait(LONG)?.success()?;
    ensure!(
        started.elapsed() >= SLOW,
        "the slow read came after {:?}",
        started.elapsed()
    );
    let data = std::fs::read("/tmp/read0")?;
    ensure!(
        data.len() as u64 == BLOCK && data.iter().all(|byte| *byte == FILL),
        "not the disk's data"
    );
    ok("rm /tmp/read0 /tmp/read1")?;
    disk.stop()
}

fn stopping_a_stuck_disk_ends_in_time_and_names_the_request() -> Result<()> {
    let deadline = Duration::from_secs(5);
    let disk = Special::start(
        "stuck",
        Offer {
            deadline,
            ..Offer::default()
        },
    )?;
    let reader = read(&disk.block(), SPECIAL)?;
    in_flight(disk.id)?;
    let stopped = Instant::now();
    disk.process.signal(Signal::TERM)?;
    let finished = disk.process.wait(SOON)?;
    finished.fails(1, &["queue 0", "tag ", "read", "for "])?;
    ensure!(
        stopped.elapsed() >= deadline,
        "given up after {:?} already",
        stopped.elapsed()
    );
    reader.wait(SOON)?.failure()?;
    procfs::nobody_is_stuck()?;
    removable(disk.id)
}

/// Whatever is left of a device whose server is gone can be removed.
fn removable(id: u32) -> Result<()> {
    let node = format!("/dev/ublkc{id}");
    if std::path::Path::new(&node).exists() {
        run("oxublk", &["del", &id.to_string()])?.success()?;
    }
    wait_for("the device is gone", SOON, || gone(id).is_ok())?;
    gone(id)
}

/// Up to 6.17 START_DEV itself reads the disk and waits for the answer, deaf to signals; since 6.18 the driver
/// reads it in a worker of its own.
fn a_disk_stuck_from_the_start_does_not_hang_its_server() -> Result<()> {
    let deadline = Duration::from_secs(5);
    let mut server = Special::launch(
        "stuck-from-the-start",
        Offer {
            deadline,
            ..Offer::default()
        },
    )?;
    wait_for("it is ready, or has failed", LONG, || {
        !matches!(server.runs(), Ok(true)) || server.output_so_far().contains("ready")
    })?;
    if server.runs()? {
        server.signal(Signal::TERM)?;
    }
    server
        .wait(SOON)?
        .fails(1, &["device 0", "within", "read"])?;
    procfs::nobody_is_stuck()?;
    removable(0)
}
