//! Commands for many tags at once (`UBLK_F_BATCH_IO`, since 7.0).
//!
//! Tags are armed by one command, answered by one command a batch, and the tags of requests that have come are written by the
//! kernel into small buffers that one standing command (multishot) takes from a ring of its own.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering::Release};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, opcode, squeue};
use oxublk_sys::{BATCH_TAG_BYTES, BatchElem, BatchFlags, BatchIo, IO_RES_OK, io_op};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use zerocopy::{FromBytes as _, IntoBytes as _, transmute};

use super::DEVICE_FILE;
use crate::id::{QueueId, Tag};
use crate::mapping::Mapping;
use crate::path::DataPath;
use crate::queue::ring::Completion;

/// What the standing command's completions carry.
pub(super) const FETCH_DATA: u64 = u64::MAX - 2;
/// An array's completion carries its number and this.
pub(super) const ARRAY: u64 = 1 << 33;

/// The group of buffers that take tags: rings have no other, and it is what a submission names that names none.
const GROUP: u16 = 0;
/// How many there are, a power of two, and the tags that the driver puts into one at most.
const BUFFERS: u16 = 16;
const TAGS: usize = 128;
const BUFFER_BYTES: usize = TAGS * BATCH_TAG_BYTES as usize;
/// `IORING_URING_CMD_MULTISHOT`, and where a submission has its command's flags.
const MULTISHOT: u32 = 1 << 1;
const FLAGS_AT: usize = 28;
/// `IORING_CQE_F_MORE`, and where a completion has its buffer's number.
const MORE: u32 = 1 << 1;
const BUFFER_SHIFT: u32 = 16;

/// A batch's commands.
#[derive(Debug)]
pub(super) struct Batch {
    queue: QueueId,
    flags: BatchFlags,
    element_bytes: u8,
    /// Whether the tags are armed: from then on arrays are answers.
    is_armed: bool,
    /// What is written down and not yet handed over, in an array of its own.
    writing: usize,
    arrays: Vec<Array>,
    incoming: Incoming,
    /// The buffer whose tags are being taken.
    taking: Option<Taking>,
}

/// Elements that are handed over together. The kernel reads them until the command has ended.
#[derive(Debug, Default)]
struct Array {
    elements: Vec<u8>,
    /// So many bytes of them the kernel has done.
    done: usize,
    with_kernel: bool,
}

#[derive(Clone, Copy, Debug)]
struct Taking {
    buffer: u16,
    next: usize,
    end: usize,
}

impl Batch {
    pub(super) fn new(
        submitter: &Submitter<'_>,
        queue: QueueId,
        depth: u16,
        path: DataPath,
    ) -> io::Result<Self> {
        let (flags, element_bytes) = match path {
            DataPath::Copy => (BatchFlags::HAS_BUF_ADDR, 16),
            DataPath::Direct => (BatchFlags::empty(), 8),
            DataPath::ZeroCopy => (BatchFlags::AUTO_BUF_REG_FALLBACK, 8),
        };
        let array = || Array {
            elements: Vec::with_capacity(usize::from(depth) * usize::from(element_bytes)),
            ..Array::default()
        };
        Ok(Self {
            queue,
            flags,
            element_bytes,
            is_armed: false,
            writing: 0,
            // One is written while the kernel has another; more are made if it ever keeps both.
            arrays: vec![array(), array()],
            incoming: Incoming::new(submitter)?,
            taking: None,
        })
    }

    /// Writes down that a tag is armed, or answered with this result.
    pub(super) fn write(&mut self, tag: Tag, result: i32, address: u64) {
        let element = BatchElem {
            tag: tag.0,
            buf_index: tag.0,
            result,
        };
        let Some(array) = self.arrays.get_mut(self.writing) else {
            return;
        };
        array.elements.extend_from_slice(element.as_bytes());
        if self.flags.contains(BatchFlags::HAS_BUF_ADDR) {
            array.elements.extend_from_slice(&address.to_ne_bytes());
        }
    }

    /// The commands that hand over what is written down.
    pub(super) fn hand_over(&mut self) -> (Option<squeue::Entry>, Option<squeue::Entry>) {
        let number = self.writing;
        if self
            .arrays
            .get(number)
            .is_none_or(|array| array.elements.is_empty())
        {
            return (None, None);
        }
        let entry = self.command(number);
        self.writing = match self.arrays.iter().position(|array| !array.with_kernel) {
            Some(free) => free,
            None => {
                self.arrays.push(Array::default());
                self.arrays.len() - 1
            }
        };
        let first = !std::mem::replace(&mut self.is_armed, true);
        (entry, first.then(|| self.fetch()))
    }

    /// The command for an array, or what is left of it.
    fn command(&mut self, number: usize) -> Option<squeue::Entry> {
        let op = if self.is_armed {
            io_op::COMMIT_IO_CMDS
        } else {
            io_op::PREP_IO_CMDS
        };
        let (queue, flags, element_bytes) = (self.queue, self.flags, self.element_bytes);
        let array = self.arrays.get_mut(number)?;
        array.with_kernel = true;
        let rest = array.elements.get(array.done..)?;
        let command = BatchIo {
            q_id: queue.0,
            flags: flags.bits(),
            nr_elem: u16::try_from(rest.len() / usize::from(element_bytes)).ok()?,
            elem_bytes: element_bytes,
            ..BatchIo::default()
        };
        Some(
            opcode::UringCmd16::new(DEVICE_FILE, op)
                .cmd(transmute!(command))
                .addr(Some(rest.as_ptr() as u64))
                .build()
                .user_data(ARRAY | number as u64),
        )
    }

