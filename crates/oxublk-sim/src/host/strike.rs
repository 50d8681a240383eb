//! The fault happens.

use oxublk::Tag;

use crate::client::ClientRequest;
use crate::state::TagState;

use super::fault::When;
use super::{CHILD, Control, Does, Fault, Host, Life, SERVER, Thread, WORKER};

/// What a thread does that has forgotten its ring.
const ELSEWHERE: [Does; 5] = [
    Does::Locked,
    Does::Reads,
    Does::Pauses,
    Does::Polls,
    Does::Runs,
];

impl Host {
    /// Whether the fault happens now.
    pub(super) fn strikes(&mut self, queue: usize) -> bool {
        let Some(fault) = self.plan.fault else {
            return false;
        };
        let early = self.answered < self.plan.after || self.life != Life::Live;
        if self.struck || queue != self.victim || early || !self.is_occasion(queue, fault) {
            return false;
        }
        self.struck = true;
        self.strike(queue, fault);
        true
    }

    fn is_occasion(&self, index: usize, fault: Fault) -> bool {
        let queue = &self.queues[index];
        let does = self.does(queue.tid);
        match fault.when() {
            When::Arming | When::Always => false,
            When::Idle => {
                let empty = queue.held.is_empty() && queue.unfinished() == 0;
                empty && queue.ring.unreaped() == 0 && queue.ring.unsubmitted() == 0
            }
            When::Busy => {
                // What names the wrong answer must not be overwritten by answers that come later.
                let calm = !fault.is_misdirected() || self.is_calm(index);
                does == Some(Does::Runs) && !queue.held.is_empty() && calm
            }
        }
    }

    fn is_calm(&self, index: usize) -> bool {
        let state = self.queues[index].state();
        let free = state.free_tags();
        state.to_come.is_empty() && state.queued.is_empty() && !free.is_empty()
    }

    fn strike(&mut self, queue: usize, fault: Fault) {
        let tid = self.queues[queue].tid;
        match fault {
            Fault::NeverEnters => {
                let does = ELSEWHERE[self.rng.below(ELSEWHERE.len())];
                self.set(tid, does);
            }
            Fault::ThreadEnds | Fault::ThreadEndsInHandler => {
                self.threads.remove(&tid);
            }
            Fault::ThreadUninterruptible => self.set(tid, Does::Forks),
            Fault::OwnDevice => self.read_own_disk(queue, tid),
            Fault::Stopped => self.stop(Does::Stopped),
            Fault::Traced => self.stop(Does::Traced),
            Fault::NeverReaps | Fault::Overflows => self.flood(queue, tid, fault),
            Fault::HandlerLocked => self.set(tid, Does::Locked),
            Fault::HandlerSpins => self.set(tid, Does::Runs),
            Fault::HandlerBlocked => self.set(tid, Does::Reads),
            Fault::HandlerOnTimer => self.set(tid, Does::Naps),
            Fault::HandlerInMedium => self.set(tid, Does::Medium),
            Fault::Forgets => self.forget(queue),
            Fault::ForgetsAndIsDeleted | Fault::ForgetsAndBlocksOthers => {
                self.forget(queue);
                self.delete(fault == Fault::ForgetsAndBlocksOthers);
            }
            _ if fault.is_misdirected() => {
                self.answer(queue);
                self.queues[queue].quiet = true;
            }
            Fault::AnswersFromAnotherThread
            | Fault::AnswersFromAnotherRing
            | Fault::AnswersIntoOwnedRing => self.hire(),
            Fault::Dies | Fault::DiesRecoverably | Fault::DiesFailing | Fault::DiesHalf => {
                self.die(fault);
            }
            _ => {}
        }
    }

    fn stop(&mut self, does: Does) {
        let tids: Vec<u32> = self.threads.keys().copied().collect();
        for tid in tids {
            self.set(tid, does);
        }
    }

    /// Another thread of the server.
    pub(super) fn hire(&mut self) {
        let (does, cpu_ns, switches) = (Does::Locked, 0, 0);
        let thread = Thread {
            does,
            cpu_ns,
            switches,
        };
        self.threads.entry(WORKER).or_insert(thread);
    }

    fn forget(&mut self, queue: usize) {
        let count = self.queues[queue].held.len();
        let at = self.rng.below(count);
        self.queues[queue].held.remove(at);
        self.done = true;
    }

    fn read_own_disk(&mut self, queue: usize, tid: u32) {
        let _ = self.queues[queue].driver.submit(ClientRequest::read(0, 1));
        self.set(tid, Does::OwnDisk);
        self.own_reader = Some(tid);
        self.work(queue, false, true);
    }

    /// More requests than the server takes come at once; then it does something else.
    fn flood(&mut self, queue: usize, tid: u32, fault: Fault) {
        for _ in 0..self.plan.depth {
            let _ = self.queues[queue].driver.submit(ClientRequest::write(0, 1));
        }
        self.set(tid, Does::Runs);
        self.work(queue, true, true);
        let does = match self.rng.below(4) {
            _ if fault == Fault::Overflows => Does::Runs,
            0 if !self.plan.deferred => Does::WaitsForRing,
            other => ELSEWHERE[other],
        };
        self.set(tid, does);
    }

    fn delete(&mut self, add: bool) {
        let now = self.clock.now_ns();
        self.controls.push((Control::Delete, now));
        if add {
            self.controls.push((Control::Add, now));
        }
        for queue in &mut self.queues {
            queue.quiet = true;
        }
    }

    fn die(&mut self, fault: Fault) {
        self.threads.clear();
        self.servers.clear();
        let old = self.is_old_kernel();
        let rest = fault == Fault::DiesRecoverably && self.rng.below(2) == 0;
        match fault {
            Fault::DiesHalf => {
                self.servers.push(CHILD);
                self.hire();
                let thread = self.threads.remove(&WORKER);
                self.threads.extend(thread.map(|thread| (CHILD, thread)));
                return;
            }
            Fault::DiesRecoverably => self.life = Life::Quiesced,
            Fault::DiesFailing if old => self.life = Life::Quiesced,
            Fault::DiesFailing => self.life = Life::FailIo,
            _ => self.life = Life::Dead,
        }
        for queue in &mut self.queues {
            if !rest {
                queue.state().server_died();
                continue;
            }
            for tag in (0..self.plan.depth).map(Tag) {
                queue.state().set_state(tag, TagState::Gone);
                queue.rest(tag, true);
            }
        }
        self.controls
            .retain(|(control, _)| *control != Control::Start);
        debug_assert!(!self.threads.contains_key(&SERVER), "it is dead");
    }
}
