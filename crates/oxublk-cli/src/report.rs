//! The JSON documents that the commands print. Their field names are kept: programs read them.

mod metrics;

use oxublk::host::{Holder, Usage};
use oxublk::sys::{DevAttrs, FEATURES, Features, ParamTypes, Params, SECTOR_SIZE};
use oxublk::{DeviceId, DeviceInfo};
use serde::{Deserialize, Serialize};

pub use self::metrics::{DeviceMetrics, Latency, Live, Operation, Queue, Request};
use crate::process::{Process, command_name};
use crate::state::Description;

/// Printed by `oxublk add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The device.
    pub id: u32,
    /// `/dev/ublkbN`, for everybody.
    pub block_path: String,
    /// `/dev/ublkcN`, for the server.
    pub char_path: String,
    /// `null`, `mem`, `file`.
    pub target: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Queues that the kernel granted.
    pub queues: u16,
    /// Requests that a queue can hold.
    pub depth: u16,
    /// The server's process.
    pub server_pid: u32,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// Printed by `oxublk list`.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// All devices of the host, by id.
    pub devices: Vec<ListedDevice>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// A device in [`Listed`].
#[derive(Clone, Debug, Serialize)]
pub struct ListedDevice {
    /// The device.
    pub id: u32,
    /// `/dev/ublkbN`. There is such a file only while the device is started.
    pub block_path: String,
    /// `dead`, `live`, `quiesced`, `fail-io`; null if the driver may not be asked.
    pub state: Option<String>,
    /// Size in bytes; null while there is no disk.
    pub size_bytes: Option<u64>,
    /// Number of queues.
    pub queues: Option<u16>,
    /// Requests that a queue can hold.
    pub depth: Option<u16>,
    /// The server; null if there is none.
    pub server: Option<Server>,
    /// `null`, `mem`; null for devices that oxublk did not make.
    pub target: Option<String>,
    /// Seconds since oxublk made the device.
    pub uptime_seconds: Option<u64>,
}

/// A server's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Its id.
    pub pid: u32,
    /// The name of its program; null if it does not run any more.
    pub command: Option<String>,
    /// Whether it runs.
    pub running: bool,
    /// The memory that it holds of its own in bytes, data of a disk in memory included; null where that cannot be read.
    pub memory_bytes: Option<u64>,
}

impl Server {
    /// The server that the driver, or else the description, names.
    #[must_use]
    pub fn of(info: Option<&DeviceInfo>, description: Option<&Description>) -> Option<Self> {
        let described = description.map(|description| description.server);
        let pid = info
            .and_then(|info| info.server_pid)
            .or(described.map(|server| server.pid))?;
        let running = match described {
            Some(server) if server.pid == pid => server.is_alive(),
            _ => Process::running(pid).is_some(),
        };
        Some(Self {
            pid,
            command: running.then(|| command_name(pid)).flatten(),
            running,
            memory_bytes: running.then(|| memory_bytes(pid)).flatten(),
        })
    }
}

/// Anonymous and shared memory of a process. Its program's pages are every server's.
fn memory_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |field: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) << 10)
}

/// Printed by `oxublk info`.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The device.
    pub id: u32,
    /// `/dev/ublkbN`. There is such a file only while the device is started.
    pub block_path: String,
    /// `/dev/ublkcN`.
    pub char_path: String,
    /// `dead`, `live`, `quiesced`, `fail-io`.
    pub state: String,
    /// Size of the disk in bytes as the kernel has it; null while there is no disk.
    pub size_bytes: Option<u64>,
    /// Number of queues.
    pub queues: u16,
    /// Requests that a queue can hold.
    pub depth: u16,
    /// What the driver granted to this device.
    pub features: Vec<GrantedFeature>,
    /// What the disk looks like; null if the driver does not say.
    pub params: Option<DiskParams>,
    /// The server; null if there is none.
    pub server: Option<Server>,
    /// User who made the device.
    pub owner_uid: u32,
    /// Group of that user.
    pub owner_gid: u32,
    /// What oxublk wrote down when it made the device; null if it did not make it.
    pub description: Option<Description>,
    /// Seconds since oxublk made the device.
    pub uptime_seconds: Option<u64>,
    /// Who uses the disk.
    pub holders: Vec<HeldBy>,
    /// What the server did so far; null if it cannot be asked.
    pub metrics: Option<DeviceMetrics>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// A feature in [`Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantedFeature {
    /// The kernel's name, as in `USER_COPY`; `BIT_40` if this version does not know it.
    pub name: String,
    /// What it is for.
    pub meaning: String,
}

