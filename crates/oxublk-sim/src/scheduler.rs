//! Every choice that a kernel is free to make, made by the seed.

use crate::rng::Rng;

/// Makes the choices.
#[derive(Debug)]
pub(crate) struct Scheduler {
    rng: Rng,
    spurious_percent: u8,
}

impl Scheduler {
    pub(crate) const fn new(seed: u64, spurious_percent: u8) -> Self {
        Self {
            rng: Rng::new(seed),
            spurious_percent,
        }
    }

    /// Whether a waiting system call comes back with nothing.
    pub(crate) const fn spurious(&mut self) -> bool {
        self.rng.below(100) < self.spurious_percent as usize
    }

    pub(crate) const fn coin(&mut self) -> bool {
        self.rng.below(2) == 0
    }

    /// How many of `most` happen now: often all, often one, sometimes none.
    pub(crate) const fn portion(&mut self, most: usize) -> usize {
        match self.rng.below(4) {
            0 => most,
            1 if most > 0 => 1,
            _ => self.rng.below(most + 1),
        }
    }

    /// One of `among`.
    pub(crate) const fn pick(&mut self, among: usize) -> usize {
        self.rng.below(among)
    }

    /// How long a system call takes.
    pub(crate) const fn call_ns(&mut self) -> u64 {
        200 + self.rng.next() % 800
    }

    pub(crate) const fn garbage(&mut self) -> u64 {
        self.rng.next()
    }
}
