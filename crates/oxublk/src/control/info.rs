//! What the driver says of a device.

use oxublk_sys::{DevInfo, Features, dev_state};

use crate::id::DeviceId;

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum DeviceState {
    /// Made, and not started or stopped: there is no `/dev/ublkbN`.
    Dead,
    /// Started: requests go to its server.
    Live,
    /// Its server is gone; requests wait for a new one.
    Quiesced,
    /// Its server is gone; requests fail until a new one comes.
    FailIo,
    /// A state that this version does not know.
    Unknown(u16),
}

impl DeviceState {
    const fn new(state: u16) -> Self {
        match state {
            dev_state::DEAD => Self::Dead,
            dev_state::LIVE => Self::Live,
            dev_state::QUIESCED => Self::Quiesced,
            dev_state::FAIL_IO => Self::FailIo,
            other => Self::Unknown(other),
        }
    }
}

impl std::fmt::Display for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dead => f.pad("dead"),
            Self::Live => f.pad("live"),
            Self::Quiesced => f.pad("quiesced"),
            Self::FailIo => f.pad("fail-io"),
            Self::Unknown(state) => f.pad(&format!("unknown ({state})")),
        }
    }
}

/// What GET_DEV_INFO2 and ADD_DEV say of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DeviceInfo {
    /// The device.
    pub id: DeviceId,
    /// Where it is in its life.
    pub state: DeviceState,
    /// How many queues it has: at most as many as the host may have CPUs.
    pub queues: u16,
    /// How many tags each queue has.
    pub depth: u16,
    /// The size of the largest request's buffer in bytes.
    pub max_io_bytes: u32,
    /// The server's process, in the caller's pid namespace. Up to 6.16 the driver goes on naming
    /// a server that is gone; later ones do not.
    pub server_pid: Option<u32>,
    /// What the driver granted.
    #[cfg_attr(feature = "serde", serde(serialize_with = "names"))]
    pub features: Features,
    /// Who made it, in the initial user namespace.
    pub owner_uid: u32,
    /// The group of who made it.
    pub owner_gid: u32,
}

impl From<&DevInfo> for DeviceInfo {
    fn from(info: &DevInfo) -> Self {
        Self {
            id: DeviceId(info.dev_id),
            state: DeviceState::new(info.state),
            queues: info.nr_hw_queues,
            depth: info.queue_depth,
            max_io_bytes: info.max_io_buf_bytes,
            // −1, and on 6.16 to 6.18 0, before a server came.
            server_pid: u32::try_from(info.ublksrv_pid).ok().filter(|pid| *pid != 0),
            features: info.features(),
            owner_uid: info.owner_uid,
            owner_gid: info.owner_gid,
        }
    }
}

#[cfg(feature = "serde")]
fn names<S: serde::Serializer>(features: &Features, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(features.iter_names().map(|(name, _)| name))
}
