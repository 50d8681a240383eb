//! What is measured: devices and rows, and the measurements that the guest sends back.

use serde::{Deserialize, Serialize};

/// A block device that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Device {
    /// The kernel's null device: the floor.
    NullBlk,
    /// The kernel's memory disk.
    Brd,
    /// The kernel's loop device over a file on tmpfs, with direct I/O.
    Loop,
    /// Ours.
    OxublkNull,
    /// rublk's.
    RublkNull,
    /// Ours.
    OxublkMem,
    /// rublk over a file on tmpfs: the nearest to a memory disk that it has.
    RublkLoop,
    /// Ours, while `oxublk trace` follows its requests. Its probes cost all devices of the driver: measure it alone.
    OxublkTraced,
}

impl Device {
    /// Those that can be measured side by side.
    pub(crate) const ALL: [Self; 7] = [
        Self::NullBlk,
        Self::Brd,
        Self::Loop,
        Self::OxublkNull,
        Self::RublkNull,
        Self::OxublkMem,
        Self::RublkLoop,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::NullBlk => "null_blk (kernel)",
            Self::Brd => "brd (kernel)",
            Self::Loop => "loop, tmpfs, direct (kernel)",
            Self::OxublkNull => "oxublk null",
            Self::RublkNull => "rublk null",
            Self::OxublkMem => "oxublk mem",
            Self::RublkLoop => "rublk loop, tmpfs",
            Self::OxublkTraced => "oxublk null, traced",
        }
    }

    /// The device of rublk that this one of ours is compared with.
    pub(crate) fn peer(self) -> Option<Self> {
        match self {
            Self::OxublkNull => Some(Self::RublkNull),
            Self::OxublkMem => Some(Self::RublkLoop),
            _ => None,
        }
    }

    /// Whether it keeps data, so that it must be filled before it is read.
    pub(crate) fn keeps_data(self) -> bool {
        matches!(
            self,
            Self::Brd | Self::Loop | Self::OxublkMem | Self::RublkLoop
        )
    }
}

/// One workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Row {
    /// 4 KiB random reads, 32 in flight, each submitted alone
    Rr32,
    /// The same in batches of 16
    Rr32b,
    /// 4 KiB random writes, 32 in flight, each submitted alone
    Rw32,
    /// The same in batches of 16
    Rw32b,
    /// 128 KiB sequential reads, 32 in flight
    Sr128,
    /// 128 KiB sequential writes, 32 in flight
    Sw128,
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
    /// How many I/Os make a measurement of instructions.
    pub(crate) ios: u64,
}

impl Row {
    /// The rows whose instructions are counted.
    pub(crate) const COUNTED: [Self; 5] = [
        Self::Rr32,
        Self::Rr32b,
        Self::Rw32b,
        Self::Sr128,
        Self::Lat1,
    ];
    /// The rows that are timed.
    pub(crate) const TIMED: [Self; 5] =
        [Self::Rr32, Self::Rw32, Self::Sr128, Self::Sw128, Self::Lat1];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rr32 => "rr32",
            Self::Rr32b => "rr32b",
            Self::Rw32 => "rw32",
            Self::Rw32b => "rw32b",
            Self::Sr128 => "sr128",
            Self::Sw128 => "sw128",
            Self::Lat1 => "lat1",
        }
    }

    pub(crate) fn work(self) -> Work {
        let work = Work {
            write: matches!(self, Self::Rw32 | Self::Rw32b | Self::Sw128),
            random: !matches!(self, Self::Sr128 | Self::Sw128),
            block_bytes: 4 << 10,
            depth: 32,
            batch: 1,
            ios: 20_000,
        };
        match self {
            Self::Rr32 | Self::Rw32 => work,
            Self::Rr32b | Self::Rw32b => Work { batch: 16, ..work },
            Self::Sr128 | Self::Sw128 => Work {
                block_bytes: 128 << 10,
                ios: 3_000,
                ..work
            },
            Self::Lat1 => Work {
                depth: 1,
                ios: 10_000,
                ..work
            },
        }
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
}

impl Mode {
    pub(crate) fn unit(self, row: Row) -> &'static str {
        match (self, row) {
            (Self::Instructions, _) => "instructions",
            (Self::WallClock, Row::Sr128 | Row::Sw128) => "MiB/s",
            (Self::WallClock, Row::Lat1) => "µs",
            (Self::WallClock, _) => "IOPS",
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
}