    /// The standing command.
    pub(super) fn fetch(&self) -> squeue::Entry {
        let command = BatchIo {
            q_id: self.queue.0,
            elem_bytes: BATCH_TAG_BYTES,
            ..BatchIo::default()
        };
        let entry = opcode::UringCmd16::new(DEVICE_FILE, io_op::FETCH_IO_CMDS)
            .cmd(transmute!(command))
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
            .user_data(FETCH_DATA);
        multishot(entry)
    }

    /// An array's command ended. Returns what is left to be submitted, or what went wrong.
    pub(super) fn ended(
        &mut self,
        number: u64,
        result: i32,
    ) -> Result<Option<squeue::Entry>, Completion> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(array) = self.arrays.get_mut(number) else {
            return Ok(None);
        };
        let Ok(bytes) = usize::try_from(result) else {
            let rest = array.elements.get(array.done..).unwrap_or_default();
            let tag = BatchElem::read_from_prefix(rest).map_or(0, |(element, _)| element.tag);
            return Err(Completion::Tag(Tag(tag), result));
        };
        // Arming is done whole, and says 0.
        let all = array.elements.len();
        let done = if bytes == 0 { all } else { array.done + bytes };
        if done < all {
            array.done = done;
            return Ok(self.command(number));
        }
        array.elements.clear();
        array.done = 0;
        array.with_kernel = false;
        Ok(None)
    }

    /// The standing command wrote tags into a buffer, or ended. Returns whether it must be sent anew, or what it says.
    pub(super) fn fetched(&mut self, result: i32, flags: u32) -> Result<bool, Completion> {
        let ended = flags & MORE == 0;
        match usize::try_from(result) {
            Ok(bytes) => {
                self.taking = Some(Taking {
                    buffer: u16::try_from(flags >> BUFFER_SHIFT).unwrap_or(0),
                    next: 0,
                    end: bytes.min(BUFFER_BYTES) / usize::from(BATCH_TAG_BYTES),
                });
                Ok(ended)
            }
            Err(_) if result == -libc::ENOBUFS => Ok(true),
            Err(_) if result == -libc::ENODEV => Err(Completion::AllGone),
            Err(_) => Err(Completion::Tag(Tag(0), result)),
        }
    }

    /// The next tag that a request has come for.
    #[inline]
    pub(super) fn next_tag(&mut self) -> Option<Completion> {
        let taking = self.taking.as_mut()?;
        if taking.next < taking.end {
            let tag = self.incoming.tag(taking.buffer, taking.next);
            taking.next += 1;
            return Some(Completion::Tag(tag, IO_RES_OK));
        }
        let buffer = taking.buffer;
        self.taking = None;
        self.incoming.give(buffer);
        None
    }

    /// Never frees what the kernel may still read and write.
    pub(super) fn leak(self) {
        std::mem::forget(self.arrays);
        std::mem::forget(self.incoming);
    }
}

/// The library's entries have no way to say this.
fn multishot(mut entry: squeue::Entry) -> squeue::Entry {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let start = ptr::from_mut(&mut entry).cast::<u8>();
    let flags = start.wrapping_add(FLAGS_AT).cast::<u32>();
    // SAFETY: an entry is a submission of 64 bytes (`repr(C)`, checked above), of which these four are `uring_cmd_flags`.
    unsafe { flags.write_unaligned(MULTISHOT) };
    entry
}

/// The buffers that take tags, and the ring by which the kernel is given them. Two pages: the ring, then the buffers.
#[derive(Debug)]
struct Incoming {
    mapping: Mapping,
    page: usize,
    tail: u16,
}

impl Incoming {
    fn new(submitter: &Submitter<'_>) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = page + (usize::from(BUFFERS) * BUFFER_BYTES).next_multiple_of(page);
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        }?;
        let mapping = Mapping::adopt(start, length)?;
        // SAFETY: the page is mapped, holds 16 entries of 16 bytes, and stays mapped until the ring is gone: the ring is
        // dropped before this value, or this value never (see `leak`).
        unsafe { submitter.register_buf_ring_with_flags(start as u64, BUFFERS, GROUP, 0) }?;
        let mut incoming = Self {
            mapping,
            page,
            tail: 0,
        };
        (0..BUFFERS).for_each(|buffer| incoming.give(buffer));
        Ok(incoming)
    }

    fn buffer(&self, number: u16) -> NonNull<u8> {
        let offset = self.page + usize::from(number % BUFFERS) * BUFFER_BYTES;
        // SAFETY: the number is below their count, so that the buffer lies inside the mapping.
        unsafe { self.mapping.start.cast::<u8>().add(offset) }
    }

    fn tag(&self, number: u16, index: usize) -> Tag {
        // SAFETY: the index is below what a buffer holds.
        let place = unsafe { self.buffer(number).cast::<u16>().add(index) };
        // SAFETY: it lies inside the mapping, is aligned, and any bytes are a tag. The kernel wrote it before the completion that
        // named the buffer, and does not write it again before the buffer is given back.
        Tag(unsafe { place.as_ptr().read_volatile() })
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, number: u16) {
        let index = usize::from(self.tail % BUFFERS);
        let buffer = self.buffer(number).as_ptr() as u64;
        // SAFETY: the index is below the ring's length, which lies inside the mapping.
        let place = unsafe { self.mapping.start.cast::<BufRingEntry>().add(index) };
        // SAFETY: mapped, aligned, any bytes are an entry; the kernel reads it only when the tail has moved past it.
        let entry = unsafe { &mut *place.as_ptr() };
        entry.set_addr(buffer);
        entry.set_len(u32::try_from(BUFFER_BYTES).unwrap_or(0));
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's first entry is mapped and initialised: the tail is a field of it.
        let tail = unsafe { BufRingEntry::tail(self.mapping.start.as_ptr().cast()) };
        // SAFETY: aligned, mapped, and read by the kernel meanwhile, so that it is accessed as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Release);
    }
}
