//! [`SharedMemory`]: a file that is mapped, here and by clients.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{
    FallocateFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs,
    ftruncate,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::copy;
use crate::error::{Error, Result};
use crate::mapping::{Mapping, memfd};

/// `TMPFS_MAGIC` and `HUGETLBFS_MAGIC`: where the driver finds pages that stay.
const FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x9584_58f6];
/// The most that the driver takes in one piece.
const MAX_BYTES: u64 = 4 << 30;

/// Memory that clients share with the server of a device: a file on tmpfs (`/dev/shm`) or hugetlbfs, or a memfd, mapped whole.
///
/// A server gives it to [`Builder::share`](crate::Builder::share) or [`Device::share`](crate::Device::share). A client maps the same file, here
/// or in any other way, and reads and writes the disk with `O_DIRECT` from and to it: the kernel does not copy these data.
///
/// Whoever can write to the file can also shrink it, unless it is sealed against that, and a server that touches what
/// is gone gets SIGBUS. A memfd that allows it is sealed here. Other files are for clients that are trusted to that extent.
#[derive(Clone, Debug)]
pub struct SharedMemory(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    mapping: Mapping,
    length: usize,
    sealed: bool,
    file: OwnedFd,
}

// SAFETY: the mapping is process-wide memory, which belongs to this value and not to a thread.
unsafe impl Send for Mapped {}
// SAFETY: what is reached through it are atomics, or addresses for the kernel.
unsafe impl Sync for Mapped {}

impl SharedMemory {
    /// New memory of `bytes`, whole pages: a memfd that nobody can shrink. Clients get its file, [`as_fd`](AsFd::as_fd), by a socket or as
    /// `/proc/PID/fd/N`.
    ///
    /// # Errors
    /// A size that cannot be; no memory.
    pub fn create(name: &str, bytes: u64) -> Result<Self> {
        let cannot = |error: io::Error| Error::io("cannot make shared memory", error);
        let file = memfd(name).map_err(cannot)?;
        ftruncate(&file, bytes).map_err(|errno| cannot(errno.into()))?;
        Self::map(file)
    }

    /// All of a file that is open for reading and writing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a file on another file system, or of a size that is not whole pages
    /// up to 4 GiB; no memory.
    pub fn map(file: impl Into<OwnedFd>) -> Result<Self> {
        let file = file.into();
        let cannot = |errno| {
            Error::io("cannot map shared memory", errno)
                .with_hint("check that the file is open for writing, and how much room its file system has (df, ulimit)")
        };
        let kind = fstatfs(&file).map_err(cannot)?.f_type;
        if !FILE_SYSTEMS.contains(&u64::from_ne_bytes(kind.to_ne_bytes())) {
            return Err(Error::invalid(
                "shared memory must be a file on tmpfs (/dev/shm) or hugetlbfs, or a memfd",
            ));
        }
        // Only some files can be sealed. Before the size is asked, which it keeps from shrinking.
        let _ = fcntl_add_seals(&file, SealFlags::SHRINK);
        let sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        let bytes = u64::try_from(fstat(&file).map_err(cannot)?.st_size).unwrap_or(0);
        let length = length_of(bytes)?;
        // What is not there when it is touched ends the process: better to hear of it now.
        fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(cannot)?;
        let mapping =
            map(&file, length).map_err(|error| Error::io("cannot map shared memory", error))?;
        Ok(Self(Arc::new(Mapped {
            mapping,
            length,
            sealed,
            file,
        })))
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Whether it has none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nobody can shrink the file.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.0.sealed
    }

    /// Fills `to` with the bytes from `at` on. Others may change them meanwhile.
    ///
    /// # Errors
    /// They are not all within the memory.
    pub fn load(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        let length = to.len();
        copy::load(self.words(), at, to)
            .then_some(())
            .ok_or_else(|| self.outside(at, length))
    }

    /// Stores `from` from byte `at` on.
    ///
    /// # Errors
    /// They are not all within the memory.
    pub fn store(&self, at: usize, from: &[u8]) -> io::Result<()> {
        copy::store(self.words(), at, from)
            .then_some(())
            .ok_or_else(|| self.outside(at, from.len()))
    }

