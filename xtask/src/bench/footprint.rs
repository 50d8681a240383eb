//! What servers take beside instructions per I/O: memory, time to come and to go, processor time.

use super::catalogue::{Device, Maker};
use super::devices::{self, Manner, Ready};
use super::load::{self, Buffers, Load};
use super::markdown::{middle, sorted, thousands, write_lines};
use super::plan::{Plan, Row};
use super::scene::say;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The first number of many devices.
const FIRST: u32 = 100;

/// A line from the guest: one device, so many times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Footprint {
    pub(super) device: Device,
    pub(super) count: u32,
    /// Processes that serve them.
    pub(super) servers: u32,
    /// Of all of them, idle: VmRSS, and the part of it that is no file's.
    pub(super) resident_kib: u64,
    pub(super) anonymous_kib: u64,
    /// From the command to the disk, and to its end; medians.
    pub(super) ready_ms: f64,
    pub(super) stop_ms: f64,
    /// Processor time per I/O in rr32, of a single device.
    pub(super) processor: Option<Processor>,
}

/// Who spent how much on an I/O, in ns.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Processor {
    pub(super) server: f64,
    pub(super) load: f64,
}

/// How many of a device are made at once: the few first, of all devices.
const COUNTS: &[u32] = &[1, 16, 64, 256];

/// The most that are made of a device.
fn most(device: Device) -> u32 {
    match device.maker {
        Maker::Oxublk => 256,
        Maker::Rublk if device.id == "rublk-null" => 16,
        _ => 1,
    }
}

/// Measures all devices of the plan, one kind after the other, and prints a line for each.
pub(super) fn measure(plan: &Plan, manner: Manner) -> Result<()> {
    let mut devices = plan.devices.clone();
    for &count in COUNTS {
        devices.retain(|&device| {
            if count > most(device) {
                return false;
            }
            match footprint(device, count, manner).and_then(|found| say(&found)) {
                Ok(()) => true,
                Err(error) => {
                    eprintln!("bench: no {} × {count}: {error:#}", device.title);
                    false
                }
            }
        });
    }
    Ok(())
}

fn footprint(device: Device, count: u32, manner: Manner) -> Result<Footprint> {
    let mut ready = Vec::new();
    let made = (FIRST..FIRST + count).try_for_each(|number| -> Result<()> {
        ready.push(devices::start(device, number, manner)?);
        Ok(())
    });
    let found = made.and_then(|()| look(device, count, &ready));
    // Stopped in any case: the next ones are measured alone.
    let mut stops = Vec::new();
    for ready in &ready {
        stops.push(devices::stop(ready, manner)?);
    }
    let mut footprint = found?;
    footprint.stop_ms = median_ms(stops.into_iter());
    Ok(footprint)
}

fn look(device: Device, count: u32, ready: &[Ready]) -> Result<Footprint> {
    let servers = servers(device)?;
    let mut footprint = Footprint {
        device,
        count,
        servers: u32::try_from(servers.len())?,
        resident_kib: 0,
        anonymous_kib: 0,
        ready_ms: median_ms(ready.iter().map(|ready| ready.took)),
        stop_ms: 0.0,
        processor: None,
    };
    for server in &servers {
        let status = fs::read_to_string(format!("/proc/{server}/status"))?;
        footprint.resident_kib += kib(&status, "VmRSS:").context("no VmRSS")?;
        footprint.anonymous_kib += kib(&status, "RssAnon:").context("no RssAnon")?;
    }
    if let [only] = ready {
        footprint.processor = Some(processor(only, &servers)?);
    }
    Ok(footprint)
}

