//! Makes the devices in the guest.

use super::load::{self, AREA_BYTES};
use super::plan::Device;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The ids of devices on the driver.
const OXUBLK_NULL: &str = "10";
const OXUBLK_MEM: &str = "11";
const RUBLK_NULL: &str = "12";
const RUBLK_LOOP: &str = "13";
const OXUBLK_TRACED: &str = "14";

const DEADLINE: Duration = Duration::from_secs(60);

/// A device that can be used.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) device: Device,
    pub(super) path: PathBuf,
}

/// Makes a device with one queue of 128 tags, without a scheduler, and fills it if it keeps data.
pub(super) fn make(device: Device, batch: bool) -> Result<Ready> {
    let path = PathBuf::from(create(device, batch)?);
    wait_for(&path)?;
    let name = path.file_name().context("a device without a name")?;
    let scheduler = Path::new("/sys/block").join(name).join("queue/scheduler");
    // brd has none: it takes bios, not requests.
    if scheduler.exists() {
        fs::write(&scheduler, "none")
            .with_context(|| format!("cannot set {}", scheduler.display()))?;
    }
    if device.keeps_data() {
        load::fill(&path)?;
    }
    Ok(Ready { device, path })
}

fn create(device: Device, batch: bool) -> Result<String> {
    let size = AREA_BYTES.to_string();
    let policy = if batch { "chrt --batch 0 " } else { "" };
    match device {
        Device::NullBlk => {
            run("modprobe null_blk nr_devices=1 queue_mode=2 submit_queues=1 hw_queue_depth=128")?;
            Ok("/dev/nullb0".to_owned())
        }
        Device::Brd => {
            run(&format!(
                "modprobe brd rd_nr=1 rd_size={}",
                AREA_BYTES >> 10
            ))?;
            Ok("/dev/ram0".to_owned())
        }
        Device::Loop => {
            let file = file_on_tmpfs("loop")?;
            run("modprobe -a loop")?;
            run(&format!("losetup --direct-io=on /dev/loop0 {file}"))?;
            Ok("/dev/loop0".to_owned())
        }
        Device::OxublkNull => {
            run(&format!(
                "{policy}oxublk add null --id {OXUBLK_NULL} --size 250G"
            ))?;
            Ok(format!("/dev/ublkb{OXUBLK_NULL}"))
        }
        Device::OxublkMem => {
            run(&format!(
                "{policy}oxublk add mem --id {OXUBLK_MEM} --size {size}"
            ))?;
            Ok(format!("/dev/ublkb{OXUBLK_MEM}"))
        }
        Device::RublkNull => {
            run(&format!(
                "{policy}/with/rublk add null --quiet -n {RUBLK_NULL}"
            ))?;
            Ok(format!("/dev/ublkb{RUBLK_NULL}"))
        }
        Device::RublkLoop => {
            let file = file_on_tmpfs("rublk")?;
            run(&format!(
                "{policy}/with/rublk add loop --quiet -n {RUBLK_LOOP} --file {file}"
            ))?;
            Ok(format!("/dev/ublkb{RUBLK_LOOP}"))
        }
        Device::OxublkTraced => {
            run(&format!(
                "{policy}oxublk add null --id {OXUBLK_TRACED} --size 250G"
            ))?;
            trace(OXUBLK_TRACED)?;
            Ok(format!("/dev/ublkb{OXUBLK_TRACED}"))
        }
    }
}

/// Starts `oxublk trace`, and returns when it follows requests. It ends with the guest.
fn trace(id: &str) -> Result<()> {
    let mut tracing = Command::new("oxublk")
        .args(["--json", "trace", id, "--quiet"])
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

fn file_on_tmpfs(name: &str) -> Result<String> {
    let path = format!("/tmp/{name}");
    fs::File::create(&path)?.set_len(AREA_BYTES as u64)?;
    Ok(path)
}

/// Runs a program; its words are separated by blanks. What it prints is of no interest to the host.
fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    // Not read by us: a server that stays behind would hold it open.
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Servers in the background say nothing when the disk is there.
fn wait_for(path: &Path) -> Result<()> {
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() > DEADLINE {
            bail!("{} did not appear", path.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
