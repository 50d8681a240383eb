//! The numbers that must not be mixed up: which device, which queue, which tag.

use std::fmt;
use std::path::PathBuf;

/// The number `N` of `/dev/ublkcN` and `/dev/ublkbN`: 0 to 1,048,575.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// The server's side: `/dev/ublkcN`.
    #[must_use]
    pub fn char_path(self) -> PathBuf {
        PathBuf::from(format!("{}{}", oxublk_sys::CHAR_PATH_PREFIX, self.0))
    }

    /// The user's side: `/dev/ublkbN`.
    #[must_use]
    pub fn block_path(self) -> PathBuf {
        PathBuf::from(format!("{}{}", oxublk_sys::BLOCK_PATH_PREFIX, self.0))
    }

    /// The name of the disk in `/sys/block`: `ublkbN`.
    #[must_use]
    pub fn disk_name(self) -> String {
        format!("ublkb{}", self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A blk-mq hardware queue of a device, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QueueId(pub u16);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A request slot of a queue: 0 to the queue's depth less one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tag(pub u16);

impl Tag {
    /// The tag as an index into per-tag storage.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
