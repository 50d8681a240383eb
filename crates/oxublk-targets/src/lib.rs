//! Ready-made disks for [`oxublk`]: each is an [`oxublk::Disk`] or an [`oxublk::AsyncDisk`], has a name on the command
//! line, and a page of its own.
//!
//! | target | disk | after the server ends |
//! |---|---|---|
//! | [`null`] | answers at once and keeps nothing | nothing to keep |
//! | [`mem`] | sparse memory | the data is gone |
//! | [`mod@file`] | a regular file or a block device | the data stays; what was flushed is on the medium |

#![deny(unsafe_code)]

pub mod file;
pub mod mem;
pub mod null;

pub use file::File;
pub use mem::Mem;
pub use null::Null;

/// A target as the command lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
}

/// Every target of this crate.
pub const TARGETS: &[Target] = &[null::TARGET, mem::TARGET, file::TARGET];
