//! The real ring: io_uring commands on `/dev/ublkcN`.
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | commands, completions, the system call |
//! | `enter.rs` | the system call by the ring's number |
//! | `batch.rs` | commands for many tags at once |
//! | `data.rs` | where the requests' data are, by the device's data path |
//! | `entries.rs` | operations of disks as entries of the ring |

mod batch;
mod data;
mod enter;
mod entries;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use oxublk_sys::{IoCmd, IoDesc, io_op};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use zerocopy::transmute;

use self::batch::Batch;
use self::data::Data;
use self::enter::{Least, RingNumber};
use self::entries::Timers;
use super::buffers::Descriptors;
use super::ring::{Completion, Ring};
use super::tag::Held;
use crate::id::{QueueId, Tag};
use crate::metrics::now_ns;
use crate::ops::{Memory, Op, OpId};
use crate::path::DataPath;
use crate::shared::{SharedPart, Table};
use crate::transfer::Carrier;

/// `/dev/ublkcN` and the wake-up, as registered files.
const DEVICE_FILE: Fixed = Fixed(0);
const WAKE_FILE: Fixed = Fixed(1);
/// What the wake-up's completion carries; tags carry their number.
const WAKE_DATA: u64 = u64::MAX;
/// The nudge's.
const NUDGE_DATA: u64 = u64::MAX - 1;
/// Operations carry their number and this.
const OPERATION: u64 = 1 << 32;

/// What a queue's ring is made of.
#[derive(Debug)]
pub(crate) struct UringSetup<'f> {
    /// `/dev/ublkcN`.
    pub(crate) device: &'f Arc<OwnedFd>,
    /// An eventfd; when it is readable the queue leaves.
    pub(crate) wake: BorrowedFd<'f>,
    pub(crate) queue: QueueId,
    pub(crate) depth: u16,
    /// The largest request.
    pub(crate) max_io_bytes: usize,
    pub(crate) path: DataPath,
    /// Whether the device has `UBLK_F_BATCH_IO`.
    pub(crate) batch: bool,
    /// The memories that clients share, of a device that has `UBLK_F_SHMEM_ZC`.
    pub(crate) shared: Option<&'f Arc<Table>>,
}

