//! Memory that a queue shares with the driver: descriptors and buffers. Never unmapped but on purpose.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use oxublk_sys::{IoDesc, MIN_IO_DESC_SIZE, desc_mmap_len, desc_mmap_offset};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

/// The descriptors of a queue.
#[derive(Debug)]
pub(crate) struct Descriptors {
    start: *mut c_void,
    length: usize,
    stride: usize,
}

// SAFETY: the mapping lives as long as the process and is only read, by volatile copies.
unsafe impl Send for Descriptors {}
// SAFETY: as above.
unsafe impl Sync for Descriptors {}

impl Descriptors {
    /// Maps those of queue `queue`, and reads one every `stride` bytes.
    pub(crate) fn map(
        node: impl AsFd,
        queue: u16,
        depth: u16,
        stride: usize,
        inherited: bool,
    ) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = desc_mmap_len(depth, MIN_IO_DESC_SIZE, page);
        let offset = desc_mmap_offset(queue, MIN_IO_DESC_SIZE, page);
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                node,
                offset,
            )
        }?;
        if !inherited {
            // SAFETY: the range is the mapping that was just made.
            unsafe { madvise(start, length, Advice::LinuxDontFork) }?;
        }
        Ok(Self {
            start,
            length,
            stride,
        })
    }

    /// A copy of a tag's descriptor, or of what lies where it is thought to be.
    pub(crate) fn get(&self, tag: u16) -> IoDesc {
        let offset = usize::from(tag) * self.stride;
        if offset + size_of::<IoDesc>() > self.length {
            return IoDesc::default();
        }
        // SAFETY: inside the mapping, as was just checked.
        let place = unsafe { self.start.cast::<u8>().add(offset) };
        // SAFETY: any bytes are a descriptor; the start is aligned to a page and strides are multiples of 8.
        unsafe { place.cast::<IoDesc>().read_volatile() }
    }
}

/// One buffer a tag.
#[derive(Debug)]
pub(crate) struct Buffers {
    start: *mut c_void,
    each: usize,
    depth: u16,
}

// SAFETY: nobody gets a reference into the mapping: it is written through `fill` only, by the thread that has the tag.
unsafe impl Send for Buffers {}
// SAFETY: as above.
unsafe impl Sync for Buffers {}

impl Buffers {
    pub(crate) fn map(depth: u16, each: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                each * usize::from(depth),
                protection,
                flags,
            )
        }?;
        Ok(Self { start, each, depth })
    }

    /// The address of a tag's buffer.
    pub(crate) fn address(&self, tag: u16) -> u64 {
        self.start as u64 + (usize::from(tag) * self.each) as u64
    }

    /// Fills the first bytes of a tag's buffer.
    pub(crate) fn fill(&self, tag: u16, length: usize, byte: u8) {
        if tag >= self.depth || length > self.each {
            return;
        }
        // SAFETY: the tag is below the depth: inside the mapping.
        let place = unsafe { self.start.cast::<u8>().add(usize::from(tag) * self.each) };
        // SAFETY: the range is this tag's buffer, which is with the server and of which no reference exists.
        unsafe { place.write_bytes(byte, length) };
    }

    /// Takes the buffers away from under the driver.
    pub(crate) fn unmap(&self) -> io::Result<()> {
        // SAFETY: no reference into the range exists, and after this nobody fills a buffer again.
        unsafe { munmap(self.start, self.each * usize::from(self.depth)) }?;
        Ok(())
    }

    /// Makes the buffers read-only.
    pub(crate) fn protect(&self) -> io::Result<()> {
        let length = self.each * usize::from(self.depth);
        // SAFETY: no reference into the range exists, and after this nobody fills a buffer again.
        unsafe { mprotect(self.start, length, MprotectFlags::READ) }?;
        Ok(())
    }
}
