//! The command lines of both programs. Help, manual pages and completions come from here.

mod device;
mod target;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use oxublk::DeviceId;

use crate::exit::EXIT_CODES;
use crate::rescue_args::RescueArgs;
use crate::size::Size;

pub use device::{DataPath, DeviceOptions};
pub use target::Target;
pub use trace::{Op, TraceArgs};

/// The highest id that the driver gives.
const MAX_ID: u32 = oxublk::sys::MAX_DEV_ID;

/// Make, list and remove block devices that are served in userspace.
#[derive(Debug, Parser)]
#[command(name = "oxublk", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Print JSON instead of text.
    ///
    /// Errors are printed as text on stderr and as an object `{"error": ...}` on stdout.
    #[arg(long, global = true)]
    pub json: bool,

    /// The process that `add` starts: serve, and report to the other end of stdout.
    #[arg(long, hide = true)]
    pub background_server: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `oxublk`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a block device, and print its path.
    ///
    /// The device is served by a process in the background until `oxublk del`.
    #[command(subcommand_value_name = "TARGET", subcommand_help_heading = "Targets")]
    Add {
        /// What answers reads and writes.
        #[command(subcommand)]
        target: Target,
    },
    /// List all ublk devices of this host.
    #[command(visible_alias = "ls")]
    List,
    /// Show everything that is known about a device.
    Info {
        /// The device: its id, or its path.
        #[arg(value_name = "ID", value_parser = parse_device)]
        device: DeviceId,
    },
    /// Stop and delete devices.
    ///
    /// A device that somebody has open or mounted is left alone, with exit code 3.
    #[command(visible_alias = "rm")]
    Del(DelArgs),
    /// Say where each request is, what is stuck, why, and what to do.
    ///
    /// Looks at any ublk server, ours or another's, from outside: it changes nothing, opens no disk and does not wait
    /// behind what it looks at. As root it sees most.
    Doctor(DoctorArgs),
    /// End requests that their server will never answer, with EIO.
    ///
    /// Makes the server's own thread answer: nobody else may. Shows first what will be done, and why. Works for any ublk
    /// server whose thread lives and can be reached; says so where it cannot. The server must be ended afterwards.
    Rescue(RescueArgs),
    /// Follow each request of a device, live: through the driver and the server and back.
    ///
    /// Works for any ublk server. Needs root and the kernel's tracing; leaves nothing behind.
    Trace(TraceArgs),
    /// Show what the driver of this kernel can do.
    Features,
    /// Print a script that completes this command in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Write one page for each command into this directory instead.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Options of `oxublk doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The devices: ids, or paths. Without any, all of the host.
    #[arg(value_name = "ID", value_parser = parse_device)]
    pub devices: Vec<DeviceId>,

    /// Warn of requests that are older.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    pub slow: Duration,

    /// Call requests stuck that are older, also when their server might still answer.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub stuck_after: Duration,

    /// Look again and again, every so many seconds, and tell what changed.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = parse_seconds)]
    pub watch: Option<Duration>,

    /// Do not read the driver's structures through /proc/kcore.
    #[arg(long)]
    pub no_kernel: bool,

    /// Show healthy requests, the devices and the host too, and how long looking took.
    #[arg(long, short)]
    pub verbose: bool,

    /// Keep what was seen in a file, for `--from`.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub snapshot: Option<PathBuf>,

    /// Decide from what `--snapshot` kept, instead of looking.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "snapshot", "devices"])]
    pub from: Option<PathBuf>,
}

/// `5`, `0.5`, `5s`: seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text} is not a number of seconds"))
}

/// The same in milliseconds.
fn parse_milliseconds(text: &str) -> Result<u64, String> {
    let seconds = parse_seconds(text)?;
    u64::try_from(seconds.as_millis()).map_err(|_| format!("{text} seconds are too many"))
}

/// Arguments of `oxublk del`.
#[derive(Args, Debug)]
pub struct DelArgs {
    /// The devices: ids, or paths.
    #[arg(value_name = "ID", value_parser = parse_device, required_unless_present = "all")]
    pub devices: Vec<DeviceId>,

    /// Delete every device that oxublk made. Devices of other programs are deleted only by id.
    #[arg(long, conflicts_with = "devices")]
    pub all: bool,

