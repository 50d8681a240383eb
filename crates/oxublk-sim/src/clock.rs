//! Virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A clock that stands still until somebody advances it: the model by a little with every system
/// call, a disk by as much as it wants to seem slow. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Lets time pass.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Relaxed);
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
