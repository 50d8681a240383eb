//! What answers requests: the [`Disk`] trait and the [`Geometry`] it declares.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::transfer::{Sink, Source};

/// A block device's content and behaviour.
///
/// Three methods make a disk; the others have defaults. The methods are called from the
/// device's queue threads, one request per queue at a time, so a device with several queues
/// calls them at the same time from several threads. Requests may overlap; as on any block
/// device, what overlapping writes leave behind is one of them or a mix, never something else.
///
/// A method that fails, or panics, fails that request alone: the client sees the error's errno
/// where the driver passes it on (`ENOSPC`, `EOPNOTSUPP`, `ETIMEDOUT`, `ENODATA`, …) and `EIO`
/// for any other. There is no short read or write: a method has done all of it or returns an error.
///
/// ```
/// struct Zeroes;
///
/// impl oxublk::Disk for Zeroes {
///     fn size(&self) -> u64 {
///         1 << 30
///     }
///     fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<()> {
///         buf.fill(0);
///         Ok(())
///     }
///     fn write_at(&self, _buf: &[u8], _offset: u64) -> std::io::Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub trait Disk: Send + Sync + 'static {
    /// The size in bytes: a multiple of the logical block size, and not 0. Asked once, at start.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`. Both are multiples of the logical block size.
    ///
    /// `buf` holds bytes of an earlier request: what is not overwritten reaches the client.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Stores `buf` at `offset`. Both are multiples of the logical block size.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Stores `buf` at `offset` and returns when it is on the medium (FUA). Called only for a
    /// disk whose geometry has `fua`; by default writes, then flushes.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_fua_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(buf, offset)?;
        self.flush()
    }

    /// Returns when every write answered before is on the medium. Called only for a disk whose
    /// geometry has `volatile_cache`.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Says that the range is no longer needed. Called only for a disk whose geometry has `discard`.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the range read as zeroes. With `may_unmap` its space may be given back. Called only
    /// for a disk whose geometry has `write_zeroes`; without, the kernel writes zeroes.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Block sizes and abilities. Asked once, at start.
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }

    /// Whether the disk has [`read_to`](Self::read_to) and [`write_from`](Self::write_from), and would rather be called by
    /// them. That suits disks whose data lie in memory: the driver copies from there and to there, and no buffer is
    /// between. Asked once, at start. Where the kernel cannot do that, or the server may not, `read_at` and `write_at` are called.
    fn is_direct(&self) -> bool {
        false
    }

    /// Gives `to` the bytes at `offset`, all that it takes.
    ///
    /// # Errors
    /// Any error fails this request alone; so does giving less.
    fn read_to(&self, _to: &mut Sink<'_>, _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Stores at `offset` what `from` gives, all of it. A write with FUA is this and a flush.
    ///
    /// # Errors
    /// Any error fails this request alone; so does taking less.
    fn write_from(&self, _from: &mut Source<'_>, _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A disk that is shared is a disk.
impl<D: Disk + ?Sized> Disk for Arc<D> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_at(buf, offset)
    }
    fn write_fua_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_fua_at(buf, offset)
    }
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        (**self).write_zeroes(offset, len, may_unmap)
    }
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn is_direct(&self) -> bool {
        (**self).is_direct()
    }
    fn read_to(&self, to: &mut Sink<'_>, offset: u64) -> io::Result<()> {
        (**self).read_to(to, offset)
    }
    fn write_from(&self, from: &mut Source<'_>, offset: u64) -> io::Result<()> {
        (**self).write_from(from, offset)
    }
}

/// What a disk tells the kernel about itself. Change what differs from the default:
///
/// ```
/// use oxublk::Geometry;
/// let geometry = Geometry { logical_block_bytes: 4096, discard: true, ..Geometry::default() };
/// # assert!(geometry.check(1 << 20).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Geometry {
    /// The unit of addressing: 512, 1024, 2048 or 4096 bytes. Default 512.
    pub logical_block_bytes: u32,
    /// The unit that the medium writes at once: a power of two, at least the logical block.
    /// Default 4096.
    pub physical_block_bytes: u32,
    /// The size of I/O that suits the disk best; 0 for no preference. Default 0.
    pub optimal_io_bytes: u32,
    /// The largest request that a disk is given, a multiple of 4096 from 4 KiB to 32 MiB; the
    /// kernel splits larger ones. Each tag has a buffer of this size. Default 1 MiB.
    pub max_io_bytes: u32,
    /// The kernel refuses writes.
    pub read_only: bool,
    /// Seeks cost: the kernel orders requests for a spinning disk.
    pub rotational: bool,
    /// An answered write may still be lost until a flush: the kernel sends flushes.
    pub volatile_cache: bool,
    /// [`Disk::write_fua_at`] is cheaper than a write and a flush. Only with `volatile_cache`.
    pub fua: bool,
    /// [`Disk::discard`] does something.
    pub discard: bool,
    /// The unit of discard in bytes: a multiple of the logical block. Default 4096.
    pub discard_granularity_bytes: u32,
    /// [`Disk::write_zeroes`] is faster than writing zeroes.
    pub write_zeroes: bool,
    /// How many pieces of memory a request may have; 0 for what the kernel allows. With zero copy, a disk on another
    /// device passes that one's limits on, so that no request is split again below. Since Linux 6.15; older ones ignore it.
    pub max_segments: u16,
    /// The largest of these pieces, at least 4096 bytes; 0 for no limit. As `max_segments`.
    pub max_segment_bytes: u32,
    /// What the addresses of clients' memory are multiples of: a power of two from 4 to 4096; 0 for the kernel's default, 4.
    /// As `max_segments`.
    pub dma_alignment_bytes: u32,
}