    /// Also delete devices that somebody has open or mounted. What is not on the disk yet is lost.
    #[arg(long, short)]
    pub force: bool,
}

/// Serve a disk in memory until Ctrl-C.
///
/// Prints the paths of the device when it is ready. SIGINT and SIGTERM stop and delete it, and
/// its content is gone. SIGUSR1 prints what each queue and tag is doing.
#[derive(Debug, Parser)]
#[command(name = "ublk-mem", version, after_help = EXIT_CODES)]
pub struct MemCli {
    /// Size of the disk: 16M, 1GiB, or bytes.
    #[arg(long, short, value_name = "SIZE", value_parser = parse_disk_size)]
    pub size: Size,

    /// Number of queues, each with a thread of its own. The kernel lowers it to the number of CPUs.
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = parse_count)]
    pub queues: u16,

    /// Requests that a queue can hold at the same time.
    #[arg(long, short, value_name = "N", default_value_t = 128, value_parser = parse_count)]
    pub depth: u16,

    /// Log requests that the disk has not answered after so long, and count them; 0 for never.
    #[arg(long = "stuck-after", value_name = "SECONDS", default_value = "30", value_parser = parse_milliseconds)]
    pub stuck_after_ms: u64,

    /// Log what happens to every device and queue on stderr.
    #[arg(long, short)]
    pub verbose: bool,
}

/// The definition of `oxublk`, for help in other forms.
#[must_use]
pub fn oxublk_command() -> clap::Command {
    Cli::command()
}

/// The definition of `ublk-mem`, for help in other forms.
#[must_use]
pub fn ublk_mem_command() -> clap::Command {
    MemCli::command()
}

