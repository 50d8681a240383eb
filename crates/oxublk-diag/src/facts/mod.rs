//! What was seen. Plain data: what could not be seen is `None` or empty, and a [`Gap`] says why.
//!
//! A [`Snapshot`] can be written as JSON and read again: what `decide` makes of it can be repeated
//! anywhere, without the host it was taken on.

mod defects;
mod device;
mod host;
mod recorder;
mod ring;
mod task;

use std::collections::BTreeMap;

use oxublk::DeviceId;
use serde::{Deserialize, Serialize};

pub use device::{
    Armer, Block, Buffer, Descriptor, Device, Mapping, Misanswer, Node, Place, Queue, Request,
    RequestState, Server, TagRange, TagView, User, Waiter,
};
pub use host::{Command, ControlWait, Gap, Host, IoUring, Layer};
pub use recorder::{Recorded, Recorder};
pub use ring::{Completion, IoCommand, Ring, Submission};
pub use task::{SysCall, Task, TaskState};

/// A thread, in the pid namespace of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tid(pub u32);

/// A process: its thread group's id, in the pid namespace of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub u32);

impl std::fmt::Display for Tid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One look at a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken: nanoseconds of `CLOCK_MONOTONIC`, for the time between two looks.
    pub taken_ns: u64,
    /// The host.
    pub host: Host,
    /// The ublk devices, in the order of their ids.
    pub devices: Vec<Device>,
    /// All threads that have to do with a device: those of servers, those that wait, io-wq workers.
    pub tasks: BTreeMap<Tid, Task>,
    /// The rings of the servers.
    pub rings: Vec<Ring>,
    /// Control commands that somebody waits for.
    pub control_waits: Vec<ControlWait>,
    /// Threads that wait for a disk, in the order of their ids.
    pub waiters: Vec<Waiter>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

impl Snapshot {
    /// The device of this id.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// The threads of a process.
    pub fn threads(&self, pid: Pid) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(move |task| task.pid == pid)
    }

    /// Whether this layer could be seen at all.
    #[must_use]
    pub fn sees(&self, layer: Layer) -> bool {
        !self.gaps.iter().any(|gap| gap.layer == layer && gap.whole)
    }
}
