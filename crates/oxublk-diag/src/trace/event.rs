//! What the kernel tells while tracing, as data.

use oxublk::{QueueId, Tag};
use serde::{Deserialize, Serialize};

use crate::facts::Tid;

/// A tag of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The queue.
    pub queue: QueueId,
    /// The tag.
    pub tag: Tag,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("q{}/t{}", self.queue, self.tag))
    }
}

/// A thread, as the kernel named it at the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id.
    pub tid: Tid,
    /// Its name; none when the kernel had forgotten it.
    pub comm: Option<String>,
}

impl std::fmt::Display for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.comm {
            Some(comm) => write!(f, "{comm}/{}", self.tid),
            None => write!(f, "{}", self.tid),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: nanoseconds of `CLOCK_MONOTONIC`. The kernel prints whole microseconds.
    pub at_ns: u64,
    /// In which thread.
    pub thread: Thread,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The block layer gave a request to the driver: `block_rq_issue`.
    Issued {
        /// The address of the request: it stays the same when the request is sent again.
        request: u64,
        /// Where it went.
        slot: Slot,
        /// The kernel's number of the operation, the lowest byte of `cmd_flags`.
        op: u8,
        /// The first 512-byte sector; none where it has no meaning.
        sector: Option<u64>,
        /// Its length.
        bytes: u64,
    },
    /// The driver's work ran in the thread that it takes for the server's. Up to 6.14 one run serves all requests of the
    /// queue that wait: then there is no tag.
    Handed {
        /// The queue.
        queue: QueueId,
        /// The tag.
        tag: Option<Tag>,
    },
    /// The driver ended a command of the server: with 0, to deliver a request; with an error, to refuse or cancel.
    Ended {
        /// The address of the command.
        command: u64,
        /// The slot that the command was armed for, where the kernel keeps that.
        slot: Option<Slot>,
        /// The result.
        result: i32,
    },
    /// io_uring posted a completion: `io_uring_complete`.
    Posted {
        /// The address of the command.
        command: u64,
    },
    /// The driver was given a command on `/dev/ublkcN`.
    Command(Command),
    /// It was refused at once.
    Refused {
        /// The address of the command.
        command: u64,
        /// What the driver returned: a negative errno.
        result: i32,
    },
    /// The request ended, or a part of it: `block_rq_complete`.
    Completed {
        /// The address of the request.
        request: u64,
        /// Where it was.
        slot: Option<Slot>,
        /// 0, or a negative errno.
        error: i32,
        /// How much of it ended.
        bytes: u64,
        /// How much of it was left before.
        left: u64,
    },
    /// The driver gave the request back, to be sent again: `block_rq_requeue`.
    Requeued {
        /// The address of the request.
        request: u64,
    },
    /// Without probes: the block layer gave a request to the driver.
    PlainIssued {
        /// The letters of the kernel: `R`, `WS`, `FF`.
        kind: String,
        /// The first sector.
        sector: u64,
        /// Its length in bytes.
        bytes: u64,
    },
    /// Without probes: a request ended, or was given back.
    PlainCompleted {
        /// The letters of the kernel.
        kind: String,
        /// The first sector.
        sector: u64,
        /// 0, or a negative errno.
        error: i32,
        /// Whether it was given back, to be sent again.
        requeued: bool,
    },
    /// The kernel had no room for so many events.
    Lost {
        /// How many; none when the kernel does not say.
        count: Option<u64>,
    },
}

/// A command on `/dev/ublkcN`, as the driver got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its address.
    pub command: u64,
    /// `cmd_op`.
    pub op: u32,
    /// `issue_flags` of io_uring.
    pub issue_flags: u32,
    /// The 16 bytes at byte 48 of the submission.
    pub payload: [u8; 16],
    /// More of the submission, with `--raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Raw>,
}

/// What else of a submission is worth comparing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    /// Bytes 0 to 7: opcode, flags, priority, descriptor.
    pub head: [u8; 8],
    /// Bytes 8 to 15: `cmd_op`, and four bytes that must be zero.
    pub operation: [u8; 8],
    /// Bytes 16 to 23: `addr`.
    pub address: u64,
    /// Bytes 64 to 79: the beginning of the second half of a submission of 128 bytes, else of the next submission.
    pub at_64: Option<[u8; 16]>,
    /// The 16 bytes at `addr`, if there is memory.
    pub pointed_at: Option<[u8; 16]>,
}

impl Command {
    /// The command is not a new one: io_uring takes an old one back.
    pub const CANCEL: u32 = 1 << 11;

    /// The number of the command: 0x20 for FETCH_REQ, 0x21 for COMMIT_AND_FETCH_REQ.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.op.to_le_bytes()[0]
    }

    /// Whether it answers a request.
    #[must_use]
    pub const fn is_commit(&self) -> bool {
        self.number() == 0x21
    }

    /// Whether it arms a tag for the first time.
    #[must_use]
    pub const fn is_fetch(&self) -> bool {
        self.number() == 0x20
    }

    /// Its name, as in the kernel's header without prefix.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.number() {
            0x20 => "FETCH_REQ",
            0x21 => "COMMIT_AND_FETCH_REQ",
            0x22 => "NEED_GET_DATA",
            0x23 => "REGISTER_IO_BUF",
            0x24 => "UNREGISTER_IO_BUF",
            0x25 => "PREP_IO_CMDS",
            0x26 => "COMMIT_IO_CMDS",
            0x27 => "FETCH_IO_CMDS",
            _ => "an unknown command",
        }
    }

    /// The queue and tag that it names.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        let [q0, q1, t0, t1, ..] = self.payload;
        Slot {
            queue: QueueId(u16::from_le_bytes([q0, q1])),
            tag: Tag(u16::from_le_bytes([t0, t1])),
        }
    }

    /// The answer: bytes, or a negative errno.
    #[must_use]
    pub const fn result(&self) -> i32 {
        let [_, _, _, _, a, b, c, d, ..] = self.payload;
        i32::from_le_bytes([a, b, c, d])
    }

    /// The buffer's address.
    #[must_use]
    pub const fn address(&self) -> u64 {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = self.payload;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
