//! Memory that was mapped, and is unmapped when nobody needs it any more.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise, munmap};

/// A mapping that is unmapped when dropped. Unless it is said otherwise not inherited by forked children, whose copy
/// would keep the device busy.
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

    /// The same for one that forked children may have.
    pub(crate) fn adopt_for_all(start: *mut c_void, length: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
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

/// A memfd that can be sealed, and never executed.
pub(crate) fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 log a line when a memfd does not say whether it may be executed; older ones do not know the flag.
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        made => Ok(made?),
    }
}
