//! Cells by the wall clock: fio in the guest.

use super::load::{self, AREA_BYTES};
use super::plan::Row;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
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
    /// By names like `99.900000`; absent without I/Os.
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// What fio found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// In the row's unit.
    pub(super) figure: f64,
    /// Context switches per I/O.
    pub(super) switches: f64,
    /// For lat1: the 99th and the 99.9th percentile, in µs.
    pub(super) tail: Option<(f64, f64)>,
}

/// Runs one job.
pub(super) fn measure(device: &Path, row: Row, seconds: u32) -> Result<Measured> {
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
            "--group_reporting",
            "--lat_percentiles=1",
            "--clat_percentiles=0",
            "--percentile_list=99:99.9",
        ])
        .args(["--time_based", "--randrepeat=1", "--output-format=json"])
        .arg(format!("--filename={}", device.display()))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--bs={}", work.block_bytes))
        .arg(format!("--size={AREA_BYTES}"))
        .arg(format!("--iodepth={}", work.depth))
        .arg(format!("--numjobs={}", work.jobs))
        .arg(format!("--iodepth_batch_submit={}", work.batch))
        .arg(format!("--iodepth_batch_complete_min={}", work.batch))
        .arg(format!("--runtime={seconds}"))
        .output()
        .context("cannot run fio")?;
    let switches = load::switches()? - before;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    read(&output.stdout, row, switches)
}

/// Reads fio's report of a row.
fn read(report: &[u8], row: Row, switches: u64) -> Result<Measured> {
    let output: Output = serde_json::from_slice(report).context("fio's output")?;
    let job = output.jobs.first().context("fio reports no job")?;
    let done = if row.work().write {
        &job.write
    } else {
        &job.read
    };
    let latency = &done.lat_ns;
    let percentile = |name: &str| latency.percentile.get(name).map(|ns| ns / 1_000.0);
    let (figure, tail) = match row {
        Row::Lat1 => (
            latency.mean / 1_000.0,
            percentile("99.000000").zip(percentile("99.900000")),
        ),
        _ if row.in_bytes() => (done.bw_bytes / f64::from(1 << 20), None),
        _ => (done.iops, None),
    };
    Ok(Measured {
        figure,
        switches: load::per(switches, done.total_ios.max(1)),
        tail,
    })
}

#[cfg(test)]
mod tests {
    use super::{Measured, read};
    use crate::bench::plan::Row;

    const REPORT: &[u8] = br#"{"jobs": [{
        "read": {"iops": 500.0, "bw_bytes": 2097152, "total_ios": 1000,
                 "lat_ns": {"mean": 20000.0, "percentile": {"99.000000": 45000, "99.900000": 80000}}},
        "write": {"iops": 0, "bw_bytes": 0, "total_ios": 0, "lat_ns": {"mean": 0}}}]}"#;

    #[test]
    fn a_latency_has_its_tail() {
        let lat1 = Measured {
            figure: 20.0,
            switches: 4.0,
            tail: Some((45.0, 80.0)),
        };
        assert_eq!(read(REPORT, Row::Lat1, 4_000).unwrap(), lat1);
    }

    #[test]
    fn figures_are_in_the_units_of_their_rows() {
        let figure = |row| read(REPORT, row, 0).unwrap().figure;
        assert_eq!(figure(Row::Rr32x2), 500.0);
        assert_eq!(figure(Row::Sr1m), 2.0);
        assert_eq!(figure(Row::Sw128), 0.0);
        assert!(read(b"{}", Row::Rr32, 0).is_err());
    }
}
