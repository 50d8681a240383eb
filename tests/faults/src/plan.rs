//! How a server behaves: the right way, and the places where a fault strikes.

use std::io;
use std::ops::ControlFlow;

use oxublk_sys::{Features, MIN_IO_DESC_SIZE};

use crate::ring::{Entry, Setup};
use crate::server::{self, Command, Queue, Request};

/// The byte of the disk whose request most faults wait for. Nothing reads it that was not told to.
pub(crate) const TRIGGER_BYTE: u64 = 8 << 20;

/// A step of a queue's thread.
pub(crate) type Step = fn(&Queue) -> io::Result<()>;

/// What a server does at each point.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) features: Features,
    pub(crate) ring: Setup,
    /// Numbers its commands as servers did before 6.4.
    pub(crate) legacy: bool,
    /// Gives up `CAP_SYS_ADMIN` before it makes the device.
    pub(crate) unprivileged: bool,
    /// Bytes from one descriptor to the next.
    pub(crate) descriptor_stride: usize,
    /// Which queue's descriptors a queue maps.
    pub(crate) descriptors_of: fn(u16) -> u16,
    /// START_DEV comes first, and the queues' arming after it.
    pub(crate) start_first: bool,
    /// What the device waits for, when it never gets ready.
    pub(crate) never_ready: Option<&'static str>,
    /// Leaves a process behind that keeps the device.
    pub(crate) holder: Option<Holder>,
    /// How a command is laid out in an entry.
    pub(crate) encode: fn(&Queue, &Command) -> Entry,
    /// Arms the tags.
    pub(crate) arm: Step,
    /// Hands over what was written and waits.
    pub(crate) wait: Step,
    /// Serves a request: its result, or none when it is dropped.
    pub(crate) handle: fn(&Queue, &Request) -> io::Result<Option<i32>>,
    /// Answers a request.
    pub(crate) answer: fn(&Queue, &Request, i32) -> io::Result<()>,
    /// What comes when the trigger's request was answered, and the kernel has the answer.
    pub(crate) after: fn(&Queue) -> io::Result<ControlFlow<()>>,
    /// A fault's own parts: what a delivery fault does after the trigger,
    pub(crate) then: Step,
    /// how the trigger's request is handled,
    pub(crate) special: fn(&Queue, &Request) -> io::Result<Option<i32>>,
    /// what is changed in the trigger's answer,
    pub(crate) misdirect: fn(&Queue, &mut Command),
    /// and in the results beyond the trigger.
    pub(crate) result: fn(i32) -> i32,
}

/// What a process that outlives its server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// `/dev/ublkcN`, open.
    Descriptor,
    /// A mapping of it.
    Mapping,
}

impl Plan {
    /// A server that does everything right.
    pub(crate) const RIGHT: Self = Self {
        queues: 1,
        depth: 8,
        features: Features::empty(),
        ring: Setup::PLAIN,
        legacy: false,
        unprivileged: false,
        descriptor_stride: MIN_IO_DESC_SIZE as usize,
        descriptors_of: |queue| queue,
        start_first: false,
        never_ready: None,
        holder: None,
        encode: server::encode,
        arm: server::arm,
        wait: server::wait,
        handle: server::handle,
        answer: server::answer,
        after: |_| Ok(ControlFlow::Continue(())),
        then: |_| Ok(()),
        special: server::handle,
        misdirect: |_, _| {},
        result: |result| result,
    };
}
