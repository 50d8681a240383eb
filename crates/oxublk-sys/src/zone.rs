//! Zone reports: what a zoned disk answers [`op::REPORT_ZONES`](crate::op::REPORT_ZONES) with.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One zone of a report; all positions and lengths are in sectors.
///
/// A report with fewer zones than asked for ends with an entry that is all zero.
/// Kernel: `struct blk_zone` of `linux/blkzoned.h`; used by ublk since 6.6.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BlkZone {
    /// First sector.
    pub start: u64,
    /// Sectors of the zone, with those that cannot be written.
    pub len: u64,
    /// Where the next write goes.
    pub wp: u64,
    /// One of [`zone_type`]. (`type` in the header.)
    pub zone_type: u8,
    /// One of [`zone_cond`].
    pub cond: u8,
    /// The device has run out of resources for writes that are not sequential.
    pub non_seq: u8,
    /// The device recommends a reset of the zone's write pointer.
    pub reset: u8,
    /// Unused, zero.
    pub resv: [u8; 4],
    /// Sectors that can be written.
    pub capacity: u64,
    /// Unused, zero.
    pub reserved: [u8; 24],
}

const _: () = assert!(size_of::<BlkZone>() == 64);
const _: () = assert!(offset_of!(BlkZone, len) == 8);
const _: () = assert!(offset_of!(BlkZone, wp) == 16);
const _: () = assert!(offset_of!(BlkZone, zone_type) == 24);
const _: () = assert!(offset_of!(BlkZone, cond) == 25);
const _: () = assert!(offset_of!(BlkZone, capacity) == 32);

/// Values of [`BlkZone::zone_type`].
pub mod zone_type {
    /// Writes may go anywhere.
    pub const CONVENTIONAL: u8 = 1;
    /// Writes must be sequential.
    pub const SEQWRITE_REQ: u8 = 2;
    /// Writes should be sequential.
    pub const SEQWRITE_PREF: u8 = 3;
}

/// Values of [`BlkZone::cond`].
pub mod zone_cond {
    /// The zone has no write pointer: it is conventional.
    pub const NOT_WP: u8 = 0x0;
    /// Nothing is written.
    pub const EMPTY: u8 = 0x1;
    /// A write has opened the zone.
    pub const IMP_OPEN: u8 = 0x2;
    /// A command has opened the zone.
    pub const EXP_OPEN: u8 = 0x3;
    /// Partly written, and closed.
    pub const CLOSED: u8 = 0x4;
    /// May be read only.
    pub const READONLY: u8 = 0xd;
    /// Wholly written.
    pub const FULL: u8 = 0xe;
    /// Neither read nor written any more.
    pub const OFFLINE: u8 = 0xf;
    /// Open or closed, not said which: the kernel's own cached reports only, not for a server to
    /// send. Since 6.19.
    pub const ACTIVE: u8 = 0xff;
}
