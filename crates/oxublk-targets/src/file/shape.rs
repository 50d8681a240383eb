//! From what is below to the disk's geometry.

use oxublk::Geometry;

use super::direct::{self, Alignment};
use super::limits::Limits;
use super::opening::Opened;
use super::{OpenError, Way};

/// The smallest and the largest logical block.
const SMALLEST: u32 = 512;
const LARGEST: u32 = 4096;

/// How the data come to the file, and by which blocks.
pub(super) struct Choice {
    pub(super) way: Way,
    pub(super) logical_block_bytes: u32,
    /// What direct I/O asks of addresses; 0 for nothing.
    memory_alignment: u32,
    /// What people may not expect.
    pub(super) note: Option<String>,
}

impl Choice {
    pub(super) fn of(
        opened: &Opened,
        direct: Option<bool>,
        block: Option<u32>,
    ) -> Result<Self, OpenError> {
        let limits = opened.limits.filter(|_| opened.is_block);
        let own = limits.map_or(SMALLEST, |limits| limits.logical_block_bytes);
        if direct == Some(false) {
            return Ok(Self::buffered(
                block.unwrap_or(own),
                "it was asked for",
                None,
            ));
        }
        let possible = direct::alignment(&opened.file, opened.is_block)
            .and_then(|alignment| fits(alignment, block));
        match (possible, direct) {
            (Ok(Alignment { memory, offset }), _) => {
                let why = if direct.is_some() {
                    "it was asked for"
                } else {
                    "the file can be read and written past the page cache"
                };
                Ok(Self {
                    way: Way {
                        direct: true,
                        why: why.to_owned(),
                    },
                    logical_block_bytes: block.unwrap_or_else(|| offset.max(own).max(SMALLEST)),
                    memory_alignment: memory,
                    note: None,
                })
            }
            (Err(why), Some(_)) => Err(OpenError::unusable(format!(
                "the file cannot be read and written past the page cache: {why}"
            ))
            .with_hint("leave --direct out, or use --buffered")),
            (Err(why), None) => {
                // That memory has no direct I/O surprises nobody.
                let note = block
                    .map(|_| format!("the file is read and written through the page cache: {why}"));
                Ok(Self::buffered(block.unwrap_or(own), &why, note))
            }
        }
    }

    fn buffered(logical_block_bytes: u32, why: &str, note: Option<String>) -> Self {
        Self {
            way: Way {
                direct: false,
                why: why.to_owned(),
            },
            logical_block_bytes,
            memory_alignment: 0,
            note,
        }
    }
}

/// Whether a disk with such blocks, if they were asked for, can be served by direct I/O.
fn fits(alignment: Alignment, block: Option<u32>) -> Result<Alignment, String> {
    let Alignment { memory, offset } = alignment;
    let block = block.unwrap_or(LARGEST);
    if offset > block || memory > LARGEST {
        return Err(format!(
            "its direct I/O needs blocks of {} bytes",
            offset.max(memory)
        ));
    }
    Ok(alignment)
}

/// What the geometry is made of.
pub(super) struct Shape<'o> {
    pub(super) opened: &'o Opened,
    pub(super) choice: &'o Choice,
    pub(super) max_io_bytes: u32,
    pub(super) can_punch: bool,
    pub(super) zero_copy: bool,
}

impl Shape<'_> {
    pub(super) fn geometry(&self) -> Geometry {
        let default = Geometry::default();
        let Opened {
            is_block,
            read_only,
            ..
        } = *self.opened;
        let limits = self.opened.limits.unwrap_or_default();
        let logical = self.choice.logical_block_bytes;
        let physical = match limits.physical_block_bytes {
            bytes if is_block && bytes > 0 => bytes,
            // A file is kept by the page.
            bytes => bytes.max(default.physical_block_bytes),
        };
        let (discard, write_zeroes) = self.ranges(&limits);
        let geometry = Geometry {
            logical_block_bytes: logical,
            physical_block_bytes: physical.max(logical),
            optimal_io_bytes: power_of_two(limits.optimal_io_bytes),
            max_io_bytes: self.max_io_bytes,
            read_only,
            rotational: limits.rotational,
            volatile_cache: !read_only,
            fua: !read_only,
            discard,
            discard_granularity_bytes: self.granularity(&limits),
            write_zeroes,
            ..default
        };
        if !self.zero_copy {
            return geometry;
        }
        Geometry {
            max_segments: limits.max_segments,
            max_segment_bytes: match limits.max_segment_bytes {
                bytes if bytes < LARGEST => 0,
                bytes => bytes,
            },
            dma_alignment_bytes: match self.choice.memory_alignment {
                bytes if bytes < 4 => 0,
                bytes => power_of_two(bytes),
            },
            ..geometry
        }
    }

    /// Whether there are discard and write-zeroes.
    fn ranges(&self, limits: &Limits) -> (bool, bool) {
        if self.opened.read_only {
            return (false, false);
        }
        if !self.opened.is_block {
            return (self.can_punch, true);
        }
        // The only discard by `fallocate` on every kernel is that which zeroes; and it takes whole blocks of the device.
        let fits = self.choice.logical_block_bytes >= limits.logical_block_bytes;
        let zeroes = limits.zeroes && fits;
        (zeroes && limits.discards, zeroes)
    }

    fn granularity(&self, limits: &Limits) -> u32 {
        let logical = self.choice.logical_block_bytes.max(1);
        let unit = if self.opened.is_block {
            limits.discard_granularity_bytes
        } else {
            u32::try_from(self.opened.block_bytes).unwrap_or(0)
        };
        unit.max(logical).next_multiple_of(logical)
    }
}

/// The value if it is a power of two, as the driver wants; else nothing.
fn power_of_two(bytes: u32) -> u32 {
    if bytes.is_power_of_two() { bytes } else { 0 }
}
