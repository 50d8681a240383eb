//! From events to requests: a pure state machine.
//!
//! A request is recognised by its address between `block_rq_issue` and `block_rq_complete`, and by its queue and tag in
//! what the server does; a command of the server by its address. What began before tracing did, or was lost, leaves
//! holes: nothing is invented to fill them.

use std::collections::HashMap;

use crate::facts::Tid;
use oxublk::QueueId;

use super::event::{Command, Event, Slot, Thread, What};
use super::request::{Followed, Kind, Refusal, Step, letters, operation};

/// What an event led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A request ended.
    Ended(Followed),
    /// A command was refused.
    Refused(Refusal),
    /// The server gave a command; with the request that it is for.
    Command {
        /// When.
        at_ns: u64,
        /// By whom.
        by: Thread,
        /// The command.
        command: Command,
        /// The request at its tag.
        request: Option<Followed>,
    },
    /// Events were lost.
    Lost(Option<u64>),
}

/// A command that the driver has.
#[derive(Clone, Debug)]
struct Call {
    at_ns: u64,
    by: Thread,
    name: &'static str,
    slot: Slot,
    commit: bool,
    /// It may still be refused: nothing has followed from it.
    fresh: bool,
}

/// Joins events to requests.
#[derive(Debug, Default)]
pub struct Join {
    /// The requests under way, by address.
    open: HashMap<u64, Followed>,
    /// Which request has a tag.
    slots: HashMap<Slot, u64>,
    calls: HashMap<u64, Call>,
    armers: HashMap<Slot, Tid>,
    /// The last run of the driver's work in the server's thread, where it serves a whole queue.
    runs: HashMap<QueueId, (u64, Thread)>,
    /// For requests without an address.
    next: u64,
    /// Completions of requests whose issue was not seen.
    pub strangers: u64,
}

impl Join {
    /// A request that was under way when tracing began.
    pub fn seed(&mut self, request: Followed, armer: Option<Tid>) {
        self.next += 1;
        // No request of the kernel has such an address.
        let key = self.next;
        if let Some(slot) = request.slot {
            self.slots.insert(slot, key);
            if let Some(tid) = armer {
                self.armers.insert(slot, tid);
            }
        }
        self.open.insert(key, request);
    }

    /// The requests that are under way, the oldest first.
    #[must_use]
    pub fn open(&self) -> Vec<&Followed> {
        let mut open: Vec<&Followed> = self.open.values().collect();
        open.sort_by_key(|request| (request.issued_ns, request.slot));
        open
    }

    /// Takes an event; the events come in the order of time.
    pub fn push(&mut self, event: &Event, out: &mut Vec<Outcome>) {
        let (at_ns, thread) = (event.at_ns, &event.thread);
        match &event.what {
            What::Issued { request, slot, .. } => self.issued(*request, *slot, event, out),
            What::Handed { queue, tag } => self.handed(at_ns, thread, *queue, *tag),
            What::Ended {
                command,
                slot,
                result,
            } => self.ended(at_ns, *command, *slot, *result, out),
            What::Posted { command } => {
                if let Some(call) = self.calls.remove(command)
                    && let Some(request) = self.at(call.slot)
                    && !request.round().iter().any(|step| step.kind == Kind::Posted)
                {
                    request.push(at_ns, Kind::Posted);
                }
            }
            What::Command(command) => self.command(at_ns, thread, command, out),
            What::Refused { command, result } => self.refused(*command, *result, out),
            What::Completed {
                request,
                slot,
                error,
                bytes,
                left,
            } => {
                let partly = *error == 0 && bytes < left;
                self.completed(
                    at_ns,
                    *request,
                    *slot,
                    (*error, partly.then_some(*bytes)),
                    out,
                );
            }
            What::Requeued { request } => {
                if let Some(request) = self.open.get_mut(request) {
                    request.push(at_ns, Kind::Requeued);
                    // A scheduler gives the tag to others meanwhile.
                    if let Some(slot) = request.slot {
                        self.slots.remove(&slot);
                    }
                }
            }
            What::PlainIssued {
                kind,
                sector,
                bytes,
            } => self.plain_issued(event, kind, *sector, *bytes),
            What::PlainCompleted {
                kind,
                sector,
                error,
                requeued,
            } => {
                self.plain_completed(at_ns, kind, *sector, (*error, *requeued), out);
            }
            What::Lost { count } => {
                self.open
                    .values_mut()
                    .for_each(|request| request.holes = true);
                out.push(Outcome::Lost(*count));
            }
        }
    }

