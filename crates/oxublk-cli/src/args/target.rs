//! What `oxublk add` can make.

use std::path::PathBuf;

use clap::Subcommand;

use super::{DeviceOptions, parse_disk_size};
use crate::size::Size;

/// What `oxublk add` can make.
#[derive(Clone, Debug, Subcommand)]
pub enum Target {
    /// A disk that answers at once and keeps nothing: for measuring everything else.
    Null {
        /// Size of the disk.
        #[arg(long, value_name = "SIZE", default_value = "1T", value_parser = parse_disk_size)]
        size: Size,
        /// Answer by futures, as asynchronous disks do: measures what they cost.
        #[arg(long = "async")]
        asynchronous: bool,
        /// How it is offered to the kernel.
        #[command(flatten)]
        options: DeviceOptions,
    },
    /// A disk in memory. Its content is gone when it is deleted.
    Mem {
        /// Size of the disk: 16M, 1GiB, or bytes.
        #[arg(long, value_name = "SIZE", value_parser = parse_disk_size)]
        size: Size,
        /// How it is offered to the kernel.
        #[command(flatten)]
        options: DeviceOptions,
    },
    /// A disk in a regular file or on a block device.
    ///
    /// A flush that was answered is on the medium. A file is locked, a block device opened exclusively: one server writes.
    File {
        /// The file, or the block device.
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Size of the disk. Without it the file's, rounded down to whole blocks.
        #[arg(long, value_name = "SIZE", value_parser = parse_disk_size)]
        size: Option<Size>,
        /// Make a sparse file of --size, or make the file longer if it has less.
        #[arg(long, requires = "size")]
        create: bool,
        /// Past the page cache (O_DIRECT), or not at all. Without this, past it where that can be.
        #[arg(long, conflicts_with = "buffered")]
        direct: bool,
        /// Through the page cache.
        #[arg(long)]
        buffered: bool,
        /// How it is offered to the kernel.
        #[command(flatten)]
        options: DeviceOptions,
    },
}

impl Target {
    /// The target's name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null { .. } => "null",
            Self::Mem { .. } => "mem",
            Self::File { .. } => "file",
        }
    }

    /// The options that every target has.
    #[must_use]
    pub fn options(&self) -> &DeviceOptions {
        match self {
            Self::Null { options, .. } | Self::Mem { options, .. } | Self::File { options, .. } => {
                options
            }
        }
    }
}
