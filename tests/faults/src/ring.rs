//! An io_uring by hand: its entries are bytes, so that they can be wrong, and it is entered only when told.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

/// Flags of `io_uring_setup`.
pub(crate) mod setup {
    pub(crate) const SQPOLL: u32 = 1 << 1;
    pub(crate) const CQSIZE: u32 = 1 << 3;
    pub(crate) const SQE128: u32 = 1 << 10;
    pub(crate) const SINGLE_ISSUER: u32 = 1 << 12;
    pub(crate) const DEFER_TASKRUN: u32 = 1 << 13;
}

/// Flags of an entry.
pub(crate) mod entry {
    pub(crate) const IO_DRAIN: u8 = 1 << 1;
    pub(crate) const IO_LINK: u8 = 1 << 2;
    pub(crate) const CQE_SKIP_SUCCESS: u8 = 1 << 6;
}

/// Flags that the kernel shows in the ring.
pub(crate) mod shown {
    pub(crate) const NEED_WAKEUP: u32 = 1 << 0;
    pub(crate) const CQ_OVERFLOW: u32 = 1 << 1;
}

/// Flags of `io_uring_enter`.
pub(crate) mod enter {
    pub(crate) const GETEVENTS: u32 = 1 << 0;
    pub(crate) const SQ_WAKEUP: u32 = 1 << 1;
}

/// `IORING_OP_URING_CMD`.
pub(crate) const URING_CMD: u8 = 46;

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) flags: u32,
    /// Room for so many submissions; none for one a tag.
    pub(crate) entries: Option<u32>,
    /// With [`setup::CQSIZE`]: room for so many completions.
    pub(crate) completions: u32,
    /// After so long without submissions a polling thread sleeps.
    pub(crate) idle_ms: u32,
}

impl Setup {
    pub(crate) const PLAIN: Self = Self {
        flags: 0,
        entries: None,
        completions: 0,
        idle_ms: 0,
    };
}

/// An entry of the submission queue, of which a ring takes 64 bytes, or 128.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, FromBytes)]
#[repr(C, align(8))]
pub(crate) struct Entry(pub(crate) [u8; 128]);

impl Entry {
    pub(crate) const FLAGS: usize = 1;
    pub(crate) const FD: usize = 4;
    pub(crate) const CMD_OP: usize = 8;
    pub(crate) const ADDR: usize = 16;
    pub(crate) const USER_DATA: usize = 32;
    /// Where the driver looks for its command.
    pub(crate) const COMMAND: usize = 48;

    /// A command for the file `fd`.
    pub(crate) fn command(fd: i32, op: u32, user_data: u64) -> Self {
        let mut entry = Self([0; 128]);
        entry.put(0, &[URING_CMD]);
        entry.put(Self::FD, &fd.to_ne_bytes());
        entry.put(Self::CMD_OP, &op.to_ne_bytes());
        entry.put(Self::USER_DATA, &user_data.to_ne_bytes());
        entry
    }

    /// Writes bytes at a place.
    pub(crate) fn put(&mut self, place: usize, bytes: &[u8]) {
        self.0[place..place + bytes.len()].copy_from_slice(bytes);
    }
}

/// An entry of the completion queue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    flags: u32,
}

/// `struct io_uring_params`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: SubmissionOffsets,
    cq_off: CompletionOffsets,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

const _: () = assert!(size_of::<Params>() == 120 && offset_of!(Params, cq_off) == 80);

/// Where the kernel's two memories of a ring are mapped.
const OFFSET_RINGS: u64 = 0;
const OFFSET_ENTRIES: u64 = 0x1000_0000;

/// A ring. Never unmapped: it lives as long as the process, whichever thread ends.
#[derive(Debug)]
pub(crate) struct Ring {
    fd: OwnedFd,
    rings: *mut u8,
    entries: *mut u8,
    params: Params,
    /// Bytes of an entry.
    stride: usize,
    writing: Mutex<()>,
    reaping: Mutex<()>,
}