fn parse_disk_size(text: &str) -> Result<Size, String> {
    match text.parse::<Size>() {
        Ok(Size(0)) => Err("a disk of size 0 cannot be a block device".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

/// A size of at most 4 GiB; what it may be exactly, the library says.
fn parse_bytes(text: &str) -> Result<u32, String> {
    let Size(bytes) = text.parse::<Size>().map_err(|error| error.to_string())?;
    u32::try_from(bytes).map_err(|_| "too large: less than 4G was expected".to_owned())
}

/// How many queues, or requests in a queue.
fn parse_count(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ 1..=oxublk::sys::MAX_QUEUE_DEPTH) => Ok(count),
        _ => Err(format!(
            "expected a number from 1 to {}",
            oxublk::sys::MAX_QUEUE_DEPTH
        )),
    }
}

/// Reads `3`, `ublkb3`, `/dev/ublkb3`, `ublkc3` or `/dev/ublkc3`.
///
/// # Errors
/// Says what is accepted.
pub fn parse_device(text: &str) -> Result<DeviceId, String> {
    let name = text.strip_prefix("/dev/").unwrap_or(text);
    let number = ["ublkb", "ublkc"]
        .iter()
        .find_map(|p| name.strip_prefix(p))
        .unwrap_or(text);
    let only_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(id @ 0..=MAX_ID) if only_digits => Ok(DeviceId(id)),
        _ => Err(format!(
            "not a device: expected an id from 0 to {MAX_ID}, or a path like /dev/ublkb0"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definitions_are_consistent() {
        oxublk_command().debug_assert();
        ublk_mem_command().debug_assert();
    }

    #[test]
    fn add_takes_what_the_manual_names() {
        let cli = parse(
            "oxublk --json add mem --size 1GiB --id 7 --queues 2 --depth 64 \
             --logical-block-size 4K --max-io 512K --read-only \
             --shared-memory /dev/shm/a --shared-memory b --stuck-after 2.5s --foreground",
        )
        .unwrap();
        assert!(cli.json);
        let Command::Add { target } = cli.command else {
            panic!("not add")
        };
        assert_eq!(target.name(), "mem");
        let size = |target: &Target| match target {
            Target::Mem { size, .. } => Some(*size),
            _ => None,
        };
        assert_eq!(size(&target), Some(Size(1 << 30)));
        let expected = DeviceOptions {
            id: Some(7),
            queues: 2,
            depth: 64,
            logical_block_size: Some(4096),
            max_io: 512 << 10,
            read_only: true,
            threads_per_queue: 1,
            batch_io: false,
            data_path: None,
            shared_memory: vec!["/dev/shm/a".into(), "b".into()],
            stuck_after_ms: 2500,
            foreground: true,
        };
        assert_eq!(*target.options(), expected);
    }

    #[test]
    fn defaults() {
        let cli = parse("oxublk add null").unwrap();
        let Command::Add { target } = cli.command else {
            panic!("not add")
        };
        assert!(matches!(target, Target::Null { size, .. } if size == Size(1 << 40)));
        assert_eq!(*target.options(), DeviceOptions::default());
    }

    #[test]
    fn file_takes_a_path_and_makes_one_only_of_a_size() {
        let cli = parse("oxublk add file --size 1G --create disk.img --buffered").unwrap();
        let Command::Add {
            target:
                Target::File {
                    path,
                    size,
                    create,
                    direct,
                    buffered,
                    ..
                },
        } = cli.command
        else {
            panic!("not file")
        };
        assert_eq!((path, size), ("disk.img".into(), Some(Size(1 << 30))));
        assert_eq!((create, direct, buffered), (true, false, true));
        for (line, kind) in [
            ("oxublk add file", ErrorKind::MissingRequiredArgument),
            (
                "oxublk add file x --create",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "oxublk add file x --direct --buffered",
                ErrorKind::ArgumentConflict,
            ),
            ("oxublk add file x --size 0", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn json_is_understood_anywhere() {
        assert!(parse("oxublk list --json").unwrap().json);
        assert!(parse("oxublk add mem --size 1M --json").unwrap().json);
        assert!(!parse("oxublk ls").unwrap().json);
    }

    #[test]
    fn wrong_values_are_usage_errors_that_name_the_argument() {
        for (line, argument) in [
            ("oxublk add mem --size 0", "--size"),
            ("oxublk add mem --size 16X", "--size"),
            ("oxublk add mem --size 16M --depth 0", "--depth"),
            ("oxublk add mem --size 16M --depth 4097", "--depth"),
            ("oxublk add mem --size 16M --queues 0", "--queues"),
            ("oxublk add mem --size 16M --id 1048576", "--id"),
            ("oxublk add mem --size 16M --max-io 4G", "--max-io"),
            (
                "oxublk add mem --size 16M --stuck-after soon",
                "--stuck-after",
            ),
            ("oxublk info sda", "<ID>"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{line}");
            assert!(error.to_string().contains(argument), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn del_wants_devices_or_all_but_not_both() {
        assert_eq!(
            parse("oxublk del").unwrap_err().kind(),
            ErrorKind::MissingRequiredArgument
        );
        assert_eq!(
            parse("oxublk del --all 3").unwrap_err().kind(),
            ErrorKind::ArgumentConflict
        );
        assert!(parse("oxublk del --all").is_ok());
        let cli = parse("oxublk del 0 /dev/ublkb1 ublkc2 --force").unwrap();
        let Command::Del(del) = cli.command else {
            panic!("not del")
        };
        assert_eq!(del.devices, [DeviceId(0), DeviceId(1), DeviceId(2)]);
        assert!(del.force);
    }

    #[test]
    fn devices_are_ids_or_paths() {
        for text in ["3", "ublkb3", "/dev/ublkb3", "ublkc3", "/dev/ublkc3", "03"] {
            assert_eq!(parse_device(text), Ok(DeviceId(3)), "{text}");
        }
        for text in [
            "",
            "-1",
            "+3",
            "/dev/3",
            "ublkb",
            "ublkb3p1",
            "/dev/sda",
            "1048576",
            "99999999999",
        ] {
            assert!(parse_device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ublk_mem_takes_what_the_manual_names() {
        let mem =
            MemCli::try_parse_from(["ublk-mem", "--size=16M", "--queues", "2", "-v"]).unwrap();
        assert_eq!(
            (mem.size, mem.queues, mem.depth, mem.verbose),
            (Size(16 << 20), 2, 128, true)
        );
        assert_eq!(mem.stuck_after_ms, 30_000);
        assert!(MemCli::try_parse_from(["ublk-mem"]).is_err());
        assert!(MemCli::try_parse_from(["ublk-mem", "--size", "0"]).is_err());
    }
}
