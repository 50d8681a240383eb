//! Data plane: what is sent to and read from a device's character node.

use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{MAX_QUEUE_DEPTH, iowr};

/// Payload of an I/O command for one tag, at byte 48 of a submission entry of 64 bytes.
///
/// Kernel: `struct ublksrv_io_cmd`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IoCmd {
    /// Queue.
    pub q_id: u16,
    /// Tag in that queue.
    pub tag: u16,
    /// For a commit: bytes done, or a negative errno. Ignored by the other commands.
    pub result: i32,
    /// Fetch, commit and get-data: address of the tag's buffer in the server's memory, 0 in modes
    /// without one. Commit of a zone append: the sector where the data was written (the header's
    /// second name for this field is `zone_append_lba`). Register and unregister: slot in the
    /// ring's buffer table.
    pub addr: u64,
}

/// A request as the driver describes it, in the queue's mapped descriptor array at index `tag`.
///
/// The driver rewrites it for the next request of the tag: copy it out when the request arrives.
/// Kernel: `struct ublksrv_io_desc`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IoDesc {
    /// Operation in bits 0-7 (see [`op`]), [`IoFlags`] above it.
    pub op_flags: u32,
    /// Length in sectors; for [`op::REPORT_ZONES`] the most zones to report (the header's second
    /// name for this field is `nr_zones`).
    pub nr_sectors: u32,
    /// First sector. [`op::FLUSH`] has all bits set here.
    pub start_sector: u64,
    /// Address of the tag's buffer; with [`IoFlags::SHMEM_ZC`] index and offset of registered
    /// memory (see [`shmem_index`](crate::shmem_index)).
    pub addr: u64,
}

impl IoDesc {
    /// The operation, one of [`op`].
    #[must_use]
    pub const fn op(&self) -> u8 {
        (self.op_flags & OP_MASK) as u8
    }

    /// The flags; bits that this crate does not know are kept.
    #[must_use]
    pub const fn flags(&self) -> IoFlags {
        IoFlags::from_bits_retain(self.op_flags & !OP_MASK)
    }
}

/// The bits of [`IoDesc::op_flags`] that are the operation.
pub const OP_MASK: u32 = 0xff;

/// Smallest [`DevInfo::io_desc_size`](crate::DevInfo::io_desc_size), and the one used without
/// [`Features::IO_DESC_SIZE`](crate::Features::IO_DESC_SIZE).
pub const MIN_IO_DESC_SIZE: u16 = 24;

/// Largest [`DevInfo::io_desc_size`](crate::DevInfo::io_desc_size); it must be a multiple of 8.
/// Since 7.3.
pub const MAX_IO_DESC_SIZE: u16 = 256;

const IO_CMD_SIZE: u16 = 16;

const _: () = assert!(size_of::<IoCmd>() == IO_CMD_SIZE as usize);
const _: () = assert!(offset_of!(IoCmd, tag) == 2);
const _: () = assert!(offset_of!(IoCmd, result) == 4);
const _: () = assert!(offset_of!(IoCmd, addr) == 8);
const _: () = assert!(size_of::<IoDesc>() == MIN_IO_DESC_SIZE as usize);
const _: () = assert!(offset_of!(IoDesc, nr_sectors) == 4);
const _: () = assert!(offset_of!(IoDesc, start_sector) == 8);
const _: () = assert!(offset_of!(IoDesc, addr) == 16);

/// Operations of a request: the low byte of [`IoDesc::op_flags`].
pub mod op {
    /// Read `nr_sectors` from `start_sector`. Since 6.0.
    pub const READ: u8 = 0;
    /// Write `nr_sectors` at `start_sector`. Since 6.0.
    pub const WRITE: u8 = 1;
    /// Make earlier writes durable; no data and no position. Since 6.0.
    pub const FLUSH: u8 = 2;
    /// The range is no longer needed. Since 6.0.
    pub const DISCARD: u8 = 3;
    /// Reserved: the driver never sends it.
    pub const WRITE_SAME: u8 = 4;
    /// The range reads as zeroes afterwards; no data. Since 6.0.
    pub const WRITE_ZEROES: u8 = 5;
    /// Open the zone at `start_sector`. Since 6.6.
    pub const ZONE_OPEN: u8 = 10;
    /// Close the zone at `start_sector`. Since 6.6.
    pub const ZONE_CLOSE: u8 = 11;
    /// Make the zone at `start_sector` full. Since 6.6.
    pub const ZONE_FINISH: u8 = 12;
    /// Write at the zone's write pointer and commit the sector where that was. Since 6.6.
    pub const ZONE_APPEND: u8 = 13;
    /// Empty every zone. Since 6.6.
    pub const ZONE_RESET_ALL: u8 = 14;
    /// Empty the zone at `start_sector`. Since 6.6.
    pub const ZONE_RESET: u8 = 15;
    /// Fill the buffer with [`BlkZone`](crate::BlkZone)s from the zone at `start_sector`.
    /// Since 6.6.
    pub const REPORT_ZONES: u8 = 18;

    /// Every operation with its name, in the order of the numbers.
    pub const ALL: &[(u8, &str)] = &[
        (READ, "READ"),
        (WRITE, "WRITE"),
        (FLUSH, "FLUSH"),
        (DISCARD, "DISCARD"),
        (WRITE_SAME, "WRITE_SAME"),
        (WRITE_ZEROES, "WRITE_ZEROES"),
        (ZONE_OPEN, "ZONE_OPEN"),
        (ZONE_CLOSE, "ZONE_CLOSE"),
        (ZONE_FINISH, "ZONE_FINISH"),
        (ZONE_APPEND, "ZONE_APPEND"),
        (ZONE_RESET_ALL, "ZONE_RESET_ALL"),
        (ZONE_RESET, "ZONE_RESET"),
        (REPORT_ZONES, "REPORT_ZONES"),
    ];
}