    fn at(&mut self, slot: Slot) -> Option<&mut Followed> {
        self.open.get_mut(self.slots.get(&slot)?)
    }

    fn issued(&mut self, address: u64, slot: Slot, event: &Event, out: &mut Vec<Outcome>) {
        let What::Issued {
            op, sector, bytes, ..
        } = event.what
        else {
            return;
        };
        let key = self.slots.insert(slot, address);
        if let Some(request) = self.open.get_mut(&address)
            && request.rests()
        {
            request.slot = Some(slot);
            request.push(event.at_ns, Kind::IssuedAgain { bytes: Some(bytes) });
            return;
        }
        // Whoever had the address or the tag before is gone: its end was lost.
        for key in key.into_iter().chain([address]) {
            // What was found under way may have been this request itself.
            if let Some(mut old) = self.open.remove(&key).filter(|old| !old.began_before) {
                old.push(event.at_ns, Kind::Vanished);
                out.push(Outcome::Ended(old));
            }
        }
        let request = Followed::issued(event, Some(slot), operation(op), sector, bytes);
        self.open.insert(address, request);
    }

    fn handed(&mut self, at_ns: u64, thread: &Thread, queue: QueueId, tag: Option<oxublk::Tag>) {
        let kind = || Kind::Handed { by: thread.clone() };
        let Some(tag) = tag else {
            self.runs.insert(queue, (at_ns, thread.clone()));
            for request in self.open.values_mut() {
                let ours = request.slot.is_some_and(|slot| slot.queue == queue);
                if ours && request.waits_for_task() {
                    request.push(at_ns, kind());
                }
            }
            return;
        };
        if let Some(request) = self.at(Slot { queue, tag }) {
            request.push(at_ns, kind());
        }
    }

    fn ended(
        &mut self,
        at_ns: u64,
        command: u64,
        slot: Option<Slot>,
        result: i32,
        out: &mut Vec<Outcome>,
    ) {
        if result < 0 {
            // Taken back, with -ENODEV, or refused: since 6.15 some refusals come only here.
            let fresh = self.calls.get(&command).is_some_and(|call| call.fresh);
            return match fresh && result != -19 {
                true => self.refused(command, result, out),
                false => drop(self.calls.remove(&command)),
            };
        }
        let known = self.calls.get(&command).map(|call| call.slot);
        let Some(slot) = slot.or(known) else { return };
        let call = self.calls.entry(command).or_insert_with(|| Call {
            at_ns,
            by: Thread {
                tid: Tid(0),
                comm: None,
            },
            name: "",
            slot,
            commit: false,
            fresh: false,
        });
        (call.slot, call.fresh) = (slot, false);
        let run = self.runs.get(&slot.queue).cloned();
        let Some(request) = self.at(slot) else { return };
        // The run that came last is the one that serves it, also when it had begun before the request was issued.
        if let Some((run_ns, by)) = run {
            if matches!(
                request.steps.last().map(|step| &step.kind),
                Some(Kind::Handed { .. })
            ) {
                request.steps.pop();
            }
            request.push(run_ns.max(request.last_ns()), Kind::Handed { by });
        }
        request.push(at_ns, Kind::Delivered { result });
    }

    fn command(&mut self, at_ns: u64, thread: &Thread, command: &Command, out: &mut Vec<Outcome>) {
        if command.issue_flags & Command::CANCEL != 0 {
            return;
        }
        let slot = command.slot();
        let request = self.at(slot);
        if command.raw.is_some() {
            out.push(Outcome::Command {
                at_ns,
                by: thread.clone(),
                command: command.clone(),
                request: request.as_deref().cloned(),
            });
        }
        if let Some(request) = request {
            let by = thread.clone();
            match command.number() {
                0x21 => request.push(
                    at_ns,
                    Kind::Answered {
                        by,
                        result: command.result(),
                    },
                ),
                0x22 => request.push(at_ns, Kind::GaveBuffer),
                _ => {}
            }
        }
        let call = Call {
            at_ns,
            by: thread.clone(),
            name: command.name(),
            slot,
            commit: command.is_commit(),
            fresh: true,
        };
        self.calls.insert(command.command, call);
        if command.is_fetch() {
            self.armers.entry(slot).or_insert(thread.tid);
        }
    }

