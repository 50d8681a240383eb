//! One queue of a device: its loop from the driver's requests to the disk and back.
//!
//! [`Queue`] is the loop, [`Tags`] the state machine of the tags, [`Request`] what one request
//! means. They see the kernel only through the [`Ring`] trait: `Uring` is the real one, the
//! model in `oxublk-sim` another. This module is public for that model and for tests; a program
//! that serves a device wants [`Device`](crate::Device).

mod backend;
mod buffers;
mod handler;
mod request;
mod ring;
mod tag;
mod tasks;
#[cfg(test)]
mod tests;
mod uring;

use std::io;
use std::sync::Arc;

pub use backend::{Async, Backend, Blocking, Share};
pub use handler::{Begun, Calls, Done, Handler};
pub use request::{Answer, Failure, Request};
pub use ring::{Completion, Ring};
pub use tag::{Held, Outcome, Tags};
pub(crate) use uring::{Uring, UringSetup};

use crate::id::Tag;
use crate::metrics::{Batch, QueueMetrics};
use crate::probes::{self, Place};

pub use crate::ops::{Memory, Op, OpId, Span};
pub use crate::shared::SharedPart;
pub use crate::transfer::Carrier;

/// Answers wait for the rest of their batch while a request takes less than this on average, so
/// that one system call serves all of them. Of a slower disk's none waits for others longer than the second, and
/// half a nanosecond for each byte of theirs: who moves large requests as fast as memory does is not slow. Nor longer than the third.
const SLOW_NS: u64 = 20_000;
const PATIENCE_NS: u64 = 50_000;
const MOST_PATIENCE_NS: u64 = 500_000;

/// Why a queue ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The driver gave back every tag: the device is stopped.
    Stopped,
    /// Somebody asked the queue to leave.
    Woken,
}

/// What makes a queue unable to go on.
#[derive(Debug)]
pub enum QueueError {
    /// The ring failed.
    Ring(io::Error),
    /// The driver refused a command of this tag with this errno (positive).
    Refused(Tag, i32),
    /// A completion for this tag, with this result, that the tag's state does not allow.
    Unexpected(Tag, i32),
}

impl From<io::Error> for QueueError {
    fn from(error: io::Error) -> Self {
        Self::Ring(error)
    }
}

/// A queue: a ring, its tags, and what answers their requests.
#[derive(Debug)]
pub struct Queue<R, H> {
    place: Place,
    ring: R,
    handler: H,
    tags: Tags,
    metrics: Arc<QueueMetrics>,
    /// Requests reaped and not yet answered, in the order of their arrival. Room for every tag.
    waiting: Vec<(Held, Request)>,
    /// Answers written down and not yet handed to the driver, and their tags. Room for every tag.
    batch: Batch,
    answered: Vec<Tag>,
    /// Those of them whose requests came with an earlier batch.
    late: Vec<Tag>,
    /// How long the disk took for a request of late: a moving mean, in which the latest counts half.
    mean_ns: u64,
    /// Somebody asked the queue to leave. It may come as early as while the tags are armed.
    woken: bool,
}

impl<R: Ring, H: Handler<R>> Queue<R, H> {
    /// A queue with the tags of `share`, not yet armed.
    pub fn new(share: &Share, ring: R, handler: H) -> Self {
        let metrics = Arc::clone(&share.metrics);
        let depth = usize::from(metrics.depth());
        Self {
            place: Place {
                device: share.device,
                queue: metrics.queue(),
            },
            ring,
            handler,
            tags: Tags::new(metrics.tags()),
            metrics,
            waiting: Vec::with_capacity(depth),
            batch: Batch::default(),
            answered: Vec::with_capacity(depth),
            late: Vec::with_capacity(depth),
            mean_ns: 0,
            woken: false,
        }
    }

    /// Gives every tag to the driver. When this returns the driver has accepted each fetch, or
    /// will refuse it with a completion that [`serve`](Self::serve) reports.
    ///
    /// # Errors
    /// The ring failed, or the driver refused a fetch.
    pub fn arm(&mut self) -> Result<(), QueueError> {
        let now_ns = self.ring.now_ns();
        let records = self.metrics.records();
        for tag in self.tags.all() {
            self.ring.fetch(tag)?;
            self.tags.fetch(tag);
            if let Some(record) = records.get(tag.index()) {
                record.armed(now_ns);
                probes::armed(&self.place, tag, record);
            }
        }
        self.ring.enter(false)?;
        // A refused fetch completes at once. Requests cannot have come yet, or no earlier than
        // the last queue armed: they wait in `waiting`.
        self.reap()
    }

    /// Answers requests until the device is stopped or the queue is asked to leave.
    ///
    /// # Errors
    /// What makes the queue unable to go on; the device must be taken down then.
    pub fn serve(&mut self) -> Result<Ended, QueueError> {
        loop {
            self.answer_waiting()?;
            if self.woken {
                self.ring.enter(false)?;
                return Ok(Ended::Woken);
            }
            if self.tags.all_gone() {
                return Ok(Ended::Stopped);
            }
            // What is ready already must not wait for what comes, nor keep it from coming.
            if self.handler.fall_asleep() {
                self.ring.enter(true)?;
                self.handler.awake();
            } else {
                self.ring.look()?;
            }
            self.reap()?;
        }
    }

