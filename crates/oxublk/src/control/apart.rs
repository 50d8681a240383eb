//! A command that may wait for a server is sent by a process of its own.
//!
//! The kernel lets no process end before the commands that it sent have ended, and START_DEV and
//! STOP_DEV wait, deaf to signals, for the server's answers. A server that sent them itself and
//! never answers could not be killed: its end would wait for the command, the command for a request,
//! and the request for the server's end. (Seen on 6.12 with START_DEV, on 6.12 and 7.3 with STOP_DEV:
//! nothing but a reboot helped.) So a copy of the process, which holds nothing of the device,
//! submits the command from the ring that both share, and stays until the command has ended.

use std::ffi::{c_int, c_long, c_uint};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: c_uint = 1;

/// The process that sent a command.
#[derive(Debug)]
pub(super) struct Sender(Pid);

impl Sender {
    /// Sends the one entry that waits in the queue of `ring`, a command on `node`.
    pub(super) fn send(ring: RawFd, node: RawFd) -> io::Result<Self> {
        // No signal to the parent when the child ends: it is nobody's business but ours.
        const NOTHING_SHARED: c_long = 0;
        // SAFETY: as fork(2). The child has one thread, and a copy of the memory in which any lock
        // may be held for ever: it calls `submit`, which makes system calls only.
        let pid = unsafe { libc::syscall(libc::SYS_clone, NOTHING_SHARED, 0, 0, 0, 0) };
        match i32::try_from(pid) {
            Ok(0) => submit(ring, node),
            Ok(pid) if pid > 0 => match Pid::from_raw(pid) {
                Some(pid) => Ok(Self(pid)),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ends the process. Only when its command has ended: otherwise this would wait for that.
    pub(super) fn end(self) {
        // It is our child and not waited for yet, so that the pid is not another's.
        match kill_process(self.0, Signal::KILL) {
            Ok(()) => self.bury(),
            Err(error) => {
                tracing::debug!(%error, "the process that sent a control command is gone")
            }
        }
    }

    /// Leaves the process to its command, which goes on, and waits for its end elsewhere: a server that lives long must not
    /// collect dead ones.
    pub(super) fn leave(self) {
        let wait = move || self.bury();
        let waits = thread::Builder::new()
            .name("ublk-sender".to_owned())
            .spawn(wait);
        if let Err(error) = waits {
            tracing::debug!(%error, "nobody waits for the process that sent a control command");
        }
    }

    fn bury(&self) {
        // A child that does not signal its end is waited for with __WCLONE.
        let clone = WaitOptions::from_bits_retain(libc::__WCLONE.cast_unsigned());
        if let Err(error) = rustix::io::retry_on_intr(|| waitpid(Some(self.0), clone)) {
            tracing::debug!(%error, "the process that sent a control command is gone");
        }
    }
}

/// The child's whole life. No allocation, no lock, no panic: this is a copy of one thread of many.
fn submit(ring: RawFd, node: RawFd) -> ! {
    // A signal for the group is the server's affair.
    block_signals();
    keep_only(ring, node);
    enter(ring, 1);
    // Until the command has ended; the parent may be gone by then, and end us no more.
    enter(ring, 0);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Submits `entries` and waits for a completion.
fn enter(ring: RawFd, entries: c_uint) {
    const COMPLETIONS: c_uint = 1;
    let (set, size) = (ptr::null::<u8>(), 0_usize);
    // SAFETY: the ring is open, and nothing of our memory is passed.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            entries,
            COMPLETIONS,
            GETEVENTS,
            set,
            size,
        )
    };
}

fn block_signals() {
    let all = u64::MAX;
    let old = ptr::null_mut::<u64>();
    // SAFETY: `all` is a set of the kernel's size and outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const all,
            old,
            size_of::<u64>(),
        )
    };
}

/// Closes all files but two: above all those of the device, which it would keep busy.
fn keep_only(a: RawFd, b: RawFd) {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    close_range(0, low - 1);
    close_range(low + 1, high - 1);
    close_range(high + 1, c_int::MAX);
}

fn close_range(first: c_int, last: c_int) {
    if first <= last {
        // SAFETY: closes files of this process only, none of which it uses.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
