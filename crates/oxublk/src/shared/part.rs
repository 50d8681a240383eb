//! Where the data of one request are in a device's shared memory.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::SharedMemory;

/// The part of a shared memory that has a request's data, or takes them.
///
/// The client can change it at any time, so that nobody gets a reference to it: bytes are copied in and out.
#[derive(Clone, Debug)]
pub struct SharedPart {
    memory: Arc<SharedMemory>,
    start: usize,
    length: usize,
}

impl SharedPart {
    /// `length` bytes from `start` on.
    ///
    /// # Errors
    /// They are not within the memory.
    pub fn new(memory: &Arc<SharedMemory>, start: usize, length: usize) -> io::Result<Self> {
        match start.checked_add(length) {
            Some(end) if end <= memory.len() => Ok(Self {
                memory: Arc::clone(memory),
                start,
                length,
            }),
            _ => Err(io::Error::other(memory.outside(start, length))),
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Fills `to` from its byte `at` on.
    ///
    /// # Errors
    /// It has not so many.
    pub fn load(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        self.check(at, to.len())?;
        self.memory.load(self.start + at, to)
    }

    /// Stores `from` from its byte `at` on.
    ///
    /// # Errors
    /// It has not so many.
    pub fn store(&self, at: usize, from: &[u8]) -> io::Result<()> {
        self.check(at, from.len())?;
        self.memory.store(self.start + at, from)
    }

    /// Where it is from its byte `at` on, for an operation on `length` bytes.
    pub(crate) fn address(&self, at: usize, length: usize) -> Option<NonNull<u8>> {
        self.check(at, length).ok()?;
        let start = self.start + at;
        self.memory.address(&(start..start + length)).ok()
    }

    fn check(&self, at: usize, length: usize) -> io::Result<()> {
        match at.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(self.memory.outside(self.start.saturating_add(at), length)),
        }
    }
}