/// The kernel's page, below which no I/O limit may be, and the largest logical block.
const PAGE_BYTES: u32 = 4096;
/// The driver's largest request: user-copy offsets have 25 bits (`UBLK_IO_BUF_BITS`).
const MAX_IO_BYTES: u32 = 32 << 20;

impl Default for Geometry {
    fn default() -> Self {
        Self {
            logical_block_bytes: 512,
            physical_block_bytes: 4096,
            optimal_io_bytes: 0,
            max_io_bytes: 1 << 20,
            read_only: false,
            rotational: false,
            volatile_cache: false,
            fua: false,
            discard: false,
            discard_granularity_bytes: 4096,
            write_zeroes: false,
            max_segments: 0,
            max_segment_bytes: 0,
            dma_alignment_bytes: 0,
        }
    }
}

impl Geometry {
    /// Checks the geometry for a disk of `size_bytes`, by the driver's own rules.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), naming the value and its bounds.
    pub fn check(&self, size_bytes: u64) -> Result<()> {
        let invalid = |message: String| Err(Error::invalid(message));
        let logical = self.logical_block_bytes;
        if !logical.is_power_of_two() || !(512..=PAGE_BYTES).contains(&logical) {
            return invalid(format!(
                "logical block size {logical} is not 512, 1024, 2048 or 4096 bytes"
            ));
        }
        let physical = self.physical_block_bytes;
        if !physical.is_power_of_two() || !(logical..=256 << 20).contains(&physical) {
            return invalid(format!(
                "physical block size {physical} is not a power of two between the logical block \
                 size ({logical} bytes) and 256 MiB"
            ));
        }
        if self.optimal_io_bytes != 0 && !self.optimal_io_bytes.is_power_of_two() {
            return invalid(format!(
                "optimal I/O size {} is not 0 or a power of two",
                self.optimal_io_bytes
            ));
        }
        if !self.max_io_bytes.is_multiple_of(PAGE_BYTES)
            || !(PAGE_BYTES..=MAX_IO_BYTES).contains(&self.max_io_bytes)
        {
            return invalid(format!(
                "maximum I/O size {} is not a multiple of 4096 between 4 KiB and 32 MiB",
                self.max_io_bytes
            ));
        }
        if self.discard
            && (self.discard_granularity_bytes == 0
                || !self.discard_granularity_bytes.is_multiple_of(logical))
        {
            return invalid(format!(
                "discard granularity {} is not a multiple of the logical block size ({logical} bytes)",
                self.discard_granularity_bytes
            ));
        }
        self.check_memory()?;
        if size_bytes == 0 {
            return invalid("a disk of size 0 cannot be a block device".to_owned());
        }
        if !size_bytes.is_multiple_of(u64::from(logical)) {
            return invalid(format!(
                "size {size_bytes} is not a multiple of the logical block size ({logical} bytes)"
            ));
        }
        Ok(())
    }

    /// What the clients' memory must be like.
    fn check_memory(&self) -> Result<()> {
        let (segment, alignment) = (self.max_segment_bytes, self.dma_alignment_bytes);
        if segment != 0 && segment < PAGE_BYTES {
            return Err(Error::invalid(format!(
                "largest segment {segment} is not 0 or at least {PAGE_BYTES} bytes"
            )));
        }
        if alignment != 0
            && (!alignment.is_power_of_two() || !(4..=PAGE_BYTES).contains(&alignment))
        {
            return Err(Error::invalid(format!(
                "memory alignment {alignment} is not 0 or a power of two from 4 to {PAGE_BYTES} bytes"
            )));
        }
        Ok(())
    }
}
