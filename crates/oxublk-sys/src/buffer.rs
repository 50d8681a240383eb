//! Where the data of a request lies: file positions of user copy, slots of automatically
//! registered buffers, registered shared memory.

use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Position in the character node where request data starts, with
/// [`Features::USER_COPY`](crate::Features::USER_COPY). Since 6.5.
pub const IO_BUF_OFFSET: u64 = 0x8000_0000;

/// Bit where the byte offset inside a request starts in a position.
pub const IO_BUF_OFF: u32 = 0;

/// Bits of the byte offset inside a request: 32 MiB.
pub const IO_BUF_BITS: u32 = 25;

/// The byte offset's bits.
pub const IO_BUF_BITS_MASK: u64 = (1 << IO_BUF_BITS) - 1;

/// The largest request whose bytes all have a position. The driver does not enforce it.
pub const MAX_IO_BUF_BYTES: u32 = 1 << IO_BUF_BITS;

/// Bit where the tag starts in a position.
pub const TAG_OFF: u32 = IO_BUF_BITS;

/// Bits of the tag in a position.
pub const TAG_BITS: u32 = 16;

/// The tag's bits, before they are shifted by [`TAG_OFF`].
pub const TAG_BITS_MASK: u64 = (1 << TAG_BITS) - 1;

/// Bit where the queue starts in a position.
pub const QID_OFF: u32 = TAG_OFF + TAG_BITS;

/// Bits of the queue in a position.
pub const QID_BITS: u32 = 12;

/// The queue's bits, before they are shifted by [`QID_OFF`].
pub const QID_BITS_MASK: u64 = (1 << QID_BITS) - 1;

/// Bits of all positions, above [`IO_BUF_OFFSET`].
pub const IO_BUF_TOTAL_BITS: u32 = QID_OFF + QID_BITS;

/// Bytes that all positions span, above [`IO_BUF_OFFSET`].
pub const IO_BUF_TOTAL_SIZE: u64 = 1 << IO_BUF_TOTAL_BITS;

/// Bit of a position that selects a request's integrity data instead of its data. Since 7.0.
pub const INTEGRITY_FLAG_OFF: u32 = 62;

/// Added to a position: the request's integrity data instead of its data. Since 7.0.
pub const IO_INTEGRITY_FLAG: u64 = 1 << INTEGRITY_FLAG_OFF;

/// Position of byte `offset` of a request's data, for `pread` and `pwrite` of the character node.
///
/// `qid` has [`QID_BITS`] and `offset` [`IO_BUF_BITS`] bits; what is above runs into the next
/// field.
#[must_use]
pub const fn user_copy_pos(qid: u16, tag: u16, offset: u32) -> u64 {
    IO_BUF_OFFSET
        + ((qid as u64) << QID_OFF)
        + ((tag as u64) << TAG_OFF)
        + ((offset as u64) << IO_BUF_OFF)
}

/// Into which slot the driver registers a request's data by itself, with
/// [`Features::AUTO_BUF_REG`](crate::Features::AUTO_BUF_REG).
///
/// It travels in the `addr` of a submission entry, as [`to_sqe_addr`](Self::to_sqe_addr) packs it.
/// Kernel: `struct ublk_auto_buf_reg`, since 6.16.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct AutoBufReg {
    /// Slot in the ring's buffer table.
    pub index: u16,
    /// [`AutoBufFlags`].
    pub flags: u8,
    /// Unused, zero; anything else is `EINVAL`.
    pub reserved0: u8,
    /// Unused, zero; anything else is `EINVAL`.
    pub reserved1: u32,
}

impl AutoBufReg {
    /// The value for the submission entry's `addr`: slot in bits 0-15, flags in bits 16-23.
    #[must_use]
    pub const fn to_sqe_addr(self) -> u64 {
        self.index as u64
            | (self.flags as u64) << 16
            | (self.reserved0 as u64) << 24
            | (self.reserved1 as u64) << 32
    }

    /// What a submission entry's `addr` says.
    #[must_use]
    pub const fn from_sqe_addr(addr: u64) -> Self {
        let [i0, i1, flags, reserved0, r0, r1, r2, r3] = addr.to_le_bytes();
        Self {
            index: u16::from_le_bytes([i0, i1]),
            flags,
            reserved0,
            reserved1: u32::from_le_bytes([r0, r1, r2, r3]),
        }
    }
}

bitflags! {
    /// Flags of automatic registration: [`AutoBufReg::flags`]. Since 6.16.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AutoBufFlags: u8 {
        /// If registering fails, deliver the request with
        /// [`IoFlags::NEED_REG_BUF`](crate::IoFlags::NEED_REG_BUF) instead of failing it unseen.
        const FALLBACK = 1 << 0;
    }
}

/// Shared memory to register: the argument of [`ctrl_op::REG_BUF`](crate::ctrl_op::REG_BUF).
///
/// Kernel: `struct ublk_shmem_buf_reg`, since 7.1.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ShmemBufReg {
    /// Address in the caller's memory; whole pages.
    pub addr: u64,
    /// Length in bytes; whole pages, at most 4 GiB.
    pub len: u64,
    /// [`ShmemBufFlags`].
    pub flags: u32,
    /// Unused, zero.
    pub reserved: u32,
}

bitflags! {
    /// Flags of registered shared memory: [`ShmemBufReg::flags`]. Since 7.1.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ShmemBufFlags: u32 {
        /// The driver may only read the memory: it serves writes to the disk and nothing else.
        const READ_ONLY = 1 << 0;
    }
}

/// The most pieces of shared memory that a device can have registered. Since 7.1.
pub const MAX_SHMEM_BUFS: u32 = 65_536;

/// The bits of [`IoDesc::addr`](crate::IoDesc::addr) that are the byte offset in registered shared
/// memory. Since 7.1.
pub const SHMEM_ZC_OFF_MASK: u64 = 0xffff_ffff;

/// The bit of [`IoDesc::addr`](crate::IoDesc::addr) where the index of registered shared memory
/// starts. Since 7.1.
pub const SHMEM_ZC_IDX_OFF: u32 = 32;

/// The index's bits, before they are shifted by [`SHMEM_ZC_IDX_OFF`]. Since 7.1.
pub const SHMEM_ZC_IDX_MASK: u64 = 0xffff;

/// [`IoDesc::addr`](crate::IoDesc::addr) for byte `offset` of registered shared memory `index`.
#[must_use]
pub const fn shmem_addr(index: u16, offset: u32) -> u64 {
    ((index as u64) << SHMEM_ZC_IDX_OFF) | offset as u64
}

/// Index of the registered shared memory that an [`IoDesc::addr`](crate::IoDesc::addr) is about.
#[must_use]
pub const fn shmem_index(addr: u64) -> u16 {
    ((addr >> SHMEM_ZC_IDX_OFF) & SHMEM_ZC_IDX_MASK) as u16
}

/// Byte offset in the registered shared memory that an [`IoDesc::addr`](crate::IoDesc::addr) is
/// about.
#[must_use]
pub const fn shmem_offset(addr: u64) -> u32 {
    (addr & SHMEM_ZC_OFF_MASK) as u32
}

const _: () = assert!(size_of::<AutoBufReg>() == 8);
const _: () = assert!(offset_of!(AutoBufReg, flags) == 2);
const _: () = assert!(offset_of!(AutoBufReg, reserved1) == 4);
const _: () = assert!(size_of::<ShmemBufReg>() == 24);
const _: () = assert!(offset_of!(ShmemBufReg, len) == 8);
const _: () = assert!(offset_of!(ShmemBufReg, flags) == 16);
