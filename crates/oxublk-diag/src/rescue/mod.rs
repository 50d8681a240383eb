//! Ends a request that its server will never answer.
//!
//! The driver takes the answer to a request only from the thread that fetched its tag. While that thread lives, and sleeps
//! where it can be reached or computes, it can be made to answer with EIO: it is stopped as a debugger stops it, submits the
//! answer on a ring that is made for that, and goes on where it was. The request ends with an error, and so does what waited
//! behind it.
//!
//! | part | what it does |
//! |---|---|
//! | `plan` | which requests can be ended, and why others cannot: pure |
//! | `remote` | a stopped thread in which system calls can be made |
//! | `ring` | our ring in the server's process |
//! | `inject` | the answers, in the thread |
//! | `render` | words for people |
//!
//! The answered tag is armed again, on a ring that nobody reads: the server must be ended afterwards. Until then
//! each request that gets such a tag is stuck in its turn, so that a rescue goes on until nothing is stuck any more.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod arch;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod inject;
mod plan;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod remote;
mod render;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod ring;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rounds;

use std::time::Duration;

use oxublk::{DeviceId, QueueId, Tag};
use serde::{Deserialize, Serialize};

use crate::facts::{Pid, Tid};
use crate::observe::{Observer, Options};

pub use plan::{Cannot, Choice, Chosen, Plan};
pub use render::{outcome as outcome_text, plan as plan_text};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Ends requests of one device.
#[derive(Debug)]
pub struct Rescue {
    observer: Observer,
    choice: Choice,
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The device.
    pub device: DeviceId,
    /// Requests that were ended with EIO.
    pub ended: Vec<Ended>,
    /// Requests that were not ended.
    pub failed: Vec<Failed>,
    /// Requests that are still with a thread which was made to answer, in words.
    pub left: Vec<String>,
    /// What was left in the server's process.
    pub rings: Vec<LeftRing>,
    /// What to do next, in this order.
    pub next: Vec<String>,
}

impl Outcome {
    /// Nothing was done yet.
    const fn of(device: DeviceId) -> Self {
        Self {
            device,
            ended: Vec::new(),
            failed: Vec::new(),
            left: Vec::new(),
            rings: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Whether nothing that was to be ended is still there.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.failed.is_empty() && self.left.is_empty()
    }
}

/// A request that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its queue.
    pub queue: QueueId,
    /// Its tag.
    pub tag: Tag,
    /// What it was, in words; none for one that came after another on the same tag, and was not looked at.
    pub what: Option<String>,
    /// The thread that was made to answer.
    pub tid: Tid,
}

/// A request that was not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its queue.
    pub queue: QueueId,
    /// Its tag.
    pub tag: Tag,
    /// Why not.
    pub why: String,
}

/// A ring that was left in a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRing {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Its descriptor there. Closing it is, for the driver, the death of the server.
    pub fd: i32,
}

impl Rescue {
    /// A rescue that has not looked yet.
    #[must_use]
    pub fn new(choice: Choice) -> Self {
        let options = Options {
            devices: vec![choice.device],
            ..Options::default()
        };
        Self {
            observer: Observer::new(options),
            choice,
        }
    }

    /// Looks twice, and says what would be done. Changes nothing.
    pub fn plan(&mut self) -> Plan {
        let (before, now) = self.observer.look_twice(PAUSE);
        let mut plan = plan::plan(&before, &now, &self.choice);
        if cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) {
            let refuse = |request: Chosen| Cannot {
                queue: Some(request.queue),
                tag: Some(request.tag),
                what: Some(request.what),
                why: "this is known for x86-64 and 64-bit Arm only".to_owned(),
                remedy: format!("end the server: `kill -9 {}`", request.thread.pid),
            };
            let requests = std::mem::take(&mut plan.requests);
            plan.cannot.extend(requests.into_iter().map(refuse));
        }
        sandboxes(&mut plan);
        plan
    }

    /// Does what a plan says, for those of its requests that are still there, and for those that follow them.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub fn run(&mut self, plan: &Plan) -> Outcome {
        rounds::run(&mut self.observer, &self.choice, plan)
    }

    /// Does nothing: no request can be ended on this kind of machine.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn run(&mut self, plan: &Plan) -> Outcome {
        Outcome::of(plan.device)
    }
}

/// A thread in a sandbox may be killed for the system calls that are made in it.
fn sandboxes(plan: &mut Plan) {
    const STRICT: &str = "1";
    let mode = |tid: Tid| {
        let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"))?;
        Some(line.trim().to_owned())
    };
    let mut warned = Vec::new();
    for request in std::mem::take(&mut plan.requests) {
        let (tid, pid) = (request.thread.tid, request.thread.pid);
        let mode = mode(tid).unwrap_or_default();
        if mode == STRICT {
            plan.cannot.push(Cannot {
                queue: Some(request.queue),
                tag: Some(request.tag),
                what: Some(request.what),
                why: format!("thread {tid} is in a sandbox that kills it for any system call but read and write"),
                remedy: format!("end the server: `kill -9 {pid}`"),
            });
            continue;
        }
        if mode == "2" && !warned.contains(&tid) {
            warned.push(tid);
            plan.notes.push(format!(
                "thread {tid} is in a sandbox (seccomp). Its rules may refuse mmap, io_uring_setup or io_uring_enter, and then nothing \
                 is changed; or they may kill process {pid} for them."
            ));
        }
        plan.requests.push(request);
    }
}
