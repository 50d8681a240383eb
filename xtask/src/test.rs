//! `cargo xtask test`: every tier, one table, one line with the sum.

use crate::guest::{self, Job};
use crate::image::Orders;
use crate::kernels::{self, Kernel};
use crate::packages;
use crate::paths;
use crate::peers;
use crate::programs;
use crate::qemu::{Accelerator, End, Machine, Stream};
use crate::scenes::{self, Scene};
use crate::tally::{Tally, Watcher};
use crate::workers;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The oldest kernel that we support, and the newest.
const KERNELS: &[&str] = &["6.12", "latest"];
/// A scene whose guest dies of something that is not ours is run so many times.
const TRIES: usize = 3;

/// Runs the tests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 when all passed, 1 when any failed, 2 when something is missing on this machine."
)]
pub(crate) struct Arguments {
    /// 1: unit, property and model tests, here; 2: tests on real kernels, in guests; both when not given
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) tier: Option<u8>,
    /// A kernel for tier 2, as for `guest`; may be given several times [default: 6.12 and latest]
    #[arg(long)]
    pub(crate) kernel: Vec<String>,
    /// Run one scene of tier 2 only; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) scene: Vec<String>,
    /// So many guests at a time [default: as many as processors]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) jobs: Option<usize>,
    /// Multiply the time that a scene may take: for a machine that is busy with other things
    #[arg(long, value_name = "FACTOR", default_value_t = 1)]
    pub(crate) patience: u64,
    /// Cargo's profile for the programs of tier 2
    #[arg(long, default_value = "release")]
    pub(crate) profile: String,
    /// Run only tests whose name contains this
    pub(crate) filter: Option<String>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let jobs: usize = text.parse().map_err(|_| "a number is needed".to_owned())?;
    if jobs == 0 {
        return Err("1 at least".to_owned());
    }
    Ok(jobs)
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) kernel: String,
    scene: String,
    pub(crate) tally: Tally,
    /// The names of those that failed.
    failures: Vec<String>,
    /// What the tests that failed said.
    words: Vec<String>,
    /// What guest-tests noted.
    pub(crate) notes: Vec<String>,
    boots: u32,
    /// How guests died before the one that counts.
    deaths: Vec<String>,
    took: Duration,
}

/// Runs the task; the code is 0 when all passed.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let mut rows = Vec::new();
    if arguments.tier != Some(2) {
        tier_1(arguments.filter.as_deref(), &mut rows)?;
    }
    if arguments.tier != Some(1) {
        tier_2(arguments, &mut rows)?;
    }
    let total = rows
        .iter()
        .fold(Tally::default(), |sum, row| sum + row.tally);
    print_table(&rows);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(u8::from(total.failed > 0))
}

/// The workspace's own tests, here.
fn tier_1(filter: Option<&str>, rows: &mut Vec<Row>) -> Result<()> {
    if packages::find("cargo-nextest").is_some() {
        let arguments = ["nextest", "run", "--workspace", "--no-tests", "pass"];
        rows.push(cargo("workspace", &arguments, filter)?);
        rows.push(cargo(
            "doc examples",
            &["test", "--doc", "--workspace"],
            filter,
        )?);
    } else {
        rows.push(cargo(
            "workspace",
            &["test", "--workspace", "--no-fail-fast"],
            filter,
        )?);
    }
    Ok(())
}

/// Runs cargo, shows what it prints, and counts.
fn cargo(scene: &str, arguments: &[&str], filter: Option<&str>) -> Result<Row> {
    let started = Instant::now();
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // nextest sums up on its standard error, the built-in runner on its output: a shell joins them in order.
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(program)
        .args(arguments)
        .args(filter)
        .current_dir(paths::workspace())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut watcher = Watcher::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            std::io::stdout().lock().write_all(&line)?;
            watcher.take(&line);
            line.clear();
        }
    }
    let words = watcher.take_words();
    let (tally, failures) = watcher.finish(child.wait()?.success());
    Ok(Row {
        kernel: "host".to_owned(),
        scene: scene.to_owned(),
        tally,
        failures,
        words,
        notes: Vec::new(),
        boots: 0,
        deaths: Vec::new(),
        took: started.elapsed(),
    })
}

/// The scenes of guest-tests, one boot for each on each kernel.
fn tier_2(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    packages::ensure()?;
    let programs = programs::build(programs::PACKAGES, &arguments.profile)?;
    let scenes = chosen_scenes(&programs, &arguments.scene)?;
    run_scenes(arguments, &programs, &scenes, rows)
}

/// Scenes on each kernel that was asked for, or the oldest and the newest.
pub(crate) fn run_scenes(
    arguments: &Arguments,
    programs: &[PathBuf],
    scenes: &[Scene],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let defaults: Vec<String> = KERNELS.iter().map(|kernel| (*kernel).to_owned()).collect();
    let kernels = if arguments.kernel.is_empty() {
        &defaults
    } else {
        &arguments.kernel
    };
    let mut jobs = Vec::new();
    for wanted in kernels {
        let kernel = kernels::resolve(wanted, None)?;
        for scene in scenes {
            jobs.push((job(&kernel, programs, scene, arguments)?, scene));
        }
    }
    let at_a_time = arguments.jobs.unwrap_or_else(processors);
    for row in workers::each(&jobs, at_a_time, |(job, scene)| {
        run_scene(job, scene, at_a_time == 1)
    }) {
        rows.push(row?);
    }
    Ok(())
}

