//! Everything that the driver knows: tags, requests, what is posted.

use std::collections::VecDeque;
use std::io;

use libc::ENODEV;
use oxublk::Tag;
use oxublk::queue::{Completion, Op, OpId};
use oxublk::sys::IO_RES_OK;

use crate::client::{ClientRequest, Outcome, RequestId};
use crate::clock::Clock;
use crate::command::Command;
use crate::driver::{Enters, Report};
use crate::history::History;
use crate::memory::Memory;
use crate::scheduler::Scheduler;
use crate::setup::{Delivery, Setup};
use crate::violation::Violation;

/// Where a tag is, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TagState {
    /// Not yet fetched.
    Unarmed,
    /// The driver has the server's command.
    Armed,
    /// A request was delivered; the server has not taken the completion.
    Posted,
    /// The server has the request.
    Held,
    /// Came back without a request.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: TagState,
    /// The request that blk-mq gave this tag to.
    pub(crate) request: Option<RequestId>,
}

/// A request and what is known of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) request: ClientRequest,
    /// The history's moment of its arrival.
    pub(crate) began: u64,
    /// When it got its tag, in virtual time.
    pub(crate) issued_ns: u64,
    /// Bytes done by answers in part.
    pub(crate) done: usize,
    pub(crate) deliveries: u32,
    /// Of a read.
    pub(crate) data: Vec<u8>,
    pub(crate) finished: bool,
}

/// Everything behind the ring.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) setup: Setup,
    pub(crate) clock: Clock,
    pub(crate) scheduler: Scheduler,
    pub(crate) history: History,
    pub(crate) slots: Vec<Slot>,
    /// How many tags were fetched.
    pub(crate) fetched: usize,
    pub(crate) entries: Vec<Entry>,
    /// Requests that clients will make.
    pub(crate) to_come: VecDeque<RequestId>,
    /// Requests that wait for a tag.
    pub(crate) queued: VecDeque<RequestId>,
    /// What the server has not taken from the ring.
    pub(crate) posted: VecDeque<Completion>,
    /// Operations under way.
    pub(crate) operations: Vec<(OpId, Op)>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) enters: Enters,
    pub(crate) stopping: bool,
    /// The server was asked to leave: requests that it has not taken may stay unanswered.
    pub(crate) woken: bool,
    /// The server was made to die: any request may stay unanswered.
    pub(crate) killed: bool,
    /// There is no server any more.
    pub(crate) gone: bool,
}

impl State {
    pub(crate) fn new(setup: Setup, clock: Clock) -> Self {
        let slot = || Slot {
            state: TagState::Unarmed,
            request: None,
        };
        Self {
            scheduler: Scheduler::new(setup.seed, setup.spurious_percent),
            history: History::new(setup.sectors),
            slots: (0..setup.depth).map(|_| slot()).collect(),
            fetched: 0,
            entries: Vec::new(),
            to_come: VecDeque::new(),
            queued: VecDeque::new(),
            posted: VecDeque::new(),
            operations: Vec::new(),
            outcomes: Vec::new(),
            violations: Vec::new(),
            enters: Enters::default(),
            stopping: false,
            woken: false,
            killed: false,
            gone: false,
            setup,
            clock,
        }
    }

    pub(crate) const fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) const fn stopping(&self) -> bool {
        self.stopping
    }

    /// Whether every tag was fetched.
    pub(crate) const fn ready(&self) -> bool {
        self.fetched == self.slots.len()
    }

    pub(crate) const fn short_write_is_whole(&self) -> bool {
        self.setup.kernel.short_write_is_whole()
    }

    pub(crate) fn tag_state(&self, tag: Tag) -> Option<TagState> {
        Some(self.slots.get(tag.index())?.state)
    }

    pub(crate) fn request_of(&self, tag: Tag) -> Option<RequestId> {
        self.slots.get(tag.index())?.request
    }

    pub(crate) fn broke(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(crate) fn report(&self) -> Report {
        let unfinished = self.entries.iter().enumerate();
        Report {
            outcomes: self.outcomes.clone(),
            unfinished: unfinished
                .filter(|(_, entry)| !entry.finished)
                .map(|(index, _)| RequestId(index))
                .collect(),
            violations: self.violations.clone(),
            enters: self.enters,
        }
    }
}

/// The server's commands and completions.
impl State {
    /// One system call of the server.
    pub(crate) fn enter(
        &mut self,
        commands: &mut Vec<Command>,
        memory: &mut Memory,
        wait: bool,
    ) -> io::Result<()> {
        self.clock.advance(self.scheduler.call_ns());
        if wait {
            self.enters.waiting += 1;
        } else {
            self.enters.submitting += 1;
        }
        let mut event = self.due();
        // It comes before or after the driver sees what the server had written down.
        if self.scheduler.coin() {
            event.take().map_or(Ok(()), |event| self.happen(event))?;
        }
        for command in commands.drain(..) {
            self.execute(command, memory);
        }
        event.map_or(Ok(()), |event| self.happen(event))?;
        if wait {
            self.wait(memory)
        } else {
            if self.setup.delivery == Delivery::AnyCall {
                self.work(memory);
            }
            Ok(())
        }
    }

    /// The next of what came back, for the server.
    pub(crate) fn take(&mut self) -> Option<Completion> {
        let completion = self.posted.pop_front()?;
        if let Completion::Tag(tag, IO_RES_OK) = completion {
            self.set_state(tag, TagState::Held);
        }
        Some(completion)
    }

    /// A future was woken by another thread.
    pub(crate) fn nudged(&mut self) {
        self.posted.push_back(Completion::Nudged);
    }

    /// The tag is with the driver: for the request that it has already, or for the next.
    pub(crate) fn arm(&mut self, tag: Tag, request: Option<RequestId>, memory: &mut Memory) {
        if self.tag_state(tag) == Some(TagState::Unarmed) {
            self.fetched += 1;
        }
        self.set_state(tag, TagState::Armed);
        if let Some(slot) = self.slots.get_mut(tag.index()) {
            slot.request = request;
        }
        let garbage = self.scheduler.garbage();
        memory.poison(tag, garbage);
    }

    /// The tag comes back without a request, and nothing more comes on it.
    pub(crate) fn come_back(&mut self, tag: Tag) {
        self.set_state(tag, TagState::Gone);
        self.posted.push_back(Completion::Tag(tag, -ENODEV));
    }

    /// The command changes nothing.
    pub(crate) fn refuse(&mut self, tag: Tag, errno: i32, violation: Violation) {
        if self.setup.refuse_fetch != Some((tag, errno)) {
            self.broke(violation);
        }
        self.posted.push_back(Completion::Tag(tag, -errno));
    }

    pub(crate) fn set_state(&mut self, tag: Tag, state: TagState) {
        if let Some(slot) = self.slots.get_mut(tag.index()) {
            slot.state = state;
        }
    }
}
