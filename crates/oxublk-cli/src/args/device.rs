//! Options of `oxublk add` that every target has.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{MAX_ID, parse_bytes, parse_count, parse_milliseconds};

/// Options of `oxublk add` that do not depend on the target.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOptions {
    /// The N of /dev/ublkbN. Without it, the lowest free one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_ID)))]
    pub id: Option<u32>,

    /// Number of queues, each with a thread of its own. The kernel lowers it to the number of CPUs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count)]
    pub queues: u16,

    /// Requests that a queue can hold at the same time.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_count)]
    pub depth: u16,

    /// Unit of addressing: 512, 1024, 2048 or 4096 bytes. Without it 512, or what the file needs.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub logical_block_size: Option<u32>,

    /// The largest request; the kernel splits larger ones. 4K to 32M, in steps of 4K.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_bytes)]
    pub max_io: u32,

    /// The kernel refuses writes.
    #[arg(long)]
    pub read_only: bool,

    /// Threads that share the requests of each queue. More than one since Linux 6.16.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count)]
    #[serde(default = "one")]
    pub threads_per_queue: u16,

    /// Take and answer many requests by one command: less work for many at a time, more for single ones. Since Linux 7.0.
    #[arg(long)]
    #[serde(default)]
    pub batch_io: bool,

    /// How requests' data come and go. Without it what suits the target best, or what the kernel has instead; `info` shows which.
    #[arg(long, value_name = "PATH")]
    #[serde(default)]
    pub data_path: Option<DataPath>,

    /// Memory that clients share with the server: a file on /dev/shm or hugetlbfs. What they read and write with O_DIRECT from and to it is
    /// not copied by the kernel. May be given several times. Since Linux 7.1.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub shared_memory: Vec<PathBuf>,

    /// Log requests that the disk has not answered after so long, and count them; 0 for never.
    #[arg(long = "stuck-after", value_name = "SECONDS", default_value = "30", value_parser = parse_milliseconds)]
    #[serde(default)]
    pub stuck_after_ms: u64,

    /// Serve from this process. Ctrl-C stops and deletes the device.
    #[arg(long)]
    #[serde(skip)]
    pub foreground: bool,
}

fn one() -> u16 {
    1
}

/// The ways of a request's data, as the command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DataPath {
    /// The driver copies to and from a buffer: every target, every kernel
    Copy,
    /// The driver copies to and from the disk's memory: mem
    Direct,
    /// Nobody copies: file, since Linux 6.16
    ZeroCopy,
}

impl From<DataPath> for oxublk::DataPath {
    fn from(path: DataPath) -> Self {
        match path {
            DataPath::Copy => Self::Copy,
            DataPath::Direct => Self::Direct,
            DataPath::ZeroCopy => Self::ZeroCopy,
        }
    }
}

/// As without any option.
impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            id: None,
            queues: 1,
            depth: 128,
            logical_block_size: None,
            max_io: 1 << 20,
            read_only: false,
            threads_per_queue: 1,
            batch_io: false,
            data_path: None,
            shared_memory: Vec::new(),
            stuck_after_ms: 30_000,
            foreground: false,
        }
    }
}
