//! A request, and what happened to it.

use serde::{Deserialize, Serialize};

use crate::facts::Tid;
use crate::finding::Station;
use crate::words;

use super::event::{Event, Slot, Thread};

/// So many steps of earlier rounds are kept.
const MAX_STEPS: usize = 32;
/// Sent again more often, a request is not merely split.
const MANY_ROUNDS: u32 = 3;

/// A request and what happened to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Where it is; none without probes.
    pub slot: Option<Slot>,
    /// `read`, `write`, …
    pub operation: String,
    /// The first 512-byte sector.
    pub sector: Option<u64>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Who issued it.
    pub issuer: Option<Thread>,
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub issued_ns: u64,
    /// Whether it was under way before tracing began: what happened to it before is not known.
    pub began_before: bool,
    /// Where it was then.
    pub found_at: Option<Station>,
    /// Whether events were lost while it was under way: what is missing may have happened.
    pub holes: bool,
    /// How often it was sent again.
    pub rounds: u32,
    /// What happened, in the order of time. Of a request that goes round and round only the last rounds are kept.
    pub steps: Vec<Step>,
}

/// Something that happened to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Kind {
    /// The driver's work for it ran in this thread.
    Handed {
        /// The thread.
        by: Thread,
    },
    /// The driver ended the server's command, to deliver the request.
    Delivered {
        /// 0, or 1 when the server is asked for a buffer.
        result: i32,
    },
    /// The completion was posted: the server can see it.
    Posted,
    /// The server gave a buffer (`NEED_GET_DATA`).
    GaveBuffer,
    /// The server answered.
    Answered {
        /// In which thread.
        by: Thread,
        /// Bytes, or a negative errno.
        result: i32,
    },
    /// The driver refused that answer.
    Refused {
        /// In which thread it was given.
        by: Thread,
        /// The name of the command.
        command: String,
        /// A negative errno.
        error: i32,
    },
    /// A part of it ended.
    Partly {
        /// So many bytes.
        bytes: u64,
    },
    /// The driver gave it back to the block layer.
    Requeued,
    /// It was issued again.
    IssuedAgain {
        /// What is left of it, in bytes.
        bytes: Option<u64>,
    },
    /// It ended.
    Completed {
        /// 0, or a negative errno.
        error: i32,
    },
    /// Another request took its place: its end was not seen.
    Vanished,
}

impl Followed {
    /// A request that was issued just now.
    pub(super) fn issued(
        event: &Event,
        slot: Option<Slot>,
        operation: &str,
        sector: Option<u64>,
        bytes: u64,
    ) -> Self {
        Self {
            slot,
            operation: operation.to_owned(),
            sector,
            bytes: Some(bytes),
            issuer: Some(event.thread.clone()),
            issued_ns: event.at_ns,
            began_before: false,
            found_at: None,
            holes: false,
            rounds: 0,
            steps: Vec::with_capacity(5),
        }
    }

    /// Whether it was given back, and not issued again yet.
    pub(super) fn rests(&self) -> bool {
        let last = self.steps.last();
        last.is_some_and(|step| step.kind == Kind::Requeued)
    }

    /// The last station that it is known to have reached.
    #[must_use]
    pub fn station(&self) -> Station {
        for step in self.steps.iter().rev() {
            return match step.kind {
                Kind::Handed { .. } | Kind::Delivered { .. } => Station::HandedToTask,
                Kind::Posted | Kind::Refused { .. } => Station::Posted,
                Kind::Answered { .. } | Kind::GaveBuffer => Station::Answered,
                Kind::Requeued => Station::Issued,
                Kind::Partly { .. } => continue,
                Kind::IssuedAgain { .. } => Station::InDriver,
                Kind::Completed { .. } | Kind::Vanished => Station::Completed,
            };
        }
        self.found_at.unwrap_or(Station::InDriver)
    }

    /// When the last thing happened that is known.
    #[must_use]
    pub fn last_ns(&self) -> u64 {
        self.steps.last().map_or(self.issued_ns, |step| step.at_ns)
    }

    /// Whether it is sent again and again.
    #[must_use]
    pub const fn circles(&self) -> bool {
        self.rounds > MANY_ROUNDS
    }

    /// For how long it has made no progress.
    #[must_use]
    pub fn still_ns(&self, now_ns: u64) -> u64 {
        let since_ns = if self.circles() {
            self.issued_ns
        } else {
            self.last_ns()
        };
        now_ns.saturating_sub(since_ns)
    }

    /// How many bytes the server must answer for: what is left of it since it was issued for the last time.
    #[must_use]
    pub fn due_bytes(&self) -> Option<u64> {
        let again = self.steps.iter().rev().find_map(|step| match step.kind {
            Kind::IssuedAgain { bytes } => Some(bytes),
            _ => None,
        });
        again.unwrap_or(self.bytes)
    }

    /// From its issue to its end, when both are known.
    #[must_use]
    pub fn took_ns(&self) -> Option<u64> {
        let step = self.steps.last()?;
        matches!(step.kind, Kind::Completed { .. })
            .then(|| step.at_ns.saturating_sub(self.issued_ns))
    }

    pub(super) fn push(&mut self, at_ns: u64, kind: Kind) {
        if matches!(kind, Kind::IssuedAgain { .. }) {
            self.rounds = self.rounds.saturating_add(1);
            let surplus = self.steps.len().saturating_sub(MAX_STEPS);
            self.steps.drain(..surplus);
        }
        self.steps.push(Step { at_ns, kind });
    }

    /// Of the present round: since it was issued for the last time.
    pub(super) fn round(&self) -> &[Step] {
        let again = |step: &Step| matches!(step.kind, Kind::IssuedAgain { .. } | Kind::Requeued);
        let start = self.steps.iter().rposition(again).map_or(0, |at| at + 1);
        &self.steps[start..]
    }

    pub(super) fn handed_to(&self) -> Option<&Thread> {
        self.steps.iter().rev().find_map(|step| match &step.kind {
            Kind::Handed { by } => Some(by),
            _ => None,
        })
    }

    /// Whether the driver's work in the server's thread has not run for it.
    pub(super) fn waits_for_task(&self) -> bool {
        let delivered = self.steps.is_empty()
            && self
                .found_at
                .is_some_and(|station| station >= Station::Posted);
        let requeued = self
            .steps
            .last()
            .is_some_and(|step| step.kind == Kind::Requeued);
        self.round().is_empty() && !delivered && !requeued
    }
}

/// A command that the driver refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When the command was given.
    pub at_ns: u64,
    /// By whom.
    pub by: Thread,
    /// Its name.
    pub command: String,
    /// The queue and tag that it names.
    pub slot: Slot,
    /// A negative errno.
    pub error: i32,
    /// Whether there was a request at that tag.
    pub has_request: bool,
    /// The thread that the request was handed to: only it may answer.
    pub handed_to: Option<Thread>,
    /// The thread that armed the tag, where that is known.
    pub armed_by: Option<Tid>,
}

/// The kernel's number of an operation in words.
pub(super) fn operation(op: u8) -> &'static str {
    words::operation(op.into()).unwrap_or("other")
}

/// The letters of the kernel's own events in words.
pub(super) fn letters(kind: &str) -> &'static str {
    match kind.chars().find(|letter| *letter != 'F') {
        Some('R') => "read",
        Some('W') => "write",
        Some('D') => "discard",
        None => "flush",
        Some(_) => "other",
    }
}
