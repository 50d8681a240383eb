//! The server fetches.

use super::fault::When;
use super::uring::{DRAIN, Entry, FIXED_FILE, LINK, Payload};
use super::{Control, Does, Fault, Host, Life, WORKER};

impl Host {
    /// Every queue's thread fetches its tags; then the device is started, if all of them are armed.
    pub(super) fn arm(&mut self) {
        if self.plan.fault == Some(Fault::FetchedByTwo) {
            self.hire();
        }
        for queue in 0..self.queues.len() {
            self.fetch(queue, usize::MAX);
        }
        let now = self.clock.now_ns();
        if self.queues.iter().all(|queue| queue.state().ready()) {
            self.life = Life::Live;
        } else {
            self.controls.push((Control::Start, now));
            self.idle_threads();
        }
        let always = self
            .plan
            .fault
            .is_some_and(|fault| fault.when() == When::Always);
        self.struck |= always;
    }

    /// The server has come as far as its seed says, and goes on soon: `START_DEV` is not sent yet.
    pub fn arm_in_part(&mut self) {
        for queue in 0..self.queues.len() {
            let most = self.rng.below(usize::from(self.plan.depth));
            self.fetch(queue, most);
            if self.rng.below(2) == 0 {
                let tag = u16::try_from(most).unwrap_or_default();
                let entry = self.fetch_entry(queue, tag, None);
                self.queues[queue].ring.write(&entry);
            }
        }
    }

    fn fetch(&mut self, queue: usize, most: usize) {
        let depth = self.plan.depth;
        let fault = self.arming_fault(queue);
        let skipped = match fault {
            Some(Fault::QueueNeverFetched | Fault::StartedFirst) => 0..depth,
            Some(Fault::TagsNeverFetched) => self.some_tags(),
            _ => 0..0,
        };
        let tid = self.queues[queue].tid;
        for tag in (0..depth).take(most) {
            if skipped.contains(&tag) {
                continue;
            }
            let entry = self.fetch_entry(queue, tag, fault);
            if !self.queues[queue].ring.write(&entry) {
                self.submit_fetches(queue, tid, fault);
                self.queues[queue].ring.write(&entry);
            }
            if fault == Some(Fault::FetchedByTwo) && tag == 0 {
                self.queues[queue].submit(WORKER, false, self.plan.kernel);
            }
        }
        self.submit_fetches(queue, tid, fault);
    }

    fn submit_fetches(&mut self, queue: usize, tid: u32, fault: Option<Fault>) {
        if matches!(
            fault,
            Some(Fault::FetchesNotSubmitted | Fault::PollerAsleep)
        ) {
            return;
        }
        let kernel = self.plan.kernel;
        self.queues[queue].submit(tid, false, kernel);
        if self.rng.below(2) == 0 {
            while self.queues[queue].reap() {}
        }
    }

    /// The fault, if it concerns how this queue is fetched.
    fn arming_fault(&self, queue: usize) -> Option<Fault> {
        let fault = self.plan.fault?;
        let everywhere = !matches!(
            fault,
            Fault::TagsNeverFetched | Fault::QueueNeverFetched | Fault::FetchedByTwo
        );
        let arming = fault.when() == When::Arming || fault == Fault::FetchedByTwo;
        (arming && (everywhere || queue == self.victim)).then_some(fault)
    }

    fn some_tags(&mut self) -> std::ops::Range<u16> {
        let depth = usize::from(self.plan.depth);
        let first = self.rng.below(depth);
        let count = 1 + self.rng.below(depth - first);
        // Not all of them: that is another fault.
        let count = count.min(depth - 1);
        let number = |number: usize| u16::try_from(number).unwrap_or_default();
        number(first)..number(first + count)
    }

    fn fetch_entry(&mut self, queue: usize, tag: u16, fault: Option<Fault>) -> Entry {
        let last = tag + 1 == self.plan.depth;
        let (mut op, mut at, mut flags) = (self.opcode(0x20), Payload::Right, 0);
        let (mut named, mut address) = (tag, self.queues[queue].address(tag));
        match fault {
            Some(Fault::WrongOpcode) => op = 0xc010_7620,
            Some(Fault::PayloadBehind) => at = Payload::Behind,
            Some(Fault::PayloadByPointer) => at = Payload::Pointer,
            Some(Fault::FetchesWithoutAddress) => address = 0,
            Some(Fault::TagsFromOne) => named += 1,
            Some(Fault::FetchesLinked) if !last => flags = LINK,
            Some(Fault::FetchesDrained) => flags = DRAIN,
            _ => {}
        }
        if self.style.fixed_file {
            flags |= FIXED_FILE;
        }
        Entry {
            flags,
            op,
            user_data: self.user_data(tag),
            queue: self.queues[queue].id,
            tag: named,
            result: -1,
            address,
            at,
        }
    }

    /// What the threads do when they have fetched: wait for requests, or for whoever starts the device.
    fn idle_threads(&mut self) {
        let tids: Vec<u32> = self.queues.iter().map(|queue| queue.tid).collect();
        for tid in tids {
            let does = [Does::WaitsForRing, Does::WaitsForRing, Does::Locked][self.rng.below(3)];
            self.set(tid, does);
        }
    }
}
