//! Which tags have something to do, and how another thread says so.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use crate::id::Tag;

/// Ends the ring's wait: by whoever the queue's ring is.
type Nudge = Box<dyn Fn() + Send + Sync>;

/// The wake-ups of a queue's tags. They come from any thread; the queue's thread takes them.
#[derive(Default)]
pub(crate) struct Wakeups {
    /// A bit a tag.
    words: Box<[AtomicU64]>,
    /// Whether there may be one.
    any: AtomicBool,
    /// Whether the queue's thread waits in the kernel, or is about to: then it must be nudged, once.
    asleep: AtomicBool,
    nudge: OnceLock<Nudge>,
}

impl std::fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakeups")
            .field("any", &self.any)
            .field("asleep", &self.asleep)
            .finish_non_exhaustive()
    }
}

/// Of one tag.
struct OfTag {
    wakeups: Arc<Wakeups>,
    tag: Tag,
}

impl Wake for OfTag {
    fn wake(self: Arc<Self>) {
        self.wakeups.wake(self.tag);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakeups.wake(self.tag);
    }
}

impl Wakeups {
    pub(crate) fn new(depth: u16) -> Arc<Self> {
        let words = usize::from(depth).div_ceil(64);
        Arc::new(Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            ..Self::default()
        })
    }

    /// How the queue's thread is nudged.
    pub(crate) fn nudge_by(&self, nudge: Nudge) {
        // Set once, when the queue is made.
        let _ = self.nudge.set(nudge);
    }

    pub(crate) fn waker(self: &Arc<Self>, tag: Tag) -> Waker {
        let wakeups = Arc::clone(self);
        Waker::from(Arc::new(OfTag { wakeups, tag }))
    }

    fn wake(&self, tag: Tag) {
        if let Some(word) = self.words.get(tag.index() / 64) {
            word.fetch_or(1 << (tag.index() % 64), SeqCst);
        }
        self.any.store(true, SeqCst);
        // Whoever finds it asleep wakes it, and no one after that: one wake-up for many answers.
        if self.asleep.swap(false, SeqCst)
            && let Some(nudge) = self.nudge.get()
        {
            nudge();
        }
    }

    /// The queue's thread is about to wait; false if it must not, since a wake-up has come.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        if self.any.load(SeqCst) {
            self.asleep.store(false, SeqCst);
            return false;
        }
        true
    }

    /// It waits no longer.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Relaxed);
    }

    /// Takes the wake-ups that have come.
    pub(crate) fn take(&self, mut each: impl FnMut(Tag)) {
        if !self.any.load(Relaxed) || !self.any.swap(false, SeqCst) {
            return;
        }
        for (word, first) in self.words.iter().zip((0u16..).step_by(64)) {
            let mut bits = word.swap(0, SeqCst);
            while bits != 0 {
                let bit = u16::try_from(bits.trailing_zeros()).unwrap_or(0);
                each(Tag(first + bit));
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn taken(wakeups: &Wakeups) -> Vec<u16> {
        let mut tags = Vec::new();
        wakeups.take(|tag| tags.push(tag.0));
        tags
    }

    #[test]
    fn tags_are_woken_once_however_often_they_were() {
        let wakeups = Wakeups::new(130);
        for tag in [129, 0, 64, 0] {
            wakeups.waker(Tag(tag)).wake();
        }
        assert_eq!(taken(&wakeups), [0, 64, 129]);
        assert_eq!(taken(&wakeups), []);
    }

    #[test]
    fn a_queue_that_sleeps_is_nudged_once_for_many_wakeups_and_one_that_does_not_never() {
        let wakeups = Wakeups::new(4);
        let nudges = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&nudges);
        wakeups.nudge_by(Box::new(move || {
            count.fetch_add(1, Relaxed);
        }));
        let wakers = [0, 1, 2].map(|tag| wakeups.waker(Tag(tag)));
        wakers[0].wake_by_ref();
        assert_eq!(nudges.load(Relaxed), 0, "awake");
        assert!(!wakeups.fall_asleep(), "a wake-up has come before");
        assert_eq!(taken(&wakeups), [0]);
        assert!(wakeups.fall_asleep());
        for waker in &wakers {
            waker.wake_by_ref();
        }
        assert_eq!(nudges.load(Relaxed), 1);
        wakeups.awake();
        assert_eq!(taken(&wakeups), [0, 1, 2]);
    }
}
