//! What an asynchronous disk does while a request waits: operations on its queue's own ring.
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | [`Op`], an operation, and [`Io`], by which a disk asks for one |
//! | `buffer.rs` | [`Buffer`], a request's data |
//! | `desk.rs` | which operations are under way, and who waits for them |
//! | `wake.rs` | which tags have something to do; wake-ups from other threads |

mod buffer;
mod desk;
mod wake;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

pub use buffer::{Buffer, Memory};
pub(crate) use desk::Desk;
pub use desk::OpId;
use desk::Waiting;
pub(crate) use wake::Wakeups;

use crate::id::Tag;

/// A part of a tag's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub tag: Tag,
    /// From this byte of the request on.
    pub start: u32,
    /// So many bytes.
    pub length: u32,
}

/// An operation of the ring, as a disk asks for it.
///
/// The file is a number: whoever asks keeps it open until the operation is submitted (a disk keeps it as a field), and the kernel from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From a file into a request's data.
    Read {
        /// Which file.
        file: RawFd,
        /// Where to.
        data: Span,
        /// From this byte of the file on.
        offset: u64,
    },
    /// From a request's data into a file.
    Write {
        /// Which file.
        file: RawFd,
        /// Where from.
        data: Span,
        /// From this byte of the file on.
        offset: u64,
        /// On the medium before it ends (`RWF_DSYNC`).
        durable: bool,
    },
    /// `fsync`, or `fdatasync`.
    Sync {
        /// Which file.
        file: RawFd,
        /// Only what is needed to read the data again.
        data_only: bool,
    },
    /// `fallocate`.
    Allocate {
        /// Which file.
        file: RawFd,
        /// `FALLOC_FL_…`.
        mode: i32,
        /// First byte.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
    /// A request's data to a socket.
    Send {
        /// Which socket.
        file: RawFd,
        /// Where from.
        data: Span,
    },
    /// From a socket into a request's data.
    Receive {
        /// Which socket.
        file: RawFd,
        /// Where to.
        data: Span,
    },
    /// Until a file is ready for what `events` says (`POLLIN`, …).
    Poll {
        /// Which file.
        file: RawFd,
        /// `POLL…`.
        events: u32,
    },
    /// Until so many nanoseconds have passed.
    Sleep {
        /// So many.
        nanoseconds: u64,
    },
    /// Ends another operation early, if it can still be.
    Cancel {
        /// Which.
        operation: OpId,
    },
}

/// Operations on the queue's own ring, for one queue's requests.
///
/// They are submitted together with the queue's answers, in one system call, and no thread waits for them. A future
/// that is dropped before its operation has ended cancels it; the request is not answered before that has ended too,
/// since the kernel may still use its data.
#[derive(Debug)]
pub struct Io<'q> {
    desk: &'q Desk,
}

impl<'q> Io<'q> {
    pub(crate) fn new(desk: &'q Desk) -> Self {
        Self { desk }
    }

    /// Reads from `file` at `offset` into the data from byte `start` on, up to `length` bytes. Returns how many there were: 0 at the
    /// file's end.
    ///
    /// # Errors
    /// What `pread(2)` says.
    pub async fn read(
        &self,
        file: impl AsFd,
        buffer: &mut Buffer<'_>,
        (start, length): (usize, usize),
        offset: u64,
    ) -> io::Result<usize> {
        let (file, data) = (file.as_fd().as_raw_fd(), buffer.span(start, length)?);
        whole(self.result(Op::Read { file, data, offset }).await)
    }

    /// Writes the data from byte `start` on, up to `length` bytes, to `file` at `offset`. Returns how many were written.
    ///
    /// # Errors
    /// What `pwrite(2)` says.
    pub async fn write(
        &self,
        file: impl AsFd,
        buffer: &Buffer<'_>,
        (start, length): (usize, usize),
        offset: u64,
    ) -> io::Result<usize> {
        let op = Op::Write {
            file: file.as_fd().as_raw_fd(),
            data: buffer.span(start, length)?,
            offset,
            durable: false,
        };
        whole(self.result(op).await)
    }

