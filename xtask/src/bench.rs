//! `cargo xtask bench`: our devices beside the kernel's and other servers', in one guest.

mod bounds;
mod catalogue;
mod devices;
mod fio;
mod footprint;
mod load;
mod markdown;
mod plan;
mod scene;
mod table;

use crate::guest::{self, Job};
use crate::image::Orders;
use crate::peers::{self, Files};
use crate::qemu::{Accelerator, Machine, Stream};
use crate::{kernels, packages, programs};
use anyhow::{Context as _, Result, bail};
use bounds::Bounds;
use catalogue::{Device, Maker};
use footprint::Footprint;
use plan::{Mode, Plan, Row, Sample};
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::path::PathBuf;
use table::Table;

pub(crate) use scene::run as run_in_guest;

/// Compares our devices with the kernel's and other servers'
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 1 when --check finds a cell that is worse than its bound.")]
pub(crate) struct Arguments {
    /// A series (6.12), a version (7.3.4), `latest`, or the path of an image
    #[arg(long, default_value = "latest")]
    kernel: String,
    /// Count guest instructions per I/O instead of time: figures that do not depend on this machine's load
    #[arg(long)]
    icount: bool,
    /// Measure what servers take instead: memory, time to come and to go, processor time per I/O
    #[arg(long)]
    footprint: bool,
    /// Hold the instructions of our devices against the bounds in xtask/bench-bounds.json
    #[arg(long, conflicts_with_all = ["footprint", "batch"])]
    check: bool,
    /// Take what --check measures as the bounds from now on, with a margin
    #[arg(long, requires = "check")]
    accept: bool,
    /// Measurements of each cell, of which the median is shown; one more warms up [default: 3, with --check 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long fio runs for one measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u32,
    /// Queues of each device, where it can have several
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    queues: u32,
    /// Workloads [default: with --icount rr32,rr32b,rw32b,sr128,sw128,sr1m,sw1m,lat1, else rr32,rw32,sr128,sw128,lat1,
    /// and with --queues rr32x2,rw32x2]
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,
    /// Devices [default: all but oxublk-traced; with --check ours and null-blk]
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', value_parser = Device::parser())]
    devices: Vec<Device>,
    /// Run the servers as batch jobs (SCHED_BATCH), so that they do not preempt the load when they are woken:
    /// how many requests a server finds then no longer depends on the scheduler
    #[arg(long)]
    batch: bool,
    /// Put the load's buffers into huge pages: large I/Os are then one piece of memory, and cost the kernel less
    #[arg(long)]
    huge_pages: bool,
    /// Write all figures here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Give the guest up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    timeout: u64,
}

impl Arguments {
    /// Whether instructions are counted.
    fn counts(&self) -> bool {
        self.icount || self.check
    }
}

/// Runs the task.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    packages::ensure()?;
    let mut plan = plan_of(arguments)?;
    let job = job(arguments, &mut plan)?;
    let kernel = job.kernel.release.clone();
    let cells = match plan.mode {
        Mode::Footprint => plan.devices.len(),
        _ => plan.devices.len() * plan.rows.len() * (plan.rounds as usize + 1),
    };
    eprintln!("bench: Linux {kernel}, {cells} measurements");
    let mut output = Vec::new();
    let report = guest::run(&job, &mut |stream, bytes| match stream {
        Stream::Output => output.extend_from_slice(bytes),
        Stream::Error => guest::print(stream, bytes),
    })?;
    if report.code() != 0 {
        // What was measured until then is shown all the same; the last line may be torn.
        let complete = output.iter().rposition(|&byte| byte == b'\n');
        output.truncate(complete.map_or(0, |at| at + 1));
        let code = report.code();
        eprintln!("bench: the guest ended early, with code {code}: this is what it measured");
    }
    if plan.mode == Mode::Footprint {
        let mut found: Vec<Footprint> = lines(&output)?;
        found.sort_by_key(|one| (one.device.number(), one.count));
        print!("{}", footprint::text(&kernel, &found));
        save(arguments, &found)?;
        return Ok(report.code());
    }
    let samples: Vec<Sample> = lines(&output)?;
    let table = Table::of(kernel, &plan, &samples);
    print!("{}", table.text());
    save(arguments, &table)?;
    if report.code() != 0 {
        return Ok(report.code());
    }
    if arguments.check {
        return check(arguments, &job.kernel.series(), &table, &plan);
    }
    Ok(0)
}

