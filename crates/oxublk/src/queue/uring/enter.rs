//! The system call, by the ring's number in its thread: the kernel need not look the descriptor up at each call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;

/// `IORING_REGISTER_RING_FDS`, `IORING_UNREGISTER_RING_FDS`, since 5.18.
const REGISTER: libc::c_uint = 20;
const UNREGISTER: libc::c_uint = 21;
/// `IORING_ENTER_GETEVENTS`, `IORING_ENTER_REGISTERED_RING`.
const GETEVENTS: libc::c_uint = 1 << 0;
const REGISTERED_RING: libc::c_uint = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
#[derive(Debug, Default)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A ring's number in the thread that made it. While it has one the ring stays, whoever closes it.
#[derive(Debug)]
pub(super) struct RingNumber {
    ring: RawFd,
    number: u32,
}

impl RingNumber {
    /// None where the kernel gives none: the descriptor does as well. Must be dropped before the ring is.
    pub(super) fn of(ring: &IoUring) -> Option<Self> {
        let ring = ring.as_raw_fd();
        let mut update = Update {
            // Any that is free; the kernel writes which.
            offset: u32::MAX,
            reserved: 0,
            data: u64::try_from(ring).ok()?,
        };
        (register(ring, REGISTER, &mut update) == 1).then_some(Self {
            ring,
            number: update.offset,
        })
    }
}

/// How many completions a call is to come back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Least {
    /// None is asked for: work that is deferred until one is stays so.
    NotAsked,
    /// As many as there are.
    None,
    /// One.
    One,
}

/// Submits what is written down and waits for so many completions.
#[inline]
pub(super) fn enter(
    ring: &mut IoUring,
    number: Option<&RingNumber>,
    least: Least,
) -> io::Result<()> {
    let mut submissions = ring.submission();
    submissions.sync();
    let count = submissions.len();
    drop(submissions);
    let (which, mut flags) = match number {
        Some(number) => (i64::from(number.number), REGISTERED_RING),
        None => (i64::from(ring.as_raw_fd()), 0),
    };
    if least != Least::NotAsked {
        flags |= GETEVENTS;
    }
    let at_least = libc::c_uint::from(least == Least::One);
    let no_signals: *const libc::sigset_t = std::ptr::null();
    // SAFETY: the ring is this one, by its number in this thread or its descriptor; entries in it are what `Uring::push` vouches
    // for; no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            which,
            count,
            at_least,
            flags,
            no_signals,
            0_usize,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Drop for RingNumber {
    fn drop(&mut self) {
        let mut update = Update {
            offset: self.number,
            ..Update::default()
        };
        register(self.ring, UNREGISTER, &mut update);
    }
}

fn register(ring: RawFd, operation: libc::c_uint, update: &mut Update) -> libc::c_long {
    // SAFETY: the kernel reads and writes one update, which is borrowed for the call.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            operation,
            std::ptr::from_mut(update),
            1,
        )
    }
}
