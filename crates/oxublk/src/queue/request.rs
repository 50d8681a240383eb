//! One request: from the driver's descriptor to the disk's methods, and back to a result.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use oxublk_sys::{IoDesc, IoFlags, SECTOR_SIZE};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::operation::Operation;
use crate::transfer::{Carrier, Sink, Source};

/// A request as the disk sees it. The driver counts in sectors of 512 bytes, whatever the disk's
/// blocks; from here on all is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// First byte. 0 for a flush.
    pub offset: u64,
    /// How many bytes. 0 for a flush.
    pub length: u64,
    flags: IoFlags,
}

impl Request {
    /// Reads a descriptor. A flush comes with sector −1 and no length; neither means anything.
    #[must_use]
    pub fn new(desc: &IoDesc) -> Self {
        let operation = Operation::of(desc);
        let flags = IoFlags::from_bits_truncate(desc.op_flags);
        if operation == Operation::Flush {
            return Self {
                operation,
                offset: 0,
                length: 0,
                flags,
            };
        }
        Self {
            operation,
            offset: desc.start_sector.saturating_mul(SECTOR_SIZE),
            length: u64::from(desc.nr_sectors) * SECTOR_SIZE,
            flags,
        }
    }

    /// The first sector, in the driver's units of 512 bytes. 0 for a flush.
    #[must_use]
    pub fn sector(&self) -> u64 {
        self.offset / SECTOR_SIZE
    }

