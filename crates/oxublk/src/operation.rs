//! What a client can ask of a disk.

use oxublk_sys::{IoDesc, op};

/// What a client asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Operation {
    /// Bytes from the disk.
    Read,
    /// Bytes to the disk.
    Write,
    /// All answered writes onto the medium.
    Flush,
    /// A range that is no longer needed.
    Discard,
    /// A range that shall read as zeroes.
    WriteZeroes,
    /// An operation that this server does not know.
    Other,
}

impl Operation {
    /// All of them, in the order of their [`index`](Self::index).
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
        Self::Other,
    ];

    /// A small number for tables: 0 to 5.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name for people: `read`, `write`, `flush`, `discard`, `write zeroes`, `other`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write zeroes",
            Self::Other => "other",
        }
    }

    pub(crate) const fn of(desc: &IoDesc) -> Self {
        match desc.op() {
            op::READ => Self::Read,
            op::WRITE => Self::Write,
            op::FLUSH => Self::Flush,
            op::DISCARD => Self::Discard,
            op::WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Other,
        }
    }
}
