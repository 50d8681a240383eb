//! What the server shares with the driver: descriptors, one buffer a tag, and the right to use them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use oxublk::queue::SharedPart;
use oxublk::sys::{IoDesc, SECTOR_SIZE, shmem_addr, shmem_index, shmem_offset};
use oxublk::{SharedMemory, Tag};

use crate::rng::Rng;
use crate::setup::Setup;

/// The slot of the shared memory.
const SLOT: u16 = 5;
/// What shared memory comes in: the largest page there is.
const PAGE: usize = 64 << 10;

/// How much garbage is made; buffers are filled with pieces of it.
const GARBAGE: usize = 8 << 10;

/// The memory of one queue.
#[derive(Debug)]
pub(crate) struct Memory {
    descriptors: Vec<IoDesc>,
    buffers: Vec<u8>,
    each: usize,
    /// Whether the server has taken a request of the tag from the ring, and not answered it.
    held: Vec<bool>,
    /// What clients share with the server: as much for each tag as its buffer has.
    shared: Option<Arc<SharedMemory>>,
    /// Whether the tag's request has its data there.
    in_shared: Vec<bool>,
    garbage: Vec<u8>,
}

impl Memory {
    pub(crate) fn new(setup: &Setup) -> Self {
        let (depth, each) = (usize::from(setup.depth), setup.max_io_bytes);
        let mut rng = Rng::new(setup.seed);
        // A host without memory for it has requests that are not shared, which the tests count.
        let shared = (setup.shared_percent > 0)
            .then(|| (depth * each).next_multiple_of(PAGE) as u64)
            .and_then(|bytes| SharedMemory::create("oxublk-sim", bytes).ok())
            .map(Arc::new);
        Self {
            descriptors: vec![IoDesc::default(); depth],
            buffers: vec![0; depth * each],
            each,
            held: vec![false; depth],
            shared,
            in_shared: vec![false; depth],
            garbage: (0..GARBAGE / 8)
                .flat_map(|_| rng.next().to_le_bytes())
                .collect(),
        }
    }

    /// Where the tag's buffer is; an empty range for a tag that the queue does not have.
    fn range(&self, tag: Tag) -> Range<usize> {
        let start = tag.index() * self.each;
        if start + self.each <= self.buffers.len() {
            start..start + self.each
        } else {
            0..0
        }
    }

    pub(crate) fn buffer(&mut self, tag: Tag) -> &mut [u8] {
        let range = self.range(tag);
        self.buffers.get_mut(range).unwrap_or_default()
    }

    /// The first `length` bytes of the tag's buffer, or as many as it has.
    pub(crate) fn data(&mut self, tag: Tag, length: usize) -> &mut [u8] {
        let buffer = self.buffer(tag);
        let length = length.min(buffer.len());
        buffer.get_mut(..length).unwrap_or_default()
    }

    /// The tag's next request has its data in shared memory. Returns what its descriptor says of the place.
    pub(crate) fn share(&mut self, tag: Tag, shared: bool) -> Option<u64> {
        let place = self.in_shared.get_mut(tag.index())?;
        *place = shared && self.shared.is_some();
        let start = u32::try_from(tag.index() * self.each).ok()?;
        place.then(|| shmem_addr(SLOT, start))
    }

    /// The place that a descriptor names.
    pub(crate) fn shared_part(&self, descriptor: &IoDesc) -> io::Result<SharedPart> {
        match &self.shared {
            Some(memory) if shmem_index(descriptor.addr) == SLOT => {
                let length = u64::from(descriptor.nr_sectors) * SECTOR_SIZE;
                let length = usize::try_from(length).map_err(io::Error::other)?;
                SharedPart::new(memory, shmem_offset(descriptor.addr) as usize, length)
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The client's bytes of a write come to where the server finds them.
    pub(crate) fn give(&mut self, tag: Tag, bytes: &[u8]) {
        let start = tag.index() * self.each;
        match &self.shared {
            // It fits: there is as much as in the buffers.
            Some(memory) if self.is_shared(tag) => drop(memory.store(start, bytes)),
            _ => self.data(tag, bytes.len()).copy_from_slice(bytes),
        }
    }

    /// The bytes of a read that was answered.
    pub(crate) fn take(&mut self, tag: Tag, length: usize) -> Vec<u8> {
        let start = tag.index() * self.each;
        match &self.shared {
            Some(memory) if self.is_shared(tag) => {
                let mut bytes = vec![0; length];
                drop(memory.load(start, &mut bytes));
                bytes
            }
            _ => self.data(tag, length).to_vec(),
        }
    }

    fn is_shared(&self, tag: Tag) -> bool {
        self.in_shared.get(tag.index()) == Some(&true)
    }

    pub(crate) fn descriptor(&self, tag: Tag) -> IoDesc {
        self.descriptors
            .get(tag.index())
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn describe(&mut self, tag: Tag, descriptor: IoDesc) {
        if let Some(slot) = self.descriptors.get_mut(tag.index()) {
            *slot = descriptor;
        }
    }

    /// Fills the buffer and the descriptor of a tag that was armed with garbage, so that what is
    /// used without a right to it is noticed.
    pub(crate) fn poison(&mut self, tag: Tag, garbage: u64) {
        let skip = usize::try_from(garbage % (GARBAGE / 2) as u64).unwrap_or(0);
        let range = self.range(tag);
        let source = self.garbage.get(skip..).unwrap_or_default();
        let buffer = self.buffers.get_mut(range).unwrap_or_default();
        for piece in buffer.chunks_mut(source.len()) {
            piece.copy_from_slice(source.get(..piece.len()).unwrap_or_default());
        }
        if let Some(memory) = self.shared.as_ref().filter(|_| self.is_shared(tag)) {
            let piece = source.get(..self.each.min(source.len()));
            drop(memory.store(tag.index() * self.each, piece.unwrap_or_default()));
        }
        let nonsense = IoDesc {
            op_flags: 0xff,
            nr_sectors: u32::MAX,
            start_sector: garbage,
            addr: garbage,
        };
        self.describe(tag, nonsense);
    }

    pub(crate) fn taken(&mut self, tag: Tag, held: bool) {
        if let Some(slot) = self.held.get_mut(tag.index()) {
            *slot = held;
        }
    }

    /// Whether the server has the right to use the tag's buffer and descriptor.
    pub(crate) fn is_held(&self, tag: Tag) -> bool {
        self.held.get(tag.index()).copied().unwrap_or(false)
    }
}
