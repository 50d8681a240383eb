//! Other people's programs, and ours: started, watched, and ended by their pid.

use super::procfs;
use super::wait::{LONG, SOON, wait_until};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A program that runs. Dropped, it is killed and buried.
#[derive(Debug)]
pub(crate) struct Process {
    line: String,
    child: Child,
    output: Collector,
    errors: Collector,
    started: Instant,
    status: Option<ExitStatus>,
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) errors: String,
    pub(crate) took: Duration,
}

impl Process {
    /// Starts a command as it is; its output is collected.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let mut words = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|word| word.to_string_lossy().into()));
        let line = words.join(" ");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {line}"))?;
        Ok(Self {
            output: Collector::start(child.stdout.take()),
            errors: Collector::start(child.stderr.take()),
            started: Instant::now(),
            status: None,
            line,
            child,
        })
    }

    /// Starts a program with arguments.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<Self> {
        Self::spawn(Command::new(program).args(arguments))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid(), signal).with_context(|| self.line.clone())
    }

    /// Whether it has not ended yet.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status.is_none())
    }

    /// What it printed so far.
    pub(crate) fn output_so_far(&self) -> String {
        self.output.text()
    }

    /// What it printed on stderr so far.
    pub(crate) fn errors_so_far(&self) -> String {
        self.errors.text()
    }

    /// Waits until its output has a line that `wanted` takes.
    pub(crate) fn wait_line<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let line = self.line.clone();
        wait_until(format!("{line} prints {what}"), deadline, || {
            let ended = !self.runs().map_err(|error| error.to_string())?;
            let text = self.output.text();
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            whole.lines().find_map(&mut wanted).ok_or_else(|| {
                let errors = self.errors.text();
                format!("it printed {text:?} and {errors:?}; ended: {ended}")
            })
        })
    }

    /// Waits for its end, and for the end of its output.
    pub(crate) fn wait(mut self, deadline: Duration) -> Result<Finished> {
        let line = self.line.clone();
        self.poll_end(deadline)?;
        if self.runs()? {
            let threads = procfs::threads(self.pid());
            let threads: Vec<String> = threads.iter().map(ToString::to_string).collect();
            bail!(
                "{line} did not end within {deadline:?}; it printed {:?} and {:?}; its threads:\n{}",
                self.output.text(),
                self.errors.text(),
                threads.join("\n")
            );
        }
        let took = self.started.elapsed();
        ensure!(
            self.output.wait_closed(SOON) && self.errors.wait_closed(SOON),
            "{line} ended, and {SOON:?} later somebody still holds its output"
        );
        Ok(Finished {
            line,
            status: self.status.context("it has ended")?,
            output: self.output.text(),
            errors: self.errors.text(),
            took,
        })
    }
}

impl Process {
    /// Returns when it has ended, or the deadline has passed.
    fn poll_end(&mut self, deadline: Duration) -> Result<()> {
        if !self.runs()? {
            return Ok(());
        }
        let watch = pidfd_open(pid_of(self.pid())?, PidfdFlags::empty())?;
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match poll(
                &mut [PollFd::new(&watch, PollFlags::IN)],
                Some(&Timespec::try_from(left)?),
            ) {
                Err(Errno::INTR) => {}
                polled => return Ok(polled.map(drop)?),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.runs(), Ok(true)) {
            return;
        }
        // A program that waits in the kernel for good is found by the search for leftovers.
        let _ = self.child.kill();
        let _ = self.poll_end(SOON).and_then(|()| self.runs());
    }
}

impl Finished {
    /// It must have succeeded.
    pub(crate) fn success(self) -> Result<Self> {
        ensure!(self.status.success(), "{self}");
        Ok(self)
    }

    /// It must have failed, with this code and with these words on stderr.
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Result<Self> {
        ensure!(
            self.status.code() == Some(code),
            "exit code {code} expected: {self}"
        );
        for word in words {
            ensure!(
                self.errors.contains(word),
                "`{word}` expected on stderr: {self}"
            );
        }
        Ok(self)
    }

    /// It must have failed by itself, not by a signal.
    pub(crate) fn failure(self) -> Result<Self> {
        ensure!(
            self.status.signal().is_none() && !self.status.success(),
            "a failure was expected: {self}"
        );
        Ok(self)
    }

    /// Its output as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.output).with_context(|| self.to_string())
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            status,
            output,
            errors,
            took,
        } = self;
        write!(
            f,
            "`{line}`: {status} after {took:.1?}\n--- stdout\n{output}\n--- stderr\n{errors}\n---"
        )
    }
}

/// Runs a program to its end, which must come within the deadline.
pub(crate) fn run_for<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    deadline: Duration,
) -> Result<Finished> {
    Process::start(program, arguments)?.wait(deadline)
}

/// Runs a program to its end.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<Finished> {
    run_for(program, arguments, LONG)
}

/// Runs a command line without quotes in it; it must succeed.
pub(crate) fn ok(line: &str) -> Result<Finished> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((program, arguments)) = words.split_first() else {
        bail!("an empty command line")
    };
    run(program, arguments)?.success()
}

/// Runs a line of shell; it must succeed.
pub(crate) fn shell(line: &str) -> Result<Finished> {
    run("sh", &["-ec", line])?.success()
}

/// Sends a signal to a process that exists.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<()> {
    kill_process(pid_of(pid)?, signal).with_context(|| format!("cannot signal process {pid}"))
}

fn pid_of(pid: u32) -> Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is no pid"))
}

/// A pipe's content as it comes.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    closed: bool,
}

impl Collector {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let collector = Self::default();
        let theirs = collector.clone();
        thread::spawn(move || theirs.collect(pipe));
        collector
    }

    fn collect(&self, pipe: Option<impl Read>) {
        if let Some(mut pipe) = pipe {
            let mut chunk = vec![0; 16 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                self.lock().bytes.extend_from_slice(&chunk[..length]);
            }
        }
        self.lock().closed = true;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Whether everybody who could write to it is gone, after at most the deadline.
    fn wait_closed(&self, deadline: Duration) -> bool {
        let (open, changed) = (self.lock(), &self.0.1);
        let waited = changed.wait_timeout_while(open, deadline, |collected| !collected.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}
