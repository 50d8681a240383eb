//! Control plane: what is sent to the control node with `URING_CMD`.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Features, NO_QUEUE, ior, iowr};

/// Payload of every control command, at byte 48 of a submission entry of 128 bytes.
///
/// It is 32 bytes long and an ordinary entry has room for 16 only: the control ring needs
/// `IORING_SETUP_SQE128` (or a mixed ring with `URING_CMD128`), else every command is `EINVAL`.
/// Kernel: `struct ublksrv_ctrl_cmd`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CtrlCmd {
    /// The device that the command is for, or [`ANY_DEV_ID`](crate::ANY_DEV_ID) with ADD_DEV.
    pub dev_id: u32,
    /// Always [`NO_QUEUE`]: no command of today names its queue here.
    pub queue_id: u16,
    /// Bytes at `addr`, with the path in front if there is one.
    pub len: u16,
    /// Address of the command's argument in the caller's memory.
    pub addr: u64,
    /// Inline argument: process id, queue, size in sectors, timeout in milliseconds or index,
    /// depending on the command.
    pub data: [u64; 1],
    /// Bytes of the character node's path, with its NUL, that stand at the start of the buffer at
    /// `addr`; 0 without a path. Since 6.3: for unprivileged devices and GET_DEV_INFO2.
    pub dev_path_len: u16,
    /// Unused, zero.
    pub pad: u16,
    /// Unused, zero.
    pub reserved: u32,
}

impl CtrlCmd {
    /// A command for device `dev_id` without arguments: all zero, except that it names no queue.
    #[must_use]
    pub const fn new(dev_id: u32) -> Self {
        Self {
            dev_id,
            queue_id: NO_QUEUE,
            len: 0,
            addr: 0,
            data: [0],
            dev_path_len: 0,
            pad: 0,
            reserved: 0,
        }
    }
}

/// What a device is: argument of ADD_DEV (in and out), answer of GET_DEV_INFO and GET_DEV_INFO2.
///
/// Kernel: `struct ublksrv_ctrl_dev_info`, since 6.0.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DevInfo {
    /// Number of queues. The driver lowers it to the number of possible CPUs.
    pub nr_hw_queues: u16,
    /// Requests per queue, 1 to [`MAX_QUEUE_DEPTH`](crate::MAX_QUEUE_DEPTH).
    pub queue_depth: u16,
    /// One of [`dev_state`]; written by the driver.
    pub state: u16,
    /// Bytes from one I/O descriptor to the next. Since 7.3 and only with
    /// [`Features::IO_DESC_SIZE`] among the returned flags; otherwise descriptors are
    /// [`IoDesc`](crate::IoDesc)-sized and older kernels leave anything here.
    pub io_desc_size: u16,
    /// The largest request in bytes; the driver rounds it down to whole pages.
    pub max_io_buf_bytes: u32,
    /// The device's id.
    pub dev_id: u32,
    /// Process id of the server, as the calling process sees it. -1 if there is none (up to 6.18
    /// also 0, or the id of a process that is gone).
    pub ublksrv_pid: i32,
    /// Unused, zero.
    pub pad1: u32,
    /// [`Features`]: asked for on the way in, granted on the way out. Bits that the driver does not
    /// know are dropped without an error.
    pub flags: u64,
    /// For the server's own use; the driver keeps it and gives it back.
    pub ublksrv_flags: u64,
    /// User who created the device. Since 6.3; written by the driver.
    pub owner_uid: u32,
    /// Group of the user who created the device. Since 6.3; written by the driver.
    pub owner_gid: u32,
    /// Unused, zero.
    pub reserved1: u64,
    /// Unused, zero.
    pub reserved2: u64,
}

impl DevInfo {
    /// `flags` by name; bits that this crate does not know are kept.
    #[must_use]
    pub const fn features(&self) -> Features {
        Features::from_bits_retain(self.flags)
    }
}

const _: () = assert!(size_of::<CtrlCmd>() == 32);
const _: () = assert!(offset_of!(CtrlCmd, queue_id) == 4);
const _: () = assert!(offset_of!(CtrlCmd, len) == 6);
const _: () = assert!(offset_of!(CtrlCmd, addr) == 8);
const _: () = assert!(offset_of!(CtrlCmd, data) == 16);
const _: () = assert!(offset_of!(CtrlCmd, dev_path_len) == 24);
const _: () = assert!(size_of::<DevInfo>() == 64);
const _: () = assert!(offset_of!(DevInfo, io_desc_size) == 6);
const _: () = assert!(offset_of!(DevInfo, max_io_buf_bytes) == 8);
const _: () = assert!(offset_of!(DevInfo, ublksrv_pid) == 16);
const _: () = assert!(offset_of!(DevInfo, flags) == 24);
const _: () = assert!(offset_of!(DevInfo, owner_uid) == 40);

