//! Memory that clients and the server share: requests whose data lie there are served without a copy by the kernel
//! (`UBLK_F_SHMEM_ZC`, since Linux 7.1).
//!
//! A client maps the same file, and reads and writes the disk with `O_DIRECT` from and to it. The driver knows the pages, and
//! says of such a request only where its data are.
//!
//! | file | idea |
//! |---|---|
//! | `memory.rs` | [`SharedMemory`], a file that is mapped |
//! | `copy.rs` | bytes into and out of memory that others change meanwhile |
//! | `part.rs` | [`SharedPart`], where one request's data are |
//! | `table.rs` | which memories a device has, as its queues look them up |

mod copy;
mod memory;
mod part;
mod table;

use std::fmt;

pub use memory::SharedMemory;
pub use part::SharedPart;
pub(crate) use table::{Table, View};

/// The number of a shared memory of a device: [`Device::share`](crate::Device::share).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
