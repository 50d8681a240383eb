//! How a queue's requests are answered: the [`Handler`] trait, and [`Calls`], which calls a blocking disk.

use std::io;

use super::request::{Answer, Request};
use super::ring::Ring;
use super::tag::Held;
use crate::disk::Disk;
use crate::operation::Operation;
use crate::ops::OpId;
use crate::shared::SharedPart;
use crate::transfer::Carrier;

/// A request that has its answer.
#[derive(Debug)]
pub struct Done {
    /// The duty to hand it over.
    pub held: Held,
    /// What was asked.
    pub request: Request,
    /// What to tell the driver.
    pub answer: Answer,
}

/// What becomes of a request that was begun.
#[derive(Debug)]
pub enum Begun {
    /// It has its answer.
    Answered(Held, Answer),
    /// Its answer comes later, by [`progress`](Handler::progress).
    UnderWay,
}

/// Answers a queue's requests: at once, or later.
pub trait Handler<R: Ring> {
    /// Whether every request is answered at once: then their time is the disk's.
    const AT_ONCE: bool;

    /// A request has come.
    ///
    /// # Errors
    /// The ring took no more.
    fn begin(&mut self, ring: &mut R, held: Held, request: &Request) -> io::Result<Begun>;

    /// An operation ended.
    fn ended(&mut self, _id: OpId, _result: i32) {}

    /// The next of the requests that have their answers meanwhile.
    ///
    /// # Errors
    /// The ring took no more.
    fn progress(&mut self, _ring: &mut R) -> io::Result<Option<Done>> {
        Ok(None)
    }

    /// The queue is about to wait; false if it must not, since there is something to do.
    fn fall_asleep(&mut self) -> bool {
        true
    }

    /// It waits no longer.
    fn awake(&mut self) {}
}

/// Calls a [`Disk`] for each request.
#[derive(Debug)]
pub struct Calls<'d, D> {
    disk: &'d D,
    direct: bool,
}

impl<'d, D: Disk> Calls<'d, D> {
    /// With a buffer for each request.
    pub fn new(disk: &'d D) -> Self {
        Self {
            disk,
            direct: false,
        }
    }

    /// Without: the disk moves the data itself.
    pub fn direct(disk: &'d D) -> Self {
        Self { disk, direct: true }
    }
}

impl<D: Disk> Calls<'_, D> {
    /// Of a request whose data lie in shared memory. A disk that does not move them itself has them in its tag's buffer meanwhile.
    #[cold]
    fn answer_shared<R: Ring>(&self, ring: &mut R, held: &Held, request: &Request) -> Answer {
        let answered = ring.shared(held).and_then(|part| {
            if self.direct {
                return Ok(request.answer_directly(self.disk, Carrier::Shared(part)));
            }
            let buffer = ring.buffer(held);
            fetch(&part, request, buffer)?;
            let mut answer = request.answer(self.disk, buffer);
            deliver(&part, request, buffer, &mut answer);
            Ok(answer)
        });
        answered.unwrap_or_else(|error| request.outcome(Ok(Err(error))))
    }
}

/// Gets a write's data from shared memory into a buffer.
pub(super) fn fetch(part: &SharedPart, request: &Request, buffer: &mut [u8]) -> io::Result<()> {
    if request.operation != Operation::Write {
        return Ok(());
    }
    let data = buffer.get_mut(..request.data_length());
    part.load(0, data.ok_or(io::ErrorKind::InvalidInput)?)
}

/// Gives a read's data, which the disk has put into a buffer, to shared memory.
pub(super) fn deliver(part: &SharedPart, request: &Request, buffer: &[u8], answer: &mut Answer) {
    if request.operation != Operation::Read || answer.result < 0 {
        return;
    }
    let data = buffer.get(..request.data_length()).unwrap_or_default();
    if let Err(error) = part.store(0, data) {
        *answer = request.outcome(Ok(Err(error)));
    }
}

impl<R: Ring, D: Disk> Handler<R> for Calls<'_, D> {
    const AT_ONCE: bool = true;

    #[inline]
    fn begin(&mut self, ring: &mut R, held: Held, request: &Request) -> io::Result<Begun> {
        let answer = if request.is_shared() {
            self.answer_shared(ring, &held, request)
        } else if self.direct {
            request.answer_directly(self.disk, ring.carrier(&held))
        } else {
            request.answer(self.disk, ring.buffer(&held))
        };
        Ok(Begun::Answered(held, answer))
    }
}
