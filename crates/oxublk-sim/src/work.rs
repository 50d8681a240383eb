//! What the driver does while the server waits: deliver, give tags back, let time pass.

use std::io;

use oxublk::Tag;
use oxublk::queue::Completion;
use oxublk::sys::{IO_RES_OK, IoFlags, op};

use crate::event::Event;
use crate::history;
use crate::memory::Memory;
use crate::setup::StopOrder;
use crate::state::{Slot, State, TagState};
use crate::violation::Violation;

/// What descriptors show as the address of a tag's buffer: nothing that could be used.
const SHOWN_ADDRESS: u64 = 0x7f00_dead_0000;

impl State {
    pub(crate) fn wait(&mut self, memory: &mut Memory) -> io::Result<()> {
        if self.scheduler.spurious() {
            self.enters.empty += usize::from(self.posted.is_empty());
            return Ok(());
        }
        loop {
            self.work(memory);
            if !self.posted.is_empty() {
                return Ok(());
            }
            self.idle()?;
        }
    }

    /// The driver does what there is to do, or some of it.
    pub(crate) fn work(&mut self, memory: &mut Memory) {
        self.operate(memory);
        self.arrive(0);
        self.assign_tags();
        let mut ready = self.deliverable();
        for _ in 0..self.scheduler.portion(ready.len()) {
            let tag = ready.swap_remove(self.scheduler.pick(ready.len()));
            self.deliver(tag, memory);
        }
        let mut idle = self.returnable();
        for _ in 0..self.scheduler.portion(idle.len()) {
            let tag = idle.swap_remove(self.scheduler.pick(idle.len()));
            self.come_back(tag);
        }
    }

    pub(crate) fn deliver(&mut self, tag: Tag, memory: &mut Memory) {
        let Some(id) = self.request_of(tag) else {
            return;
        };
        let seed = self.setup.seed;
        let entry = self.entry(id);
        entry.deliveries += 1;
        let (request, done) = (entry.request, entry.done);
        let mut descriptor = request.descriptor(done, SHOWN_ADDRESS);
        let shared = request.has_data() && self.is_shared();
        if let Some(place) = memory.share(tag, shared) {
            descriptor.op_flags |= IoFlags::SHMEM_ZC.bits();
            descriptor.addr = place;
        }
        memory.describe(tag, descriptor);
        if request.op == op::WRITE {
            let mut data = vec![0; request.bytes() - done];
            let sectors = descriptor.start_sector..;
            for (bytes, sector) in data.chunks_mut(history::SECTOR).zip(sectors) {
                history::fill_sector(bytes, history::stamp(seed, id, sector));
            }
            memory.give(tag, &data);
        }
        self.set_state(tag, TagState::Posted);
        self.posted.push_back(Completion::Tag(tag, IO_RES_OK));
    }

    /// Whether a client has a request's data in shared memory.
    fn is_shared(&mut self) -> bool {
        let percent = usize::from(self.setup.shared_percent);
        // What is not asked for does not change what the seed decides.
        percent > 0 && self.scheduler.pick(100) < percent
    }

    /// The armed tags that have a request.
    pub(crate) fn deliverable(&self) -> Vec<Tag> {
        self.tags_that(|slot| slot.state == TagState::Armed && slot.request.is_some())
    }

    /// The tags that a device that is being stopped can give back now.
    fn returnable(&self) -> Vec<Tag> {
        let busy = self.slots.iter().any(|slot| slot.request.is_some());
        let waits = busy && self.setup.stop_order == StopOrder::Drained;
        if !self.stopping || !self.queued.is_empty() || waits {
            return Vec::new();
        }
        self.tags_that(|slot| slot.state == TagState::Armed && slot.request.is_none())
    }

    /// The tags that could be given to a request.
    pub(crate) fn free_tags(&self) -> Vec<Tag> {
        self.tags_that(|slot| slot.request.is_none() && slot.state == TagState::Armed)
    }

    fn tags_that(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Tag> {
        let tags = self.slots.iter().zip(0..);
        tags.filter(|(slot, _)| wanted(slot))
            .map(|(_, tag)| Tag(tag))
            .collect()
    }

    /// Nothing came of it: time passes until something else happens, if anything is left.
    fn idle(&mut self) -> io::Result<()> {
        let has_free_tag = !self.free_tags().is_empty();
        let assignable = has_free_tag && !self.queued.is_empty();
        let operating = !self.operations.is_empty();
        if operating
            || assignable
            || !self.deliverable().is_empty()
            || !self.returnable().is_empty()
        {
            return Ok(()); // The seed put it off.
        }
        if self.ready() && has_free_tag && !self.stopping && !self.to_come.is_empty() {
            self.arrive(1);
            return Ok(());
        }
        if !self.setup.plan.is_empty() {
            let (_, event) = self.setup.plan.remove(0);
            return self.happen(event);
        }
        if self.ready() && !self.stopping {
            return self.happen(Event::Stop);
        }
        let waiting = self.slots.iter().filter_map(|slot| slot.request);
        self.violations.push(Violation::Hang(waiting.collect()));
        Err(io::Error::other("nothing will ever come back"))
    }
}
