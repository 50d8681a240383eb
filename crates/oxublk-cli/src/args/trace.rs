//! The command line of `oxublk trace`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use oxublk::DeviceId;

use super::{parse_device, parse_seconds};
use crate::size::Size;

/// Options of `oxublk trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// The device: its id, or its path.
    #[arg(value_name = "ID", value_parser = parse_device, required_unless_present = "replay")]
    pub device: Option<DeviceId>,

    /// End after so many seconds. Without it, Ctrl-C ends.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,

    /// End after so many requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Only requests that took longer: 500us, 5ms, 2s.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub slower_than: Option<Duration>,

    /// Only these operations, separated by commas.
    #[arg(long, value_name = "OPERATION", value_enum, value_delimiter = ',')]
    pub op: Vec<Op>,

    /// Only requests that touch these 512-byte sectors: FIRST, or FIRST-LAST.
    #[arg(long, value_name = "RANGE", value_parser = parse_range)]
    pub sectors: Option<RangeInclusive<u64>>,

    /// Only requests of this queue.
    #[arg(long, value_name = "N")]
    pub queue: Option<u16>,

    /// Only requests with this tag.
    #[arg(long, value_name = "N")]
    pub tag: Option<u16>,

    /// Show the bytes of each command as the driver got them, decoded, and what is wrong with them.
    #[arg(long)]
    pub raw: bool,

    /// Print no requests: only what is wrong, and the summary.
    #[arg(long, short)]
    pub quiet: bool,

    /// Tell of requests that have not moved for so long; when one is left at the end, the exit code is 9.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub stuck_after: Duration,

    /// Memory of the kernel for events that were not read yet, of all CPUs together.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_buffer)]
    pub buffer: Size,

    /// Trace a device that is not there yet: from its first command on.
    #[arg(long)]
    pub wait: bool,

    /// Do not look for what was under way before.
    #[arg(long)]
    pub no_snapshot: bool,

    /// Show the probes as they are given to the kernel.
    #[arg(long, short)]
    pub verbose: bool,

    /// Keep the events in a file, for `--replay`.
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub output: Option<PathBuf>,

    /// Read what `--output` kept, instead of tracing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "duration", "no_snapshot"])]
    pub replay: Option<PathBuf>,
}

/// Operations by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
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
}

impl Op {
    /// As the trace names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write zeroes",
        }
    }
}

/// `500us`, `5ms`, `2s`; without a unit, seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, unit) = found.unwrap_or((text, 1.0));
    let seconds = number.trim().parse::<f64>().map(|number| number * unit);
    seconds
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text} is not a time like 500us, 5ms or 2s"))
}

/// `8`, `8-15`.
fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("{text} is not a range of sectors like 8 or 8-15")),
    }
}

fn parse_buffer(text: &str) -> Result<Size, String> {
    match text.parse::<Size>().map_err(|error| error.to_string())? {
        size @ Size(0x10_0000..=0x4_0000_0000) => Ok(size),
        _ => Err("expected 1M to 16G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_buffer, parse_range, parse_time};

    #[test]
    fn times_have_units() {
        for (text, us) in [
            ("500us", 500),
            ("5ms", 5000),
            ("2s", 2_000_000),
            ("0.5", 500_000),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "ms", "-1s", "5 m", "1e999"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_ascending() {
        assert_eq!(parse_range("8"), Ok(8..=8));
        assert_eq!(parse_range("8-15"), Ok(8..=15));
        for text in ["", "-", "8-", "15-8", "a"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buffers_are_of_a_size_that_makes_sense() {
        assert!(parse_buffer("64M").is_ok());
        assert!(parse_buffer("1K").is_err());
    }
}
