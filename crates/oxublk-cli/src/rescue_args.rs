//! The command line of `oxublk rescue`.

use std::time::Duration;

use clap::Args;
use oxublk::{DeviceId, QueueId, Tag};

use crate::args::{parse_device, parse_seconds};

/// Options of `oxublk rescue`.
#[derive(Args, Clone, Debug)]
pub struct RescueArgs {
    /// The device: its id, or its path.
    #[arg(value_name = "ID", value_parser = parse_device)]
    pub device: DeviceId,

    /// Only requests of this queue.
    #[arg(long, value_name = "Q")]
    queue: Option<u16>,

    /// Only the request of this tag, however young it is.
    #[arg(long, value_name = "T", requires = "queue")]
    tag: Option<u16>,

    /// Requests that are older, and do not move, are stuck.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub stuck_after: Duration,

    /// Say what would be done, and do nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,

    /// Do it without asking.
    #[arg(long, short)]
    pub yes: bool,
}

impl RescueArgs {
    /// Which queue.
    #[must_use]
    pub fn queue(&self) -> Option<QueueId> {
        self.queue.map(QueueId)
    }

    /// Which tag.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.tag.map(Tag)
    }
}
