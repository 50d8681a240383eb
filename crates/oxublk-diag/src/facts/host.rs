//! The host as a whole.

use oxublk::{DeviceId, Features};
use serde::{Deserialize, Serialize};

use super::{Pid, Tid};

/// What holds for all devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The running kernel, as `uname -r` prints it.
    pub release: String,
    /// The machine, as `uname -m` prints it.
    pub machine: String,
    /// Whether the driver is there: `/dev/ublk-control` or `/sys/module/ublk_drv`.
    pub driver_loaded: Option<bool>,
    /// Whether the kernel's configuration has the driver: as a module, built in, or not at all.
    pub driver_configured: Option<String>,
    /// `GET_FEATURES`; bits that this version does not know are kept.
    pub features: Option<u64>,
    /// `kernel.io_uring_disabled` and whether this process may make rings.
    pub io_uring: IoUring,
    /// Whether this process is root in the initial user namespace.
    pub root: bool,
    /// Whether this process lives in the initial pid namespace.
    pub initial_pid_namespace: Option<bool>,
    /// `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// `ublks_max` of the module: how many unprivileged devices there may be.
    pub ublks_max: Option<u32>,
    /// After so many seconds in D state the kernel warns: `kernel.hung_task_timeout_secs`; 0 is never.
    pub hung_task_seconds: Option<u64>,
    /// Lines of the kernel's log that speak of ublk, hung tasks or ublk disks; the newest, at most 20.
    pub log: Vec<String>,
}

impl Host {
    /// The kernel's series: `(6, 12)` of `6.12.117+deb13-cloud-amd64`.
    #[must_use]
    pub fn series(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// What this kernel is known for where ublk is concerned, in sentences.
    pub fn known_defects(&self) -> impl Iterator<Item = &'static str> {
        self.series().into_iter().flat_map(super::defects::of)
    }

    /// The driver's features, those that this version knows.
    #[must_use]
    pub fn known_features(&self) -> Option<Features> {
        self.features.map(Features::from_bits_truncate)
    }
}

/// Whether rings can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoUring {
    /// `kernel.io_uring_disabled`: 0 for everybody, 1 for the privileged and a group, 2 for nobody. None on kernels
    /// without the setting.
    pub disabled: Option<u8>,
    /// Whether the kernel has io_uring at all.
    pub present: Option<bool>,
}

/// Where observations come from. Each is optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// `/proc` and `/sys`, as far as anybody may read them.
    Procfs,
    /// What only root sees of other processes: stacks, descriptors, system calls, mappings, fdinfo.
    Inside,
    /// `/sys/kernel/debug/block`.
    Debugfs,
    /// The control commands that never block: `GET_FEATURES`, `GET_DEV_INFO2`, `GET_QUEUE_AFFINITY`.
    Control,
    /// The driver's own structures, through `/proc/kcore` and the kernel's type information.
    Kernel,
    /// The server's own record of its requests; only our servers have one.
    Recorder,
    /// The kernel's log.
    Log,
    /// tracefs.
    Tracefs,
}

/// Something that could not be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Of which layer.
    pub layer: Layer,
    /// Whether nothing at all of the layer was seen.
    pub whole: bool,
    /// What, and why not: `/proc/kcore: permission denied`.
    pub what: String,
    /// What to do to see it: `run as root`.
    pub remedy: String,
}

/// A control command of the driver, as far as the functions of a stack tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Command {
    /// Makes a device.
    AddDev,
    /// Starts it: waits until every tag is armed; up to 6.17 it reads the partition table too.
    StartDev,
    /// Stops it: waits for every request that the server holds.
    StopDev,
    /// Deletes it: stops it, then waits until nobody holds it.
    DelDev,
    /// Sets its parameters.
    SetParams,
    /// Reads its parameters.
    GetParams,
    /// Begins a recovery.
    StartUserRecovery,
    /// Ends a recovery: waits until every tag is armed.
    EndUserRecovery,
    /// Asks the server to let go.
    QuiesceDev,
    /// Another one.
    Other,
}

/// A control command that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlWait {
    /// The thread that executes it: an io-wq worker (`iou-wrk-N`), or the caller.
    pub tid: Tid,
    /// The process that sent it.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Which command.
    pub command: Command,
    /// For which device: known from the driver's structures, or since the process serves just one.
    pub device: Option<DeviceId>,
    /// The function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// For how long, in milliseconds.
    pub since_ms: Option<u64>,
    /// Its stack, innermost function first.
    pub stack: Vec<String>,
}
