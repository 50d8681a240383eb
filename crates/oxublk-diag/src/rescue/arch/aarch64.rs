//! 64-bit Arm. Written from the kernel's interface; not yet run on such a machine.

use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::Stand;

pub(in super::super) const MMAP: u64 = 222;
pub(in super::super) const MUNMAP: u64 = 215;
pub(in super::super) const CLOSE: u64 = 57;
pub(in super::super) const GETPID: u64 = 172;
pub(in super::super) const GETTID: u64 = 178;
pub(in super::super) const TGKILL: u64 = 131;
/// For a test of a call that waits: `ppoll` of nothing.
#[cfg(test)]
pub(in super::super) const PAUSE: u64 = 73;

/// `svc #0`.
pub(in super::super) const INSTRUCTION: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
/// Where the instruction may lie.
pub(in super::super) const ALIGNMENT: usize = 4;

/// The bit of the processor's state that says that it runs 32-bit code.
const STATE_32_BIT: u64 = 1 << 4;

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
        self.0.pstate & STATE_32_BIT == 0
    }

    pub(in super::super) const fn stand(&self) -> Stand {
        Stand {
            instruction: self.0.pc,
            stack: self.0.sp,
        }
    }

    /// Never the thread's own: this kernel decides before the stop whether a system call is repeated, and looks after it
    /// by the place of its instruction. That of another one is used, so that it does not mistake ours for it.
    pub(in super::super) const fn system_call(&self) -> Option<u64> {
        None
    }

    /// The same thread about to make a system call, with the instruction at `at`.
    pub(in super::super) fn calling(mut self, at: u64, number: u64, arguments: [u64; 6]) -> Self {
        self.0.pc = at;
        self.0.regs[8] = number;
        self.0.regs[..6].copy_from_slice(&arguments);
        self
    }

    /// What the system call returned.
    pub(in super::super) const fn result(&self) -> i64 {
        self.0.regs[0].cast_signed()
    }

    /// What the thread goes on with. The kernel has set the registers back to the instruction of a call that is repeated;
    /// one that ends with `EINTR` (`io_uring_enter`) ends so, as after a signal.
    pub(in super::super) const fn undisturbed(self) -> Self {
        self
    }
}
