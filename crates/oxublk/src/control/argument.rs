//! Memory for a command's argument that the process which sends it shares with us.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// More than any argument of any command has.
pub(super) const ARGUMENT_BYTES: usize = 4096;

/// A page that stays the same memory in a copy of this process.
#[derive(Debug)]
pub(super) struct Argument(NonNull<c_void>);

// SAFETY: the page is process-wide memory that only this value refers to.
unsafe impl Send for Argument {}

impl Argument {
    pub(super) fn new() -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), ARGUMENT_BYTES, access, MapFlags::SHARED) }?;
        NonNull::new(start)
            .map(Self)
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Stores an argument and returns its address.
    pub(super) fn store(&mut self, argument: &[u8]) -> io::Result<u64> {
        if argument.len() > ARGUMENT_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let to = self.0.as_ptr().cast::<u8>();
        // SAFETY: the argument fits into the page, which is mapped, and lies elsewhere.
        unsafe { ptr::copy_nonoverlapping(argument.as_ptr(), to, argument.len()) };
        Ok(to as u64)
    }

    /// Loads what the driver made of the argument, whose command has ended.
    pub(super) fn load(&self, argument: &mut [u8]) {
        let length = argument.len().min(ARGUMENT_BYTES);
        // SAFETY: the length is within the page, which is mapped and was zeroed by the kernel; the
        // argument lies elsewhere.
        unsafe { ptr::copy_nonoverlapping(self.0.as_ptr().cast(), argument.as_mut_ptr(), length) };
    }

    /// Never unmaps the page: for a command that goes on and may still write to it.
    pub(super) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Argument {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by us, is unmapped only here, and nothing refers to it.
        let unmapped = unsafe { munmap(self.0.as_ptr(), ARGUMENT_BYTES) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "cannot unmap the page of a control command");
        }
    }
}
