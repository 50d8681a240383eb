//! Where the requests' data are, by the device's data path.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use oxublk_sys::{AutoBufFlags, AutoBufReg, IoDesc, IoFlags, SECTOR_SIZE, op, user_copy_pos};

use super::UringSetup;
use crate::id::{QueueId, Tag};
use crate::ops::{Memory, Span};
use crate::path::DataPath;
use crate::queue::buffers::{Buffers, Descriptors};
use crate::queue::tag::Held;
use crate::shared::{SharedPart, View};
use crate::transfer::{Carrier, Sink, Source};

/// Where the data of a queue's requests are.
#[derive(Debug)]
pub(super) struct Data {
    node: Arc<OwnedFd>,
    queue: QueueId,
    path: DataPath,
    /// Of the copy path; with zero copy for the requests that the driver could not register. The others have none.
    buffers: Option<Buffers>,
    /// With zero copy: where a tag's data are if they are not registered.
    unregistered: Box<[Unregistered]>,
    /// The memories that clients share, of a device that has such.
    view: Option<View>,
}

/// Where a tag's data are although the device has zero copy.
#[derive(Debug, Default)]
enum Unregistered {
    /// They are registered.
    #[default]
    Not,
    /// The tag's buffer has a write's.
    Write,
    /// The tag's buffer takes a read's, which the driver must be given.
    Read,
    /// They lie in shared memory.
    Shared(SharedPart),
}

/// A tag's data as the kernel's operations take them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At this address.
    At(NonNull<u8>),
    /// In this slot of the registered buffers, from this byte on.
    Registered(u16, u32),
}

impl Data {
    pub(super) fn new(setup: &UringSetup<'_>) -> io::Result<Self> {
        let (depth, zero_copy) = (setup.depth, setup.path == DataPath::ZeroCopy);
        let buffers = match setup.path {
            DataPath::Direct => None,
            DataPath::Copy | DataPath::ZeroCopy => Some(Buffers::map(depth, setup.max_io_bytes)?),
        };
        let tags = if zero_copy { usize::from(depth) } else { 0 };
        Ok(Self {
            node: Arc::clone(setup.device),
            queue: setup.queue,
            path: setup.path,
            buffers,
            unregistered: (0..tags).map(|_| Unregistered::Not).collect(),
            view: setup.shared.map(View::new),
        })
    }

    /// The address of the tag's buffer, for the driver: 0 where the driver copies nothing by itself.
    pub(super) fn address(&self, tag: Tag) -> u64 {
        match (self.path, &self.buffers) {
            (DataPath::Copy, Some(buffers)) => buffers.address(tag),
            _ => 0,
        }
    }

    /// Where the driver registers the data of the tag's next request.
    pub(super) fn registration(&self, tag: Tag) -> Option<u64> {
        (self.path == DataPath::ZeroCopy).then(|| {
            AutoBufReg {
                index: tag.0,
                flags: AutoBufFlags::FALLBACK.bits(),
                ..AutoBufReg::default()
            }
            .to_sqe_addr()
        })
    }

    /// The tag's buffer: of the copy path.
    pub(super) fn buffer(&mut self, held: &Held) -> &mut [u8] {
        match &mut self.buffers {
            Some(buffers) => buffers.get(held),
            None => &mut [],
        }
    }

