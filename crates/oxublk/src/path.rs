//! The ways of a request's data between the driver and a disk.

use std::fmt;

use oxublk_sys::Features;

/// How a request's data come from the driver to the disk, and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum DataPath {
    /// The driver copies between the request and a buffer of its tag. Every kernel.
    #[default]
    Copy,
    /// The disk has the driver copy from and to its own memory (`UBLK_F_USER_COPY`, since 6.5). For disks whose data lie in memory.
    Direct,
    /// Nobody copies: the ring's operations use the request's own pages (`UBLK_F_AUTO_BUF_REG`, since 6.16). For asynchronous disks
    /// that do not look at the data.
    ZeroCopy,
}

impl DataPath {
    /// Its name: `copy`, `direct`, `zero-copy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Direct => "direct",
            Self::ZeroCopy => "zero-copy",
        }
    }

    /// What the driver must be able to do. With zero copy, user copy serves the requests whose pages the driver could not register.
    #[must_use]
    pub const fn needs(self) -> Features {
        match self {
            Self::Copy => Features::empty(),
            Self::Direct => Features::USER_COPY,
            Self::ZeroCopy => Features::AUTO_BUF_REG.union(Features::USER_COPY),
        }
    }

    /// The first kernel that has it.
    #[must_use]
    pub const fn since(self) -> &'static str {
        match self {
            Self::Copy => "6.0",
            Self::Direct => "6.5",
            Self::ZeroCopy => "6.16",
        }
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which path a device uses, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChosenPath {
    /// Which.
    pub path: DataPath,
    /// Why, in words.
    pub why: String,
}
