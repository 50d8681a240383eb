//! The file of `--output`, which `--replay` reads: one JSON document a line.
//!
//! The first line says what was traced; the last one when it ended and what was lost; between them the events.

use std::io::{self, BufRead, Write};

use oxublk::DeviceId;
use serde::{Deserialize, Serialize};

use crate::facts::Gap;

use super::event::Event;
use super::seed::{Expected, Seed};

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub oxublk_trace: u32,
    /// Which device.
    pub device: DeviceId,
    /// The kernel.
    pub release: String,
    /// When tracing began: nanoseconds of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// What was known of the device.
    pub expected: Expected,
    /// Requests that were under way.
    pub seeds: Vec<Seed>,
    /// Whether those are all there were.
    pub sure: bool,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

/// Every other line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// An event.
    Event(Event),
    /// The last line.
    End {
        /// When tracing ended.
        end_ns: u64,
        /// How many events found no room.
        lost: u64,
    },
}

/// Writes a line.
///
/// # Errors
/// The file cannot be written.
pub fn write<T: Serialize>(file: &mut impl Write, line: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// Reads the first line.
///
/// # Errors
/// The file cannot be read, or is another kind of file.
pub fn header(file: &mut impl BufRead) -> io::Result<Header> {
    let mut line = String::new();
    file.read_line(&mut line)?;
    let header: Header = serde_json::from_str(&line)?;
    if header.oxublk_trace == VERSION {
        Ok(header)
    } else {
        let text = format!(
            "version {} of the file is not one that this program reads",
            header.oxublk_trace
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

/// Reads the other lines. A last line that was cut off, since the writer was killed, is left out.
pub fn lines(file: impl BufRead) -> impl Iterator<Item = io::Result<Line>> {
    let mut lines = file.lines().peekable();
    std::iter::from_fn(move || {
        let line = match lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        match serde_json::from_str(&line) {
            Ok(line) => Some(Ok(line)),
            Err(_) if lines.peek().is_none() => None,
            Err(error) => Some(Err(error.into())),
        }
    })
}
