//! The memory of a device's records: a memfd, or where that cannot be, memory of this process alone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use rustix::io::pwrite;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use zerocopy::IntoBytes as _;

use super::Record;
use super::format::{Header, NAME_PREFIX};
use crate::id::DeviceId;
use crate::mapping::{Mapping, memfd};
use crate::metrics::now_ns;

/// The records of one queue's tags.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    first: NonNull<Record>,
    depth: usize,
    _memory: Arc<Memory>,
}

// SAFETY: `first` points into the memory, which belongs to this value and not to a thread.
unsafe impl Send for Records {}
// SAFETY: what is reached through `first` are atomics.
unsafe impl Sync for Records {}

impl Records {
    /// That only this process can read.
    pub(crate) fn private(depth: u16) -> Self {
        let records = (0..depth).map(|_| Record::default()).collect();
        Self::at(&Arc::new(Memory::Private(records)), 0, depth)
    }

    /// Of each queue of a device. One whose records nobody else can read is still a device.
    pub(crate) fn of_device(device: DeviceId, queues: u16, depth: u16) -> Vec<Self> {
        let header = Header::new(device, queues, depth, now_ns());
        let all = usize::from(queues) * usize::from(depth);
        let memory = match Shared::new(&header, all) {
            Ok(shared) => Memory::Shared(shared),
            Err(error) => {
                tracing::warn!(device = device.0, %error, "the flight recorder cannot be read by others");
                Memory::Private((0..all).map(|_| Record::default()).collect())
            }
        };
        let memory = Arc::new(memory);
        (0..usize::from(queues))
            .map(|queue| Self::at(&memory, queue * usize::from(depth), depth))
            .collect()
    }

    fn at(memory: &Arc<Memory>, first: usize, depth: u16) -> Self {
        let end = first + usize::from(depth);
        let records = memory.records().get(first..end).unwrap_or_default();
        Self {
            first: NonNull::from(records).cast(),
            depth: records.len(),
            _memory: Arc::clone(memory),
        }
    }

    /// One a tag.
    #[inline]
    pub(crate) fn all(&self) -> &[Record] {
        // SAFETY: there are so many records from `first` on, in memory that this value keeps. Records are atomics:
        // others may read and write them meanwhile.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.depth) }
    }
}

/// The records of all tags of a device.
#[derive(Debug)]
enum Memory {
    /// Others can read it.
    Shared(Shared),
    /// They cannot.
    Private(Box<[Record]>),
}

impl Memory {
    fn records(&self) -> &[Record] {
        match self {
            Self::Shared(shared) => shared.records(),
            Self::Private(records) => records,
        }
    }
}

/// A memfd and its mapping. It is open as long as the device is served: so it is found.
#[derive(Debug)]
struct Shared {
    first: NonNull<Record>,
    records: usize,
    _mapping: Mapping,
    _file: OwnedFd,
}

// SAFETY: `first` points into the mapping, which belongs to this value and not to a thread.
unsafe impl Send for Shared {}
// SAFETY: what is reached through `first` are atomics.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(header: &Header, records: usize) -> io::Result<Self> {
        let bytes = header.file_bytes();
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let file = memfd(&format!("{NAME_PREFIX}{}", header.device))?;
        ftruncate(&file, bytes)?;
        if pwrite(&file, header.as_bytes(), 0)? != size_of::<Header>() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let mapping = Mapping::adopt(start, length)?;
        // Its size never changes, or a store could end this process; and nobody else writes.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        // SAFETY: the mapping is longer than its header.
        let first = unsafe { mapping.start.byte_add(size_of::<Header>()) };
        Ok(Self {
            first: first.cast(),
            records,
            _mapping: mapping,
            _file: file,
        })
    }

    fn records(&self) -> &[Record] {
        // SAFETY: the mapping holds the header and so many records, is readable and writable, keeps its size since
        // it is sealed, and lives as long as this value, which the slice borrows. Page-aligned start plus 64 is
        // aligned. Records are atomics: any bytes are valid, and others may read meanwhile.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.records) }
    }
}
