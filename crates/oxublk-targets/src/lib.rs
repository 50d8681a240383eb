//! Ready-made disks for [`oxublk`]: each is an [`oxublk::Disk`], has a name on the command line,
//! and a page of its own.
//!
//! | target | disk | after the server ends |
//! |---|---|---|
//! | [`null`] | answers at once and keeps nothing | nothing to keep |
//! | [`mem`] | sparse memory | the data is gone |

#![deny(unsafe_code)]

pub mod mem;
pub mod null;

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
pub const TARGETS: &[Target] = &[null::TARGET, mem::TARGET];
