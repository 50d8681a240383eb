//! Memory that was mapped, and is unmapped when nobody needs it any more.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, madvise, munmap};

/// A mapping that is unmapped when dropped. Not inherited by forked children, whose copy would
/// keep the device busy.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    /// Takes over a fresh mapping of `length` bytes at `start`.
    pub(crate) fn adopt(start: *mut c_void, length: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { start, length };
        // SAFETY: the range is the mapping that was just made; DONTFORK changes nothing for this
        // process.
        unsafe { madvise(start.as_ptr(), length, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us, is unmapped only here, and every reference into it
        // borrows the value that is being dropped.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.length) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "cannot unmap memory");
        }
    }
}