    /// The way of the request's data: of the direct path.
    pub(super) fn carrier(&mut self, held: &Held) -> Carrier<'_> {
        if self.path == DataPath::Copy {
            return Carrier::Memory(self.buffer(held));
        }
        of_driver(&self.node, self.queue, held.tag())
    }

    /// Sees which memories are shared.
    #[inline]
    pub(super) fn refresh(&mut self) {
        if let Some(view) = &mut self.view {
            view.refresh();
        }
    }

    /// Where the data of a request are that lie in shared memory.
    pub(super) fn shared(&mut self, descriptor: &IoDesc) -> io::Result<SharedPart> {
        let Some(view) = &mut self.view else {
            return Err(io::Error::other("the device shares no memory"));
        };
        view.part(descriptor.addr, length_of(descriptor)?)
    }

    /// The request's data, for an asynchronous disk.
    #[inline]
    pub(super) fn memory(&mut self, held: &Held, descriptors: &Descriptors) -> io::Result<Memory> {
        let tag = held.tag();
        if self.path == DataPath::ZeroCopy {
            let descriptor = descriptors.get(held);
            if descriptor.flags().contains(IoFlags::SHMEM_ZC) {
                let part = self.shared(&descriptor)?;
                let length = part.len();
                self.note(tag, Unregistered::Shared(part));
                return Ok(Memory::Shared { length });
            }
            if !descriptor.flags().contains(IoFlags::NEED_REG_BUF) {
                return Ok(Memory::Registered);
            }
            self.take_over(held, &descriptor)?;
        }
        let Some(buffers) = &mut self.buffers else {
            return Err(io::Error::other("the device has no buffers"));
        };
        let start = buffers.start(tag);
        let length = buffers.each();
        Ok(Memory::Mapped { start, length })
    }

    /// The driver could not register the request's pages: its data are copied after all.
    #[cold]
    fn take_over(&mut self, held: &Held, descriptor: &IoDesc) -> io::Result<()> {
        let tag = held.tag();
        let kind = match descriptor.op() {
            op::READ => Unregistered::Read,
            op::WRITE => Unregistered::Write,
            _ => return Ok(()),
        };
        if matches!(kind, Unregistered::Write) {
            let length = length_of(descriptor)?;
            let buffers = self.buffers.as_mut().map(|buffers| buffers.get(held));
            let buffer = buffers.and_then(|buffer| buffer.get_mut(..length));
            let buffer = buffer.ok_or(io::ErrorKind::InvalidInput)?;
            let carrier = of_driver(&self.node, self.queue, tag);
            Source::new(carrier, length).take(buffer)?;
        }
        self.note(tag, kind);
        Ok(())
    }

    fn note(&mut self, tag: Tag, kind: Unregistered) {
        if let Some(place) = self.unregistered.get_mut(tag.index()) {
            *place = kind;
        }
    }

    /// A request is answered with this result; returns what the driver is to be told.
    #[inline]
    pub(super) fn settle(&mut self, tag: Tag, result: i32) -> i32 {
        match self.unregistered.get_mut(tag.index()) {
            None | Some(Unregistered::Not) => result,
            Some(place) => {
                let kind = std::mem::take(place);
                self.give_back(tag, kind, result)
            }
        }
    }

    #[cold]
    fn give_back(&mut self, tag: Tag, kind: Unregistered, result: i32) -> i32 {
        let (Unregistered::Read, Ok(length), Some(buffers)) =
            (kind, usize::try_from(result), &self.buffers)
        else {
            return result;
        };
        let mut sink = Sink::new(of_driver(&self.node, self.queue, tag), length);
        match sink.put(buffers.data(tag, length)) {
            Ok(()) => result,
            Err(error) => {
                tracing::error!(queue = self.queue.0, tag = tag.0, %error, "cannot give the driver a read's data");
                libc::EIO.saturating_neg()
            }
        }
    }

    /// A part of a tag's data, for an operation.
    pub(super) fn place(&self, span: &Span) -> Option<Place> {
        match self.unregistered.get(span.tag.index()) {
            Some(Unregistered::Not) => {
                return Some(Place::Registered(span.tag.0, span.start));
            }
            Some(Unregistered::Shared(part)) => {
                let (start, length) = (span.start as usize, span.length as usize);
                return part.address(start, length).map(Place::At);
            }
            _ => {}
        }
        let buffers = self.buffers.as_ref()?;
        let end = span.start.checked_add(span.length)?;
        if end as usize > buffers.each() {
            return None;
        }
        let start = buffers.start(span.tag).as_ptr();
        NonNull::new(start.wrapping_add(span.start as usize)).map(Place::At)
    }

    /// Never unmaps the buffers: for a queue that leaves while the kernel may still write to them.
    pub(super) fn leak(self) {
        if let Some(buffers) = self.buffers {
            buffers.leak();
        }
        // Operations that are under way use shared memory too.
        std::mem::forget(self.unregistered);
    }
}

/// The way of a request's data through the driver.
fn of_driver(node: &OwnedFd, queue: QueueId, tag: Tag) -> Carrier<'_> {
    Carrier::Driver {
        node: node.as_fd(),
        position: user_copy_pos(queue.0, tag.0, 0),
    }
}

/// How many bytes of data a descriptor says.
fn length_of(descriptor: &IoDesc) -> io::Result<usize> {
    let bytes = u64::from(descriptor.nr_sectors) * SECTOR_SIZE;
    usize::try_from(bytes).map_err(io::Error::other)
}
