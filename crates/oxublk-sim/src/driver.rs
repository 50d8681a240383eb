//! The model from outside: where clients submit, and what they got.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::{ClientRequest, Misfit, Outcome, RequestId};
use crate::clock::Clock;
use crate::memory::Memory;
use crate::ring::SimRing;
use crate::setup::Setup;
use crate::state::State;
use crate::violation::Violation;

/// The driver's side of one queue. Clones are the same driver: one goes into the ring, another
/// stays with the test.
#[derive(Clone, Debug)]
pub struct Driver {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every request that is finished, in the order in which they were.
    pub outcomes: Vec<Outcome>,
    /// Every request that is not.
    pub unfinished: Vec<RequestId>,
    /// Every rule that the server broke, in order.
    pub violations: Vec<Violation>,
    /// How often the server entered the kernel.
    pub enters: Enters,
}

/// Counts system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enters {
    /// Those that waited for something to come back.
    pub waiting: usize,
    /// Of those, how many came back with nothing.
    pub empty: usize,
    /// Those that only handed commands over.
    pub submitting: usize,
}

impl Driver {
    /// A driver as `setup` says, with a clock that starts at 0.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let clock = Clock::default();
        let state = State::new(setup, clock.clone());
        Self {
            state: Arc::new(Mutex::new(state)),
            clock,
        }
    }

    /// The server's end: for the one server that the model has.
    #[must_use]
    pub fn ring(&self) -> SimRing {
        let (depth, memory) = {
            let state = self.lock();
            let setup = state.setup();
            let memory = Memory::new(setup);
            (setup.depth, memory)
        };
        SimRing::new(self.clone(), memory, depth)
    }

    /// The time of this run, for disks that want to be slow.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A client will ask this. When it does, the seed decides; in the order of submission.
    ///
    /// # Errors
    /// A request that no block layer would send.
    pub fn submit(&self, request: ClientRequest) -> Result<RequestId, Misfit> {
        self.lock().submit(request)
    }

    /// What happened so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().report()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
