//! [`Tasks`]: requests as futures, one a tag, on the queue's own thread.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::handler::{Begun, Done, Handler, deliver, fetch};
use super::request::{Answer, Request};
use super::ring::Ring;
use super::tag::Held;
use crate::async_disk::AsyncDisk;
use crate::id::Tag;
use crate::operation::Operation;
use crate::ops::{Buffer, Desk, Io, Memory, OpId};
use crate::shared::SharedPart;

/// A tag's place for a request.
struct Task<F> {
    /// Made once, and used for each request of the tag.
    future: Pin<Box<Option<F>>>,
    request: Option<(Held, Request)>,
    /// The request has its answer, which waits until the kernel uses the request's data no more.
    answer: Option<Answer>,
    /// Whether the tag is among the ready ones.
    ready: bool,
}

/// The requests of a queue as futures, which `make` makes.
pub(super) struct Tasks<'d, F, M> {
    desk: &'d Desk,
    make: M,
    tasks: Box<[Task<F>]>,
    /// Tags whose futures have something to do, in the order in which that was seen. Room for every tag.
    ready: VecDeque<Tag>,
    /// Where a tag's data lie that are in the tag's buffer meanwhile: of requests with shared memory.
    parts: Box<[Option<SharedPart>]>,
}

impl<'d, F, M> Tasks<'d, F, M>
where
    F: Future<Output = io::Result<()>>,
    M: Fn(Request, Buffer<'d>) -> F,
{
    pub(super) fn new(desk: &'d Desk, depth: u16, make: M) -> Self {
        let task = |_| Task {
            future: Box::pin(None),
            request: None,
            answer: None,
            ready: false,
        };
        Self {
            desk,
            make,
            tasks: (0..depth).map(task).collect(),
            ready: VecDeque::with_capacity(usize::from(depth)),
            parts: (0..depth).map(|_| None).collect(),
        }
    }

    /// Goes on with a tag's request. Returns it when it has its answer, and nothing of it is with the kernel.
    fn step<R: Ring>(&mut self, ring: &mut R, tag: Tag) -> Option<Done> {
        let task = self.tasks.get_mut(tag.index())?;
        let (_, request) = task.request.as_ref()?;
        if task.answer.is_none() {
            task.answer = poll(self.desk, tag, &mut task.future, request);
        }
        if self.desk.is_busy(tag) {
            return None;
        }
        let answer = task.answer.take()?;
        let (held, request) = task.request.take()?;
        let mut done = Done {
            held,
            request,
            answer,
        };
        if request.is_shared() {
            self.give_back(ring, &mut done);
        }
        Some(done)
    }

    /// A request that has its answer, and of which nothing is with the kernel: what is left to do is done with the others.
    fn finish_soon(&mut self, tag: Tag) {
        let has_answer = |task: &Task<F>| task.answer.is_some();
        if self.tasks.get(tag.index()).is_some_and(has_answer) && !self.desk.is_busy(tag) {
            Self::mark(&mut self.tasks, &mut self.ready, tag);
        }
    }

    fn mark(tasks: &mut [Task<F>], ready: &mut VecDeque<Tag>, tag: Tag) {
        if let Some(task) = tasks.get_mut(tag.index())
            && !task.ready
            && task.request.is_some()
        {
            task.ready = true;
            ready.push_back(tag);
        }
    }

    /// The memory of a request whose data lie in shared memory. A disk that looks at them has them in its tag's buffer.
    #[cold]
    fn detour<R: Ring>(
        &mut self,
        ring: &mut R,
        held: &Held,
        request: &Request,
    ) -> io::Result<Memory> {
        let memory = ring.memory(held)?;
        if let Memory::Mapped { .. } = memory {
            let part = ring.shared(held)?;
            fetch(&part, request, ring.buffer(held))?;
            if let Some(place) = self.parts.get_mut(held.tag().index()) {
                *place = Some(part);
            }
        }
        Ok(memory)
    }

    /// A read that took that way: its data go to where the client has them.
    #[cold]
    fn give_back<R: Ring>(&mut self, ring: &mut R, done: &mut Done) {
        let tag = done.held.tag();
        let place = self.parts.get_mut(tag.index());
        if let Some(part) = place.and_then(Option::take) {
            let buffer = ring.buffer(&done.held);
            deliver(&part, &done.request, buffer, &mut done.answer);
        }
    }
}

impl<'d, R, F, M> Handler<R> for Tasks<'d, F, M>
where
    R: Ring,
    F: Future<Output = io::Result<()>>,
    M: Fn(Request, Buffer<'d>) -> F,
{
    const AT_ONCE: bool = false;

    fn begin(&mut self, ring: &mut R, held: Held, request: &Request) -> io::Result<Begun> {
        let tag = held.tag();
        let memory = if request.is_shared() {
            self.detour(ring, &held, request)
        } else {
            ring.memory(&held)
        };
        let Some(task) = self.tasks.get_mut(tag.index()) else {
            return Err(io::Error::other("a tag beyond the queue's depth"));
        };
        let answer = match memory {
            Ok(memory) => {
                let buffer = Buffer::new(self.desk, tag, memory, request.data_length());
                task.future.set(Some((self.make)(*request, buffer)));
                poll(self.desk, tag, &mut task.future, request)
            }
            Err(error) => Some(request.outcome(Ok(Err(error)))),
        };
        match answer {
            // Most requests of disks in memory never wait for anything.
            Some(answer) if !self.desk.is_busy(tag) && !request.is_shared() => {
                Ok(Begun::Answered(held, answer))
            }
            answer => {
                task.answer = answer;
                task.request = Some((held, *request));
                self.finish_soon(tag);
                Ok(Begun::UnderWay)
            }
        }
    }

    fn ended(&mut self, id: OpId, result: i32) {
        if let Some(tag) = self.desk.ended(id, result) {
            Self::mark(&mut self.tasks, &mut self.ready, tag);
        }
    }

    fn progress(&mut self, ring: &mut R) -> io::Result<Option<Done>> {
        let (tasks, ready) = (&mut self.tasks, &mut self.ready);
        let wakeups = self.desk.wakeups();
        wakeups.take(|tag| Self::mark(tasks, ready, tag));
        while let Some(tag) = self.ready.pop_front() {
            if let Some(task) = self.tasks.get_mut(tag.index()) {
                task.ready = false;
            }
            let done = self.step(ring, tag);
            if done.is_some() {
                return Ok(done);
            }
        }
        // Everything that all of them have asked for, at once.
        self.desk.submit(|id, op| ring.operate(id, op))?;
        Ok(None)
    }

    fn fall_asleep(&mut self) -> bool {
        self.ready.is_empty() && self.desk.wakeups().fall_asleep()
    }

    fn awake(&mut self) {
        self.desk.wakeups().awake();
    }
}

/// Goes on with a tag's future; its answer when it has ended, and then there is no future any more.
#[inline]
fn poll<F: Future<Output = io::Result<()>>>(
    desk: &Desk,
    tag: Tag,
    future: &mut Pin<Box<Option<F>>>,
    request: &Request,
) -> Option<Answer> {
    let waker = desk.enter(tag)?;
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let running = future.as_mut().as_pin_mut()?;
        let polled = running.poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            future.set(None);
        }
        Some(polled)
    }));
    match polled {
        Ok(Some(Poll::Ready(result))) => Some(request.outcome(Ok(result))),
        Ok(_) => None,
        Err(panic) => {
            // What it holds may panic once more.
            let _ = catch_unwind(AssertUnwindSafe(|| future.set(None)));
            Some(request.outcome(Err(panic)))
        }
    }
}

/// One request of an asynchronous disk, from beginning to end.
pub(super) async fn perform<D: AsyncDisk>(
    disk: &D,
    io: &Io<'_>,
    request: Request,
    mut buffer: Buffer<'_>,
) -> io::Result<()> {
    let Request { offset, length, .. } = request;
    match request.operation {
        Operation::Read => disk.read_at(io, &mut buffer, offset).await,
        Operation::Write if request.is_fua() => disk.write_fua_at(io, &buffer, offset).await,
        Operation::Write => disk.write_at(io, &buffer, offset).await,
        Operation::Flush => disk.flush(io).await,
        Operation::Discard => disk.discard(io, offset, length).await,
        Operation::WriteZeroes => {
            disk.write_zeroes(io, offset, length, request.may_unmap())
                .await
        }
        Operation::Other => Err(io::ErrorKind::Unsupported.into()),
    }
}