bitflags! {
    /// Flags of a request, at their place in [`IoDesc::op_flags`] (not shifted).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IoFlags: u32 {
        /// Do not retry after an error of the medium. Since 6.0.
        const FAILFAST_DEV = 1 << 8;
        /// Do not retry after an error of the transport. Since 6.0.
        const FAILFAST_TRANSPORT = 1 << 9;
        /// Do not retry after an error of the driver. Since 6.0.
        const FAILFAST_DRIVER = 1 << 10;
        /// A file system's metadata. Since 6.0.
        const META = 1 << 11;
        /// The write must be durable before it is answered. Since 6.0.
        const FUA = 1 << 13;
        /// [`op::WRITE_ZEROES`] must keep the space allocated. Since 6.0.
        const NOUNMAP = 1 << 15;
        /// Swap space. Since 6.0.
        const SWAP = 1 << 16;
        /// The buffer could not be registered automatically, the server must do it. Since 6.16.
        const NEED_REG_BUF = 1 << 17;
        /// The request has integrity data too. Since 7.0.
        const INTEGRITY = 1 << 18;
        /// The data lies in registered shared memory, `addr` says where. Since 7.1.
        const SHMEM_ZC = 1 << 19;
    }
}

/// Commands for the character node: values of the submission entry's `cmd_op`.
pub mod io_op {
    use super::{IO_CMD_SIZE, iowr};
    use crate::batch::BATCH_IO_SIZE;

    /// Arm a tag for the first time. Payload [`IoCmd`](crate::IoCmd). Since 6.0.
    pub const FETCH_REQ: u32 = iowr(0x20, IO_CMD_SIZE);
    /// Answer a tag's request and arm the tag again. Payload [`IoCmd`](crate::IoCmd). Since 6.0.
    pub const COMMIT_AND_FETCH_REQ: u32 = iowr(0x21, IO_CMD_SIZE);
    /// Give a buffer for a write announced with
    /// [`IO_RES_NEED_GET_DATA`](crate::IO_RES_NEED_GET_DATA). Payload [`IoCmd`](crate::IoCmd).
    /// Since 6.0.
    pub const NEED_GET_DATA: u32 = iowr(0x22, IO_CMD_SIZE);
    /// Put a request's data into a slot of the ring's buffer table. Payload
    /// [`IoCmd`](crate::IoCmd). Since 6.15.
    pub const REGISTER_IO_BUF: u32 = iowr(0x23, IO_CMD_SIZE);
    /// Empty that slot. Payload [`IoCmd`](crate::IoCmd). Since 6.15.
    pub const UNREGISTER_IO_BUF: u32 = iowr(0x24, IO_CMD_SIZE);
    /// Arm many tags for the first time. Payload [`BatchIo`](crate::BatchIo). Since 7.0.
    pub const PREP_IO_CMDS: u32 = iowr(0x25, BATCH_IO_SIZE);
    /// Answer many requests; the result is how many bytes of the array were handled. Payload
    /// [`BatchIo`](crate::BatchIo). Since 7.0.
    pub const COMMIT_IO_CMDS: u32 = iowr(0x26, BATCH_IO_SIZE);
    /// Receive the tags of arriving requests, multishot, in provided buffers. Payload
    /// [`BatchIo`](crate::BatchIo). Since 7.0.
    pub const FETCH_IO_CMDS: u32 = iowr(0x27, BATCH_IO_SIZE);

    /// Every command with its name, in the order of the numbers.
    pub const ALL: &[(u32, &str)] = &[
        (FETCH_REQ, "FETCH_REQ"),
        (COMMIT_AND_FETCH_REQ, "COMMIT_AND_FETCH_REQ"),
        (NEED_GET_DATA, "NEED_GET_DATA"),
        (REGISTER_IO_BUF, "REGISTER_IO_BUF"),
        (UNREGISTER_IO_BUF, "UNREGISTER_IO_BUF"),
        (PREP_IO_CMDS, "PREP_IO_CMDS"),
        (COMMIT_IO_CMDS, "COMMIT_IO_CMDS"),
        (FETCH_IO_CMDS, "FETCH_IO_CMDS"),
    ];
}

/// Completion of a fetch or commit: the tag's descriptor holds a request.
pub const IO_RES_OK: i32 = 0;

/// Completion of a fetch or commit: a write has arrived and waits for a buffer
/// ([`io_op::NEED_GET_DATA`]).
pub const IO_RES_NEED_GET_DATA: i32 = 1;

/// Completion of a fetch or commit: the command comes back without a request (`-ENODEV`) because
/// the device stops. It must not be sent again.
pub const IO_RES_ABORT: i32 = -19;

/// Offset of queue 0's descriptors for `mmap` of the character node.
pub const CMD_BUF_OFFSET: u64 = 0;

/// Offset of a queue's descriptors for `mmap` of the character node, in bytes.
///
/// The driver spaces the queues for the greatest depth that it allows, not for the device's own.
/// `desc_size` is [`MIN_IO_DESC_SIZE`] or what the device was granted, `page` the page size in
/// bytes.
#[must_use]
pub const fn desc_mmap_offset(qid: u16, desc_size: u16, page: usize) -> u64 {
    CMD_BUF_OFFSET + qid as u64 * desc_mmap_len(MAX_QUEUE_DEPTH, desc_size, page) as u64
}

/// Bytes of a queue's descriptors for `mmap`: whole pages of `page` bytes. The driver accepts no
/// other length.
#[must_use]
pub const fn desc_mmap_len(depth: u16, desc_size: u16, page: usize) -> usize {
    (depth as usize * desc_size as usize).next_multiple_of(page)
}
