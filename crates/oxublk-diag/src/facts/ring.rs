//! An io_uring of a server.

use oxublk::{DeviceId, QueueId, Tag};
use serde::{Deserialize, Serialize};

use super::{Pid, Tid};

/// One ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The process that has it open.
    pub pid: Option<Pid>,
    /// Its descriptor there; none when it is only registered.
    pub fd: Option<i32>,
    /// What tells it from others: the address of the kernel's structure.
    pub address: Option<u64>,
    /// Entries of the submission queue.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// Submissions that the kernel has taken.
    pub sq_head: u32,
    /// Submissions that the server has written.
    pub sq_tail: u32,
    /// Completions that the server has reaped.
    pub cq_head: u32,
    /// Completions that the kernel has posted.
    pub cq_tail: u32,
    /// Completions that found no room: those that wait outside the queue.
    pub overflowed: u32,
    /// Completions that were lost.
    pub dropped: u32,
    /// The flags of `io_uring_setup`.
    pub setup_flags: Option<u32>,
    /// The flags that the kernel shows in the submission ring: `IORING_SQ_NEED_WAKEUP` and others.
    pub sq_flags: Option<u32>,
    /// The thread of the kernel that polls for submissions.
    pub sqpoll: Option<Tid>,
    /// The only thread that may use it: of `IORING_SETUP_SINGLE_ISSUER`.
    pub owner: Option<Tid>,
    /// Threads that have submitted to it, and live.
    pub submitters: Vec<Tid>,
    /// Whether task work is pending that only the owner's `io_uring_enter` with `GETEVENTS` runs.
    pub deferred_work: Option<bool>,
    /// Queues whose armed tags are in this ring, by the driver's structures.
    pub serves: Vec<(DeviceId, QueueId)>,
    /// The newest submissions, the oldest of them first, those that the kernel has not taken included. The
    /// memory of a ring is overwritten only when it comes round: up to one round of the past is there.
    pub submissions: Vec<Submission>,
    /// The newest completions, the oldest of them first, those that were not reaped included.
    pub completions: Vec<Completion>,
}

impl Ring {
    /// Bits of [`setup_flags`](Self::setup_flags).
    pub const SETUP_SQPOLL: u32 = 1 << 1;
    /// See [`SETUP_SQPOLL`](Self::SETUP_SQPOLL).
    pub const SETUP_COOP_TASKRUN: u32 = 1 << 8;
    /// See [`SETUP_SQPOLL`](Self::SETUP_SQPOLL).
    pub const SETUP_SQE128: u32 = 1 << 10;
    /// See [`SETUP_SQPOLL`](Self::SETUP_SQPOLL).
    pub const SETUP_CQE32: u32 = 1 << 11;
    /// See [`SETUP_SQPOLL`](Self::SETUP_SQPOLL).
    pub const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
    /// See [`SETUP_SQPOLL`](Self::SETUP_SQPOLL).
    pub const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
    /// Bit of [`sq_flags`](Self::sq_flags): the polling thread sleeps.
    pub const SQ_NEED_WAKEUP: u32 = 1 << 0;

    /// Whether a set-up flag is known to be there.
    #[must_use]
    pub fn has(&self, setup_flag: u32) -> bool {
        self.setup_flags
            .is_some_and(|flags| flags & setup_flag != 0)
    }

    /// Submissions that the server has written and the kernel has not taken.
    #[must_use]
    pub const fn unsubmitted(&self) -> u32 {
        self.sq_tail.wrapping_sub(self.sq_head)
    }

    /// The completion of a submission, as far as the ring's memory has it. Of several commands with one `user_data`, each
    /// newer one has a newer completion.
    #[must_use]
    pub fn completion_of(&self, submission: &Submission) -> Option<&Completion> {
        let same = |user_data: u64| user_data == submission.user_data;
        let newer = self
            .submissions
            .iter()
            .rev()
            .take_while(|other| other.position != submission.position)
            .filter(|other| other.taken && same(other.user_data))
            .count();
        self.completions
            .iter()
            .rev()
            .filter(|completion| same(completion.user_data))
            .nth(newer)
    }

    /// The result of a submission that was refused, as far as the ring's memory has it.
    #[must_use]
    pub fn refusal_of(&self, submission: &Submission) -> Option<i32> {
        let completion = self.completion_of(submission)?;
        completion.is_refusal().then_some(completion.result)
    }

    /// Completions that the kernel has posted and the server has not reaped.
    #[must_use]
    pub const fn unreaped(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.cq_head)
    }
}

/// An entry of the submission queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Its position: the value of the queue's tail when it was written.
    pub position: u32,
    /// Whether the kernel has taken it.
    pub taken: bool,
    /// The opcode of io_uring: 46 is `URING_CMD`.
    pub opcode: u8,
    /// `IOSQE_*`.
    pub flags: u8,
    /// The descriptor, or the index of a registered file.
    pub fd: i32,
    /// The ublk device, when the descriptor is one's `/dev/ublkcN`.
    pub device: Option<DeviceId>,
    /// What the server recognises its completion by.
    pub user_data: u64,
    /// The ublk command in it, decoded where the driver looks for it; for `URING_CMD` only.
    pub command: Option<IoCommand>,
    /// The entry as it lies in memory: 64 bytes, or 128.
    pub bytes: Vec<u8>,
}

impl Submission {
    /// `IORING_OP_URING_CMD`.
    pub const URING_CMD: u8 = 46;
    /// Bits of [`flags`](Self::flags).
    pub const FIXED_FILE: u8 = 1 << 0;
    /// See [`FIXED_FILE`](Self::FIXED_FILE).
    pub const IO_DRAIN: u8 = 1 << 1;
    /// See [`FIXED_FILE`](Self::FIXED_FILE).
    pub const IO_LINK: u8 = 1 << 2;
    /// See [`FIXED_FILE`](Self::FIXED_FILE).
    pub const IO_HARDLINK: u8 = 1 << 3;
    /// See [`FIXED_FILE`](Self::FIXED_FILE).
    pub const ASYNC: u8 = 1 << 4;
    /// See [`FIXED_FILE`](Self::FIXED_FILE).
    pub const CQE_SKIP_SUCCESS: u8 = 1 << 6;
}

/// A command on `/dev/ublkcN`: byte 8 and bytes 48 to 63 of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoCommand {
    /// `cmd_op`: `UBLK_U_IO_FETCH_REQ` is 0xc0107520.
    pub op: u32,
    /// The queue.
    pub queue: QueueId,
    /// The tag.
    pub tag: Tag,
    /// The answer: bytes, or a negative errno.
    pub result: i32,
    /// The buffer's address.
    pub address: u64,
}

impl IoCommand {
    /// The number of the command in `op`: 0x20 for FETCH_REQ, 0x21 for COMMIT_AND_FETCH_REQ.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.op & 0xff
    }

    /// Whether it arms a tag for the first time.
    #[must_use]
    pub const fn is_fetch(&self) -> bool {
        self.number() == 0x20
    }

    /// Whether it answers a request.
    #[must_use]
    pub const fn is_commit(&self) -> bool {
        self.number() == 0x21
    }
}

/// An entry of the completion queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Its position: the value of the queue's tail when it was posted.
    pub position: u32,
    /// Whether the server has reaped it.
    pub reaped: bool,
    /// That of the submission.
    pub user_data: u64,
    /// The result.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// Whether it says that a command was refused. `-ENODEV` is none: so the driver gives commands back at the end.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        const ENODEV: i32 = -19;
        self.result < 0 && self.result != ENODEV
    }
}
