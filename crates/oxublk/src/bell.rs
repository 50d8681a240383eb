//! Rings when a queue gets a request: for who sleeps as long as there is none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

type Ring = Box<dyn Fn() + Send + Sync>;

/// A queue's bell. Nobody wants it most of the time, and then it costs the queue one load a batch.
#[derive(Default)]
pub(crate) struct Bell {
    is_wanted: AtomicBool,
    ring: OnceLock<Ring>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell")
            .field("is_wanted", &self.is_wanted)
            .finish_non_exhaustive()
    }
}

impl Bell {
    /// What is done when it rings. Set once.
    pub(crate) fn does(&self, ring: Ring) {
        let _ = self.ring.set(ring);
    }

    /// It shall ring, once. No order is promised: a request that came a moment ago, on another processor, may have found the bell
    /// unwanted. Look once more after a while before you rely on it.
    pub(crate) fn want(&self) {
        self.is_wanted.store(true, Relaxed);
    }

    /// A request has come.
    #[inline]
    pub(crate) fn touch(&self) {
        if self.is_wanted.load(Relaxed) {
            self.strike();
        }
    }

    #[cold]
    fn strike(&self) {
        if self.is_wanted.swap(false, Relaxed)
            && let Some(ring) = self.ring.get()
        {
            ring();
        }
    }
}
