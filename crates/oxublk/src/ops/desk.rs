//! The operations of a queue's requests: which are to be submitted, which are under way, and who waits for them.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Op, Wakeups};
use crate::id::Tag;

/// An operation's number, while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// What is known of an operation.
#[derive(Debug)]
enum State {
    /// The number is free; the next free one.
    Free(Option<u32>),
    /// Asked for, and not yet given to the ring; and whether somebody waits for it.
    Asked(Op, bool),
    /// With the kernel.
    UnderWay,
    /// Ended with this result, which nobody has taken.
    Ended(i32),
    /// With the kernel, and nobody waits for it any more.
    GivenUp,
}

#[derive(Debug)]
struct Slot {
    tag: Tag,
    state: State,
    /// Who waits, if that is not the tag's own task.
    waker: Option<Waker>,
}

/// Numbers and their states, and which are to be submitted.
#[derive(Debug, Default)]
struct Book {
    slots: Vec<Slot>,
    free: Option<u32>,
    asked: Vec<OpId>,
}

/// The operations of one queue. Its futures and its loop share it, all on one thread.
#[derive(Debug)]
pub(crate) struct Desk {
    book: RefCell<Book>,
    /// Operations of each tag that were asked for and have not ended.
    under_way: Box<[Cell<u16>]>,
    /// Whose future is being polled.
    current: Cell<Tag>,
    wakers: Box<[Waker]>,
    wakeups: Arc<Wakeups>,
}

impl Desk {
    pub(crate) fn new(depth: u16) -> Self {
        let wakeups = Wakeups::new(depth);
        let tags = usize::from(depth);
        let book = Book {
            // One a tag is the rule; more are made room for when they are first needed.
            slots: Vec::with_capacity(tags),
            asked: Vec::with_capacity(tags),
            ..Book::default()
        };
        Self {
            book: RefCell::new(book),
            under_way: vec![Cell::new(0); tags].into(),
            current: Cell::new(Tag(0)),
            wakers: (0..depth).map(|tag| wakeups.waker(Tag(tag))).collect(),
            wakeups,
        }
    }

    pub(crate) fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    /// The waker of a tag's task, which is polled from now on.
    #[inline]
    pub(crate) fn enter(&self, tag: Tag) -> Option<&Waker> {
        self.current.set(tag);
        self.wakers.get(tag.index())
    }

    /// Asks for an operation, for the task that is being polled.
    #[inline]
    pub(super) fn begin(&self, op: Op) -> Waiting<'_> {
        let tag = self.current.get();
        let id = self.book.borrow_mut().begin(tag, op);
        self.count(tag, 1);
        Waiting { desk: self, id }
    }

    /// Gives everything that was asked for to the ring.
    ///
    /// # Errors
    /// The ring took no more.
    pub(crate) fn submit<E>(
        &self,
        mut give: impl FnMut(OpId, &Op) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut book = self.book.borrow_mut();
        for index in 0..book.asked.len() {
            if let Some(id) = book.asked.get(index).copied()
                && let Some(op) = book.give(id)
            {
                give(id, &op)?;
            }
        }
        book.asked.clear();
        Ok(())
    }

    /// The kernel ended an operation. Returns the tag whose it is.
    pub(crate) fn ended(&self, id: OpId, result: i32) -> Option<Tag> {
        let (tag, waker) = self.book.borrow_mut().end(id, result)?;
        self.count(tag, -1);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(tag)
    }

    /// Whether the kernel still uses what belongs to this tag, or is about to.
    #[inline]
    pub(crate) fn is_busy(&self, tag: Tag) -> bool {
        self.under_way
            .get(tag.index())
            .is_some_and(|count| count.get() > 0)
    }

    fn count(&self, tag: Tag, change: i16) {
        if let Some(count) = self.under_way.get(tag.index()) {
            count.set(count.get().saturating_add_signed(change));
        }
    }
}

impl Book {
    fn begin(&mut self, tag: Tag, op: Op) -> OpId {
        let slot = Slot {
            tag,
            state: State::Asked(op, true),
            waker: None,
        };
        let number = match self.free {
            Some(number) => number,
            None => {
                // More than that many never fit a ring.
                let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                self.slots.push(Slot {
                    tag,
                    state: State::Free(None),
                    waker: None,
                });
                number
            }
        };
        if let Some(place) = self.slots.get_mut(number as usize) {
            if let State::Free(next) = place.state {
                self.free = next;
            }
            *place = slot;
        }
        self.asked.push(OpId(number));
        OpId(number)
    }

    /// The operation goes to the kernel, unless it was given up.
    fn give(&mut self, id: OpId) -> Option<Op> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        let State::Asked(op, wanted) = slot.state else {
            return None;
        };
        slot.state = if wanted {
            State::UnderWay
        } else {
            State::GivenUp
        };
        Some(op)
    }

    fn end(&mut self, id: OpId, result: i32) -> Option<(Tag, Option<Waker>)> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        let tag = slot.tag;
        let waker = slot.waker.take();
        match slot.state {
            State::UnderWay => slot.state = State::Ended(result),
            State::GivenUp => self.release(id),
            _ => return None,
        }
        Some((tag, waker))
    }

    fn release(&mut self, id: OpId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.state = State::Free(self.free);
            slot.waker = None;
            self.free = Some(id.0);
        }
    }
}

/// An operation that somebody waits for.
#[derive(Debug)]
pub(super) struct Waiting<'d> {
    desk: &'d Desk,
    id: OpId,
}

impl Future for Waiting<'_> {
    type Output = i32;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<i32> {
        let mut book = self.desk.book.borrow_mut();
        let Some(slot) = book.slots.get_mut(self.id.0 as usize) else {
            return Poll::Ready(-libc::EIO);
        };
        if let State::Ended(result) = slot.state {
            return Poll::Ready(result);
        }
        let own = self.desk.wakers.get(slot.tag.index());
        if own.is_none_or(|own| !context.waker().will_wake(own)) {
            slot.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut book = self.desk.book.borrow_mut();
        let Some(slot) = book.slots.get_mut(self.id.0 as usize) else {
            return;
        };
        match slot.state {
            State::Ended(_) => book.release(self.id),
            // Never given to the kernel, and never will be: its file may be closed now.
            State::Asked(..) => {
                let tag = slot.tag;
                book.asked.retain(|asked| *asked != self.id);
                book.release(self.id);
                self.desk.count(tag, -1);
            }
            State::UnderWay => {
                slot.state = State::GivenUp;
                slot.waker = None;
                let (tag, operation) = (slot.tag, self.id);
                let cancel = Op::Cancel { operation };
                let id = book.begin(tag, cancel);
                self.desk.count(tag, 1);
                // Nobody waits for that either.
                if let Some(slot) = book.slots.get_mut(id.0 as usize) {
                    slot.state = State::Asked(cancel, false);
                }
            }
            State::GivenUp | State::Free(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
