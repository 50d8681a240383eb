//! The server serves: one small step of one thread at a time, in the order that the seed says.

use oxublk::Tag;

use super::queue::{READ_ONLY, UNMAPPED};
use super::uring::{Entry, FIXED_FILE, Payload, SKIP_SUCCESS};
use super::{Does, Fault, Host, Life, WORKER};

impl Host {
    /// The queue's thread does something, if it does anything.
    pub(super) fn act(&mut self, queue: usize) {
        if self.life == Life::Starting || self.strikes(queue) {
            return;
        }
        if self.fault_of(queue).is_some_and(|fault| !fault.goes_on()) {
            return;
        }
        let tid = self.queues[queue].tid;
        match self.does(tid) {
            Some(Does::WaitsForRing | Does::Polls) => self.wait(queue, tid),
            Some(Does::Runs) => self.serve(queue, tid),
            _ => {}
        }
    }

    fn wait(&mut self, queue: usize, tid: u32) {
        let enters = self.does(tid) == Some(Does::WaitsForRing);
        self.work(queue, enters, false);
        if enters {
            self.queues[queue].ring.flush();
        }
        let spurious = self.rng.below(100) == 0;
        let answers = !self.queues[queue].held.is_empty() && self.rng.below(4) == 0;
        if spurious || answers || self.queues[queue].ring.unreaped() > 0 {
            self.set(tid, Does::Runs);
        }
    }

    fn serve(&mut self, queue: usize, tid: u32) {
        match self.rng.below(7) {
            0..=2 => {
                self.queues[queue].reap();
            }
            3..=4 => self.answer(queue),
            5 => self.submit(queue, tid),
            _ => self.submit_and_wait(queue, tid),
        }
    }

    fn submit_and_wait(&mut self, queue: usize, tid: u32) {
        self.submit(queue, tid);
        if self.fault_of(queue) == Some(Fault::Overflows) {
            if self.queues[queue].ring.unreaped() == 0 {
                self.set(tid, Does::Polls);
            }
            return;
        }
        self.work(queue, true, false);
        self.queues[queue].ring.flush();
        // With requests in hand only when something else wakes it: a helper, another operation.
        let in_hand = !self.queues[queue].held.is_empty() && self.rng.below(3) != 0;
        if self.queues[queue].ring.unreaped() == 0 && !in_hand {
            self.set(tid, Does::WaitsForRing);
        }
    }

    fn submit(&mut self, queue: usize, tid: u32) {
        let fault = self.fault_of(queue);
        let keeps = matches!(
            fault,
            Some(Fault::AnswersNotSubmitted | Fault::AnswersIntoOwnedRing)
        );
        if !keeps {
            let kernel = self.plan.kernel;
            self.queues[queue].submit(tid, false, kernel);
        }
    }

    /// One of the requests in hand is answered.
    pub(super) fn answer(&mut self, queue: usize) {
        let count = self.queues[queue].held.len();
        // What comes back again and again takes its turn.
        let at = match self.fault_of(queue) {
            Some(fault) if fault.comes_back() => 0,
            _ => self.rng.below(count),
        };
        let Some(tag) = self.queues[queue].held.get(at).copied() else {
            return;
        };
        let fault = self
            .fault_of(queue)
            .filter(|fault| !(fault.is_single() && self.done));
        let second = fault == Some(Fault::AnswersFromAnotherRing);
        let entry = self.answer_entry(queue, tag, fault);
        let (tid, kernel) = (self.queues[queue].tid, self.plan.kernel);
        if !self.queues[queue].ring_mut(second).write(&entry) {
            self.submit(queue, tid);
            return;
        }
        self.queues[queue].held.remove(at);
        if queue == self.victim {
            self.answered += 1;
        }
        let foreign = matches!(
            fault,
            Some(Fault::AnswersFromAnotherThread | Fault::AnswersFromAnotherRing)
        );
        if foreign {
            self.queues[queue].submit(WORKER, second, kernel);
            while self.queues[queue].second.reap().is_some() {}
        }
        self.done |= fault.is_some();
    }

    fn answer_entry(&mut self, queue: usize, tag: Tag, fault: Option<Fault>) -> Entry {
        let (left, is_write) = self.queues[queue].asked(tag);
        let mut entry = Entry {
            flags: if self.style.fixed_file { FIXED_FILE } else { 0 },
            op: self.opcode(0x21),
            user_data: self.user_data(tag.0),
            queue: self.queues[queue].id,
            tag: tag.0,
            result: left,
            address: self.queues[queue].address(tag.0),
            at: Payload::Right,
        };
        match fault {
            Some(Fault::BufferUnmapped) => entry.address = UNMAPPED,
            Some(Fault::BufferReadOnly) => entry.address = READ_ONLY,
            Some(Fault::AsksForSilence) => entry.flags |= SKIP_SUCCESS,
            Some(Fault::AnswersWithoutAddress) => entry.address = 0,
            Some(Fault::AnswersWithFetch) => entry.op = self.opcode(0x20),
            Some(Fault::AnswersAnotherQueue) => {
                entry.queue = (entry.queue + 1) % self.plan.queues;
            }
            Some(Fault::AnswersAnotherTag) => {
                let other = self.free_tag(queue).unwrap_or(Tag(entry.tag));
                entry.tag = other.0;
                entry.user_data = self.user_data(other.0);
            }
            Some(Fault::ResultsInSectors) if is_write => entry.result = left / 512,
            Some(Fault::ResultsZero) if is_write => entry.result = 0,
            _ => {}
        }
        entry
    }
}
