//! The Linux ublk driver's interface as of Linux 7.3: structures, constants, command encodings.
//!
//! Plain data, no input or output and no policy: everything here is a number or a layout that the
//! driver fixes, checked at compile time (sizes, offsets) and by `tests/abi.rs` (every fact of the
//! kernel's own header, printed by a C program).
//!
//! | file | what it holds |
//! |---|---|
//! | `ctrl.rs` | what goes to `/dev/ublk-control`: [`CtrlCmd`], [`DevInfo`], the [`ctrl_op`] commands |
//! | `io.rs` | what goes to `/dev/ublkcN`: [`IoCmd`], [`IoDesc`], the [`op`] and [`io_op`] numbers |
//! | `batch.rs` | the batched form of the same ([`Features::BATCH_IO`]): [`BatchIo`], [`BatchElem`] |
//! | `buffer.rs` | where data lies: file positions, registered buffers, shared memory |
//! | `params.rs` | what a disk looks like: [`Params`] and its sections |
//! | `zone.rs` | zone reports of zoned disks: [`BlkZone`] |
//! | `feature.rs` | the feature bits and since which kernel they exist: [`Features`], [`FEATURES`] |
//!
//! The names of the kernel's header are kept without their `UBLK_`/`ublksrv_` prefixes. All
//! structures are in the byte order of the machine, as the driver expects them.
//!
//! Sectors are 512 bytes everywhere, whatever the disk's logical block size is.

#![no_std]
#![forbid(unsafe_code)]

mod batch;
mod buffer;
mod ctrl;
mod feature;
mod io;
mod ioctl;
mod params;
mod zone;

pub use batch::*;
pub use buffer::*;
pub use ctrl::*;
pub use feature::*;
pub use io::*;
pub use ioctl::*;
pub use params::*;
pub use zone::*;

/// Path of the control node. It is missing until the module [`MODULE_NAME`] is loaded; opening it
/// never loads the module.
pub const CONTROL_PATH: &str = "/dev/ublk-control";

/// Path of a device's character node without its id: `/dev/ublkc` + `0`. The server opens this one.
pub const CHAR_PATH_PREFIX: &str = "/dev/ublkc";

/// Path of a device's disk without its id: `/dev/ublkb` + `0`. It exists while the device is
/// started.
pub const BLOCK_PATH_PREFIX: &str = "/dev/ublkb";

/// Directory with one entry `ublkcN` for every device that exists. The driver has no command to
/// list devices.
pub const CHAR_CLASS_PATH: &str = "/sys/class/ublk-char";

/// Name of the driver's module. It has no alias: only loading it by this name works.
pub const MODULE_NAME: &str = "ublk_drv";

/// Bytes of a sector, the unit of every sector count and position of the driver.
pub const SECTOR_SIZE: u64 = 512;

/// Device id with which [`ctrl_op::ADD_DEV`] asks for the lowest free one.
pub const ANY_DEV_ID: u32 = u32::MAX;

/// The highest device id that the driver gives out.
pub const MAX_DEV_ID: u32 = 1_048_575;

/// [`CtrlCmd::queue_id`] of a command that is about no queue. (The header writes it as -1.)
pub const NO_QUEUE: u16 = u16::MAX;

/// The most requests a queue can hold: the limit of [`DevInfo::queue_depth`].
pub const MAX_QUEUE_DEPTH: u16 = 4096;

/// The most queues [`ctrl_op::ADD_DEV`] accepts in [`DevInfo::nr_hw_queues`]. The driver clips the
/// number to that of the possible CPUs and writes the result back.
pub const MAX_NR_QUEUES: u16 = 4096;

/// Bytes that [`ctrl_op::GET_FEATURES`] writes; [`CtrlCmd::len`] must be exactly this.
pub const FEATURES_LEN: u16 = 8;