    /// The ring, when the queue has ended.
    pub fn into_ring(self) -> R {
        self.ring
    }

    /// Takes in everything that came back.
    fn reap(&mut self) -> Result<(), QueueError> {
        let now_ns = self.ring.now_ns();
        self.batch.reaped_at(now_ns);
        let records = self.metrics.records();
        while let Some(completion) = self.ring.next_completion() {
            let (tag, result) = match completion {
                Completion::Tag(tag, result) => (tag, result),
                Completion::Operation(id, result) => {
                    self.handler.ended(id, result);
                    continue;
                }
                Completion::AllGone => {
                    for tag in self.tags.end() {
                        if let Some(record) = records.get(tag.index()) {
                            record.gone();
                        }
                    }
                    continue;
                }
                Completion::Nudged => continue,
                Completion::Woken => {
                    self.woken = true;
                    continue;
                }
            };
            match self.tags.complete(tag, result) {
                Outcome::Request(held) => {
                    self.metrics.bell().touch();
                    let request = Request::new(&self.ring.descriptor(&held));
                    if let Some(record) = records.get(tag.index()) {
                        record.reaped(&request, now_ns);
                        probes::reaped(&self.place, tag, record);
                    }
                    self.waiting.push((held, request));
                }
                Outcome::Gone => {
                    if let Some(record) = records.get(tag.index()) {
                        record.gone();
                    }
                }
                Outcome::Refused { errno } => return Err(QueueError::Refused(tag, errno)),
                Outcome::Unexpected => return Err(QueueError::Unexpected(tag, result)),
            }
        }
        Ok(())
    }

    fn answer_waiting(&mut self) -> Result<(), QueueError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        for (held, request) in waiting.drain(..) {
            self.begin(held, &request)?;
            if H::AT_ONCE && self.mean_ns > SLOW_NS {
                self.hand_over_in_time()?;
            }
        }
        self.waiting = waiting;
        while let Some(done) = self.handler.progress(&mut self.ring)? {
            self.late.push(done.held.tag());
            self.write_down(done.held, &done.request, &done.answer)?;
        }
        self.settle();
        Ok(())
    }

    /// Of a slow disk: hands over what would wait for too long.
    fn hand_over_in_time(&mut self) -> Result<(), QueueError> {
        let patience_ns = (PATIENCE_NS + self.batch.bytes() / 2).min(MOST_PATIENCE_NS);
        if self.ring.now_ns() < self.batch.settled_ns() + patience_ns {
            return Ok(());
        }
        self.settle();
        self.ring.enter(false)?;
        // The driver's own time, in which it copies the data, says nothing about the disk.
        self.batch.resumed_at(self.ring.now_ns());
        Ok(())
    }

    /// Gives a request to the disk.
    #[inline]
    fn begin(&mut self, held: Held, request: &Request) -> Result<(), QueueError> {
        let tag = held.tag();
        if let Some(record) = self.metrics.records().get(tag.index()) {
            record.handed(self.batch.settled_ns());
            probes::handed(&self.place, tag, record);
        }
        if request.is_shared() {
            self.metrics.count_shared(request.length);
        }
        match self.handler.begin(&mut self.ring, held, request)? {
            Begun::Answered(held, answer) => {
                let failed = answer.failure.is_some();
                self.batch.add(request.operation, request.length, failed);
                self.write_down(held, request, &answer)
            }
            Begun::UnderWay => Ok(()),
        }
    }

    /// Writes an answer down for the driver.
    #[inline]
    fn write_down(
        &mut self,
        held: Held,
        request: &Request,
        answer: &Answer,
    ) -> Result<(), QueueError> {
        let tag = held.tag();
        if let Some(failure) = &answer.failure {
            self.log(tag, request, failure);
        }
        self.tags.answer(held);
        self.ring.commit(tag, answer.result)?;
        if let Some(record) = self.metrics.records().get(tag.index()) {
            record.answered(answer.result);
            probes::answered(&self.place, tag, record);
        }
        self.answered.push(tag);
        Ok(())
    }

    /// The answers so far are the driver's: counts them with the time they took.
    fn settle(&mut self) {
        if self.answered.is_empty() {
            return;
        }
        let now_ns = self.ring.now_ns();
        let records = self.metrics.records();
        for &tag in &self.answered {
            if let Some(record) = records.get(tag.index()) {
                record.submitted(now_ns);
                probes::submitted(&self.place, tag, record);
            }
        }
        self.metrics.settle_late(&self.late, now_ns);
        self.late.clear();
        let latest_ns = self.metrics.settle(&mut self.batch, now_ns);
        self.answered.clear();
        self.mean_ns = self.mean_ns.midpoint(latest_ns);
    }

    #[cold]
    fn log(&self, tag: Tag, request: &Request, failure: &Failure) {
        let (device, queue) = (self.place.device.0, self.place.queue.0);
        let operation = request.operation.name();
        let Request { offset, length, .. } = *request;
        match failure {
            Failure::Error(error) => {
                tracing::warn!(device, queue, tag = tag.0, operation, offset, length, %error, "the disk failed a request");
            }
            Failure::Panic(message) => {
                tracing::error!(
                    device,
                    queue,
                    tag = tag.0,
                    operation,
                    offset,
                    length,
                    message,
                    "the disk panicked in a request"
                );
            }
        }
    }
}