// SAFETY: the mappings live as long as the process; heads and tails are atomics, and what they guard is
// touched only under the two locks. Threads that must not share a ring may do so here: that is a fault to show.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Makes a ring for `commands` commands in flight.
    pub(crate) fn new(how: &Setup, commands: u32) -> io::Result<Self> {
        let mut params = Params::new_zeroed();
        params.flags = how.flags;
        params.cq_entries = how.completions;
        params.sq_thread_idle = how.idle_ms;
        let entries = how.entries.unwrap_or(commands);
        // SAFETY: `params` is the kernel's structure, and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let stride = if params.flags & setup::SQE128 != 0 {
            128
        } else {
            64
        };
        let submissions = params.sq_off.array as usize + params.sq_entries as usize * 4;
        let completions =
            params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let ring = Self {
            rings: map(&fd, submissions.max(completions), OFFSET_RINGS)?,
            entries: map(&fd, params.sq_entries as usize * stride, OFFSET_ENTRIES)?,
            fd,
            params,
            stride,
            writing: Mutex::new(()),
            reaping: Mutex::new(()),
        };
        for index in 0..ring.params.sq_entries {
            ring.word(ring.params.sq_off.array + index * 4)
                .store(index, Ordering::Relaxed);
        }
        Ok(ring)
    }

    /// Writes an entry, and gives it to nobody.
    pub(crate) fn write(&self, entry: &Entry) -> io::Result<()> {
        self.write_as(entry, self.stride)
    }

    /// Writes an entry as if entries were `stride` bytes each.
    pub(crate) fn write_as(&self, entry: &Entry, stride: usize) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let tail_word = self.word(self.params.sq_off.tail);
        let tail = tail_word.load(Ordering::Relaxed);
        if self.unsubmitted() == self.params.sq_entries {
            return Err(io::Error::other("the submission queue is full"));
        }
        let index = (tail & (self.params.sq_entries - 1)) as usize;
        let bytes = &entry.0[..stride.min(self.stride)];
        // SAFETY: the index is below the number of entries, and `stride` is at most their size.
        let place = unsafe { self.entries.add(index * stride.min(self.stride)) };
        // SAFETY: the place is inside the mapping, which nobody borrows; the kernel reads it after the tail moved.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        tail_word.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Enters the kernel with the entries that it has not taken, and waits for so many completions.
    pub(crate) fn enter(&self, submit: bool, wait: u32, flags: u32) -> io::Result<()> {
        let entries = if submit { self.unsubmitted() } else { 0 };
        let (fd, mask, size) = (self.fd.as_raw_fd(), ptr::null::<u8>(), 0_usize);
        // SAFETY: no memory of ours is passed but that which entries name: buffers that are never unmapped while
        // they are right, and arguments of control commands, whose caller waits for their end.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                entries,
                wait,
                flags,
                mask,
                size,
            )
        };
        if entered >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(error),
        }
    }

    /// Gives what was written to the kernel and waits for a completion.
    pub(crate) fn submit_and_wait(&self) -> io::Result<()> {
        self.enter(true, 1, enter::GETEVENTS)
    }

    /// Gives what was written to the kernel.
    pub(crate) fn submit(&self) -> io::Result<()> {
        self.enter(true, 0, 0)
    }

    /// Takes a completion out of the queue.
    pub(crate) fn reap(&self) -> Option<Completion> {
        let _reaping = self.reaping.lock().unwrap_or_else(PoisonError::into_inner);
        let head_word = self.word(self.params.cq_off.head);
        let head = head_word.load(Ordering::Relaxed);
        let tail = self.word(self.params.cq_off.tail).load(Ordering::Acquire);
        if head == tail {
            return None;
        }
        let index = (head & (self.params.cq_entries - 1)) as usize;
        let offset = self.params.cq_off.cqes as usize + index * size_of::<Completion>();
        // SAFETY: the index is below the number of completions: inside the mapping.
        let place = unsafe { self.rings.add(offset) };
        // SAFETY: as above; any bytes are a completion, and the kernel wrote this one before it moved the tail.
        let completion = unsafe { place.cast::<Completion>().read_volatile() };
        head_word.store(head.wrapping_add(1), Ordering::Release);
        Some(completion)
    }

    /// Submissions that the kernel has not taken.
    pub(crate) fn unsubmitted(&self) -> u32 {
        let tail = self.word(self.params.sq_off.tail).load(Ordering::Relaxed);
        let head = self.word(self.params.sq_off.head).load(Ordering::Acquire);
        tail.wrapping_sub(head)
    }

    /// The flags that the kernel shows.
    pub(crate) fn shown(&self) -> u32 {
        self.word(self.params.sq_off.flags).load(Ordering::SeqCst)
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the offsets are the kernel's, inside the mapping.
        let place = unsafe { self.rings.add(offset as usize) };
        // SAFETY: the words are aligned and live as long as the mapping; all access to them is atomic.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }
}

fn map(fd: &OwnedFd, length: usize, offset: u64) -> io::Result<*mut u8> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: the kernel chooses a free address; nothing that exists is touched.
    let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, fd, offset) }?;
    Ok(start.cast())
}
