//! What the server shares with the driver: descriptors, one buffer a tag, and the right to use them.

use std::ops::Range;

use oxublk::Tag;
use oxublk::sys::IoDesc;

use crate::rng::Rng;

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
    garbage: Vec<u8>,
}

impl Memory {
    pub(crate) fn new(depth: u16, each: usize, seed: u64) -> Self {
        let depth = usize::from(depth);
        let mut rng = Rng::new(seed);
        Self {
            descriptors: vec![IoDesc::default(); depth],
            buffers: vec![0; depth * each],
            each,
            held: vec![false; depth],
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