fn job(kernel: &Kernel, programs: &[PathBuf], scene: &Scene, arguments: &Arguments) -> Result<Job> {
    Ok(Job {
        kernel: kernel.clone(),
        programs: programs.to_vec(),
        with: scene
            .rublk
            .then(peers::rublk)
            .transpose()?
            .map_or_else(Vec::new, |files| files.with),
        orders: orders(scene, arguments),
        machine: Machine {
            accelerator: Accelerator::Tcg,
            cpus: scene.cpus,
            memory: scene.memory.clone(),
            append: String::new(),
            quiet: false,
        },
    })
}

/// Guests mostly wait: one for each processor keeps them busy.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn chosen_scenes(programs: &[PathBuf], wanted: &[String]) -> Result<Vec<Scene>> {
    let guest_tests = programs
        .iter()
        .find(|program| program.ends_with("guest-tests"))
        .context("the package guest-tests builds no program guest-tests")?;
    let mut scenes = scenes::list(guest_tests)?;
    if let Some(missing) = wanted
        .iter()
        .find(|name| !scenes.iter().any(|scene| scene.name == **name))
    {
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        bail!(
            "there is no scene {missing}: there are {}",
            names.join(", ")
        );
    }
    scenes.retain(|scene| wanted.is_empty() || wanted.contains(&scene.name));
    Ok(scenes)
}

fn orders(scene: &Scene, arguments: &Arguments) -> Orders {
    let mut argv = vec![
        "guest-tests".to_owned(),
        "--scene".to_owned(),
        scene.name.clone(),
    ];
    argv.extend(arguments.filter.clone());
    Orders {
        argv,
        env: guest::passed_on(),
        load_ublk: scene.load_ublk,
        timeout_seconds: scene.timeout_seconds.saturating_mul(arguments.patience),
    }
}

/// Runs a scene. An emulated kernel dies now and then of the emulation. Such a guest is no test that failed: its scene is run again
/// from the start, and that is said. A death in the driver or in io_uring is never forgiven, and neither is a third one.
///
/// What it prints is shown at once when it runs alone, and whole at its end otherwise.
fn run_scene(job: &Job, scene: &Scene, alone: bool) -> Result<Row> {
    let started = Instant::now();
    let title = format!(
        "=== kernel {}, scene {}\n",
        job.kernel.version(),
        scene.name
    );
    let mut shown = title.into_bytes();
    if alone {
        guest::print(Stream::Output, &std::mem::take(&mut shown));
    }
    let mut boots = 0;
    let mut deaths = Vec::new();
    let (tally, failures, words, notes) = loop {
        let mut watcher = Watcher::default();
        let report = guest::run(job, &mut |stream, bytes| {
            if alone {
                guest::print(stream, bytes);
            } else {
                shown.extend_from_slice(bytes);
            }
            if stream == Stream::Output {
                watcher.take(bytes);
            }
        })?;
        boots += report.boots;
        let (words, notes) = (watcher.take_words(), watcher.take_notes());
        let (tally, mut failures) = watcher.finish(report.end == End::Exited(0));
        let Some(death) = report.death else {
            break (tally, failures, words, notes);
        };
        deaths.push(death.words());
        let tries = deaths.len();
        if death.concerns_us || tries == TRIES {
            failures.push(death.words());
            deaths.pop();
            break (tally, failures, words, notes);
        }
        eprintln!(
            "{}: scene {} is run again ({} of {TRIES})",
            death.words(),
            scene.name,
            tries + 1
        );
    };
    guest::print(Stream::Output, &shown);
    Ok(Row {
        kernel: job.kernel.version().to_owned(),
        scene: scene.name.clone(),
        tally,
        failures,
        words,
        notes,
        boots,
        deaths,
        took: started.elapsed(),
    })
}

pub(crate) fn print_table(rows: &[Row]) {
    let width =
        |cell: fn(&Row) -> usize, least| rows.iter().map(cell).max().unwrap_or_default().max(least);
    let kernel = width(|row| row.kernel.len(), 6);
    let scene = width(|row| row.scene.len(), 5);
    println!();
    println!(
        "{:kernel$}  {:scene$}  passed  failed  ignored  boots  seconds",
        "kernel", "scene"
    );
    for row in rows {
        let Tally {
            passed,
            failed,
            ignored,
        } = row.tally;
        println!(
            "{:kernel$}  {:scene$}  {passed:>6}  {failed:>6}  {ignored:>7}  {:>5}  {:>7.1}",
            row.kernel,
            row.scene,
            row.boots,
            row.took.as_secs_f64(),
        );
    }
    println!();
    for row in rows {
        for death in &row.deaths {
            println!(
                "run again: kernel {}, scene {}: {death}",
                row.kernel, row.scene
            );
        }
        for failure in &row.failures {
            println!(
                "failed: kernel {}, scene {}: {failure}",
                row.kernel, row.scene
            );
        }
        for words in &row.words {
            println!("  {words}");
        }
    }
}