/// Has the load run once to warm up, and looks who spends what on the second.
fn processor(ready: &Ready, servers: &BTreeSet<u32>) -> Result<Processor> {
    let work = Row::Rr32.work();
    let buffers = Buffers::new(false)?;
    let mut load = Load::open(&ready.path, &work, &buffers)?;
    load.run(&work, work.ios / 4)?;
    let spent = || -> Result<u64> {
        let each = servers.iter().map(|&server| processor_ns(server));
        each.sum()
    };
    let ours = std::process::id();
    let before = (spent()?, processor_ns(ours)?);
    load.run(&work, work.ios)?;
    let after = (spent()?, processor_ns(ours)?);
    Ok(Processor {
        server: load::per(after.0.saturating_sub(before.0), work.ios),
        load: load::per(after.1.saturating_sub(before.1), work.ios),
    })
}

/// What all threads of a process have spent, as the scheduler counts it: user and system time, to the nanosecond.
fn processor_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("empty schedstat")?;
        sum += first.parse::<u64>()?;
    }
    Ok(sum)
}

/// The processes that hold the driver's files of devices open; for NBD those of its server.
fn servers(device: Device) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        if let Some(number) = number
            && serves(device, &path)
        {
            found.insert(number);
        }
    }
    Ok(found)
}

fn serves(device: Device, process: &Path) -> bool {
    if device.maker == Maker::Nbd {
        return fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "nbdkit");
    }
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        // It has ended meanwhile, or is the kernel's.
        return false;
    };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|file| file.to_string_lossy().starts_with("/dev/ublkc"))
}

/// A line of /proc/PID/status: `VmRSS:      1234 kB`.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn median_ms(times: impl Iterator<Item = Duration>) -> f64 {
    middle(&sorted(times.map(|time| time.as_secs_f64() * 1_000.0)))
}

/// The table of what was found.
pub(super) fn text(kernel: &str, found: &[Footprint]) -> String {
    let mut text = format!(
        "Linux {kernel}: memory of idle servers in KiB, medians of times in ms, processor time per I/O in rr32 in ns:\n\n"
    );
    let head = [
        "device",
        "devices",
        "processes",
        "VmRSS",
        "VmRSS/device",
        "of it anonymous",
        "ready",
        "stop",
        "server",
        "load",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for one in found {
        let each = |kib: u64| thousands(load::per(kib, u64::from(one.count)));
        let processor = |pick: fn(Processor) -> f64| {
            one.processor
                .map_or_else(String::new, |processor| thousands(pick(processor)))
        };
        lines.push(vec![
            one.device.title.to_owned(),
            one.count.to_string(),
            one.servers.to_string(),
            thousands(load::per(one.resident_kib, 1)),
            each(one.resident_kib),
            each(one.anonymous_kib),
            format!("{:.1}", one.ready_ms),
            format!("{:.1}", one.stop_ms),
            processor(|processor| processor.server),
            processor(|processor| processor.load),
        ]);
    }
    write_lines(&mut text, &lines);
    text
}

#[cfg(test)]
mod tests {
    use super::{Footprint, Processor, kib, median_ms, text};
    use std::time::Duration;

    #[test]
    fn memory_is_read_from_a_process_status() {
        let status = "Name:\toxublk\nVmRSS:\t    5120 kB\nRssAnon:\t     128 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(5_120));
        assert_eq!(kib(status, "RssAnon:"), Some(128));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn many_devices_are_shown_with_the_part_of_each() {
        let found = Footprint {
            device: "oxublk-null".parse().unwrap(),
            count: 16,
            servers: 16,
            resident_kib: 64_000,
            anonymous_kib: 16_000,
            ready_ms: median_ms([1, 3, 2].map(Duration::from_millis).into_iter()),
            stop_ms: 4.25,
            processor: Some(Processor {
                server: 1_500.0,
                load: 900.0,
            }),
        };
        let text = text("7.3.4", &[found]);
        for cell in [
            "| 64,000 |",
            "4,000 |",
            "1,000 |",
            "  2.0 |",
            "1,500 |",
            "900 |",
        ] {
            assert!(text.contains(cell), "{cell}: {text}");
        }
    }
}
