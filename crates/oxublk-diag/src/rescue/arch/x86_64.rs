//! x86-64.

use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{IO_URING_ENTER, Stand};

pub(in super::super) const MMAP: u64 = 9;
pub(in super::super) const MUNMAP: u64 = 11;
pub(in super::super) const CLOSE: u64 = 3;
pub(in super::super) const GETPID: u64 = 39;
pub(in super::super) const GETTID: u64 = 186;
pub(in super::super) const TGKILL: u64 = 234;
/// For a test of a call that waits.
#[cfg(test)]
pub(in super::super) const PAUSE: u64 = 34;

/// `syscall`.
pub(in super::super) const INSTRUCTION: &[u8] = &[0x0f, 0x05];
/// Where the instruction may lie.
pub(in super::super) const ALIGNMENT: usize = 1;

/// The code segment of 64-bit programs.
const NATIVE_CODE: u64 = 0x33;
const EINTR: i64 = -4;
/// The kernel's own: goes on as if nothing had been, unless a signal's handler was run; then it is `EINTR`.
const ERESTARTNOHAND: i64 = -514;
/// Calls that end with `EINTR` when a debugger stops their thread, where others are repeated by the kernel:
/// `io_uring_enter`, `epoll_wait`, `epoll_pwait`, `epoll_pwait2`. They may be repeated: nothing was done yet.
const REPEATABLE: &[u64] = &[IO_URING_ENTER, 232, 281, 441];

/// The registers of a thread that is stopped.
#[derive(Clone, Copy)]
pub(in super::super) struct Registers(user_regs_struct);

impl Registers {
    /// Those that the thread has.
    pub(in super::super) fn of(thread: Pid) -> nix::Result<Self> {
        ptrace::getregs(thread).map(Self)
    }

    /// Gives them to the thread.
    pub(in super::super) fn put(self, thread: Pid) -> nix::Result<()> {
        ptrace::setregs(thread, self.0)
    }

    /// Whether the thread runs 64-bit code.
    pub(in super::super) const fn are_native(&self) -> bool {
        self.0.cs == NATIVE_CODE
    }

    pub(in super::super) const fn stand(&self) -> Stand {
        Stand {
            instruction: self.0.rip,
            stack: self.0.rsp,
        }
    }

    /// Where the instruction is that brought the thread into the kernel, if a system call did.
    pub(in super::super) const fn system_call(&self) -> Option<u64> {
        match self.0.orig_rax.cast_signed() {
            0.. => Some(self.0.rip.wrapping_sub(2)),
            _ => None,
        }
    }

    /// The same thread about to make a system call, with the instruction at `at`.
    pub(in super::super) fn calling(mut self, at: u64, number: u64, arguments: [u64; 6]) -> Self {
        let registers = &mut self.0;
        registers.rip = at;
        registers.rax = number;
        // No system call was interrupted: nothing is repeated on the way to user space.
        registers.orig_rax = u64::MAX;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = arguments;
        self
    }

    /// What the system call returned.
    pub(in super::super) const fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    /// What the thread goes on with, so that the interrupted system call is not disturbed. The kernel itself
    /// repeats those that say so in their result.
    pub(in super::super) fn undisturbed(mut self) -> Self {
        if self.result() == EINTR && REPEATABLE.contains(&self.0.orig_rax) {
            self.0.rax = ERESTARTNOHAND.cast_unsigned();
        }
        self
    }
}
