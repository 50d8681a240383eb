//! Requests: how they arrive, get a tag, and finish.

use libc::EIO;
use oxublk::sys::op;

use crate::client::{ClientRequest, Misfit, Outcome, RequestId};
use crate::history::{self, ZEROES};
use crate::state::{Entry, State};
use crate::violation::Violation;

impl State {
    pub(crate) fn submit(&mut self, request: ClientRequest) -> Result<RequestId, Misfit> {
        let ranged = request.op != op::FLUSH;
        if ranged && (request.sectors == 0 || request.range().end > self.setup.sectors) {
            return Err(Misfit(request));
        }
        if request.has_data() && request.bytes() > self.setup.max_io_bytes {
            return Err(Misfit(request));
        }
        let id = RequestId(self.entries.len());
        let length = match request.op {
            op::READ => request.bytes(),
            _ => 0,
        };
        self.entries.push(Entry {
            request,
            began: 0,
            issued_ns: 0,
            done: 0,
            deliveries: 0,
            data: vec![0; length],
            finished: false,
        });
        if self.stopping || self.gone {
            self.finish(id, Err(EIO));
        } else {
            self.to_come.push_back(id);
        }
        Ok(id)
    }

    /// Some of the requests that clients will make are made, at least `least`.
    pub(crate) fn arrive(&mut self, least: usize) {
        if !self.ready() || self.stopping {
            return;
        }
        let count = self.scheduler.portion(self.to_come.len()).max(least);
        for _ in 0..count {
            let Some(id) = self.to_come.pop_front() else {
                return;
            };
            let request = self.entry(id).request;
            let began = self.history.tick();
            self.entry(id).began = began;
            if request.changes() {
                let (seed, writes) = (self.setup.seed, request.op == op::WRITE);
                self.history.write_began(id, request.range(), |sector| {
                    if writes {
                        history::stamp(seed, id, sector)
                    } else {
                        ZEROES
                    }
                });
            }
            self.queued.push_back(id);
        }
    }

    /// Gives free tags to the requests that wait for one.
    pub(crate) fn assign_tags(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let mut free = self.free_tags();
        while !free.is_empty()
            && let Some(id) = self.queued.pop_front()
        {
            let tag = free.swap_remove(self.scheduler.pick(free.len()));
            self.slots[tag.index()].request = Some(id);
            self.entry(id).issued_ns = self.clock.now_ns();
        }
    }

    pub(crate) fn progress_of(&mut self, id: RequestId) -> (ClientRequest, usize) {
        let entry = self.entry(id);
        (entry.request, entry.done)
    }

    pub(crate) fn advance(&mut self, id: RequestId, bytes: usize) {
        self.entry(id).done += bytes;
    }

    /// The client gets the bytes of a read.
    pub(crate) fn copy_out(&mut self, id: RequestId, done: usize, bytes: &[u8]) {
        let target = self.entry(id).data.get_mut(done..done + bytes.len());
        target.unwrap_or_default().copy_from_slice(bytes);
    }

    /// The client gets its result. Once: a request that is finished has no tag any more.
    pub(crate) fn finish(&mut self, id: RequestId, result: Result<(), i32>) {
        let finished_ns = self.clock.now_ns();
        let entry = self.entry(id);
        entry.finished = true;
        let (request, began) = (entry.request, entry.began);
        let outcome = Outcome {
            id,
            request,
            result,
            deliveries: entry.deliveries,
            finished_ns,
            data: std::mem::take(&mut entry.data),
        };
        if request.changes() && began > 0 {
            self.history
                .write_ended(id, request.range(), result.is_ok());
        }
        if request.op == op::READ && result.is_ok() {
            let wrong = self
                .history
                .first_wrong(&outcome.data, request.sector, began);
            if let Some(sector) = wrong {
                self.broke(Violation::WrongBytes {
                    request: id,
                    sector,
                });
            }
        }
        self.outcomes.push(outcome);
    }

    pub(crate) fn entry(&mut self, id: RequestId) -> &mut Entry {
        &mut self.entries[id.0]
    }
}
