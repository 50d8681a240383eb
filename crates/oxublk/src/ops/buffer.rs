//! A request's data, for as long as an asynchronous disk has the request.

use std::io;
use std::ptr::NonNull;

use super::Span;
use super::desk::Desk;
use crate::id::Tag;

/// Where a request's data are.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    /// In a buffer of the tag.
    Mapped {
        /// Its first byte.
        start: NonNull<u8>,
        /// Its length.
        length: usize,
    },
    /// In memory that the client shares with the server, of which operations can use so many bytes.
    Shared {
        /// How many.
        length: usize,
    },
    /// With the driver: the ring knows them as a registered buffer, and only its operations can use them.
    Registered,
}

/// A request's data: what a write brought, or where a read's go.
///
/// Operations of [`Io`](super::Io) use it, and so can the processor, unless the data stay with the driver (zero copy).
#[derive(Debug)]
pub struct Buffer<'q> {
    desk: &'q Desk,
    tag: Tag,
    memory: Memory,
    length: usize,
}

impl<'q> Buffer<'q> {
    /// The data of the request that `tag` has. The memory belongs to the tag, and the request is with the server as long as this
    /// value lives.
    pub(crate) fn new(desk: &'q Desk, tag: Tag, memory: Memory, length: usize) -> Self {
        Self {
            desk,
            tag,
            memory,
            length,
        }
    }

    /// How many bytes the request has: 0 for one without data.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the request has no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The data of a write.
    ///
    /// # Errors
    /// They cannot be had: they stay with the driver (zero copy), or an operation on them that was given up has not ended.
    pub fn bytes(&self) -> io::Result<&[u8]> {
        let start = self.mapped()?;
        // SAFETY: `mapped` says that there are so many readable bytes, that the tag is with the server, so that the driver does not
        // write to them, and that no operation does. Nobody else has a reference that could write: this one borrows `self`.
        Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), self.length) })
    }

    /// Where a read's data go.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn bytes_mut(&mut self) -> io::Result<&mut [u8]> {
        let start = self.mapped()?;
        // SAFETY: `mapped` says that there are so many writable bytes, that the tag is with the server, so that the driver does not
        // use them, and that no operation does. Nobody else has a reference: this one borrows `self`, of which a request has one.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.length) })
    }

    /// The memory, if it can be used now.
    fn mapped(&self) -> io::Result<NonNull<u8>> {
        if self.desk.is_busy(self.tag) {
            return Err(io::Error::other(
                "an operation on the request's data was given up and has not ended: they cannot be used yet",
            ));
        }
        match self.memory {
            Memory::Mapped { start, length } if self.length <= length => Ok(start),
            Memory::Mapped { .. } => Err(too_long()),
            Memory::Shared { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the request's data lie in memory that others change: a disk that looks at them must not ask for zero copy",
            )),
            Memory::Registered => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the request's data stay with the driver (zero copy): a disk that looks at them must not ask for that",
            )),
        }
    }

    /// A part of the data, for an operation.
    pub(super) fn span(&self, start: usize, length: usize) -> io::Result<Span> {
        let room = match self.memory {
            Memory::Mapped { length, .. } | Memory::Shared { length } => self.length.min(length),
            Memory::Registered => self.length,
        };
        let length = length.min(room.saturating_sub(start));
        match (u32::try_from(start), u32::try_from(length)) {
            (Ok(start), Ok(length)) => Ok(Span {
                tag: self.tag,
                start,
                length,
            }),
            _ => Err(too_long()),
        }
    }
}

#[cold]
fn too_long() -> io::Error {
    io::Error::other("the driver sent a request that is longer than the tag's buffer")
}
