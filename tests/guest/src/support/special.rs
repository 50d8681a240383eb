//! Disks that misbehave on purpose, served by a child process: `guest-tests --serve NAME`.

use super::device::block;
use super::process::Process;
use super::wait::LONG;
use anyhow::{Context as _, Result, bail};
use oxublk::{Device, Disk, Geometry};
use oxublk_cli::logging::Log;
use oxublk_cli::text;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The byte whose block is special. Nothing reads it that was not told to: it is not near the
/// places where partition tables and file systems are looked for.
pub(crate) const SPECIAL: u64 = 8 << 20;
/// The size of every special disk.
pub(crate) const SIZE: u64 = 16 << 20;
/// How long the slow disk thinks.
pub(crate) const SLOW: Duration = Duration::from_secs(10);
/// What every block holds that is not special.
pub(crate) const FILL: u8 = 0xa5;

/// What happens at the special block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Panics,
    Fails(io::ErrorKind),
    Slow,
    Stuck,
    /// From the first block on: not even a partition table can be read.
    StuckFromTheStart,
}

impl Trouble {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "panics" => Self::Panics,
            "no-space" => Self::Fails(io::ErrorKind::StorageFull),
            "timed-out" => Self::Fails(io::ErrorKind::TimedOut),
            "other-error" => Self::Fails(io::ErrorKind::InvalidData),
            "slow" => Self::Slow,
            "stuck" => Self::Stuck,
            "stuck-from-the-start" => Self::StuckFromTheStart,
            _ => return None,
        })
    }
}

#[derive(Debug)]
struct Troubled(Trouble);

impl Troubled {
    fn meet(&self, length: usize, offset: u64) -> io::Result<()> {
        let range = offset..offset + length as u64;
        if !range.contains(&SPECIAL) && self.0 != Trouble::StuckFromTheStart {
            return Ok(());
        }
        match self.0 {
            Trouble::Panics => panic!("this disk panics at byte {SPECIAL}"),
            Trouble::Fails(kind) => return Err(kind.into()),
            Trouble::Slow => thread::sleep(SLOW),
            Trouble::Stuck | Trouble::StuckFromTheStart => loop {
                thread::park();
            },
        }
        Ok(())
    }
}

impl Disk for Troubled {
    fn size(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.meet(buf.len(), offset)?;
        buf.fill(FILL);
        Ok(())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.meet(buf.len(), offset)
    }
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }
}

/// The child's part: `NAME QUEUES DEPTH DEADLINE_MS STUCK_AFTER_MS`. Serves until SIGINT or SIGTERM; SIGUSR1 prints
/// what its tags are doing, as our programs do. Logs to stderr.
pub(crate) fn serve(words: &[String]) -> ExitCode {
    match serve_or_fail(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn serve_or_fail(words: &[String]) -> Result<()> {
    let [name, queues, depth, deadline_ms, stuck_after_ms] = words else {
        bail!("--serve NAME QUEUES DEPTH DEADLINE_MS STUCK_AFTER_MS");
    };
    let _log = Log::init(LevelFilter::WARN);
    let trouble = Trouble::named(name).with_context(|| format!("no disk {name}"))?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let mut builder = Device::builder(Troubled(trouble))
        .queues(queues.parse()?)
        .depth(depth.parse()?)
        .deadline(Duration::from_millis(deadline_ms.parse()?));
    let stuck_after_ms: u64 = stuck_after_ms.parse()?;
    if stuck_after_ms > 0 {
        builder = builder.stuck_after(Duration::from_millis(stuck_after_ms));
    }
    let device = builder.start().map_err(explained)?;
    println!("ready {}", device.id());
    thread::scope(|scope| {
        scope.spawn(|| obey(&device, signals));
        device.wait().map_err(explained)
    })?;
    device.stop().map_err(explained)
}

/// Until a signal asks to stop.
fn obey(device: &Device, mut signals: Signals) {
    for signal in signals.forever() {
        if signal != SIGUSR1 {
            return device.stopper().stop();
        }
        match device.info() {
            Ok(info) => print!("{}", text::tags(&info, &device.metrics())),
            Err(error) => println!("no information: {error}"),
        }
    }
}

fn explained(error: oxublk::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

/// A special disk in a child process.
#[derive(Debug)]
pub(crate) struct Special {
    pub(crate) id: u32,
    pub(crate) process: Process,
}

/// How a special disk is offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) deadline: Duration,
    /// Its watchdog's limit; nobody watches when it is zero.
    pub(crate) stuck_after: Duration,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            queues: 1,
            depth: 16,
            deadline: Duration::from_secs(20),
            stuck_after: Duration::ZERO,
        }
    }
}

impl Special {
    /// Starts the server without waiting.
    pub(crate) fn launch(name: &str, offer: Offer) -> Result<Process> {
        let Offer {
            queues,
            depth,
            deadline,
            stuck_after,
        } = offer;
        let words = [
            "--serve".to_owned(),
            name.to_owned(),
            queues.to_string(),
            depth.to_string(),
            deadline.as_millis().to_string(),
            stuck_after.as_millis().to_string(),
        ];
        Process::start("guest-tests", &words)
    }

    pub(crate) fn start(name: &str, offer: Offer) -> Result<Self> {
        let mut process = Self::launch(name, offer)?;
        let id = process.wait_line("that it is ready", LONG, |line| {
            line.strip_prefix("ready ")?.parse().ok()
        })?;
        Ok(Self { id, process })
    }

    pub(crate) fn block(&self) -> String {
        block(self.id)
    }

    /// Ends it with SIGTERM, which must leave nothing.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(LONG)?.success()?;
        super::device::gone(self.id)
    }
}
