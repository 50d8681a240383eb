//! `cargo xtask bench`: our devices beside the kernel's and another server's, in one guest.

mod devices;
mod fio;
mod load;
mod plan;
mod scene;
mod table;

use crate::guest::{self, Job};
use crate::image::Orders;
use crate::qemu::{Accelerator, Machine, Stream};
use crate::{kernels, packages, peers, programs};
use anyhow::{Context as _, Result};
use plan::{Device, Mode, Plan, Row, Sample};
use std::fs;
use std::path::PathBuf;
use table::Table;

pub(crate) use scene::run as run_in_guest;

/// Compares our devices with the kernel's and rublk's
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A series (6.12), a version (7.3.4), `latest`, or the path of an image
    #[arg(long, default_value = "latest")]
    kernel: String,
    /// Count guest instructions per I/O instead of time: figures that do not depend on this machine's load
    #[arg(long)]
    icount: bool,
    /// Measurements of each cell, of which the median is shown; one more warms up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long fio runs for one measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u32,
    /// Workloads [default: with --icount rr32,rr32b,rw32b,sr128,lat1, else rr32,rw32,sr128,sw128,lat1]
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,
    /// Devices [default: all]
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    devices: Vec<Device>,
    /// Run the servers as batch jobs (SCHED_BATCH), so that they do not preempt the load when they are woken:
    /// how many requests a server finds then no longer depends on the scheduler
    #[arg(long)]
    batch: bool,
    /// Write all figures here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Give the guest up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
}

/// Runs the task.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    packages::ensure()?;
    let plan = plan_of(arguments);
    let job = job(arguments, &plan)?;
    let kernel = job.kernel.release.clone();
    let cells = plan.devices.len() * plan.rows.len() * (plan.rounds as usize + 1);
    eprintln!("bench: Linux {kernel}, {cells} measurements");
    let mut output = Vec::new();
    let report = guest::run(&job, &mut |stream, bytes| match stream {
        Stream::Output => output.extend_from_slice(bytes),
        Stream::Error => guest::print(stream, bytes),
    })?;
    if report.code() != 0 {
        return Ok(report.code());
    }
    let table = Table::of(kernel, &plan, &samples(&output)?);
    print!("{}", table.text());
    if let Some(file) = &arguments.json {
        fs::write(file, serde_json::to_string_pretty(&table)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(0)
}

fn plan_of(arguments: &Arguments) -> Plan {
    let mode = if arguments.icount {
        Mode::Instructions
    } else {
        Mode::WallClock
    };
    let rows = match (arguments.rows.as_slice(), mode) {
        ([], Mode::Instructions) => Row::COUNTED.to_vec(),
        ([], Mode::WallClock) => Row::TIMED.to_vec(),
        (rows, _) => rows.to_vec(),
    };
    let devices = match arguments.devices.as_slice() {
        [] => Device::ALL.to_vec(),
        devices => devices.to_vec(),
    };
    Plan {
        mode,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        batch: arguments.batch,
        devices,
        rows,
    }
}

fn job(arguments: &Arguments, plan: &Plan) -> Result<Job> {
    let of_rublk = |device: &Device| matches!(device, Device::RublkNull | Device::RublkLoop);
    // This program is one of them, since the load is to be as well optimised as the servers.
    let (mut with, programs): (Vec<PathBuf>, _) =
        programs::build(&["oxublk-cli", "xtask"], "release")?
            .into_iter()
            .partition(|program| program.ends_with("xtask"));
    if plan.devices.iter().any(of_rublk) {
        with.push(peers::rublk()?);
    }
    Ok(Job {
        kernel: kernels::resolve(&arguments.kernel, None)?,
        programs,
        with,
        orders: Orders {
            argv: vec![
                "/with/xtask".to_owned(),
                "bench-scene".to_owned(),
                serde_json::to_string(plan)?,
            ],
            env: guest::passed_on(),
            load_ublk: true,
            timeout_seconds: arguments.timeout,
        },
        machine: Machine {
            accelerator: Accelerator::chosen(arguments.icount),
            cpus: 2,
            memory: "2G".to_owned(),
            append: String::new(),
            quiet: false,
        },
    })
}

/// Reads the guest's lines.
fn samples(output: &[u8]) -> Result<Vec<Sample>> {
    let text = String::from_utf8_lossy(output);
    let line = |line| {
        serde_json::from_str(line).with_context(|| format!("the guest printed this: {line}"))
    };
    text.lines().map(line).collect()
}
