//! In what the kernels differ, and what a client sees of a result.

use libc::{EBUSY, EINVAL, EIO, ENODEV};

/// A kernel whose rules the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 13's kernel.
    V6_12,
    /// The first with an owner per tag.
    V6_16,
    /// The long-term kernel after it.
    V6_18,
    /// The last that redelivers short writes.
    V7_2,
    /// The newest.
    V7_3,
}

impl Kernel {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V6_12,
        Self::V6_16,
        Self::V6_18,
        Self::V7_2,
        Self::V7_3,
    ];

    /// What a second fetch of a tag is refused with while other tags are still missing.
    #[must_use]
    pub const fn fetch_of_armed_tag(self) -> i32 {
        match self {
            Self::V6_12 | Self::V6_16 => EBUSY,
            Self::V6_18 | Self::V7_2 | Self::V7_3 => EINVAL,
        }
    }

    /// What a fetch completes with after the device was stopped. `ENODEV` is the tag coming back
    /// without a request; the older kernels refuse the command.
    #[must_use]
    pub const fn fetch_after_stop(self) -> i32 {
        match self {
            Self::V7_3 => ENODEV,
            Self::V6_12 | Self::V6_16 | Self::V6_18 | Self::V7_2 => EBUSY,
        }
    }

    /// Whether a write answered with less than its length counts as whole; the others deliver the
    /// rest again.
    #[must_use]
    pub const fn short_write_is_whole(self) -> bool {
        matches!(self, Self::V7_3)
    }

    /// Whether nobody notices the death of a server that held every tag, until the block layer's
    /// timeout.
    #[must_use]
    pub const fn death_with_all_tags_held_is_noticed_late(self) -> bool {
        matches!(self, Self::V6_12)
    }
}

/// What a client sees of the errno that a request was answered with: the block layer knows these
/// few, and everything else becomes `EIO`.
pub(crate) const fn client_errno(errno: i32) -> i32 {
    match errno {
        libc::EOPNOTSUPP
        | libc::ETIMEDOUT
        | libc::ENOSPC
        | libc::ENOLINK
        | libc::EREMOTEIO
        | libc::EBADE
        | libc::ENODATA
        | libc::EILSEQ
        | libc::ENOMEM
        | libc::EBUSY
        | libc::EAGAIN
        | libc::ENODEV
        | libc::EINVAL
        | libc::ETOOMANYREFS
        | libc::EOVERFLOW
        | libc::ETIME => errno,
        _ => EIO,
    }
}
