//! `cargo xtask guest`: boots, boots again when the kernel did not come up, and explains the end.

use crate::death::Death;
use crate::image::{self, Content, Orders};
use crate::kernels::{self, Kernel};
use crate::qemu::{self, Accelerator, End, Files, Limits, Machine, Sink, Stream};
use crate::{kvm, modules, packages, paths, programs};
use anyhow::Result;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Our own failures, before any guest.
pub(crate) const SETUP_FAILED: u8 = 2;
const TIMED_OUT: u8 = 124;
const DIED: u8 = 125;
const CANNOT_BOOT: u8 = 126;

/// A kernel that does not come up is booted so many times.
const TRIES: u32 = 5;
/// So many lines of the console are shown after an end that nobody wanted.
const LAST_WORDS: usize = 40;

/// Runs a command in a guest
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: that of COMMAND (128 + signal when it was killed, 127 when there is no such \
    program); 124 when it ran for too long, 125 when the guest died under it, 126 when no kernel came up, \
    2 when something is missing on this machine."
)]
pub(crate) struct Arguments {
    /// A series (6.12), a version (7.3.4), `latest`, or the path of an image
    #[arg(long, default_value = "latest")]
    kernel: String,
    /// Modules for an image of your own: lib/modules/RELEASE, or a root directory that has it
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Put the content of DIR under /with (several are put together; a file is put there under its name)
    #[arg(long, value_name = "DIR")]
    with: Vec<PathBuf>,
    /// Give COMMAND up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Memory, as QEMU reads it
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    memory: String,
    /// Count instructions: one processor, one nanosecond of guest time for each instruction
    #[arg(long)]
    icount: bool,
    /// Do not load the ublk driver
    #[arg(long)]
    no_ublk: bool,
    /// Add words to the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Add a variable to COMMAND's environment (those named OXUBLK_*, RUST_* and PROPTEST_* are passed on)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Cargo's profile for our programs
    #[arg(long, default_value = "release")]
    profile: String,
    /// Build this package's programs and examples only; may be given several times [default: oxublk-cli, guest-tests, oxublk and ublk-faulty]
    #[arg(long, value_name = "NAME")]
    package: Vec<String>,
    /// Boot without our programs: for looking at a kernel alone
    #[arg(long, conflicts_with_all = ["package", "profile"])]
    no_build: bool,
    /// What to run; no shell reads it unless it is `sh -c`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A command to run in a guest, everything found.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) kernel: Kernel,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) with: Vec<PathBuf>,
    pub(crate) orders: Orders,
    pub(crate) machine: Machine,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) end: End,
    /// Of a guest that died under the command.
    pub(crate) death: Option<Death>,
    pub(crate) boots: u32,
    pub(crate) took: Duration,
}

impl Report {
    /// Our exit code.
    pub(crate) fn code(&self) -> u8 {
        match self.end {
            End::Exited(code) => code,
            End::TimedOut => TIMED_OUT,
            End::Died => DIED,
            End::NeverUp | End::Silent => CANNOT_BOOT,
        }
    }
}

/// Runs the task.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    packages::ensure()?;
    let kernel = kernels::resolve(&arguments.kernel, arguments.modules.as_deref())?;
    let programs = match arguments.package.as_slice() {
        _ if arguments.no_build => Vec::new(),
        [] => programs::build(programs::PACKAGES, &arguments.profile)?,
        packages => programs::build(packages, &arguments.profile)?,
    };
    let mut env = passed_on();
    env.extend(arguments.env.iter().filter_map(|pair| {
        pair.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }));
    let job = Job {
        kernel,
        programs,
        with: arguments.with.clone(),
        orders: Orders {
            argv: arguments.command.clone(),
            env,
            load_ublk: !arguments.no_ublk,
            timeout_seconds: arguments.timeout,
        },
        machine: Machine {
            accelerator: Accelerator::chosen(arguments.icount),
            cpus: arguments.cpus,
            memory: arguments.memory.clone(),
            append: arguments.append.clone(),
            quiet: false,
        },
    };
    Ok(run(&job, &mut print)?.code())
}

