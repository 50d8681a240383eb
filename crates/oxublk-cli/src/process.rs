//! Which process a pid means: ids are used again, so a pid is kept with the time it started.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// One process, also after its pid was given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub pid_start_ticks: u64,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn this() -> io::Result<Self> {
        Self::running(std::process::id())
            .ok_or_else(|| io::Error::other("/proc/self/stat is missing or not understood"))
    }

    /// The process that has `pid` now; none when there is none or it is a zombie.
    #[must_use]
    pub fn running(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let (state, pid_start_ticks) = state_and_start(&stat)?;
        (!matches!(state, b'Z' | b'X')).then_some(Self {
            pid,
            pid_start_ticks,
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::running(self.pid) == Some(*self)
    }

    /// Waits until it has ended. False if it runs still when `timeout` is over.
    ///
    /// # Errors
    /// The process cannot be watched.
    pub fn wait_end(&self, timeout: Duration) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(true);
        };
        let watch = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(watch) => watch,
            Err(Errno::SRCH) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        // Only now is it certain that the watched process is the one meant.
        if !self.is_alive() {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).ok();
        let mut watched = [PollFd::new(&watch, PollFlags::IN)];
        let ended = retry_on_intr(|| poll(&mut watched, timeout.as_ref()))?;
        Ok(ended > 0)
    }
}

/// The name of the program that `pid` runs.
#[must_use]
pub fn command_name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// Fields 3 and 22. The command's name, field 2, may hold anything, also blanks and parentheses.
fn state_and_start(stat: &[u8]) -> Option<(u8, u64)> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_name_may_hold_anything() {
        let stat = b"7 (a) R 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(state_and_start(stat), Some((b'S', 4711)));
        assert_eq!(state_and_start(b"7 (cut off) S 1 2"), None);
        assert_eq!(state_and_start(b""), None);
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        let earlier = Process {
            pid_start_ticks: this.pid_start_ticks - 1,
            ..this
        };
        assert!(!earlier.is_alive());
        assert!(earlier.wait_end(Duration::ZERO).unwrap());
        assert!(!this.wait_end(Duration::ZERO).unwrap());
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::running(child.id()).unwrap();
        assert!(!process.wait_end(Duration::ZERO).unwrap());
        drop(child.stdin.take());
        assert!(process.wait_end(Duration::from_secs(60)).unwrap());
        assert!(!process.is_alive(), "a zombie counts as ended");
        child.wait().unwrap();
        assert_eq!(Process::running(child.id()), None);
    }
}
