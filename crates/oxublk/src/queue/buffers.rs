//! Memory that a queue shares with the driver: the descriptors, and one buffer a tag.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use oxublk_sys::{IoDesc, MIN_IO_DESC_SIZE, desc_mmap_len, desc_mmap_offset};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use super::tag::Held;
use crate::id::{QueueId, Tag};
use crate::mapping::Mapping;

/// The descriptors of a queue, which the driver writes and we read.
#[derive(Debug)]
pub(super) struct Descriptors {
    mapping: Mapping,
    depth: u16,
}

impl Descriptors {
    pub(super) fn map(device: BorrowedFd<'_>, queue: QueueId, depth: u16) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = desc_mmap_len(depth, MIN_IO_DESC_SIZE, page);
        let offset = desc_mmap_offset(queue.0, MIN_IO_DESC_SIZE, page);
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                device,
                offset,
            )
        }?;
        Ok(Self {
            mapping: Mapping::adopt(start, length)?,
            depth,
        })
    }

    /// A copy of the descriptor of a request that is with the server.
    pub(super) fn get(&self, held: &Held) -> IoDesc {
        let tag = held.tag();
        debug_assert!(
            tag.0 < self.depth,
            "tags come from a state machine of this depth"
        );
        // SAFETY: a held tag is below the depth, so that its descriptor lies inside the mapping.
        let descriptor = unsafe { self.mapping.start.cast::<IoDesc>().add(tag.index()) };
        // SAFETY: page-aligned start plus a multiple of the size is aligned; any bytes are a valid
        // IoDesc; the driver does not write this tag's descriptor while the request is held.
        // Volatile since the memory changes behind the compiler's back between two requests.
        unsafe { descriptor.as_ptr().read_volatile() }
    }
}

/// One buffer a tag, in one mapping. Pages that no request touched cost nothing.
#[derive(Debug)]
pub(super) struct Buffers {
    mapping: Mapping,
    each: usize,
    depth: u16,
}

impl Buffers {
    /// `depth` buffers of `each` bytes.
    pub(super) fn map(depth: u16, each: usize) -> io::Result<Self> {
        let length = each
            .checked_mul(usize::from(depth))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }?;
        Ok(Self {
            mapping: Mapping::adopt(start, length)?,
            each,
            depth,
        })
    }

    /// The address of a tag's buffer, for the driver.
    pub(super) fn address(&self, tag: Tag) -> u64 {
        self.start(tag).as_ptr() as u64
    }

    /// How long each is.
    pub(super) fn each(&self) -> usize {
        self.each
    }

    pub(super) fn start(&self, tag: Tag) -> NonNull<u8> {
        debug_assert!(
            tag.0 < self.depth,
            "tags come from a state machine of this depth"
        );
        // SAFETY: the tag is below the depth, so that its buffer lies inside the mapping.
        unsafe { self.mapping.start.cast::<u8>().add(tag.index() * self.each) }
    }

    /// The buffer of a request that is with the server.
    pub(super) fn get(&mut self, held: &Held) -> &mut [u8] {
        let start = self.start(held.tag());
        // SAFETY: the range is mapped readable and writable, was zeroed by the kernel when it was
        // mapped, and no other reference to it exists: this one borrows `self` for its life. The
        // driver writes a tag's buffer only while the tag is armed, and `held` proves that it is not.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.each) }
    }

    /// The first bytes of the buffer of a request whose answer is about to be written down.
    pub(super) fn data(&self, tag: Tag, length: usize) -> &[u8] {
        let start = self.start(tag);
        // SAFETY: as in `get`: the range is mapped and initialised, and the tag is still with the server, so that the driver does
        // not write to it; nobody has a mutable reference, which would borrow `self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length.min(self.each)) }
    }

    /// Never unmaps the memory: for a queue that leaves while the driver may still write to it.
    pub(super) fn leak(self) {
        std::mem::forget(self.mapping);
    }
}
