//! How far a device's queue threads have come: what its owner waits for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counts of the queue threads, and why the first of them failed.
#[derive(Debug, Default)]
pub(super) struct Stand {
    /// Threads whose tags are all with the driver.
    pub(super) armed: usize,
    /// Threads that ended.
    pub(super) ended: usize,
    /// Why a thread failed.
    pub(super) failure: Option<String>,
    /// Somebody wants the device to stop.
    pub(super) asked_to_stop: bool,
    /// A request has come to a device that was idle.
    pub(super) stirred: bool,
}

/// A [`Stand`] that can be waited for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stand: Mutex<Stand>,
    changed: Condvar,
}

impl Progress {
    /// Changes the stand and wakes who waits for it.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Stand) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `done`, for ever.
    pub(super) fn wait(&self, done: impl Fn(&Stand) -> bool) -> MutexGuard<'_, Stand> {
        self.changed
            .wait_while(self.lock(), |stand| !done(stand))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`; none when that took longer than until `end`.
    pub(super) fn wait_until(
        &self,
        end: Instant,
        done: impl Fn(&Stand) -> bool,
    ) -> Option<MutexGuard<'_, Stand>> {
        let limit = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let (guard, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |stand| !done(stand))
            .unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(guard)
    }

    fn lock(&self) -> MutexGuard<'_, Stand> {
        // The stand is valid after each change: a thread that panicked left nothing half done.
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
