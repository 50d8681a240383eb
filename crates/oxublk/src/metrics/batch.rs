//! What a queue has answered and not yet handed to the driver, to be counted all at once.

use super::OPERATIONS;
use crate::operation::Operation;

/// Answers that are not yet handed to the driver, by operation.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) counts: [Counts; OPERATIONS],
    /// When the requests were reaped.
    pub(super) reaped_ns: u64,
    /// Until when the time is accounted for.
    pub(super) settled_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) errors: u64,
}

impl Batch {
    pub(crate) fn reaped_at(&mut self, now_ns: u64) {
        self.reaped_ns = now_ns;
        self.settled_ns = now_ns;
    }

    /// The time until now is not the disk's.
    pub(crate) fn resumed_at(&mut self, now_ns: u64) {
        self.settled_ns = now_ns;
    }

    /// The last reading of the clock.
    pub(crate) fn settled_ns(&self) -> u64 {
        self.settled_ns
    }

    pub(crate) fn add(&mut self, operation: Operation, bytes: u64, failed: bool) {
        let counts = &mut self.counts[operation.index()];
        counts.requests += 1;
        if failed {
            counts.errors += 1;
        } else {
            counts.bytes += bytes;
        }
    }

    /// How many bytes its requests have moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.counts.iter().map(|counts| counts.bytes).sum()
    }

    pub(super) fn requests(&self) -> u64 {
        self.counts.iter().map(|counts| counts.requests).sum()
    }
}
