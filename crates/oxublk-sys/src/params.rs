//! What a disk looks like: the argument of SET_PARAMS and GET_PARAMS.

use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Which sections of [`Params`] count: [`Params::types`].
    ///
    /// A kernel that does not know a section drops its bit without an error.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ParamTypes: u32 {
        /// [`Params::basic`]; no disk without it. Since 6.0.
        const BASIC = 1 << 0;
        /// [`Params::discard`]. Since 6.0.
        const DISCARD = 1 << 1;
        /// [`Params::devt`]: in answers only, `EINVAL` in SET_PARAMS. Since 6.0.
        const DEVT = 1 << 2;
        /// [`Params::zoned`]. Since 6.6.
        const ZONED = 1 << 3;
        /// [`Params::dma`]. Since 6.15.
        const DMA_ALIGN = 1 << 4;
        /// [`Params::seg`]. Since 6.15.
        const SEGMENT = 1 << 5;
        /// [`Params::integrity`]. Since 7.0.
        const INTEGRITY = 1 << 6;
    }
}

bitflags! {
    /// Attributes of a disk: [`ParamBasic::attrs`]. Since 6.0.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DevAttrs: u32 {
        /// The disk cannot be written.
        const READ_ONLY = 1 << 0;
        /// Seeks are slow.
        const ROTATIONAL = 1 << 1;
        /// Writes may be lost until a flush: the disk is sent flushes.
        const VOLATILE_CACHE = 1 << 2;
        /// Single writes can be made durable; ignored without `VOLATILE_CACHE`.
        const FUA = 1 << 3;
    }
}

bitflags! {
    /// What integrity data protects: [`ParamIntegrity::flags`]. Since 7.0.
    ///
    /// Kernel: `LBMD_PI_CAP_*` of `linux/fs.h`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IntegrityFlags: u32 {
        /// The disk has integrity data.
        const INTEGRITY = 1 << 0;
        /// The integrity data holds a reference tag; needs a checksum.
        const REFTAG = 1 << 1;
    }
}

/// Values of [`ParamIntegrity::csum_type`]. Since 7.0.
///
/// Kernel: `LBMD_PI_CSUM_*` of `linux/fs.h`.
pub mod csum_type {
    /// No checksum.
    pub const NONE: u8 = 0;
    /// The checksum of the Internet protocol.
    pub const IP: u8 = 1;
    /// CRC of 16 bits, polynomial of T10 DIF.
    pub const CRC16_T10DIF: u8 = 2;
    /// CRC of 64 bits, polynomial of NVMe.
    pub const CRC64_NVME: u8 = 4;
}

/// Smallest [`ParamSegment::max_segment_size`] in bytes, and smallest
/// [`ParamSegment::seg_boundary_mask`] + 1. Since 6.15.
pub const MIN_SEGMENT_SIZE: u32 = 4096;

/// Everything about a disk, in sections; `types` says which of them count.
///
/// Kernel: `struct ublk_params`, since 6.0. It has grown: older kernels know a prefix of it, take
/// that and ignore the rest.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Params {
    /// Bytes of this structure that the sender knows. In: must be set for SET_PARAMS and for
    /// GET_PARAMS. Out: what SET_PARAMS last stored, 0 if it never did.
    pub len: u32,
    /// [`ParamTypes`].
    pub types: u32,
    /// Size, blocks, limits. Since 6.0.
    pub basic: ParamBasic,
    /// Discard and write-zeroes. Since 6.0.
    pub discard: ParamDiscard,
    /// Device numbers; only read. Since 6.0.
    pub devt: ParamDevt,
    /// Zones. Since 6.6.
    pub zoned: ParamZoned,
    /// Alignment of the clients' memory. Since 6.15.
    pub dma: ParamDmaAlign,
    /// Unused, zero. (The kernel's structure has a hole here.)
    pub pad: [u8; 4],
    /// Segments of a request. Since 6.15.
    pub seg: ParamSegment,
    /// Integrity data. Since 7.0.
    pub integrity: ParamIntegrity,
}

impl Params {
    /// `types` by name; bits that this crate does not know are kept.
    #[must_use]
    pub const fn param_types(&self) -> ParamTypes {
        ParamTypes::from_bits_retain(self.types)
    }
}

/// Size, blocks and limits of a disk.
///
/// Fields named `_shift` are powers of two in bytes: 9 is 512. Kernel: `struct ublk_param_basic`,
/// since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamBasic {
    /// [`DevAttrs`].
    pub attrs: u32,
    /// Smallest unit that can be read or written, 9 to the shift of a page.
    pub logical_bs_shift: u8,
    /// Smallest unit that can be written without reading; not below the logical one.
    pub physical_bs_shift: u8,
    /// Preferred size of large I/O; 0 is unset.
    pub io_opt_shift: u8,
    /// Preferred size of small I/O; 0 is unset.
    pub io_min_shift: u8,
    /// Sectors of the largest request: at least a page, at most
    /// [`DevInfo::max_io_buf_bytes`](crate::DevInfo::max_io_buf_bytes).
    pub max_sectors: u32,
    /// Sectors at whose multiples requests are split; of a zoned disk, the size of a zone.
    pub chunk_sectors: u32,
    /// Sectors of the disk.
    pub dev_sectors: u64,
    /// Byte addresses where a segment may end and the next begin, as a mask; 0 is anywhere.
    pub virt_boundary_mask: u64,
}

