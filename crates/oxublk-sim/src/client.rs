//! The other end: who asks, and what came of it.

use std::fmt;
use std::ops::Range;

use oxublk::sys::{IoDesc, IoFlags, SECTOR_SIZE, op};

/// Which request of a run: 0 for the first that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub usize);

/// A request of a client. The bytes of a write are made by the model, different for each request
/// and sector, so that it can tell from what is read who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// One of [`oxublk::sys::op`].
    pub op: u8,
    /// Its flags.
    pub flags: IoFlags,
    /// The first sector of 512 bytes.
    pub sector: u64,
    /// How many of them.
    pub sectors: u32,
}

impl ClientRequest {
    /// Any operation.
    #[must_use]
    pub const fn new(op: u8, sector: u64, sectors: u32) -> Self {
        Self {
            op,
            flags: IoFlags::empty(),
            sector,
            sectors,
        }
    }

    /// A read.
    #[must_use]
    pub const fn read(sector: u64, sectors: u32) -> Self {
        Self::new(op::READ, sector, sectors)
    }

    /// A write.
    #[must_use]
    pub const fn write(sector: u64, sectors: u32) -> Self {
        Self::new(op::WRITE, sector, sectors)
    }

    /// A flush.
    #[must_use]
    pub const fn flush() -> Self {
        Self::new(op::FLUSH, 0, 0)
    }

    /// The same with flags.
    #[must_use]
    pub const fn with(mut self, flags: IoFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(u64::from(self.sectors) * SECTOR_SIZE).unwrap_or(usize::MAX)
    }

    /// Whether data travels with it.
    #[must_use]
    pub const fn has_data(&self) -> bool {
        matches!(self.op, op::READ | op::WRITE)
    }

    /// Whether it changes what reads return.
    pub(crate) const fn changes(&self) -> bool {
        matches!(self.op, op::WRITE | op::DISCARD | op::WRITE_ZEROES)
    }

    /// Its sectors.
    pub(crate) fn range(&self) -> Range<u64> {
        self.sector..self.sector.saturating_add(u64::from(self.sectors))
    }

    /// The descriptor of what is left of it when `done` bytes are done.
    pub(crate) fn descriptor(&self, done: usize, addr: u64) -> IoDesc {
        let op_flags = u32::from(self.op) | self.flags.bits();
        if self.op == op::FLUSH {
            return IoDesc {
                op_flags,
                nr_sectors: 0,
                start_sector: u64::MAX,
                addr,
            };
        }
        let done_sectors = done as u64 / SECTOR_SIZE;
        IoDesc {
            op_flags,
            nr_sectors: self
                .sectors
                .saturating_sub(u32::try_from(done_sectors).unwrap_or(u32::MAX)),
            start_sector: self.sector + done_sectors,
            addr,
        }
    }
}

/// A request that no block layer would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit(pub ClientRequest);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no block layer sends {:?}: it is empty, larger than a buffer, or beyond the disk",
            self.0
        )
    }
}

impl std::error::Error for Misfit {}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub id: RequestId,
    /// What was asked.
    pub request: ClientRequest,
    /// Success, or the errno that the client saw.
    pub result: Result<(), i32>,
    /// How often it was delivered to the server: 1, or more when it was answered in part.
    pub deliveries: u32,
    /// When, in virtual time.
    pub finished_ns: u64,
    /// The bytes of a read; those that the server did not provide are 0.
    pub data: Vec<u8>,
}
