//! What `/proc` says of processes: who runs, and who waits in the kernel.

use super::{SOON, wait_until};
use anyhow::Result;
use std::fmt;
use std::fs;

/// A process, or a thread of one.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
    pub(crate) state: char,
}

impl Task {
    fn read(pid: u32, tid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let mut fields = after.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Self {
            pid,
            tid,
            parent,
            name,
            state,
        })
    }

    /// Whether it still does anything.
    pub(crate) fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Where it waits: the kernel's stack, one line.
    fn stack(&self) -> String {
        let path = format!("/proc/{}/task/{}/stack", self.pid, self.tid);
        let stack = fs::read_to_string(path).unwrap_or_default();
        let frames = stack
            .lines()
            .filter_map(|line| Some(line.split_once("] ")?.1.split_once('+')?.0));
        frames.take(12).collect::<Vec<_>>().join(" < ")
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            tid,
            name,
            state,
            ..
        } = self;
        write!(f, "{name} ({pid}/{tid}) {state} {}", self.stack())
    }
}

/// Every process (its first thread).
pub(crate) fn processes() -> Vec<Task> {
    numbers("/proc")
        .filter_map(|pid| Task::read(pid, pid))
        .collect()
}

/// One process; none when there is none, or it is dead and not buried.
pub(crate) fn running(pid: u32) -> Option<Task> {
    Task::read(pid, pid).filter(Task::runs)
}

/// All threads of a process.
pub(crate) fn threads(pid: u32) -> Vec<Task> {
    numbers(&format!("/proc/{pid}/task"))
        .filter_map(|tid| Task::read(pid, tid))
        .collect()
}

/// Threads that wait in the kernel and cannot be interrupted, and belong to a program.
pub(crate) fn uninterruptible() -> Vec<Task> {
    numbers("/proc")
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
        .flat_map(threads)
        .filter(|task| task.state == 'D')
        .collect()
}

/// Waits until no program's thread waits uninterruptibly in the kernel.
pub(crate) fn nobody_is_stuck() -> Result<()> {
    wait_until("nobody is in uninterruptible sleep", SOON, || {
        let stuck: Vec<String> = uninterruptible().iter().map(ToString::to_string).collect();
        stuck
            .is_empty()
            .then_some(())
            .ok_or_else(|| stuck.join("\n"))
    })
}

/// A field of `/proc/PID/status` in KiB, as bytes.
pub(crate) fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn numbers(dir: &str) -> impl Iterator<Item = u32> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
