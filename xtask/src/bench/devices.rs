//! Makes the devices in the guest.

use super::catalogue::{Device, Maker};
use super::load::{self, AREA_BYTES, Buffers};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// A device that can be used.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) device: Device,
    /// What it is called on the driver.
    pub(super) number: u32,
    pub(super) path: PathBuf,
    /// From the command that makes it to the disk's appearance.
    pub(super) took: Duration,
}

/// How all devices of a run are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Servers run as batch jobs.
    pub(super) batch: bool,
    pub(super) queues: u32,
}

/// Makes a device whose queues have 128 tags and no scheduler, and fills it if it keeps data.
pub(super) fn make(device: Device, manner: Manner, buffers: &Buffers) -> Result<Ready> {
    let ready = start(device, device.number(), manner)?;
    let name = ready.path.file_name().context("a device without a name")?;
    let scheduler = Path::new("/sys/block").join(name).join("queue/scheduler");
    // brd has none: it takes bios, not requests.
    if scheduler.exists() {
        fs::write(&scheduler, "none")
            .with_context(|| format!("cannot set {}", scheduler.display()))?;
    }
    if device.keeps_data() {
        load::fill(&ready.path, buffers)?;
    }
    if device.traced {
        trace(&ready)?;
    }
    Ok(ready)
}

/// Makes a device under a number, and waits until it is there.
pub(super) fn start(device: Device, number: u32, manner: Manner) -> Result<Ready> {
    if running_series()? < device.since {
        let (major, minor) = device.since;
        bail!("it needs Linux {major}.{minor}");
    }
    let node = put_in(device.node, number, manner)?;
    let started = Instant::now();
    run_all(device, device.make, number, manner)?;
    let path = PathBuf::from(node);
    wait_for(&path)?;
    Ok(Ready {
        device,
        number,
        path,
        took: started.elapsed(),
    })
}

/// Ends a device and waits until it is gone; tells how long that took.
pub(super) fn stop(ready: &Ready, manner: Manner) -> Result<Duration> {
    let started = Instant::now();
    run_all(ready.device, ready.device.stop, ready.number, manner)?;
    let sys = Path::new("/sys/block").join(ready.path.file_name().unwrap_or_default());
    wait_until(|| !sys.exists()).with_context(|| format!("{} stays", ready.path.display()))?;
    Ok(started.elapsed())
}

fn run_all(device: Device, lines: &str, number: u32, manner: Manner) -> Result<()> {
    let policy = if manner.batch && device.maker != Maker::Kernel {
        "chrt --batch 0 "
    } else {
        ""
    };
    for line in lines.split(';') {
        run(&format!("{policy}{}", put_in(line, number, manner)?))?;
    }
    Ok(())
}

/// Puts the run's values in for their names.
fn put_in(line: &str, number: u32, manner: Manner) -> Result<String> {
    let mut text = line
        .replace("{id}", &number.to_string())
        .replace("{queues}", &manner.queues.to_string())
        .replace("{size}", &AREA_BYTES.to_string())
        .replace("{kib}", &(AREA_BYTES >> 10).to_string())
        .replace("{mib}", &(AREA_BYTES >> 20).to_string());
    if text.contains("{file}") {
        text = text.replace("{file}", &file_on_tmpfs(number)?);
    }
    Ok(text)
}

/// Starts `oxublk trace`, and returns when it follows requests. It ends with the guest.
fn trace(ready: &Ready) -> Result<()> {
    let id = ready.number.to_string();
    let mut tracing = Command::new("oxublk")
        .args(["--json", "trace", &id, "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run oxublk")?;
    let output = tracing.stdout.take().context("no output")?;
    let mut first = String::new();
    BufReader::new(output).read_line(&mut first)?;
    if !first.contains("start") {
        bail!("oxublk trace {id} said `{}`", first.trim_end());
    }
    Ok(())
}

fn file_on_tmpfs(number: u32) -> Result<String> {
    let path = format!("/tmp/disk-{number}");
    fs::File::create(&path)?.set_len(AREA_BYTES as u64)?;
    Ok(path)
}

/// Runs a program; its words are separated by blanks. What it prints is told only when it fails.
fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    // A file, not a pipe: a server that stays behind holds it open.
    let said = tempfile::NamedTempFile::new()?;
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.reopen()?)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        let said = fs::read_to_string(said.path()).unwrap_or_default();
        let last = said.trim().lines().last().unwrap_or_default();
        bail!("{line}: {status}: {last}");
    }
    Ok(())
}

/// Servers in the background say nothing when the disk is there.
fn wait_for(path: &Path) -> Result<()> {
    wait_until(|| path.exists()).with_context(|| format!("{} did not appear", path.display()))
}

fn wait_until(happened: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !happened() {
        if start.elapsed() > DEADLINE {
            bail!("waited for {} s", DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The running kernel's first two numbers.
fn running_series() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    series(&release).with_context(|| format!("no version: {release}"))
}

fn series(release: &str) -> Option<(u32, u32)> {
    let numbers = crate::kernels::numbers(release)?;
    Some((*numbers.first()?, *numbers.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::{Manner, put_in, series};

    #[test]
    fn a_command_gets_the_values_of_the_run() {
        let manner = Manner {
            batch: false,
            queues: 2,
        };
        let line = put_in("make {id} -q {queues} {size} {kib} {mib}", 12, manner).unwrap();
        assert_eq!(line, "make 12 -q 2 134217728 131072 128");
    }

    #[test]
    fn kernels_are_ordered_by_series() {
        assert_eq!(series("7.3.4+deb13-cloud-amd64\n"), Some((7, 3)));
        assert!(series("6.12.118+deb13") < Some((6, 16)));
        assert!(series("7.0.1") >= Some((6, 16)));
    }
}
