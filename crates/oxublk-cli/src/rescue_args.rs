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

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;
    use oxublk::{DeviceId, QueueId, Tag};

    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn a_tag_is_one_of_a_queue() {
        let cli = parse("oxublk rescue /dev/ublkb3 --queue 1 --tag 7 --yes").unwrap();
        let Command::Rescue(rescue) = cli.command else {
            panic!("not rescue")
        };
        assert_eq!(rescue.device, DeviceId(3));
        assert_eq!(
            (rescue.queue(), rescue.tag()),
            (Some(QueueId(1)), Some(Tag(7)))
        );
        assert!(rescue.yes && !rescue.dry_run);
        let missing = parse("oxublk rescue 3 --tag 7").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_dry_run_needs_no_consent() {
        let both = parse("oxublk rescue 3 --dry-run --yes").unwrap_err();
        assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
        assert!(parse("oxublk rescue").is_err());
    }
}
