//! A request's data on their way, without a buffer between: [`Sink`] of a read, [`Source`] of a write.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pread, pwrite};

use crate::shared::SharedPart;

/// Zeroes that a sink is given for holes, piece by piece.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Where a request's data are.
#[derive(Debug)]
pub enum Carrier<'a> {
    /// In memory of the server: the tag's buffer.
    Memory(&'a mut [u8]),
    /// With the driver, which copies them when `/dev/ublkcN` is read or written at this position
    /// (`UBLK_F_USER_COPY`).
    Driver {
        /// `/dev/ublkcN`.
        node: BorrowedFd<'a>,
        /// Of the request's first byte.
        position: u64,
    },
    /// In memory that the client shares with the server (`UBLK_F_SHMEM_ZC`): nobody but the disk copies them.
    Shared(SharedPart),
}

/// Takes the data of a read, from its first byte to its last.
///
/// Where the driver can take them from the disk's own memory it does: one copy, and no buffer.
#[derive(Debug)]
pub struct Sink<'a> {
    carrier: Carrier<'a>,
    done: usize,
    length: usize,
}

/// Gives the data of a write, from its first byte to its last.
///
/// Where the driver can put them into the disk's own memory it does: one copy, and no buffer.
#[derive(Debug)]
pub struct Source<'a> {
    giver: Giver<'a>,
    done: usize,
    length: usize,
}

/// A carrier of which nothing is written.
#[derive(Debug)]
enum Giver<'a> {
    Memory(&'a [u8]),
    Driver { node: BorrowedFd<'a>, position: u64 },
    Shared(SharedPart),
}

impl<'a> Sink<'a> {
    /// For a read of `length` bytes.
    pub(crate) fn new(carrier: Carrier<'a>, length: usize) -> Self {
        Self {
            carrier,
            done: 0,
            length,
        }
    }

    /// A sink that fills `buffer`.
    #[must_use]
    pub fn of(buffer: &'a mut [u8]) -> Self {
        let length = buffer.len();
        Self::new(Carrier::Memory(buffer), length)
    }

    /// How many bytes it still takes.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.length - self.done
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// More than it still takes; or the driver took them not: the request is gone, or its client's memory.
    #[inline]
    pub fn put(&mut self, data: &[u8]) -> io::Result<()> {
        let end = self.done + data.len();
        if end > self.length {
            return Err(too_much(data.len(), self.remaining()));
        }
        match &mut self.carrier {
            Carrier::Memory(buffer) => match buffer.get_mut(self.done..end) {
                Some(part) => part.copy_from_slice(data),
                None => return Err(too_much(data.len(), 0)),
            },
            Carrier::Driver { node, position } => {
                write_all(*node, data, *position + self.done as u64)?;
            }
            Carrier::Shared(part) => part.store(self.done, data)?,
        }
        self.done = end;
        Ok(())
    }

    /// Takes so many zeroes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_zeroes(&mut self, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let piece = length.min(ZEROES.len());
            self.put(ZEROES.get(..piece).unwrap_or_default())?;
            length -= piece;
        }
        Ok(())
    }
}

impl<'a> Source<'a> {
    /// For a write of `length` bytes.
    pub(crate) fn new(carrier: Carrier<'a>, length: usize) -> Self {
        let giver = match carrier {
            Carrier::Memory(buffer) => Giver::Memory(buffer),
            Carrier::Driver { node, position } => Giver::Driver { node, position },
            Carrier::Shared(part) => Giver::Shared(part),
        };
        Self {
            giver,
            done: 0,
            length,
        }
    }

    /// A source that gives `data`.
    #[must_use]
    pub fn of(data: &'a [u8]) -> Self {
        Self {
            giver: Giver::Memory(data),
            done: 0,
            length: data.len(),
        }
    }

    /// How many bytes it still gives.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.length - self.done
    }

    /// Fills `part` with the next bytes.
    ///
    /// # Errors
    /// More than it still gives; or the driver gave them not: the request is gone, or its client's memory.
    #[inline]
    pub fn take(&mut self, part: &mut [u8]) -> io::Result<()> {
        let end = self.done + part.len();
        if end > self.length {
            return Err(too_much(part.len(), self.remaining()));
        }
        match &self.giver {
            Giver::Memory(data) => match data.get(self.done..end) {
                Some(data) => part.copy_from_slice(data),
                None => return Err(too_much(part.len(), 0)),
            },
            Giver::Driver { node, position } => {
                read_exact(*node, part, *position + self.done as u64)?;
            }
            Giver::Shared(shared) => shared.load(self.done, part)?,
        }
        self.done = end;
        Ok(())
    }
}

fn write_all(node: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> io::Result<()> {
    while !data.is_empty() {
        let count = retried(|| pwrite(node, data, at))?;
        data = data.get(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

fn read_exact(node: BorrowedFd<'_>, mut part: &mut [u8], mut at: u64) -> io::Result<()> {
    while !part.is_empty() {
        let count = retried(|| pread(node, &mut *part, at))?;
        part = part.get_mut(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

/// Repeats a call that a signal interrupted. Nothing copied is an error: it would be so for ever.
fn retried(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
    loop {
        match call() {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cold]
fn too_much(asked: usize, left: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{asked} bytes do not fit a request that has {left} left"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_sink_takes_its_length_and_no_more() {
        let mut buffer = [1; 8];
        let mut sink = Sink::of(&mut buffer);
        sink.put(&[2; 3]).expect("room");
        sink.put_zeroes(4).expect("room");
        assert_eq!(sink.remaining(), 1);
        let error = sink.put(&[3; 2]).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(buffer, [2, 2, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_source_gives_its_length_and_no_more() {
        let mut buffer = [1, 2, 3, 4];
        let mut source = Source::new(Carrier::Memory(&mut buffer), 4);
        let mut part = [0; 3];
        source.take(&mut part).expect("enough");
        assert_eq!(part, [1, 2, 3]);
        assert!(source.take(&mut part).is_err());
        assert_eq!(source.remaining(), 1);
    }

    #[test]
    fn the_drivers_file_is_used_at_the_requests_position() {
        let file = tempfile();
        let carrier = |position| Carrier::Driver {
            node: file.as_fd(),
            position,
        };
        let mut sink = Sink::new(carrier(100), 6);
        sink.put(b"abc").expect("written");
        sink.put(b"def").expect("written");
        let mut part = [0; 4];
        let mut source = Source::new(carrier(102), 10);
        source.take(&mut part).expect("read");
        assert_eq!(&part, b"cdef");
        // Nothing is behind it: an error, and no endless loop.
        assert!(source.take(&mut part).is_err());
    }

    fn tempfile() -> std::os::fd::OwnedFd {
        rustix::fs::memfd_create("transfer", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd")
    }
}