    /// For clients: writes a range of the memory to a disk, `pwrite(2)` from where it lies. With `O_DIRECT` nothing is copied.
    ///
    /// # Errors
    /// What `pwrite(2)` says; the range is not within the memory.
    pub fn write_to(&self, disk: impl AsFd, range: Range<usize>, offset: u64) -> io::Result<usize> {
        let (start, length) = (self.address(&range)?, range.len());
        let (disk, offset) = (disk.as_fd().as_raw_fd(), position(offset)?);
        // SAFETY: the kernel reads so many bytes of a mapping that `self` keeps.
        let count = unsafe { libc::pwrite(disk, start.as_ptr().cast(), length, offset) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// For clients: reads from a disk into a range of the memory, `pread(2)` to where it lies. With `O_DIRECT` nothing is copied.
    ///
    /// # Errors
    /// What `pread(2)` says; the range is not within the memory.
    pub fn read_from(
        &self,
        disk: impl AsFd,
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let (start, length) = (self.address(&range)?, range.len());
        let (disk, offset) = (disk.as_fd().as_raw_fd(), position(offset)?);
        // SAFETY: the kernel writes so many bytes of a mapping that `self` keeps, and of which there are no references but to atomics.
        let count = unsafe { libc::pread(disk, start.as_ptr().cast(), length, offset) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Where it is mapped: for the kernel.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.0.mapping.start.cast()
    }

    /// Where a range of it is mapped: for the kernel.
    pub(super) fn address(&self, range: &Range<usize>) -> io::Result<NonNull<u8>> {
        if range.start > range.end || range.end > self.len() {
            return Err(self.outside(range.start, range.len()));
        }
        let start = self.start().as_ptr().wrapping_add(range.start);
        NonNull::new(start).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn words(&self) -> &[AtomicU64] {
        let count = self.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping is readable and writable, page-aligned, of whole pages, and lives as long as `self`, which the slice
        // borrows. Any bytes are valid atomics, which others may change at any time; nothing here makes other references to
        // them. What makes them vanish is the file's shrinking, of which the type's documentation speaks: that is a signal.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr().cast(), count) }
    }

    #[cold]
    pub(super) fn outside(&self, at: usize, length: usize) -> io::Error {
        let all = self.len();
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{length} bytes at {at} are not within a shared memory of {all}"),
        )
    }
}

/// The file that clients map.
impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

fn length_of(bytes: u64) -> Result<usize> {
    let page = rustix::param::page_size() as u64;
    let possible = (page..=MAX_BYTES).contains(&bytes) && bytes.is_multiple_of(page);
    usize::try_from(bytes)
        .ok()
        .filter(|_| possible)
        .ok_or_else(|| {
            Error::invalid(format!(
                "shared memory of {bytes} bytes cannot be: it must be whole pages of {page}, up to 4 GiB"
            ))
        })
}

fn position(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Maps the file, with all its pages. A copy of this process inherits the mapping: the command that registers it may be sent by one.
fn map(file: &OwnedFd, length: usize) -> io::Result<Mapping> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: the kernel chooses a free address; nothing that exists is touched.
    let start = unsafe { mmap(ptr::null_mut(), length, access, flags, file, 0) }?;
    Mapping::adopt_for_all(start, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_of_a_file_are_the_same_memory() {
        let server = SharedMemory::create("shared", 8192).expect("memory");
        assert!(server.is_sealed());
        let file = server.as_fd().try_clone_to_owned().expect("a descriptor");
        let client = SharedMemory::map(file).expect("the same");
        client.store(4090, b"over the edge").expect("within");
        let mut back = [0; 13];
        server.load(4090, &mut back).expect("within");
        assert_eq!(&back, b"over the edge");
        assert!(server.load(8190, &mut back).is_err());
        assert!(server.store(usize::MAX, &back).is_err());
    }

    #[test]
    fn a_range_goes_to_a_file_and_comes_back() {
        let memory = SharedMemory::create("shared", 8192).expect("memory");
        let disk = memfd("disk").expect("a file");
        memory.store(100, b"pattern").expect("within");
        assert_eq!(memory.write_to(&disk, 100..107, 50).expect("written"), 7);
        assert_eq!(memory.read_from(&disk, 5000..5007, 50).expect("read"), 7);
        let mut back = [0; 7];
        memory.load(5000, &mut back).expect("within");
        assert_eq!(&back, b"pattern");
        assert!(memory.write_to(&disk, 8190..8193, 0).is_err());
        assert!(memory.read_from(&disk, 0..1, u64::MAX).is_err());
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        for bytes in [0, 100, 4097] {
            let error = SharedMemory::create("shared", bytes).expect_err("no whole pages");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bytes}");
        }
        let file = std::fs::File::open("/proc/self/exe").expect("this program");
        assert!(SharedMemory::map(file).is_err());
    }
}
