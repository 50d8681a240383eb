//! Cells by the wall clock: fio in the guest.

use super::load::{self, AREA_BYTES};
use super::plan::Row;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

#[derive(Debug, Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    read: Direction,
    write: Direction,
}

#[derive(Debug, Deserialize)]
struct Direction {
    iops: f64,
    bw_bytes: f64,
    total_ios: u64,
    lat_ns: Latency,
}

#[derive(Debug, Deserialize)]
struct Latency {
    mean: f64,
}

/// Runs one job and returns the row's figure and the context switches per I/O.
pub(super) fn measure(device: &Path, row: Row, seconds: u32) -> Result<(f64, f64)> {
    let work = row.work();
    let pattern = match (work.random, work.write) {
        (true, false) => "randread",
        (true, true) => "randwrite",
        (false, false) => "read",
        (false, true) => "write",
    };
    let before = load::switches()?;
    let output = Command::new("fio")
        .args([
            "--name=bench",
            "--direct=1",
            "--ioengine=libaio",
            "--thread",
        ])
        .args(["--time_based", "--randrepeat=1", "--output-format=json"])
        .arg(format!("--filename={}", device.display()))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--bs={}", work.block_bytes))
        .arg(format!("--size={AREA_BYTES}"))
        .arg(format!("--iodepth={}", work.depth))
        .arg(format!("--iodepth_batch_submit={}", work.batch))
        .arg(format!("--iodepth_batch_complete_min={}", work.batch))
        .arg(format!("--runtime={seconds}"))
        .output()
        .context("cannot run fio")?;
    let switches = load::switches()? - before;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let output: Output = serde_json::from_slice(&output.stdout).context("fio's output")?;
    let job = output.jobs.first().context("fio reports no job")?;
    let done = if work.write { &job.write } else { &job.read };
    let figure = match row {
        Row::Sr128 | Row::Sw128 => done.bw_bytes / f64::from(1 << 20),
        Row::Lat1 => done.lat_ns.mean / 1_000.0,
        _ => done.iops,
    };
    Ok((figure, load::per(switches, done.total_ios.max(1))))
}
