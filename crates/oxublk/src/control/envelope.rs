//! A control command's way to the driver: an io_uring with 128-byte entries on
//! `/dev/ublk-control`, and a deadline.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use oxublk_sys::{CtrlCmd, CtrlOp, ctrl_op};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::apart::Sender;
use super::argument::Argument;

type ControlRing = IoUring<squeue::Entry128, cqueue::Entry>;

/// How long a command that was cancelled may take to come back.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// What a cancellation's own completion carries; commands count up from 0.
const CANCEL_DATA: u64 = u64::MAX;
/// Bytes that an entry of 128 has for its command.
const COMMAND_BYTES: usize = 80;
/// The commands that can wait for a server without regard to signals: they go apart.
const WAIT_FOR_A_SERVER: [CtrlOp; 7] = [
    ctrl_op::START_DEV,
    ctrl_op::STOP_DEV,
    ctrl_op::DEL_DEV,
    ctrl_op::DEL_DEV_ASYNC,
    // For the device's lock, which the others hold.
    ctrl_op::GET_PARAMS,
    // For the queue to be empty. That process has the memory that is registered, by the same addresses.
    ctrl_op::REG_BUF,
    ctrl_op::UNREG_BUF,
];

/// One command, ready to be sent.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) op: CtrlOp,
    pub(super) header: CtrlCmd,
    /// What `header.addr` will point to: in and out.
    pub(super) argument: Vec<u8>,
}

/// Why a command has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The driver's errno, positive.
    Errno(i32),
    /// The deadline passed. Where cancelling did not help either the command goes on in the kernel.
    TimedOut {
        /// The driver let go of the command.
        cancelled: bool,
    },
    /// The ring itself failed.
    Ring(io::Error),
}

/// How a command ended.
struct Ended {
    /// What the driver returned.
    result: i32,
    /// On its own; else by being cancelled, or just before that.
    in_time: bool,
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Ring(error)
    }
}

/// The open control node, its ring, and the page that carries arguments.
pub(super) struct Envelope {
    ring: ControlRing,
    node: OwnedFd,
    argument: Argument,
    next: u64,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    pub(super) fn new(node: OwnedFd) -> io::Result<Self> {
        // Not `dontfork`: the process that sends a command apart submits from this ring.
        let ring = IoUring::builder().build(4)?;
        Ok(Self {
            ring,
            node,
            argument: Argument::new()?,
            next: 0,
        })
    }

    /// Sends a command and waits for its result, at most until the deadline. Returns the
    /// driver's result and the argument as the driver left it.
    pub(super) fn call(
        &mut self,
        mut call: Call,
        deadline: Duration,
    ) -> Result<(i32, Vec<u8>), CallError> {
        let id = self.next;
        self.next += 1;
        let address = self.argument.store(&call.argument)?;
        call.header.addr = if call.argument.is_empty() { 0 } else { address };
        self.push_command(&call, id)?;
        let ended = self.see_through(&call.op, id, deadline);
        let Ok(Some(Ended { result, in_time })) = ended else {
            // The driver may still write to the argument: it stays for ever.
            std::mem::replace(&mut self.argument, Argument::new()?).leak();
            return Err(ended
                .err()
                .map_or(CallError::TimedOut { cancelled: false }, CallError::Ring));
        };
        if result >= 0 {
            self.argument.load(&mut call.argument);
            return Ok((result, call.argument));
        }
        match result.saturating_neg() {
            // Not what it would have come to on its own.
            libc::EINTR | libc::ECANCELED if !in_time => {
                Err(CallError::TimedOut { cancelled: true })
            }
            errno => Err(CallError::Errno(errno)),
        }
    }

    /// Sends the command that was pushed, waits for it, and cancels it when the time is up. None
    /// when that did not help.
    fn see_through(
        &mut self,
        op: &CtrlOp,
        id: u64,
        deadline: Duration,
    ) -> io::Result<Option<Ended>> {
        let sender = self.send(op)?;
        let mut result = self.wait(id, deadline)?;
        let in_time = result.is_some();
        if !in_time {
            result = self.cancel(id)?;
        }
        let Some(result) = result else {
            if let Some(sender) = sender {
                sender.leave();
            }
            return Ok(None);
        };
        if let Some(sender) = sender {
            sender.end();
        }
        Ok(Some(Ended { result, in_time }))
    }

    /// Sends what was pushed: from here, or from a process of its own.
    fn send(&mut self, op: &CtrlOp) -> io::Result<Option<Sender>> {
        if WAIT_FOR_A_SERVER.contains(op) {
            match Sender::send(self.ring.as_raw_fd(), self.node.as_raw_fd()) {
                Ok(sender) => return Ok(Some(sender)),
                Err(error) => {
                    tracing::warn!(command = op.name, %error, "no process of its own for a command: it is sent from here");
                }
            }
        }
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn push_command(&mut self, call: &Call, id: u64) -> io::Result<()> {
        let mut command = [0; COMMAND_BYTES];
        let header = call.header.as_bytes();
        command[..header.len()].copy_from_slice(header);
        let entry = opcode::UringCmd80::new(Fd(self.node.as_raw_fd()), call.op.opcode)
            .cmd(command)
            .build()
            .user_data(id);
        self.push(&entry)
    }

    fn cancel(&mut self, id: u64) -> io::Result<Option<i32>> {
        let entry = opcode::AsyncCancel::new(id).build().user_data(CANCEL_DATA);
        self.push(&entry.into())?;
        self.ring.submit()?;
        self.wait(id, CANCEL_GRACE)
    }

    fn push(&mut self, entry: &squeue::Entry128) -> io::Result<()> {
        // SAFETY: the command's argument is a page that stays mapped until its completion was
        // seen, or for ever when `call` gives up on it; the header was copied into the entry.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("the control ring is full"))
    }

    fn ring_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's file is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// The result of command `id`, or none when the time is up. Does not enter the ring: what
    /// waits to be submitted is another process's to submit.
    fn wait(&mut self, id: u64, limit: Duration) -> io::Result<Option<i32>> {
        let end = Instant::now() + limit;
        loop {
            let done = self.ring.completion().find(|entry| entry.user_data() == id);
            if let Some(entry) = done {
                return Ok(Some(entry.result()));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut readable = [PollFd::from_borrowed_fd(self.ring_fd(), PollFlags::IN)];
            match poll(&mut readable, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