/// Values of [`DevInfo::state`].
pub mod dev_state {
    /// Not started, or stopped: there is no disk. Since 6.0.
    pub const DEAD: u16 = 0;
    /// Started: the disk exists and a server answers it. Since 6.0.
    pub const LIVE: u16 = 1;
    /// The server is gone, the disk stays and its requests wait for a new server. Since 6.1.
    pub const QUIESCED: u16 = 2;
    /// The server is gone, the disk stays and its requests fail until there is a new server.
    /// Since 6.13.
    pub const FAIL_IO: u16 = 3;
}

/// A control command: name, number and since which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlOp {
    /// The kernel's name for it without prefix, as in `ADD_DEV`.
    pub name: &'static str,
    /// The low byte of `opcode`. For [`ctrl_op::GET_DEV_INFO2`] and below it is also the legacy
    /// number, which kernels built without legacy opcodes refuse.
    pub nr: u8,
    /// The value for the submission entry's `cmd_op`.
    pub opcode: u32,
    /// The first kernel that knows the command.
    pub since: &'static str,
}

/// `ctrl_op::X` as (name, number, encoder, since); the payload of all is [`CtrlCmd`].
macro_rules! ctrl_ops {
    ($($(#[$doc:meta])+ $name:ident = $encode:ident($nr:literal), $since:literal;)+) => {
        /// The control commands, in the order of their numbers.
        pub mod ctrl_op {
            use super::{CTRL_CMD_SIZE, CtrlOp, ior, iowr};
            $(
                $(#[$doc])+
                #[doc = ""]
                #[doc = concat!("Since ", $since, ".")]
                pub const $name: CtrlOp = CtrlOp {
                    name: stringify!($name),
                    nr: $nr,
                    opcode: $encode($nr, CTRL_CMD_SIZE),
                    since: $since,
                };
            )+
        }

        /// All control commands, in the order of their numbers.
        pub const CTRL_OPS: &[CtrlOp] = &[$(ctrl_op::$name),+];
    };
}

const CTRL_CMD_SIZE: u16 = 32;

ctrl_ops! {
    /// Which CPUs a queue serves. In: `data` = queue, `addr`/`len` = CPU mask to fill, `len` a
    /// multiple of 8 with room for every possible CPU.
    GET_QUEUE_AFFINITY = ior(0x01), "6.0";
    /// Read a device's [`DevInfo`](super::DevInfo) into `addr`/`len`. Waits for nothing.
    GET_DEV_INFO = ior(0x02), "6.0";
    /// Create a device and its character node from the [`DevInfo`](super::DevInfo) at `addr`,
    /// which is rewritten with what was granted.
    ADD_DEV = iowr(0x04), "6.0";
    /// Stop and remove a device; returns when nothing refers to it any more.
    DEL_DEV = iowr(0x05), "6.0";
    /// Create the disk. In: `data` = process id of the server. Waits until every tag of every
    /// queue is armed.
    START_DEV = iowr(0x06), "6.0";
    /// Remove the disk. Waits for the requests that the server still holds.
    STOP_DEV = iowr(0x07), "6.0";
    /// Set the [`Params`](crate::Params) at `addr`/`len`, before the disk exists.
    SET_PARAMS = iowr(0x08), "6.0";
    /// Read the [`Params`](crate::Params) into `addr`/`len`; their own `len` must be set.
    GET_PARAMS = ior(0x09), "6.0";
    /// Ask whether a new server may take over a device whose server is gone; up to 6.12 this also
    /// resets it and must not be left out.
    START_USER_RECOVERY = iowr(0x10), "6.1";
    /// A new server takes over. In: `data` = its process id. Waits until every tag is armed.
    END_USER_RECOVERY = iowr(0x11), "6.1";
    /// As GET_DEV_INFO, with the character node's path in front of the buffer; works for devices
    /// of other users' too, if that node may be read.
    GET_DEV_INFO2 = ior(0x12), "6.3";
    /// Read the driver's [`Features`](crate::Features) into 8 bytes at `addr`; names no device.
    GET_FEATURES = ior(0x13), "6.5";
    /// As DEL_DEV without waiting for the last reference (but it does wait for STOP_DEV).
    DEL_DEV_ASYNC = ior(0x14), "6.9";
    /// Change the disk's size. In: `data` = sectors. Up to 6.18 the kernel crashes if the device is
    /// not started.
    UPDATE_SIZE = iowr(0x15), "6.16";
    /// Take the device away from its server for a hand-over. In: `data` = timeout in milliseconds.
    QUIESCE_DEV = iowr(0x16), "6.16";
    /// As STOP_DEV, but `EBUSY` if somebody has the disk open.
    TRY_STOP_DEV = iowr(0x17), "7.0";
    /// Register shared memory given by the [`ShmemBufReg`](crate::ShmemBufReg) at `addr`; answers
    /// with its index.
    REG_BUF = iowr(0x18), "7.1";
    /// Give registered shared memory back. In: `data` = index.
    UNREG_BUF = iowr(0x19), "7.1";
}

const _: () = assert!(CTRL_CMD_SIZE as usize == size_of::<CtrlCmd>());
