//! What is measured: rows, and the measurements that the guest sends back.

use super::catalogue::Device;
use serde::{Deserialize, Serialize};

/// One workload.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Row {
    /// 4 KiB random reads, 32 in flight, each submitted alone
    Rr32,
    /// The same in batches of 16
    Rr32b,
    /// Two jobs of rr32 at once (by the wall clock only)
    #[value(name = "rr32x2")]
    Rr32x2,
    /// 4 KiB random writes, 32 in flight, each submitted alone
    Rw32,
    /// The same in batches of 16
    Rw32b,
    /// Two jobs of rw32 at once (by the wall clock only)
    #[value(name = "rw32x2")]
    Rw32x2,
    /// 128 KiB sequential reads, 32 in flight
    Sr128,
    /// 128 KiB sequential writes, 32 in flight
    Sw128,
    /// 1 MiB sequential reads, 8 in flight
    #[value(name = "sr1m")]
    Sr1m,
    /// 1 MiB sequential writes, 8 in flight
    #[value(name = "sw1m")]
    Sw1m,
    /// 4 KiB random reads, one after the other
    Lat1,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) write: bool,
    pub(crate) random: bool,
    pub(crate) block_bytes: usize,
    /// I/Os in flight.
    pub(crate) depth: usize,
    /// Submitted, and waited for, at once.
    pub(crate) batch: usize,
    /// So many do this at the same time.
    pub(crate) jobs: usize,
    /// How many I/Os make a measurement of instructions.
    pub(crate) ios: u64,
}

impl Row {
    /// The rows whose instructions are counted.
    pub(crate) const COUNTED: [Self; 8] = [
        Self::Rr32,
        Self::Rr32b,
        Self::Rw32b,
        Self::Sr128,
        Self::Sw128,
        Self::Sr1m,
        Self::Sw1m,
        Self::Lat1,
    ];
    /// The rows that are timed.
    pub(crate) const TIMED: [Self; 5] =
        [Self::Rr32, Self::Rw32, Self::Sr128, Self::Sw128, Self::Lat1];
    /// The rows that are timed on devices with several queues.
    pub(crate) const PARALLEL: [Self; 2] = [Self::Rr32x2, Self::Rw32x2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rr32 => "rr32",
            Self::Rr32b => "rr32b",
            Self::Rr32x2 => "rr32x2",
            Self::Rw32 => "rw32",
            Self::Rw32b => "rw32b",
            Self::Rw32x2 => "rw32x2",
            Self::Sr128 => "sr128",
            Self::Sw128 => "sw128",
            Self::Sr1m => "sr1m",
            Self::Sw1m => "sw1m",
            Self::Lat1 => "lat1",
        }
    }

    pub(crate) fn work(self) -> Work {
        let single = Work {
            write: matches!(
                self,
                Self::Rw32 | Self::Rw32b | Self::Rw32x2 | Self::Sw128 | Self::Sw1m
            ),
            random: true,
            block_bytes: 4 << 10,
            depth: 32,
            batch: 1,
            jobs: 1,
            ios: 10_000,
        };
        match self {
            Self::Rr32 | Self::Rw32 => single,
            Self::Rr32b | Self::Rw32b => Work {
                batch: 16,
                ..single
            },
            Self::Rr32x2 | Self::Rw32x2 => Work { jobs: 2, ..single },
            Self::Sr128 | Self::Sw128 => Work {
                random: false,
                block_bytes: 128 << 10,
                ios: 1_500,
                ..single
            },
            Self::Sr1m | Self::Sw1m => Work {
                random: false,
                block_bytes: 1 << 20,
                depth: 8,
                ios: 200,
                ..single
            },
            Self::Lat1 => Work {
                depth: 1,
                ios: 5_000,
                ..single
            },
        }
    }

    /// Whether its figure is a rate of bytes.
    pub(crate) fn in_bytes(self) -> bool {
        self.work().block_bytes > 4 << 10
    }
}

/// How cells are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Guest instructions per I/O, by our own load.
    Instructions,
    /// Wall clock, by fio.
    WallClock,
    /// What servers take: memory, time to come and go, processor time.
    Footprint,
}

impl Mode {
    pub(crate) fn unit(self, row: Row) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Footprint => "ns",
            Self::WallClock if row.in_bytes() => "MiB/s",
            Self::WallClock if row == Row::Lat1 => "µs",
            Self::WallClock => "IOPS",
        }
    }
}

/// What the guest is to measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) rounds: u32,
    /// How long a timed cell runs.
    pub(crate) seconds: u32,
    /// Whether the servers run as batch jobs.
    pub(crate) batch: bool,
    /// Whether the load's buffers lie in huge pages.
    pub(crate) huge_pages: bool,
    /// Of each device, where it can have several.
    pub(crate) queues: u32,
    pub(crate) devices: Vec<Device>,
    pub(crate) rows: Vec<Row>,
}

/// A line from the guest: one cell in one round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) device: Device,
    pub(crate) row: Row,
    pub(crate) round: u32,
    /// In the row's unit.
    pub(crate) figure: f64,
    /// Of the whole guest, per I/O.
    pub(crate) switches: f64,
    /// The 99th and the 99.9th percentile in µs, of a timed latency.
    #[serde(default)]
    pub(crate) tail: Option<(f64, f64)>,
}
