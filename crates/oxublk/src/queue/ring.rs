//! What a queue needs of the kernel, as a trait: the real ring is `Uring`; the
//! model in `oxublk-sim` is another, so that the queue's own code runs on both unchanged.

use std::io;

use oxublk_sys::IoDesc;

use super::tag::Held;
use crate::id::Tag;
use crate::ops::{Memory, Op, OpId};
use crate::shared::SharedPart;
use crate::transfer::Carrier;

/// Something came back from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// A command of this tag ended with this result.
    Tag(Tag, i32),
    /// The driver gave back every tag that is with it, and will every other: the device is stopping.
    AllGone,
    /// An operation ended with this result.
    Operation(OpId, i32),
    /// The wait shall end: a future was woken by another thread.
    Nudged,
    /// Somebody asked the queue to leave.
    Woken,
}

/// One queue's commands, descriptors and buffers.
///
/// `fetch` and `commit` only write the command down; [`enter`](Ring::enter) hands all of them to
/// the driver at once.
pub trait Ring {
    /// Arms a tag for the first time.
    ///
    /// # Errors
    /// The command could not be written down.
    fn fetch(&mut self, tag: Tag) -> io::Result<()>;

    /// Answers a request with a result (bytes, or a negative errno) and arms its tag again. The
    /// caller has told the tag's state machine.
    ///
    /// # Errors
    /// The command could not be written down.
    fn commit(&mut self, tag: Tag, result: i32) -> io::Result<()>;

    /// Hands the commands to the driver and, with `wait`, returns when something came back.
    ///
    /// # Errors
    /// The ring failed; the queue cannot go on.
    fn enter(&mut self, wait: bool) -> io::Result<()>;

    /// Hands the commands to the driver and takes in what has come, without waiting for more.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    fn look(&mut self) -> io::Result<()>;

    /// The next of what came back.
    fn next_completion(&mut self) -> Option<Completion>;

    /// The request's descriptor, as the driver wrote it: a copy, since the driver writes it anew
    /// for the tag's next request.
    fn descriptor(&self, held: &Held) -> IoDesc;

    /// The tag's buffer, as large as the device's largest request.
    fn buffer(&mut self, held: &Held) -> &mut [u8];

    /// The way of the request's data, for a disk that moves them itself.
    fn carrier(&mut self, held: &Held) -> Carrier<'_>;

    /// Where the data of a request are that lie in shared memory (`IoFlags::SHMEM_ZC`).
    ///
    /// # Errors
    /// The descriptor names a place that this server does not share.
    fn shared(&mut self, _held: &Held) -> io::Result<SharedPart> {
        Err(io::Error::other("the device shares no memory"))
    }

    /// The request's data, for as long as the request is with the server.
    ///
    /// # Errors
    /// They cannot be had now.
    fn memory(&mut self, held: &Held) -> io::Result<Memory>;

    /// Writes an operation down, as `fetch` and `commit` do.
    ///
    /// # Errors
    /// The operation could not be written down.
    fn operate(&mut self, id: OpId, op: &Op) -> io::Result<()>;

    /// What ends the wait of [`enter`](Self::enter) from any thread, with a [`Completion::Nudged`]. Asked once.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    fn nudge(&mut self) -> io::Result<Box<dyn Fn() + Send + Sync>>;

    /// Nanoseconds since a moment that is the same for all queues of a device.
    fn now_ns(&self) -> u64;
}
