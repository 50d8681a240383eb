//! The scene that this project began from: a server that locks itself up while it serves START_DEV's own scan for
//! partitions. START_DEV is its own command, and `dd` waits behind the scan in open().
//!
//! Up to 6.17 killing such a server makes the hang permanent: its end waits for START_DEV, that for the scan, and the scan for
//! the server's end. Rescued first, it can be killed.

use super::rescue::{ended, rescue};
use crate::support::device::{block, gone, in_flight};
use crate::support::faulty::{Faulty, old_kernel};
use crate::support::runner::tests;
use crate::support::{Process, SOON, Scene, note, procfs, run, wait_until};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::time::Instant;

pub(crate) const SCENE: Scene = Scene {
    name: "origin-hang",
    needs: "timeout=300",
    tests: tests![the_first_hang_is_rescued],
};

fn the_first_hang_is_rescued() -> Result<()> {
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
    wait_until("the request is a second old", SOON, || {
        let rescuable = rescue(server.id, &["--dry-run"]).map_err(|error| error.to_string())?;
        (rescuable.output.contains("to be ended"))
            .then_some(())
            .ok_or_else(|| rescuable.to_string())
    })?;
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