    /// How many bytes of data it has: none but for a read or a write.
    #[must_use]
    pub fn data_length(&self) -> usize {
        match self.operation {
            Operation::Read | Operation::Write => {
                usize::try_from(self.length).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }

    /// Whether its data lie in memory that the client shares with the server.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(IoFlags::SHMEM_ZC)
    }

    /// Whether the write must be on the medium before it is answered.
    #[must_use]
    pub fn is_fua(&self) -> bool {
        self.flags.contains(IoFlags::FUA)
    }

    /// Whether the space of the zeroes may be given back.
    #[must_use]
    pub fn may_unmap(&self) -> bool {
        !self.flags.contains(IoFlags::NOUNMAP)
    }

    /// Has the disk do it and returns what the driver is to be told: the length in bytes, or a
    /// negative errno. Never a short length, which 7.3 takes for a whole one.
    pub fn answer<D: Disk + ?Sized>(&self, disk: &D, buffer: &mut [u8]) -> Answer {
        // A disk that panicked is used again for the next request: its own invariants are its
        // affair (a poisoned lock says so), ours do not pass through it.
        self.outcome(catch_unwind(AssertUnwindSafe(|| {
            self.perform(disk, buffer)
        })))
    }

    /// The same for a disk that moves the data itself.
    pub fn answer_directly<D: Disk + ?Sized>(&self, disk: &D, carrier: Carrier<'_>) -> Answer {
        self.outcome(catch_unwind(AssertUnwindSafe(|| {
            self.perform_directly(disk, carrier)
        })))
    }

    /// What the driver is to be told of a request that a disk has done, or panicked in.
    pub fn outcome(&self, outcome: thread::Result<io::Result<()>>) -> Answer {
        match outcome {
            Ok(Ok(())) => Answer::done(self.length),
            Ok(Err(error)) => Answer::failed(error),
            Err(panic) => Answer::panicked(panic.as_ref()),
        }
    }

    fn perform<D: Disk + ?Sized>(&self, disk: &D, buffer: &mut [u8]) -> io::Result<()> {
        match self.operation {
            Operation::Read => disk.read_at(self.data(buffer)?, self.offset),
            Operation::Write if self.is_fua() => disk.write_fua_at(self.data(buffer)?, self.offset),
            Operation::Write => disk.write_at(self.data(buffer)?, self.offset),
            _ => self.perform_without_data(disk),
        }
    }

    fn perform_directly<D: Disk + ?Sized>(&self, disk: &D, carrier: Carrier<'_>) -> io::Result<()> {
        let length = self.data_length();
        let left = match self.operation {
            Operation::Read => {
                let mut sink = Sink::new(carrier, length);
                disk.read_to(&mut sink, self.offset)?;
                sink.remaining()
            }
            Operation::Write => {
                let mut source = Source::new(carrier, length);
                disk.write_from(&mut source, self.offset)?;
                if self.is_fua() {
                    disk.flush()?;
                }
                source.remaining()
            }
            _ => return self.perform_without_data(disk),
        };
        if left > 0 {
            return Err(io::Error::other(format!(
                "the disk moved only {} of {length} bytes",
                length - left
            )));
        }
        Ok(())
    }

    fn perform_without_data<D: Disk + ?Sized>(&self, disk: &D) -> io::Result<()> {
        match self.operation {
            Operation::Flush => disk.flush(),
            Operation::Discard => disk.discard(self.offset, self.length),
            Operation::WriteZeroes => disk.write_zeroes(self.offset, self.length, self.may_unmap()),
            Operation::Read | Operation::Write | Operation::Other => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// The part of the tag's buffer that this request's data fills.
    #[inline]
    fn data<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b mut [u8]> {
        let room = buffer.len();
        let length = usize::try_from(self.length).ok();
        length
            .and_then(|length| buffer.get_mut(..length))
            .ok_or_else(|| self.too_large(room))
    }

    #[cold]
    fn too_large(&self, room: usize) -> io::Error {
        let length = self.length;
        io::Error::other(format!(
            "the driver sent a request of {length} bytes, more than the buffer's {room}"
        ))
    }
}

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    /// For the driver: bytes, or a negative errno.
    pub result: i32,
    /// Why it failed, for the log. Boxed: answers are moved, failures are rare.
    pub failure: Option<Box<Failure>>,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// The disk returned this error.
    Error(io::Error),
    /// The disk panicked with this message.
    Panic(String),
}

impl Answer {
    fn done(length: u64) -> Self {
        // Data never exceeds a buffer (32 MiB); of a discard or write-zeroes the driver only asks
        // whether the result is negative.
        Self {
            result: i32::try_from(length).unwrap_or(0),
            failure: None,
        }
    }

    #[cold]
    fn failed(error: io::Error) -> Self {
        Self {
            result: errno_of(&error).raw_os_error().saturating_neg(),
            failure: Some(Box::new(Failure::Error(error))),
        }
    }

    #[cold]
    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<&str>()
            .map(|message| (*message).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Self {
            result: Errno::IO.raw_os_error().saturating_neg(),
            failure: Some(Box::new(Failure::Panic(message))),
        }
    }
}

/// The errno that tells a client most about `error`; `EIO` where there is none.
fn errno_of(error: &io::Error) -> Errno {
    if let Some(errno) = error
        .raw_os_error()
        .filter(|errno| (1..=4095).contains(errno))
    {
        return Errno::from_raw_os_error(errno);
    }
    match error.kind() {
        io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::NOSPC,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        io::ErrorKind::InvalidInput => Errno::INVAL,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use oxublk_sys::op;

    use super::*;

    struct Fails(io::ErrorKind);

    impl Disk for Fails {
        fn size(&self) -> u64 {
            4096
        }
        fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
            Err(self.0.into())
        }
        fn write_at(&self, _buf: &[u8], offset: u64) -> io::Result<()> {
            panic!("block at {offset} is bad")
        }
    }

    fn desc(op: u8, sector: u64, sectors: u32) -> IoDesc {
        IoDesc {
            op_flags: u32::from(op),
            nr_sectors: sectors,
            start_sector: sector,
            addr: 0,
        }
    }

    #[test]
    fn sectors_become_bytes() {
        let request = Request::new(&desc(op::WRITE, 3, 2));
        assert_eq!((request.offset, request.length), (1536, 1024));
    }

    #[test]
    fn a_flush_has_no_range_whatever_the_descriptor_says() {
        let request = Request::new(&desc(op::FLUSH, u64::MAX, 0));
        assert_eq!((request.offset, request.length), (0, 0));
        assert_eq!(
            request.answer(&Fails(io::ErrorKind::Other), &mut []).result,
            0
        );
    }

    #[test]
    fn errors_become_the_errno_that_says_most() {
        let read = Request::new(&desc(op::READ, 0, 1));
        let mut buffer = [0; 512];
        for (kind, errno) in [
            (io::ErrorKind::StorageFull, libc::ENOSPC),
            (io::ErrorKind::TimedOut, libc::ETIMEDOUT),
            (io::ErrorKind::NotFound, libc::EIO),
        ] {
            assert_eq!(read.answer(&Fails(kind), &mut buffer).result, -errno);
        }
        assert_eq!(
            errno_of(&io::Error::from_raw_os_error(libc::ENODATA)),
            Errno::NODATA
        );
        assert_eq!(errno_of(&io::Error::from_raw_os_error(-7)), Errno::IO);
    }

    #[test]
    fn a_panic_is_an_error_of_that_request() {
        let write = Request::new(&desc(op::WRITE, 8, 1));
        let answer = write.answer(&Fails(io::ErrorKind::Other), &mut [0; 512]);
        assert_eq!(answer.result, -libc::EIO);
        assert!(
            matches!(answer.failure.as_deref(), Some(Failure::Panic(m)) if m == "block at 4096 is bad")
        );
    }

    #[test]
    fn a_request_larger_than_the_buffer_is_refused() {
        let read = Request::new(&desc(op::READ, 0, 2));
        assert_eq!(
            read.answer(&Fails(io::ErrorKind::Other), &mut [0; 512])
                .result,
            -libc::EIO
        );
    }

    #[test]
    fn unknown_operations_are_not_supported() {
        let zone_open = Request::new(&desc(op::ZONE_OPEN, 0, 0));
        assert_eq!(
            zone_open
                .answer(&Fails(io::ErrorKind::Other), &mut [])
                .result,
            -libc::EOPNOTSUPP
        );
    }
}