    /// Fills all of the data from `file` at `offset`.
    ///
    /// # Errors
    /// What `pread(2)` says; `UnexpectedEof` where the file ends before.
    pub async fn read_exact(
        &self,
        file: impl AsFd,
        buffer: &mut Buffer<'_>,
        offset: u64,
    ) -> io::Result<()> {
        let (file, all) = (file.as_fd().as_raw_fd(), buffer.len());
        let mut done = 0;
        while done < all {
            let op = Op::Read {
                file,
                data: buffer.span(done, all - done)?,
                offset: offset + done as u64,
            };
            match whole(self.result(op).await) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of the data to `file` at `offset`.
    ///
    /// # Errors
    /// What `pwrite(2)` says; `WriteZero` where the file takes no more.
    pub async fn write_all(
        &self,
        file: impl AsFd,
        buffer: &Buffer<'_>,
        offset: u64,
    ) -> io::Result<()> {
        self.write_whole(file.as_fd(), buffer, offset, false).await
    }

    /// The same, and it is on the medium when this returns (`RWF_DSYNC`).
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub async fn write_all_durably(
        &self,
        file: impl AsFd,
        buffer: &Buffer<'_>,
        offset: u64,
    ) -> io::Result<()> {
        self.write_whole(file.as_fd(), buffer, offset, true).await
    }

    async fn write_whole(
        &self,
        file: BorrowedFd<'_>,
        buffer: &Buffer<'_>,
        offset: u64,
        durable: bool,
    ) -> io::Result<()> {
        let (file, all) = (file.as_raw_fd(), buffer.len());
        let mut done = 0;
        while done < all {
            let op = Op::Write {
                file,
                data: buffer.span(done, all - done)?,
                offset: offset + done as u64,
                durable,
            };
            match whole(self.result(op).await) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// `fdatasync(2)`: returns when what was written before is on the medium, and what is needed to read it again.
    ///
    /// # Errors
    /// What `fdatasync(2)` says.
    pub async fn sync_data(&self, file: impl AsFd) -> io::Result<()> {
        let file = file.as_fd().as_raw_fd();
        let data_only = true;
        self.done(Op::Sync { file, data_only }).await
    }

    /// `fsync(2)`.
    ///
    /// # Errors
    /// What `fsync(2)` says.
    pub async fn sync_all(&self, file: impl AsFd) -> io::Result<()> {
        let file = file.as_fd().as_raw_fd();
        let data_only = false;
        self.done(Op::Sync { file, data_only }).await
    }

    /// `fallocate(2)`; `mode` is `FALLOC_FL_…`.
    ///
    /// # Errors
    /// What `fallocate(2)` says.
    pub async fn allocate(
        &self,
        file: impl AsFd,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let file = file.as_fd().as_raw_fd();
        let op = Op::Allocate {
            file,
            mode,
            offset,
            length,
        };
        self.done(op).await
    }

    /// Sends the data from byte `start` on, up to `length` bytes, to a socket. Returns how many were taken.
    ///
    /// # Errors
    /// What `send(2)` says.
    pub async fn send(
        &self,
        socket: impl AsFd,
        buffer: &Buffer<'_>,
        (start, length): (usize, usize),
    ) -> io::Result<usize> {
        let (file, data) = (socket.as_fd().as_raw_fd(), buffer.span(start, length)?);
        whole(self.result(Op::Send { file, data }).await)
    }

    /// Receives from a socket into the data from byte `start` on, up to `length` bytes. Returns how many there were: 0 at the end.
    ///
    /// # Errors
    /// What `recv(2)` says.
    pub async fn receive(
        &self,
        socket: impl AsFd,
        buffer: &mut Buffer<'_>,
        (start, length): (usize, usize),
    ) -> io::Result<usize> {
        let (file, data) = (socket.as_fd().as_raw_fd(), buffer.span(start, length)?);
        whole(self.result(Op::Receive { file, data }).await)
    }

    /// Waits until a file is ready, as `poll(2)` does; `events` is `POLLIN` and the like. Returns what it is ready for.
    ///
    /// # Errors
    /// What `poll(2)` says.
    pub async fn ready(&self, file: impl AsFd, events: u32) -> io::Result<u32> {
        let file = file.as_fd().as_raw_fd();
        let ready = whole(self.result(Op::Poll { file, events }).await)?;
        u32::try_from(ready).map_err(io::Error::other)
    }

    /// Waits.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub async fn sleep(&self, duration: Duration) -> io::Result<()> {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match self.result(Op::Sleep { nanoseconds }).await {
            // That is how the ring says that the time has passed.
            result if result == -libc::ETIME => Ok(()),
            result => whole(result).map(drop),
        }
    }

    /// Begins an operation that moves no data, anew as often as a signal interrupts it.
    async fn done(&self, op: Op) -> io::Result<()> {
        loop {
            match whole(self.result(op).await) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map(drop),
            }
        }
    }

    /// Begins an operation, and ends with what the ring says of it: a count, or a negative errno.
    #[inline]
    fn result(&self, op: Op) -> Waiting<'_> {
        self.desk.begin(op)
    }
}

#[inline]
fn whole(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))
}
