//! A thread.

use serde::{Deserialize, Serialize};

use super::{Pid, Tid};

/// What a thread is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Its state.
    pub state: TaskState,
    /// The process that traces it.
    pub tracer: Option<Pid>,
    /// The parent of its process.
    pub parent: Option<Pid>,
    /// The function that it sleeps in.
    pub wchan: Option<String>,
    /// The functions of its kernel stack, innermost first, without offsets.
    pub stack: Vec<String>,
    /// The system call that it is in; none while it runs.
    pub syscall: Option<SysCall>,
    /// User and system time used so far, in clock ticks.
    pub cpu_ticks: Option<u64>,
    /// How often it gave the processor up by itself (`voluntary_ctxt_switches`).
    pub switches: Option<u64>,
    /// When it began, in clock ticks after the boot: tells it from another thread of the same id.
    pub start_ticks: Option<u64>,
    /// For how long it has not run, in milliseconds.
    pub asleep_ms: Option<u64>,
    /// Whether it is a thread of the kernel, io-wq workers and SQPOLL threads included.
    pub kernel: bool,
}

impl Task {
    /// Whether a function of its kernel stack, or the one that it sleeps in, has one of these names.
    #[must_use]
    pub fn is_in(&self, functions: &[&str]) -> bool {
        let named = |function: &String| functions.contains(&function.as_str());
        self.wchan.as_ref().is_some_and(named) || self.stack.iter().any(named)
    }

    /// How old it is, in milliseconds, when the host was booted so long ago.
    #[must_use]
    pub fn age_ms(&self, boot_ms: u64) -> Option<u64> {
        // `USER_HZ` is 100 on every architecture that ublk runs on.
        Some(boot_ms.saturating_sub(self.start_ticks? * 10))
    }
}

/// The letter in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// R.
    Running,
    /// S.
    Sleeping,
    /// D: sleeps, and signals do not wake it.
    Uninterruptible,
    /// I: an idle thread of the kernel.
    Idle,
    /// T: by SIGSTOP and its like.
    Stopped,
    /// t: by a debugger.
    Traced,
    /// Z: ended; its parent has not asked.
    Zombie,
    /// X.
    Dead,
    /// Something that this version does not know.
    Unknown,
}

impl TaskState {
    /// From the letter in `/proc/PID/stat`.
    #[must_use]
    pub const fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'I' => Self::Idle,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' => Self::Zombie,
            'X' | 'x' => Self::Dead,
            _ => Self::Unknown,
        }
    }
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysCall {
    /// Its number on this machine.
    pub number: i64,
    /// Its name, where we know it: `io_uring_enter`, `futex`, `read`, `openat`.
    pub name: Option<String>,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// What its first descriptor, or its path, is: `/dev/ublkb0`, `anon_inode:[io_uring]`.
    pub object: Option<String>,
}