/// Passes a command's output on to ours.
pub(crate) fn print(stream: Stream, bytes: &[u8]) {
    // Nobody reads any more: the command goes on, as it would behind a closed pipe.
    let _ = match stream {
        Stream::Output => {
            let mut output = std::io::stdout().lock();
            output.write_all(bytes).and_then(|()| output.flush())
        }
        Stream::Error => std::io::stderr().lock().write_all(bytes),
    };
}

/// Drops it.
pub(crate) fn print_nothing(_: Stream, _: &[u8]) {}

/// The variables of ours that a command in the guest gets too.
pub(crate) fn passed_on() -> Vec<(String, String)> {
    std::env::vars()
        .filter(|(name, _)| {
            ["OXUBLK_", "RUST_", "PROPTEST_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .filter(|(name, _)| !name.starts_with("RUST_RECURSION") && name != "OXUBLK_CACHE")
        .collect()
}

/// Boots until the kernel comes up, and runs the command.
pub(crate) fn run(job: &Job, sink: Sink<'_>) -> Result<Report> {
    let started = Instant::now();
    let mut machine = job.machine.clone();
    if machine.accelerator == Accelerator::Tcg {
        machine.accelerator = kvm::choose(job)?;
    }
    let dir = paths::run_dir()?;
    let initramfs = dir.path().join("initramfs");
    let console = dir.path().join("console");
    let modules = modules::archive(&job.kernel)?;
    let content = Content {
        modules: modules.as_deref(),
        programs: &job.programs,
        with: &job.with,
        orders: &job.orders,
    };
    image::write(&content, &initramfs)?;
    let files = Files {
        kernel: &job.kernel.image,
        initramfs: &initramfs,
        console: &console,
    };
    let limits = Limits {
        silence: Duration::from_secs(60),
        boot: Duration::from_secs(300),
        command: Duration::from_secs(job.orders.timeout_seconds),
    };
    let mut boots = 0;
    let end = loop {
        boots += 1;
        let (end, until_up) = qemu::boot(&machine, &files, limits, sink)?;
        let what = match end {
            End::NeverUp => "panicked",
            End::Silent => "fell silent",
            End::Exited(_) | End::TimedOut | End::Died => {
                note_boot(job, until_up);
                break end;
            }
        };
        let version = job.kernel.version();
        if boots == TRIES {
            eprintln!("guest kernel {version} {what} before userspace {TRIES} times: giving up");
            break end;
        }
        let next = boots + 1;
        eprintln!(
            "guest kernel {version} {what} before userspace, booting again ({next} of {TRIES})"
        );
    };
    let mut death = None;
    if !matches!(end, End::Exited(_)) {
        let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        explain(job, end, &text, dir.path())?;
        death = (end == End::Died).then(|| Death::read(&text));
    }
    Ok(Report {
        end,
        death,
        boots,
        took: started.elapsed(),
    })
}

fn note_boot(job: &Job, until_up: Duration) {
    if std::env::var_os("OXUBLK_GUEST_VERBOSE").is_some() {
        eprintln!(
            "guest kernel {} was up after {:.1} s",
            job.kernel.version(),
            until_up.as_secs_f64()
        );
    }
}

/// Says what happened, shows the last words, and keeps the whole console.
fn explain(job: &Job, end: End, text: &str, run: &Path) -> Result<()> {
    let version = job.kernel.version();
    let limit = job.orders.timeout_seconds;
    match end {
        End::Exited(_) => return Ok(()),
        End::TimedOut => {
            eprintln!("guest {version}: the command was still running after {limit} s: given up")
        }
        End::Died => eprintln!("guest {version}: the guest died under the command"),
        End::NeverUp | End::Silent => eprintln!("guest {version}: no boot reached userspace"),
    }
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- the guest's last words");
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_WORDS)) {
        eprintln!("{}", line.trim_end());
    }
    let run = run.file_name().unwrap_or_default().to_string_lossy();
    let kept = paths::cache_dir("consoles")?.join(format!("{version}-{run}"));
    fs::write(&kept, text)?;
    eprintln!("--- its whole console is in {}", kept.display());
    Ok(())
}
