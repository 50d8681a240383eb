//! Events in the order of time.
//!
//! Each processor has its own buffer, and an event is seen only when it is written completely: one of another processor that
//! is a little younger may be read first. So events wait a moment before they are used.

use std::collections::BTreeMap;

use super::event::Event;

/// How long an event may take to be written: a processor of a virtual machine can be away in the middle.
pub const PATIENCE_NS: u64 = 50_000_000;

/// Puts events in order.
#[derive(Debug, Default)]
pub struct Order {
    waiting: BTreeMap<(u64, u64), Event>,
    count: u64,
}

impl Order {
    /// Takes an event. Those of the same time stay in the order in which they were read.
    pub fn push(&mut self, event: Event) {
        self.count += 1;
        self.waiting.insert((event.at_ns, self.count), event);
    }

    /// The events that are older.
    pub fn before(&mut self, ns: u64) -> impl Iterator<Item = Event> + use<> {
        let rest = self.waiting.split_off(&(ns, 0));
        std::mem::replace(&mut self.waiting, rest).into_values()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