    fn refused(&mut self, command: u64, error: i32, out: &mut Vec<Outcome>) {
        let Some(call) = self.calls.remove(&command) else {
            return;
        };
        let armed_by = self.armers.get(&call.slot).copied();
        if !call.commit && armed_by == Some(call.by.tid) {
            self.armers.remove(&call.slot);
        }
        let request = self.at(call.slot);
        let refusal = Refusal {
            at_ns: call.at_ns,
            by: call.by.clone(),
            command: call.name.to_owned(),
            slot: call.slot,
            error,
            has_request: request.is_some(),
            handed_to: request.as_deref().and_then(Followed::handed_to).cloned(),
            armed_by: armed_by.filter(|_| call.commit),
        };
        if let Some(request) = request {
            let kind = Kind::Refused {
                by: call.by,
                command: call.name.to_owned(),
                error,
            };
            let given = |step: &&mut Step| {
                step.at_ns == call.at_ns
                    && matches!(step.kind, Kind::Answered { .. } | Kind::GaveBuffer)
            };
            match request.steps.iter_mut().rev().find(given) {
                Some(step) => step.kind = kind,
                None => request.push(call.at_ns.max(request.last_ns()), kind),
            }
        }
        out.push(Outcome::Refused(refusal));
    }

    fn completed(
        &mut self,
        at_ns: u64,
        address: u64,
        slot: Option<Slot>,
        (error, partly): (i32, Option<u64>),
        out: &mut Vec<Outcome>,
    ) {
        let seeded = slot.and_then(|slot| self.slots.get(&slot).copied());
        let key = if self.open.contains_key(&address) {
            Some(address)
        } else {
            seeded
        };
        let Some(key) = key.filter(|key| {
            self.open
                .get(key)
                .is_some_and(|found| *key == address || found.began_before)
        }) else {
            self.strangers += u64::from(partly.is_none());
            return;
        };
        if let Some(bytes) = partly {
            if let Some(request) = self.open.get_mut(&key) {
                request.push(at_ns, Kind::Partly { bytes });
            }
            return;
        }
        let Some(mut request) = self.open.remove(&key) else {
            return;
        };
        if let Some(slot) = request.slot
            && self.slots.get(&slot) == Some(&key)
        {
            self.slots.remove(&slot);
        }
        request.push(at_ns, Kind::Completed { error });
        out.push(Outcome::Ended(request));
    }

    fn plain_issued(&mut self, event: &Event, kind: &str, sector: u64, bytes: u64) {
        let again = self
            .open
            .values_mut()
            .find(|request| request.sector == Some(sector) && request.rests());
        if let Some(request) = again {
            return request.push(event.at_ns, Kind::IssuedAgain { bytes: Some(bytes) });
        }
        self.next += 1;
        let request = Followed::issued(event, None, letters(kind), Some(sector), bytes);
        self.open.insert(self.next, request);
    }

    fn plain_completed(
        &mut self,
        at_ns: u64,
        kind: &str,
        sector: u64,
        (error, requeued): (i32, bool),
        out: &mut Vec<Outcome>,
    ) {
        let operation = letters(kind);
        let same = |request: &Followed| {
            request.slot.is_none()
                && request.sector == Some(sector)
                && request.operation == operation
        };
        let oldest = self.open.iter().filter(|(_, request)| same(request));
        let Some(key) = oldest
            .min_by_key(|(_, request)| request.issued_ns)
            .map(|(key, _)| *key)
        else {
            self.strangers += 1;
            return;
        };
        if requeued {
            if let Some(request) = self.open.get_mut(&key) {
                request.push(at_ns, Kind::Requeued);
            }
        } else if let Some(mut request) = self.open.remove(&key) {
            request.push(at_ns, Kind::Completed { error });
            out.push(Outcome::Ended(request));
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