/// A queue's io_uring. It stays on the thread that made it: the driver takes answers only from
/// the thread that fetched.
pub(crate) struct Uring {
    // Dropped first, then the ring, which holds the device open, then the mappings that serve it.
    number: Option<RingNumber>,
    ring: IoUring,
    descriptors: Descriptors,
    data: Data,
    timers: Timers,
    batch: Option<Batch>,
    queue: QueueId,
    /// Completions that were taken from the ring, and the next that was not looked at. Room for every tag's.
    taken: Vec<cqueue::Entry>,
    next: usize,
    /// Operations that this ring cannot do: they end at once, with this result.
    refused: Vec<(OpId, i32)>,
    /// Readable when the queue's wait shall end.
    nudge: Option<Arc<OwnedFd>>,
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
        // Each tag has one command in flight; the wake-up and the nudge two more. Operations that do not fit are submitted before.
        let entries = u32::from(setup.depth) + 2;
        let ring = build(entries)?;
        let submitter = ring.submitter();
        submitter.register_files(&[setup.device.as_raw_fd(), setup.wake.as_raw_fd()])?;
        let data = Data::new(setup)?;
        if setup.path == DataPath::ZeroCopy {
            submitter.register_buffers_sparse(u32::from(setup.depth))?;
        }
        let batch = setup
            .batch
            .then(|| Batch::new(&submitter, setup.queue, setup.depth, setup.path))
            .transpose()?;
        let mut uring = Self {
            number: RingNumber::of(&ring),
            ring,
            descriptors: Descriptors::map(setup.device.as_fd(), setup.queue, setup.depth)?,
            data,
            timers: Timers::new(entries),
            batch,
            queue: setup.queue,
            taken: Vec::with_capacity(entries as usize),
            next: 0,
            refused: Vec::new(),
            nudge: None,
            _stays_on_its_thread: PhantomData,
        };
        uring.push(
            &opcode::PollAdd::new(WAKE_FILE, readable())
                .build()
                .user_data(WAKE_DATA),
        )?;
        Ok(uring)
    }

    /// Ends the ring of a queue that leaves while tags are armed. Its buffers stay mapped: what
    /// the driver still copies must not land in memory that has another use by then.
    pub(crate) fn abandon(self) {
        drop(self.number);
        drop(self.ring);
        self.data.leak();
        if let Some(batch) = self.batch {
            batch.leak();
        }
    }

    fn command(&mut self, op: u32, tag: Tag, result: i32) -> io::Result<()> {
        if let Some(batch) = &mut self.batch {
            batch.write(tag, result, self.data.address(tag));
            return Ok(());
        }
        let command = IoCmd {
            q_id: self.queue.0,
            tag: tag.0,
            result,
            addr: self.data.address(tag),
        };
        let entry = opcode::UringCmd16::new(DEVICE_FILE, op)
            .cmd(transmute!(command))
            .addr(self.data.registration(tag))
            .build()
            .user_data(u64::from(tag.0));
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entry's memory is the tag's, which lives until the ring is dropped or for ever (see `abandon`), and is not
        // referenced while the command or operation is with the kernel; or a timer's, which is kept until it was submitted.
        let pushed = unsafe { self.ring.submission().push(entry) };
        if pushed.is_ok() {
            return Ok(());
        }
        // Full of operations: they go first.
        self.ring.submit()?;
        // SAFETY: as above.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("a queue's submission ring is full"))
    }

    /// A command of a batch ended, or tells of requests.
    fn of_batch(&mut self, data: u64, result: i32, flags: u32) -> Option<Completion> {
        let batch = self.batch.as_mut()?;
        let next = if data == batch::FETCH_DATA {
            batch
                .fetched(result, flags)
                .map(|again| again.then(|| batch.fetch()))
        } else {
            batch.ended(data ^ batch::ARRAY, result)
        };
        match next {
            Ok(None) => None,
            Ok(Some(entry)) => {
                let pushed = self.push(&entry);
                // A queue without its standing command would wait for ever.
                pushed
                    .err()
                    .map(|_| Completion::Tag(Tag(0), -libc::ENOBUFS))
            }
            Err(completion) => Some(completion),
        }
    }

    /// The system call.
    fn submit(&mut self, least: Least) -> io::Result<()> {
        if let Some(batch) = &mut self.batch {
            let (answers, fetch) = batch.hand_over();
            for entry in [answers, fetch].into_iter().flatten() {
                self.push(&entry)?;
            }
        }
        let entered = enter::enter(&mut self.ring, self.number.as_ref(), least);
        // All at once: the ring's ends are shared with the kernel, and each look at them costs.
        self.taken.extend(self.ring.completion());
        self.data.refresh();
        match entered {
            Ok(()) => Ok(()),
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

    fn await_nudge(&mut self) -> io::Result<()> {
        let Some(nudge) = &self.nudge else {
            return Ok(());
        };
        let entry = opcode::PollAdd::new(Fd(nudge.as_raw_fd()), readable())
            .build()
            .user_data(NUDGE_DATA);
        self.push(&entry)
    }

    /// A nudge has come: takes it back, and waits for the next.
    #[cold]
    fn nudged(&mut self) -> Completion {
        if let Some(nudge) = &self.nudge {
            // The counter is not zero, so that this does not block; and if it is, it says so.
            let _ = rustix::io::read(nudge, &mut [0; 8]);
        }
        // A ring without room is of no use for requests either, and says so then.
        let _ = self.await_nudge();
        Completion::Nudged
    }
}

fn readable() -> u32 {
    u32::from(PollFlags::IN.bits())
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
        let result = self.data.settle(tag, result);
        self.command(io_op::COMMIT_AND_FETCH_REQ, tag, result)
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        let least = if wait && self.refused.is_empty() {
            Least::One
        } else {
            Least::NotAsked
        };
        self.submit(least)
    }

    fn look(&mut self) -> io::Result<()> {
        self.submit(Least::None)
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        loop {
            if let Some(request) = self.batch.as_mut().and_then(Batch::next_tag) {
                return Some(request);
            }
            let Some(entry) = self.taken.get(self.next) else {
                self.taken.clear();
                self.next = 0;
                let (id, result) = self.refused.pop()?;
                return Some(Completion::Operation(id, result));
            };
            self.next += 1;
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            if let Ok(tag) = u16::try_from(data) {
                return Some(Completion::Tag(Tag(tag), result));
            }
            return Some(match data {
                WAKE_DATA => Completion::Woken,
                NUDGE_DATA => self.nudged(),
                data if data >= batch::ARRAY => match self.of_batch(data, result, flags) {
                    Some(completion) => completion,
                    None => continue,
                },
                _ => {
                    let number = u32::try_from(data ^ OPERATION).unwrap_or(u32::MAX);
                    Completion::Operation(OpId(number), result)
                }
            });
        }
    }

    #[inline]
    fn descriptor(&self, held: &Held) -> IoDesc {
        self.descriptors.get(held)
    }

    #[inline]
    fn buffer(&mut self, held: &Held) -> &mut [u8] {
        self.data.buffer(held)
    }

    fn carrier(&mut self, held: &Held) -> Carrier<'_> {
        self.data.carrier(held)
    }

    fn shared(&mut self, held: &Held) -> io::Result<SharedPart> {
        let descriptor = self.descriptors.get(held);
        self.data.shared(&descriptor)
    }

    fn memory(&mut self, held: &Held) -> io::Result<Memory> {
        self.data.memory(held, &self.descriptors)
    }

    fn operate(&mut self, id: OpId, op: &Op) -> io::Result<()> {
        match entries::entry(op, &self.data, &mut self.timers) {
            Ok(entry) => self.push(&entry.user_data(OPERATION | u64::from(id.0))),
            Err(errno) => {
                self.refused
                    .push((id, errno.raw_os_error().saturating_neg()));
                Ok(())
            }
        }
    }

    fn nudge(&mut self) -> io::Result<Box<dyn Fn() + Send + Sync>> {
        let nudge = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        self.nudge = Some(Arc::clone(&nudge));
        self.await_nudge()?;
        Ok(Box::new(move || {
            // The counter is taken back at each nudge, so that the write cannot block or fail.
            let _ = rustix::io::write(&nudge, &1u64.to_ne_bytes());
        }))
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }
}