/// The granted features in words.
#[must_use]
pub fn granted(features: Features) -> Vec<GrantedFeature> {
    let known = FEATURES
        .iter()
        .filter(|feature| features.contains(feature.flag));
    let known = known.map(|feature| GrantedFeature {
        name: feature.name.to_owned(),
        meaning: feature.meaning.to_owned(),
    });
    let unknown = unknown_bits(features)
        .into_iter()
        .map(|bit| GrantedFeature {
            name: format!("BIT_{bit}"),
            meaning: "Not known to this version of oxublk.".to_owned(),
        });
    known.chain(unknown).collect()
}

/// Bits that have no name here.
#[must_use]
pub fn unknown_bits(features: Features) -> Vec<u32> {
    let unknown = features.bits() & !Features::all().bits();
    (0..u64::BITS)
        .filter(|bit| unknown >> bit & 1 == 1)
        .collect()
}

/// What a disk looks like, in [`Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the driver's flags")]
pub struct DiskParams {
    /// Size in bytes that the device was made with.
    pub size_bytes: u64,
    /// Unit of addressing in bytes.
    pub logical_block_bytes: u64,
    /// Unit that the medium writes at once, in bytes.
    pub physical_block_bytes: u64,
    /// Size of the largest request in bytes.
    pub max_io_bytes: u64,
    /// Size of I/O that suits the disk best; null for no preference.
    pub optimal_io_bytes: Option<u64>,
    /// Smallest size of I/O that suits the disk; null for no preference.
    pub minimum_io_bytes: Option<u64>,
    /// The kernel refuses writes.
    pub read_only: bool,
    /// Seeks cost.
    pub rotational: bool,
    /// An answered write may be lost until a flush.
    pub volatile_cache: bool,
    /// Single writes can be made durable.
    pub fua: bool,
    /// The unit of discard in bytes; null if nothing can be discarded.
    pub discard_granularity_bytes: Option<u32>,
    /// The largest discard in bytes; 0 for no discard.
    pub max_discard_bytes: u64,
    /// The largest write of zeroes in bytes; 0 if it is not supported.
    pub max_write_zeroes_bytes: u64,
}

impl From<&Params> for DiskParams {
    fn from(params: &Params) -> Self {
        let basic = &params.basic;
        let attributes = DevAttrs::from_bits_retain(basic.attrs);
        let bytes = |shift: u8| 1_u64.checked_shl(shift.into()).unwrap_or(0);
        let preferred = |shift: u8| (shift != 0).then(|| bytes(shift));
        let has_discard = params.param_types().contains(ParamTypes::DISCARD);
        let discard = if has_discard {
            params.discard
        } else {
            Default::default()
        };
        Self {
            size_bytes: basic.dev_sectors.saturating_mul(SECTOR_SIZE),
            logical_block_bytes: bytes(basic.logical_bs_shift),
            physical_block_bytes: bytes(basic.physical_bs_shift),
            max_io_bytes: u64::from(basic.max_sectors) * SECTOR_SIZE,
            optimal_io_bytes: preferred(basic.io_opt_shift),
            minimum_io_bytes: preferred(basic.io_min_shift),
            read_only: attributes.contains(DevAttrs::READ_ONLY),
            rotational: attributes.contains(DevAttrs::ROTATIONAL),
            volatile_cache: attributes.contains(DevAttrs::VOLATILE_CACHE),
            fua: attributes.contains(DevAttrs::VOLATILE_CACHE | DevAttrs::FUA),
            discard_granularity_bytes: (discard.max_discard_sectors > 0)
                .then_some(discard.discard_granularity),
            max_discard_bytes: u64::from(discard.max_discard_sectors) * SECTOR_SIZE,
            max_write_zeroes_bytes: u64::from(discard.max_write_zeroes_sectors) * SECTOR_SIZE,
        }
    }
}