/// Discard and write-zeroes.
///
/// Kernel: `struct ublk_param_discard`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamDiscard {
    /// Bytes from the disk's start to the first unit that can be discarded.
    pub discard_alignment: u32,
    /// Bytes of a unit that can be discarded; not 0.
    pub discard_granularity: u32,
    /// Sectors of the largest discard; 0 is no discard.
    pub max_discard_sectors: u32,
    /// Sectors of the largest write-zeroes; 0 is no write-zeroes.
    pub max_write_zeroes_sectors: u32,
    /// Ranges of a discard: 1 if there is discard.
    pub max_discard_segments: u16,
    /// Unused, zero.
    pub reserved0: u16,
}

/// Device numbers. Only in answers.
///
/// Kernel: `struct ublk_param_devt`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamDevt {
    /// Major number of the character node.
    pub char_major: u32,
    /// Minor number of the character node.
    pub char_minor: u32,
    /// Major number of the disk, 0 until it is started.
    pub disk_major: u32,
    /// Minor number of the disk, 0 until it is started.
    pub disk_minor: u32,
}

/// Zones; for devices with [`Features::ZONED`](crate::Features::ZONED). A zone's size is
/// [`ParamBasic::chunk_sectors`].
///
/// Kernel: `struct ublk_param_zoned`, since 6.6.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamZoned {
    /// The most zones open at a time; 0 is no limit.
    pub max_open_zones: u32,
    /// The most zones open or closed at a time; 0 is no limit.
    pub max_active_zones: u32,
    /// Sectors of the largest zone append; not 0.
    pub max_zone_append_sectors: u32,
    /// Unused, zero.
    pub reserved: [u8; 20],
}

/// Alignment of the clients' memory.
///
/// Kernel: `struct ublk_param_dma_align`, since 6.15.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamDmaAlign {
    /// A mask: alignment in bytes minus 1, as in 511; less than a page.
    pub alignment: u32,
    /// Unused, zero.
    pub pad: [u8; 4],
}

/// Segments of a request.
///
/// Kernel: `struct ublk_param_segment`, since 6.15.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamSegment {
    /// Byte addresses that a segment must not cross, as a mask: a power of two from
    /// [`MIN_SEGMENT_SIZE`] on, minus 1.
    pub seg_boundary_mask: u64,
    /// Bytes of the largest segment, from [`MIN_SEGMENT_SIZE`] on.
    pub max_segment_size: u32,
    /// The most segments of a request; 0 leaves it to the kernel.
    pub max_segments: u16,
    /// Unused, zero.
    pub pad: [u8; 2],
}

/// Integrity data; for devices with [`Features::INTEGRITY`](crate::Features::INTEGRITY).
///
/// Kernel: `struct ublk_param_integrity`, since 7.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ParamIntegrity {
    /// [`IntegrityFlags`].
    pub flags: u32,
    /// The most integrity segments of a request; 0 is no limit.
    pub max_integrity_segments: u16,
    /// Bytes of data that one piece of integrity data protects, as a power of two: 9 to the shift
    /// of the logical block size.
    pub interval_exp: u8,
    /// Bytes of one piece of integrity data; not 0.
    pub metadata_size: u8,
    /// Where in such a piece the checksum and tags start, in bytes.
    pub pi_offset: u8,
    /// One of [`csum_type`].
    pub csum_type: u8,
    /// Bytes of the application tag.
    pub tag_size: u8,
    /// Unused, zero.
    pub pad: [u8; 5],
}

const _: () = assert!(size_of::<Params>() == 152);
const _: () = assert!(offset_of!(Params, basic) == 8);
const _: () = assert!(offset_of!(Params, discard) == 40);
const _: () = assert!(offset_of!(Params, devt) == 60);
const _: () = assert!(offset_of!(Params, zoned) == 76);
const _: () = assert!(offset_of!(Params, dma) == 108);
const _: () = assert!(offset_of!(Params, seg) == 120);
const _: () = assert!(offset_of!(Params, integrity) == 136);
const _: () = assert!(size_of::<ParamBasic>() == 32);
const _: () = assert!(offset_of!(ParamBasic, max_sectors) == 8);
const _: () = assert!(offset_of!(ParamBasic, dev_sectors) == 16);
const _: () = assert!(size_of::<ParamDiscard>() == 20);
const _: () = assert!(offset_of!(ParamDiscard, max_discard_segments) == 16);
const _: () = assert!(size_of::<ParamDevt>() == 16);
const _: () = assert!(size_of::<ParamZoned>() == 32);
const _: () = assert!(size_of::<ParamDmaAlign>() == 8);
const _: () = assert!(size_of::<ParamSegment>() == 16);
const _: () = assert!(offset_of!(ParamSegment, max_segments) == 12);
const _: () = assert!(size_of::<ParamIntegrity>() == 16);
const _: () = assert!(offset_of!(ParamIntegrity, interval_exp) == 6);
const _: () = assert!(offset_of!(ParamIntegrity, tag_size) == 10);
