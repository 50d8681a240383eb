//! What differs from one kind of processor to another: registers, the instruction of a system call, its numbers.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::*;

/// Where a thread stands in its own code: while both stay the same, it has executed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// The next instruction.
    pub(super) instruction: u64,
    /// The top of its stack.
    pub(super) stack: u64,
}

/// Numbers that are the same on all architectures.
pub(super) const IO_URING_SETUP: u64 = 425;
/// See [`IO_URING_SETUP`].
pub(super) const IO_URING_ENTER: u64 = 426;
