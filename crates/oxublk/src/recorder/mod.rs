//! The flight recorder: what a server knows of each of its tags, in memory that others can read.
//!
//! A device's queue threads write each transition of each tag down: which request it has, where that
//! is, and since when. The record is a memfd of the server, so that it can be read through
//! `/proc/PID/fd/N` when every thread of the server is stuck or stopped, takes no file that somebody would
//! have to clean up, and is gone when the server is. Its name there is `/memfd:oxublk-recorder-ID (deleted)`,
//! with the device's id.
//!
//! The file is a [`Header`] and, for each tag of each queue, queue after queue, a [`TagRecord`]. All numbers are in
//! the byte order of the host. Writers take no lock, and readers make nobody wait: see [`TagRecord`] for
//! how a reader knows that it has read a record whole. [`read`] does that.
//!
//! ```text
//!            armed            reaped            given to the disk           answered
//!  Unarmed ────────▶ Armed ──────────▶ Reaped ────────────────▶ WithDisk ────────────▶ Answered
//!                      ▲                                                                  │
//!                      └──────────── the answer is given to the driver ───────────────────┘
//! ```
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`. A queue reads the clock once or twice for a batch of requests, and so
//! are they exact to a batch: `handed_ns` is the last reading before the disk was called.

mod format;
mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use memory::Records;
pub(crate) use record::Record;

pub use format::{
    Header, MAGIC, NAME_PREFIX, Recorded, Recording, Refused, TagRecord, VERSION, read,
};

/// Where a tag is, as its server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Station {
    /// Not yet given to the driver.
    Unarmed = 0,
    /// With the driver, waiting for a request.
    Armed = 1,
    /// A request was reaped, and waits behind others of its batch.
    Reaped = 2,
    /// The disk has it.
    WithDisk = 3,
    /// The disk has answered; the answer waits for others of its batch and is not yet given to the driver.
    Answered = 4,
    /// The driver gave the tag back for good: the device is stopping.
    Gone = 5,
}

impl Station {
    /// Its name for people: `unarmed`, `armed`, `reaped`, `with the disk`, `answered, not submitted`, `gone`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unarmed => "unarmed",
            Self::Armed => "armed",
            Self::Reaped => "reaped",
            Self::WithDisk => "with the disk",
            Self::Answered => "answered, not submitted",
            Self::Gone => "gone",
        }
    }

    /// Whether the server has a request: it was reaped, and its answer is not yet given to the driver.
    #[must_use]
    pub const fn has_request(self) -> bool {
        matches!(self, Self::Reaped | Self::WithDisk | Self::Answered)
    }

    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Unarmed,
            1 => Self::Armed,
            2 => Self::Reaped,
            3 => Self::WithDisk,
            4 => Self::Answered,
            5 => Self::Gone,
            _ => return None,
        })
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