/// Somebody who uses a disk, in [`Info`] and [`Deleted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBy {
    /// The process; null for the kernel.
    pub pid: Option<u32>,
    /// The name of its program, or of the part of the kernel.
    pub command: String,
    /// The disk or partition: `ublkb0`, `ublkb0p1`.
    pub disk: String,
    /// `open`, `mount`, `device` or `swap`.
    pub usage: &'static str,
    /// The mount point, or the name of the device built on it.
    pub target: Option<String>,
}

impl From<&Holder> for HeldBy {
    fn from(holder: &Holder) -> Self {
        let (usage, target) = match &holder.usage {
            Usage::Open => ("open", None),
            Usage::Mount(path) => ("mount", Some(path.to_string_lossy().into_owned())),
            Usage::Device(name) => ("device", Some(name.clone())),
            Usage::Swap => ("swap", None),
            _ => ("other", None),
        };
        let Holder {
            pid, command, disk, ..
        } = holder.clone();
        Self {
            pid,
            command,
            disk,
            usage,
            target,
        }
    }
}

/// In words: `/dev/ublkb0 is mounted on /mnt`.
impl std::fmt::Display for HeldBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pid,
            command,
            disk,
            usage,
            target,
        } = self;
        let target = target.as_deref().unwrap_or_default();
        match *usage {
            "mount" => write!(f, "/dev/{disk} is mounted on {target}")?,
            "swap" => write!(f, "/dev/{disk} is used for swap")?,
            "device" => write!(f, "/dev/{disk} is part of /dev/{target} ({command})")?,
            _ => write!(f, "/dev/{disk} is open")?,
        }
        match (pid, *usage) {
            (Some(pid), "mount") => write!(f, " in the namespace of process {pid} ({command})"),
            (Some(pid), _) => write!(f, " in process {pid} ({command})"),
            (None, _) => Ok(()),
        }
    }
}

/// Printed by `oxublk del`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Deleted {
    /// What became of each device, in the order of the command line.
    pub devices: Vec<DeletedDevice>,
}

/// A device in [`Deleted`].
#[derive(Clone, Debug, Serialize)]
pub struct DeletedDevice {
    /// The device.
    pub id: u32,
    /// Whether it is gone.
    pub deleted: bool,
    /// Who uses it, or used it when it was deleted by force.
    pub holders: Vec<HeldBy>,
    /// Why it is not gone.
    pub error: Option<crate::exit::Failure>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// Printed by `oxublk features`.
#[derive(Clone, Debug, Serialize)]
pub struct DriverFeatures {
    /// All bits that the driver sets, as a number in hexadecimal.
    pub bits: String,
    /// The features that this version of oxublk knows, by bit.
    pub features: Vec<DriverFeature>,
    /// Bits that the driver sets and this version of oxublk does not know.
    pub unknown_bits: Vec<u32>,
}

/// A feature in [`DriverFeatures`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriverFeature {
    /// The kernel's name, as in `USER_COPY`.
    pub name: &'static str,
    /// The bit, from 0.
    pub bit: u32,
    /// The first kernel that has it.
    pub since: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// Whether this kernel has it.
    pub present: bool,
}

impl From<Features> for DriverFeatures {
    fn from(present: Features) -> Self {
        let features = FEATURES.iter().map(|feature| DriverFeature {
            name: feature.name,
            bit: feature.flag.bits().trailing_zeros(),
            since: feature.since,
            meaning: feature.meaning,
            present: present.contains(feature.flag),
        });
        Self {
            bits: format!("{:#x}", present.bits()),
            features: features.collect(),
            unknown_bits: unknown_bits(present),
        }
    }
}

/// Printed by a server in the foreground when it ends.
#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    /// The device.
    pub id: u32,
    /// What it did.
    pub metrics: DeviceMetrics,
}

/// The path as text; those of devices are ASCII.
#[must_use]
pub fn block_path(id: DeviceId) -> String {
    id.block_path().to_string_lossy().into_owned()
}

/// The path as text; those of devices are ASCII.
#[must_use]
pub fn char_path(id: DeviceId) -> String {
    id.char_path().to_string_lossy().into_owned()
}
