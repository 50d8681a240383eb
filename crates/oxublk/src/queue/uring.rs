//! The real ring: io_uring commands on `/dev/ublkcN`.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};
use oxublk_sys::{IoCmd, IoDesc, io_op};
use zerocopy::transmute;

use super::buffers::{Buffers, Descriptors};
use super::ring::{Completion, Ring};
use super::tag::Held;
use crate::id::{QueueId, Tag};
use crate::metrics::now_ns;

/// `/dev/ublkcN` and the wake-up, as registered files.
const DEVICE_FILE: Fixed = Fixed(0);
const WAKE_FILE: Fixed = Fixed(1);
/// What the wake-up's completion carries; tags carry their number.
const WAKE_DATA: u64 = u64::MAX;

/// What a queue's ring is made of.
#[derive(Debug)]
pub(crate) struct UringSetup<'f> {
    /// `/dev/ublkcN`.
    pub(crate) device: BorrowedFd<'f>,
    /// An eventfd; when it is readable the queue leaves.
    pub(crate) wake: BorrowedFd<'f>,
    pub(crate) queue: QueueId,
    pub(crate) depth: u16,
    /// The largest request.
    pub(crate) max_io_bytes: usize,
}

/// A queue's io_uring. It stays on the thread that made it: the driver takes answers only from
/// the thread that fetched.
pub(crate) struct Uring {
    // Dropped first: the ring holds the device open, the mappings serve it.
    ring: IoUring,
    descriptors: Descriptors,
    buffers: Buffers,
    queue: QueueId,
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Uring {
    pub(crate) fn new(setup: &UringSetup<'_>) -> io::Result<Self> {
        // Each tag has at most one command in flight; one more for the wake-up.
        let ring = build(u32::from(setup.depth) + 1)?;
        ring.submitter()
            .register_files(&[setup.device.as_raw_fd(), setup.wake.as_raw_fd()])?;
        let mut uring = Self {
            ring,
            descriptors: Descriptors::map(setup.device, setup.queue, setup.depth)?,
            buffers: Buffers::map(setup.depth, setup.max_io_bytes)?,
            queue: setup.queue,
            _stays_on_its_thread: PhantomData,
        };
        let readable = u32::from(rustix::event::PollFlags::IN.bits());
        uring.push(
            &opcode::PollAdd::new(WAKE_FILE, readable)
                .build()
                .user_data(WAKE_DATA),
        )?;
        Ok(uring)
    }

    /// Ends the ring of a queue that leaves while tags are armed. Its buffers stay mapped: what
    /// the driver still copies must not land in memory that has another use by then.
    pub(crate) fn abandon(self) {
        drop(self.ring);
        self.buffers.leak();
    }

    fn command(&mut self, op: u32, tag: Tag, result: i32) -> io::Result<()> {
        let command = IoCmd {
            q_id: self.queue.0,
            tag: tag.0,
            result,
            addr: self.buffers.address(tag),
        };
        let entry = opcode::UringCmd16::new(DEVICE_FILE, op)
            .cmd(transmute!(command))
            .build()
            .user_data(u64::from(tag.0));
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entry's memory is the tag's buffer, which lives until the ring is dropped
        // or for ever (see `abandon`), and is not referenced while the command is with the driver.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("a queue's submission ring is full"))
    }
}

/// The best ring that this kernel has. `SINGLE_ISSUER` and `DEFER_TASKRUN` (6.1) let requests be
/// delivered in batches when we wait for them; `NO_SQARRAY` (6.6) saves an indirection.
fn build(entries: u32) -> io::Result<IoUring> {
    let best = IoUring::builder()
        .dontfork()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .build(entries);
    match best {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        decided => return decided,
    }
    let deferred = IoUring::builder()
        .dontfork()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(entries);
    match deferred {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().dontfork().build(entries)
        }
        decided => decided,
    }
}

impl Ring for Uring {
    fn fetch(&mut self, tag: Tag) -> io::Result<()> {
        self.command(io_op::FETCH_REQ, tag, 0)
    }

    fn commit(&mut self, tag: Tag, result: i32) -> io::Result<()> {
        self.command(io_op::COMMIT_AND_FETCH_REQ, tag, result)
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        match self.ring.submit_and_wait(usize::from(wait)) {
            Ok(_) => Ok(()),
            // A signal, completions to be reaped first, or no memory just now: the caller reaps
            // and comes again.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        match u16::try_from(entry.user_data()) {
            Ok(tag) => Some(Completion::Tag(Tag(tag), entry.result())),
            Err(_) => Some(Completion::Woken),
        }
    }

    fn descriptor(&self, held: &Held) -> IoDesc {
        self.descriptors.get(held)
    }

    fn buffer(&mut self, held: &Held) -> &mut [u8] {
        self.buffers.get(held)
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }
}
