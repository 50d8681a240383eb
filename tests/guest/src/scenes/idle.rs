//! What a device costs that nobody uses.

use crate::support::{Added, note};
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
        // Time on a processor, time of waiting for one, and how often it was given one.
        let stat = fs::read_to_string(folder.join("schedstat"))?;
        deeds.push((name.trim().to_owned(), stat.trim().to_owned()));
    }
    deeds.sort();
    Ok(deeds)
}

/// A thread that is not switched to makes no system call.
pub(super) fn an_idle_device_wakes_nobody() -> Result<()> {
    for line in ["null", "mem --size 1G", "null --async"] {
        let device = Added::new(line)?;
        // The watchdog settles down when it has seen nothing for as long as it waits for a request.
        let device_of_short_patience = Added::new(&format!("{line} --stuck-after 1"))?;
        for server in [device.server, device_of_short_patience.server] {
            settled(server)?;
            let before = deeds(server)?;
            sleep(LONG_ENOUGH);
            let after = deeds(server)?;
            ensure!(before == after, "{line}: {before:?}, and then {after:?}");
        }
        device_of_short_patience.delete()?;
        device.delete()?;
    }
    Ok(())
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

pub(super) fn an_idle_device_holds_little_memory() -> Result<()> {
    for line in [
        "null",
        "mem --size 1T",
        "mem --size 1T --data-path copy",
        "null --async",
    ] {
        let device = Added::new(line)?;
        let status = fs::read_to_string(format!("/proc/{}/status", device.server))?;
        let kib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number =
                line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            number.with_context(|| format!("no {field} in {status}"))
        };
        // The program's own pages are shared by all servers of a host.
        let own = (kib("RssAnon:")? + kib("RssShmem:")?) << 10;
        note(format!(
            "memory: {line}: {} KiB of its own, {} KiB of the program",
            own >> 10,
            kib("RssFile:")?
        ));
        ensure!(own < MOST_BYTES, "{line}: {own} bytes");
        device.delete()?;
    }
    Ok(())
}
