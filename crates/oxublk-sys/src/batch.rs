//! The batched form of the I/O commands, for devices with [`Features::BATCH_IO`]. Since 7.0.
//!
//! [`Features::BATCH_IO`]: crate::Features::BATCH_IO

use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Payload of a batch command, at byte 48 of the submission entry; the array of elements is at the
/// entry's own `addr`.
///
/// Kernel: `struct ublk_batch_io`, since 7.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BatchIo {
    /// Queue.
    pub q_id: u16,
    /// [`BatchFlags`]: what an element has behind its header.
    pub flags: u16,
    /// Elements in the array; at most the queue's depth.
    pub nr_elem: u16,
    /// Bytes of one element: 8, and 8 more for each of buffer address and zone position. For
    /// [`io_op::FETCH_IO_CMDS`](crate::io_op::FETCH_IO_CMDS) [`BATCH_TAG_BYTES`].
    pub elem_bytes: u8,
    /// Unused, zero.
    pub reserved: u8,
    /// Unused, zero.
    pub reserved2: u64,
}

/// Head of an element of a batch. Behind it, in this order and if the flags say so: the buffer's
/// address (u64) and the sector where a zone append was written (u64).
///
/// Kernel: `struct ublk_elem_header`, since 7.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct BatchElem {
    /// Tag in the batch's queue.
    pub tag: u16,
    /// Slot in the ring's buffer table, with automatic registration.
    pub buf_index: u16,
    /// For a commit: bytes done, or a negative errno.
    pub result: i32,
}

pub(crate) const BATCH_IO_SIZE: u16 = 16;

const _: () = assert!(size_of::<BatchIo>() == BATCH_IO_SIZE as usize);
const _: () = assert!(offset_of!(BatchIo, nr_elem) == 4);
const _: () = assert!(offset_of!(BatchIo, elem_bytes) == 6);
const _: () = assert!(offset_of!(BatchIo, reserved2) == 8);
const _: () = assert!(size_of::<BatchElem>() == 8);
const _: () = assert!(offset_of!(BatchElem, buf_index) == 2);
const _: () = assert!(offset_of!(BatchElem, result) == 4);

/// Bytes of one tag that [`io_op::FETCH_IO_CMDS`](crate::io_op::FETCH_IO_CMDS) delivers (u16).
pub const BATCH_TAG_BYTES: u8 = 2;

bitflags! {
    /// Flags of a batch: [`BatchIo::flags`]. Since 7.0.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct BatchFlags: u16 {
        /// Elements carry the sector where a zone append was written.
        const HAS_ZONE_LBA = 1 << 0;
        /// Elements carry the address of a buffer.
        const HAS_BUF_ADDR = 1 << 1;
        /// As [`AutoBufFlags::FALLBACK`](crate::AutoBufFlags::FALLBACK), for all elements.
        const AUTO_BUF_REG_FALLBACK = 1 << 2;
    }
}