/// Holds a run against the bounds, or makes it the bounds.
fn check(arguments: &Arguments, series: &str, table: &Table, plan: &Plan) -> Result<u8> {
    let mut bounds = Bounds::read()?;
    if arguments.accept {
        bounds.accept(series, table);
        bounds.write()?;
        println!("\nxtask/bench-bounds.json has the bounds for Linux {series} now");
        return Ok(0);
    }
    let verdict = bounds.judge(series, table, plan);
    print!("\n{}", verdict.text());
    Ok(u8::from(!verdict.failures.is_empty()))
}

fn save(arguments: &Arguments, figures: &impl Serialize) -> Result<()> {
    if let Some(file) = &arguments.json {
        fs::write(file, serde_json::to_string_pretty(figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn plan_of(arguments: &Arguments) -> Result<Plan> {
    let mode = match (arguments.footprint, arguments.counts()) {
        (true, _) => Mode::Footprint,
        (false, true) => Mode::Instructions,
        (false, false) => Mode::WallClock,
    };
    let mut rows = arguments.rows.clone();
    if rows.is_empty() && mode == Mode::WallClock {
        rows.extend(Row::TIMED);
        rows.extend(Row::PARALLEL.iter().filter(|_| arguments.queues > 1));
    } else if rows.is_empty() {
        rows.extend(Row::COUNTED);
    }
    if let Some(row) = rows.iter().find(|row| row.work().jobs > 1)
        && mode == Mode::Instructions
    {
        bail!(
            "{} is timed only: where instructions are counted there is one processor",
            row.name()
        );
    }
    let mut devices = arguments.devices.clone();
    if devices.is_empty() {
        devices = Device::side_by_side();
        devices.retain(|device| match device.maker {
            Maker::Kernel if arguments.check => *device == bounds::anchor(),
            Maker::Kernel => mode != Mode::Footprint,
            Maker::Oxublk => true,
            _ => !arguments.check,
        });
    } else if arguments.check && !devices.contains(&bounds::anchor()) {
        devices.insert(0, bounds::anchor());
    }
    Ok(Plan {
        mode,
        rounds: arguments
            .rounds
            .unwrap_or(if arguments.check { 2 } else { 3 }),
        seconds: arguments.seconds,
        batch: arguments.batch,
        huge_pages: arguments.huge_pages,
        queues: arguments.queues,
        devices,
        rows,
    })
}

/// Finds or builds everything; devices that cannot be built leave the plan.
fn job(arguments: &Arguments, plan: &mut Plan) -> Result<Job> {
    // This program is one of them, since the load is to be as well optimised as the servers.
    let (mut with, mut programs): (Vec<PathBuf>, _) =
        programs::build(&["oxublk-cli", "xtask"], "release")?
            .into_iter()
            .partition(|program| program.ends_with("xtask"));
    let mut makers: Vec<Maker> = plan.devices.iter().map(|device| device.maker).collect();
    makers.sort_unstable();
    makers.dedup();
    for maker in makers {
        match peer(maker) {
            Ok(files) => {
                with.extend(files.with);
                programs.extend(files.programs);
            }
            Err(error) => {
                eprintln!("bench: without {maker:?}: {error:#}");
                plan.devices.retain(|device| device.maker != maker);
            }
        }
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
            accelerator: Accelerator::chosen(arguments.counts()),
            cpus: 2,
            memory: "4G".to_owned(),
            append: String::new(),
            quiet: false,
        },
    })
}

fn peer(maker: Maker) -> Result<Files> {
    match maker {
        Maker::Kernel | Maker::Oxublk => Ok(Files::default()),
        Maker::Rublk => peers::rublk(),
        Maker::Libublk => peers::libublk(),
        Maker::Selftest => peers::selftest(),
        Maker::Nbd => peers::nbd(),
    }
}

/// Reads the guest's lines.
fn lines<T: DeserializeOwned>(output: &[u8]) -> Result<Vec<T>> {
    let text = String::from_utf8_lossy(output);
    let line = |line| {
        serde_json::from_str(line).with_context(|| format!("the guest printed this: {line}"))
    };
    text.lines().map(line).collect()
}
