//! What a device costs that nobody uses.

use crate::support::faulty::old_kernel;
use crate::support::{Added, note, procfs};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// For so long nothing may happen.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
/// What a server may hold for itself, with one queue of 128 requests.
const MOST_BYTES: u64 = 2 << 20;

/// What the threads of a process did so far: how often they were switched to, and for how long they ran.
fn deeds(pid: u32) -> Result<Vec<(String, String)>> {
    let mut deeds = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = thread?.path();
        let name = fs::read_to_string(folder.join("comm"))?;
        // The kernel's own worker that did the control commands of Linux 6.12: it looks every five seconds whether there are more,
        // as long as the thread lives that sent them. It makes no system calls.
        if name.starts_with("iou-wrk") {
            continue;
        }
        // Time on a processor, time of waiting for one, and how often it was given one.
        let stat = fs::read_to_string(folder.join("schedstat"))?;
        deeds.push((name.trim().to_owned(), stat.trim().to_owned()));
    }
    deeds.sort();
    Ok(deeds)
}

/// A thread that is not switched to makes no system call.
pub(super) fn an_idle_device_wakes_nobody() -> Result<()> {
    // The watchdog settles down when it has seen nothing for as long as it waits for a request.
    let lines = [
        "null --stuck-after 1",
        "null --async --stuck-after 1",
        "mem --size 1G --stuck-after 1",
        "mem --size 1G --stuck-after 0",
    ];
    let devices: Vec<Added> = lines
        .iter()
        .map(|line| Added::new(line))
        .collect::<Result<_>>()?;
    let servers: Vec<u32> = devices.iter().map(|device| device.server).collect();
    servers.iter().try_for_each(|server| settled(*server))?;
    let all = || -> Result<Vec<_>> { servers.iter().map(|server| deeds(*server)).collect() };
    let before = all()?;
    sleep(LONG_ENOUGH);
    let after = all()?;
    for ((line, before), after) in lines.iter().zip(&before).zip(&after) {
        ensure!(before == after, "{line}: {before:?}, and then {after:?}");
    }
    devices.into_iter().try_for_each(Added::delete)
}

/// Waits until a second has passed in which it did nothing: udev and the like look at new disks.
fn settled(pid: u32) -> Result<()> {
    for _ in 0..60 {
        let before = deeds(pid)?;
        sleep(Duration::from_secs(2));
        if deeds(pid)? == before {
            return Ok(());
        }
    }
    anyhow::bail!("process {pid} never rests: {:?}", deeds(pid)?)
}

/// Anonymous memory: the program's pages are shared by all servers of a host, and the recorder's two count as shared.
pub(super) fn an_idle_device_holds_little_memory() -> Result<()> {
    for line in [
        "mem --size 1T",
        "mem --size 1T --batch-io",
        "mem --size 1T --data-path copy",
        "null",
        "null --async",
    ] {
        if line.contains("--batch-io") && old_kernel()? {
            continue;
        }
        let device = Added::new(line)?;
        let own = procfs::memory(device.server, "RssAnon").context("no RssAnon")?;
        note(format!("memory: {line}: {} KiB", own >> 10));
        // In the copy path the buffers keep what the first reads of the kernel itself touched of them.
        let most = if line.starts_with("mem") && !line.contains("copy") {
            MOST_BYTES
        } else {
            2 * MOST_BYTES
        };
        ensure!(own < most, "{line}: {own} bytes");
        device.delete()?;
    }
    Ok(())
}
