//! What follows from what was seen.

use std::fmt;

use oxublk::{DeviceId, QueueId, Tag};
use serde::{Deserialize, Serialize};

use crate::facts::{Gap, Snapshot};

/// What `doctor` says of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this document: 1.
    pub schema: u32,
    /// The worst of the findings.
    pub health: Health,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// Where each request in flight is.
    pub requests: Vec<Located>,
    /// The second of the two looks that this rests on.
    pub snapshot: Snapshot,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing to complain of.
    Healthy,
    /// Something is wrong or slow; no request is known to be stuck.
    Warning,
    /// A request, a device or a command is stuck.
    Stuck,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The evidence fits, and so do other causes.
    Possible,
    /// Nothing else that we know fits as well.
    Likely,
    /// The evidence excludes everything else.
    Certain,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing: stable, for programs.
    pub cause: Cause,
    /// How bad.
    pub health: Health,
    /// How sure.
    pub certainty: Certainty,
    /// Which device; none when it is the host.
    pub device: Option<DeviceId>,
    /// Which queue.
    pub queue: Option<QueueId>,
    /// Which tags.
    pub tags: Vec<Tag>,
    /// The verdict, in one or two sentences.
    pub says: String,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
    /// What to do, in the order to do it.
    pub remedy: Vec<String>,
    /// What not to do now, and what would happen.
    pub not_now: Vec<String>,
}

/// The stations of a request, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Station {
    /// Issued by the block layer, and not with the driver: it waits to be sent, or to be sent again.
    Issued,
    /// In the driver.
    InDriver,
    /// Handed to the server's task, which has not run for it.
    HandedToTask,
    /// The completion is posted, and was not reaped.
    Posted,
    /// Reaped by the server, not answered.
    Reaped,
    /// An answer is written, and the kernel has not taken it; or it was refused.
    Answered,
    /// Completed.
    Completed,
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Issued => "issued",
            Self::InDriver => "in the driver",
            Self::HandedToTask => "handed to the server's task",
            Self::Posted => "completion posted",
            Self::Reaped => "reaped by the server",
            Self::Answered => "answered",
            Self::Completed => "completed",
        })
    }
}

/// Where a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The device.
    pub device: DeviceId,
    /// The queue.
    pub queue: QueueId,
    /// The tag.
    pub tag: Tag,
    /// The last station that it is known to have reached; none where that could not be seen.
    pub station: Option<Station>,
    /// `read`, `write`, …
    pub operation: String,
    /// The first 512-byte sector.
    pub sector: Option<u64>,
    /// Its length in bytes.
    pub bytes: Option<u64>,
    /// Since it was issued, in milliseconds.
    pub age_ms: Option<u64>,
    /// Who waits for it, in words: `dd (pid 4895), in read`.
    pub waiters: Vec<String>,
    /// Whether it is stuck: it was at the same place in both looks, for longer than is healthy.
    pub stuck: bool,
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A kind of fault. The names are stable: programs may rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Cause {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Cause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name for programs: `not_fetched`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

causes! {
    // The host.
    /// The driver is not loaded.
    NoDriver = "no_driver",
    /// io_uring is switched off.
    NoIoUring = "no_io_uring",
    /// The kernel has a defect that bites here.
    KernelDefect = "kernel_defect",
    /// The node of a disk is not its block device: `dd` made a file there.
    NodeIsFile = "node_is_file",
    // Before the device is ready.
    /// A queue, or tags of one, was never armed.
    NotFetched = "not_fetched",
    /// Nothing is armed, and the server waits for START_DEV, which waits for the arming.
    FetchAfterStart = "fetch_after_start",
    /// The encoding of the command's opcode is not the driver's.
    WrongOpcode = "wrong_opcode",
    /// The command's 16 bytes are not at byte 48 of the submission, or the size of the submissions is mistaken.
    WrongPlacement = "wrong_placement",
    /// A fetch was refused for another reason.
    FetchRefused = "fetch_refused",
    /// Fetches are linked or drained: the second waits until the first completes.
    FetchesSerialised = "fetches_serialised",
    /// Submissions were written, and nobody gives them to the kernel.
    NotSubmitted = "not_submitted",
    /// The polling thread of the ring sleeps, and nobody wakes it.
    SqpollAsleep = "sqpoll_asleep",
    // From the driver to the server.
    /// The ring defers task work, and its owner does not enter the kernel.
    DeferredNotEntered = "deferred_not_entered",
    /// The thread that armed the tag is gone; its process lives.
    ArmerGone = "armer_gone",
    /// The thread that armed the tag sleeps where nothing reaches it.
    ArmerUninterruptible = "armer_uninterruptible",
    /// The server waits for its own device.
    OwnDevice = "own_device",
    /// The server is stopped by a signal or a debugger.
    ServerStopped = "server_stopped",
    /// The driver cannot copy into the server's buffer, and tries again for ever.
    BadBuffer = "bad_buffer",
    // In the server.
    /// Completions are posted, and the server does not reap them.
    NotReaped = "not_reaped",
    /// The completion queue overflowed.
    CqOverflow = "cq_overflow",
    /// The completion of a command was suppressed: `IOSQE_CQE_SKIP_SUCCESS`.
    CompletionSwallowed = "completion_swallowed",
    /// The thread that has the request sleeps in a lock.
    HandlerLocked = "handler_locked",
    /// The thread that has the request spins.
    HandlerSpins = "handler_spins",
    /// The thread that has the request waits for something else: a file, a socket, a child.
    HandlerBlocked = "handler_blocked",
    /// The thread is back waiting for requests, and the answer was never sent.
    Forgotten = "forgotten",
    /// The server works; this takes long.
    SlowMedium = "slow_medium",
    // From the server to the driver.
    /// The answer is written, and nobody gives it to the kernel.
    AnswerNotSubmitted = "answer_not_submitted",
    /// The answer came from another thread than the one that armed the tag.
    ForeignThread = "foreign_thread",
    /// The answer names another tag or queue, or is another command than an answer.
    AnswerMisdirected = "answer_misdirected",
    /// The answer was refused for another reason.
    AnswerRefused = "answer_refused",
    /// The answers' results are not bytes: sectors, zero, too many.
    WrongResult = "wrong_result",
    /// The server reads the descriptors at the wrong place or with the wrong stride.
    WrongDescriptors = "wrong_descriptors",
    // Life and death.
    /// The server is gone, and nothing recovers it: the device is left over.
    ServerDead = "server_dead",
    /// The server is gone; requests wait for a new one.
    AwaitsRecovery = "awaits_recovery",
    /// The server is gone; requests fail until a new one comes.
    FailsUntilRecovery = "fails_until_recovery",
    /// The server's process ended, and somebody else keeps `/dev/ublkcN` open or mapped.
    ServerHalfDead = "server_half_dead",
    // Control commands.
    /// A control command waits for a request that the server does not answer.
    ControlStuck = "control_stuck",
    /// The delete of one device holds the driver's lock: no device can be added or deleted.
    DeleteHoldsLock = "delete_holds_lock",
    /// A delete waits for somebody who has the device open.
    HeldOpen = "held_open",
    // What remains.
    /// Requests do not end, and what could be seen does not say why.
    Unexplained = "unexplained",
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
