#![doc = include_str!("README.md")]
//!
//! # Files of this module
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | the disk: requests as operations of the ring |
//! | `builder.rs` | from a path and options to a disk |
//! | `opening.rs` | the file itself: found or made, opened, locked |
//! | `shape.rs` | from what is below to the disk's geometry |
//! | `direct.rs` | what direct I/O asks for |
//! | `limits.rs` | what the block device below can do |
//! | `holders.rs` | who has a file that we cannot have |
//! | `error.rs` | why a file cannot be served |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use oxublk::{AsyncDisk, Buffer, Geometry, Io};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::Target;

mod builder;
mod direct;
mod error;
mod holders;
mod limits;
mod opening;
mod shape;
#[cfg(test)]
mod tests;

pub use builder::FileBuilder;
pub use error::{OpenError, OpenErrorKind};

pub(crate) const TARGET: Target = Target {
    name: "file",
    summary: "a regular file or a block device: what was flushed is on the medium",
};

/// Gives the range's space back; it reads as zeroes.
const PUNCH: i32 = mode(FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE));
/// Makes the range read as zeroes, and keeps its space.
const ZERO: i32 = mode(FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE));
/// Gives the range space.
const RESERVE: i32 = mode(FallocateFlags::KEEP_SIZE);

const fn mode(flags: FallocateFlags) -> i32 {
    flags.bits().cast_signed()
}

/// How the data come to the file, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Why, in words.
    pub why: String,
}

/// A disk in a regular file or on a block device; the [module](self) says more.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
    is_block: bool,
    size_bytes: u64,
    geometry: Geometry,
    way: Way,
    zero_copy: bool,
    notes: Vec<String>,
    /// The file system has no `FALLOC_FL_ZERO_RANGE`: learned when it was first asked for.
    cannot_zero: AtomicBool,
    /// A flush has failed: what it was for may be lost, and no later flush can make that good.
    lost: AtomicBool,
    /// That the file is too short was said.
    said_short: AtomicBool,
}

impl File {
    /// A disk in the file or on the block device at this path, with the size that it has.
    ///
    /// # Errors
    /// As [`FileBuilder::open`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder(path).open()
    }

    /// The same with options.
    pub fn builder(path: impl Into<PathBuf>) -> FileBuilder {
        FileBuilder::new(path.into())
    }

    /// The file's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the data come to the file.
    #[must_use]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// What differs from what one may expect, in words.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    async fn allocate(&self, io: &Io<'_>, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        io.allocate(&self.file, mode, offset, len).await
    }

    /// Zeroes whose space is kept.
    async fn zero(&self, io: &Io<'_>, offset: u64, len: u64) -> io::Result<()> {
        if !self.cannot_zero.load(Relaxed) {
            match self.allocate(io, ZERO, offset, len).await {
                Err(error) if is_unsupported(&error) => self.cannot_zero.store(true, Relaxed),
                done => return done,
            }
        }
        // Space that is given back and taken again reads as zeroes too. Block devices have no such thing.
        if self.is_block || !self.geometry.discard {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.allocate(io, PUNCH, offset, len).await?;
        self.allocate(io, RESERVE, offset, len).await
    }

    /// What failed; a file that has become too short is named, once.
    #[cold]
    fn failed(&self, error: io::Error, offset: u64, length: usize) -> io::Error {
        // Direct I/O does not take the odd rest of a file that was cut anywhere.
        let may_be_short = error.kind() == io::ErrorKind::UnexpectedEof
            || error.raw_os_error() == Some(Errno::INVAL.raw_os_error());
        if self.is_block || !may_be_short {
            return error;
        }
        let end = offset.saturating_add(length as u64);
        let is = match self.file.metadata() {
            Ok(stat) if stat.len() < end => stat.len(),
            _ => return error,
        };
        if !self.said_short.swap(true, Relaxed) {
            tracing::warn!(
                path = %self.path.display(), offset, length, file_bytes = is, disk_bytes = self.size_bytes,
                "the file has become shorter than the disk: requests beyond its end fail"
            );
        }
        Errno::IO.into()
    }

    /// The kernel may have dropped what it could not write, and tells that once. Whoever flushes later must hear of it too.
    #[cold]
    fn flush_failed(&self, error: io::Error) -> io::Error {
        if !self.lost.swap(true, Relaxed) {
            tracing::error!(
                path = %self.path.display(), %error,
                "a flush failed: what was written may be lost, and every later flush fails"
            );
        }
        error
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
}

impl AsyncDisk for File {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        let read = io.read_exact(&self.file, buf, offset).await;
        read.map_err(|error| self.failed(error, offset, buf.len()))
    }

    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        io.write_all(&self.file, buf, offset).await
    }

    async fn write_fua_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        match io.write_all_durably(&self.file, buf, offset).await {
            // From the page cache this may be the one time that the kernel tells of other writes too.
            Err(error)
                if !self.way.direct && error.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
            {
                Err(self.flush_failed(error))
            }
            done => done,
        }
    }

    async fn flush(&self, io: &Io<'_>) -> io::Result<()> {
        match io.sync_data(&self.file).await {
            Err(error) => Err(self.flush_failed(error)),
            Ok(()) if self.lost.load(Relaxed) => Err(Errno::IO.into()),
            Ok(()) => Ok(()),
        }
    }

    async fn discard(&self, io: &Io<'_>, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(io, PUNCH, offset, len).await
    }

    async fn write_zeroes(
        &self,
        io: &Io<'_>,
        offset: u64,
        len: u64,
        may_unmap: bool,
    ) -> io::Result<()> {
        if may_unmap && self.geometry.discard {
            self.allocate(io, PUNCH, offset, len).await
        } else {
            self.zero(io, offset, len).await
        }
    }
}
