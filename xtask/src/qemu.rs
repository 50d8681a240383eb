//! One boot of one guest.

use crate::packages;
use crate::wire::Frame;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
    /// By translation, one instruction being one nanosecond of the guest's time: for counting them.
    Icount,
}

impl Accelerator {
    /// What a command line asks for: to count, or the best that there is.
    pub(crate) fn chosen(icount: bool) -> Self {
        if icount { Self::Icount } else { Self::Tcg }
    }
}

/// The machine to boot.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) accelerator: Accelerator,
    pub(crate) cpus: u32,
    pub(crate) memory: String,
    pub(crate) append: String,
    /// Keep QEMU's own messages back.
    pub(crate) quiet: bool,
}

/// The files of one boot.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// Where the kernel's console goes.
    pub(crate) console: &'a Path,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended with this code.
    Exited(u8),
    /// The command ran for too long.
    TimedOut,
    /// The guest died under the command.
    Died,
    /// The kernel panicked before userspace.
    NeverUp,
    /// The kernel fell silent before userspace.
    Silent,
}

/// Which of the command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

/// Takes what the command prints.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A kernel that has printed nothing for so long before userspace is not coming.
    pub(crate) silence: Duration,
    /// For the kernel to bring userspace up.
    pub(crate) boot: Duration,
    /// For the command.
    pub(crate) command: Duration,
}

/// The guest ends a command that takes too long itself, and says who waits for what; the host only when it does not.
const GRACE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);

/// Boots and returns how it ended, and how long userspace took to come up.
pub(crate) fn boot(
    machine: &Machine,
    files: &Files<'_>,
    limits: Limits,
    sink: Sink<'_>,
) -> Result<(End, Duration)> {
    let started = Instant::now();
    let mut child = Qemu(
        command(machine, files)?
            .spawn()
            .context("cannot start QEMU")?,
    );
    let output = child.0.stdout.take().context("QEMU has no output")?;
    let (sender, frames) = mpsc::channel();
    thread::spawn(move || {
        let mut port = BufReader::new(output);
        // Ends with QEMU, or when nobody listens any more.
        while let Ok(Some(frame)) = Frame::read(&mut port) {
            if sender.send(frame).is_err() {
                break;
            }
        }
    });
    let mut up: Option<Instant> = None;
    let mut silent_since = (Instant::now(), 0);
    let end = loop {
        match frames.recv_timeout(TICK) {
            Ok(Frame::Up) => up = Some(Instant::now()),
            Ok(Frame::Output(bytes)) => sink(Stream::Output, &bytes),
            Ok(Frame::Error(bytes)) => sink(Stream::Error, &bytes),
            Ok(Frame::Exit(code)) => break End::Exited(code),
            Ok(Frame::TimedOut) => break End::TimedOut,
            Err(RecvTimeoutError::Disconnected) if up.is_some() => break End::Died,
            Err(RecvTimeoutError::Disconnected) => {
                child.check(files.console)?;
                break End::NeverUp;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        match up {
            Some(up) if up.elapsed() > limits.command + GRACE => break End::TimedOut,
            Some(_) => {}
            None => {
                let size = fs::metadata(files.console).map_or(0, |meta| meta.len());
                if size != silent_since.1 {
                    silent_since = (Instant::now(), size);
                }
                if silent_since.0.elapsed() > limits.silence || started.elapsed() > limits.boot {
                    break End::Silent;
                }
            }
        }
    };
    Ok((end, up.unwrap_or_else(Instant::now) - started))
}

/// A running QEMU, ended when dropped.
#[derive(Debug)]
struct Qemu(Child);

impl Qemu {
    /// A QEMU that ended before its kernel said anything was not started rightly.
    fn check(&mut self, console: &Path) -> Result<()> {
        let status = self.0.wait()?;
        if !status.success() && fs::metadata(console).map_or(0, |meta| meta.len()) == 0 {
            bail!("QEMU did not start the guest: {status}");
        }
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Finds QEMU: `$OXUBLK_QEMU`, else the system's.
fn program() -> Result<PathBuf> {
    match std::env::var_os("OXUBLK_QEMU") {
        Some(path) => Ok(PathBuf::from(path)),
        None => packages::find("qemu-system-x86_64")
            .context("QEMU is missing: install the package qemu-system-x86"),
    }
}

fn command(machine: &Machine, files: &Files<'_>) -> Result<Command> {
    // setpriv: QEMU is to end with us also when we are killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program()?);
    if let Some(data) = std::env::var_os("OXUBLK_QEMU_DATA") {
        command.arg("-L").arg(data);
    }
    let (accelerator, processor, cpus) = match machine.accelerator {
        Accelerator::Kvm => ("kvm", "host", machine.cpus),
        Accelerator::Tcg => ("tcg,thread=multi", "max", machine.cpus),
        // Without erms and fsrm a copy counts one instruction for eight bytes; with them, one for each byte.
        Accelerator::Icount => ("tcg,thread=single", "max,erms=off,fsrm=off", 1),
    };
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-machine",
        "q35",
    ]);
    command.args([
        "-accel",
        accelerator,
        "-cpu",
        processor,
        "-smp",
        &cpus.to_string(),
        "-m",
        &machine.memory,
    ]);
    // no_timer_check: without it a busy host can make the early check of the timer fail, and the kernel panics.
    // With it 22 of 22 boots of 6.12.117 came up on QEMU 7.2 with two processors, 12 of them three at a time
    // on two cores; 10 of 10 on QEMU 10.0. So the distribution's own QEMU is good enough.
    let mut line = String::from(
        "console=ttyS0 panic=-1 oops=panic no_timer_check mitigations=off nmi_watchdog=0 rdinit=/init",
    );
    if machine.accelerator == Accelerator::Icount {
        command.args(["-icount", "shift=0,sleep=off"]);
        line.push_str(" nokaslr tsc=reliable");
    }
    line.push(' ');
    line.push_str(&machine.append);
    command
        .arg("-kernel")
        .arg(files.kernel)
        .arg("-initrd")
        .arg(files.initramfs)
        .args(["-append", line.trim_end()]);
    let mut console = std::ffi::OsString::from("file:");
    console.push(files.console);
    command.arg("-serial").arg(console).args([
        "-chardev",
        "stdio,id=port,signal=off",
        "-serial",
        "chardev:port",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(if machine.quiet {
        Stdio::null()
    } else {
        Stdio::inherit()
    });
    Ok(command)
}
