//! What `/sys` and `/dev` say of the devices, and what the driver says of them.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::Duration;

use oxublk::{Control, DeviceId, DeviceInfo, QueueId};

use crate::facts::{Block, Device, Gap, Layer, Node, Pid, Queue, Snapshot};

use super::Roots;
use super::files;
use super::guard::guarded;

/// The ids of all devices.
pub(super) fn ids(roots: &Roots) -> Vec<DeviceId> {
    let names = files::names(&roots.sys.join("class/ublk-char")).unwrap_or_default();
    let mut ids: Vec<DeviceId> = names
        .iter()
        .filter_map(|name| Some(DeviceId(name.strip_prefix("ublkc")?.parse().ok()?)))
        .collect();
    ids.sort_unstable();
    ids
}

/// A device as far as anybody may see it. Its disk is not opened.
pub(super) fn device(roots: &Roots, id: DeviceId) -> Device {
    let block = block(roots, id);
    Device {
        id,
        state: None,
        flags: None,
        queue_count: None,
        depth: None,
        max_io_bytes: None,
        claimed_pid: None,
        node: node(roots, id, block.as_ref()),
        block,
        servers: Vec::new(),
        users: Vec::new(),
        queues: Vec::new(),
        all_armed: None,
        recorder: None,
    }
}

fn block(roots: &Roots, id: DeviceId) -> Option<Block> {
    let folder = roots.sys.join("block").join(id.disk_name());
    let number = files::device_number(&files::line(&folder.join("dev"))?)?;
    let stat: Vec<u64> = files::line(&folder.join("stat"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let at = |field: usize| stat.get(field).copied().unwrap_or_default();
    let inflight: Vec<u64> = files::line(&folder.join("inflight"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let sectors: u64 = files::number(&folder.join("size")).unwrap_or_default();
    Some(Block {
        number,
        size_bytes: sectors.saturating_mul(512),
        reads_in_flight: inflight.first().copied().unwrap_or_default(),
        writes_in_flight: inflight.get(1).copied().unwrap_or_default(),
        // Reads, writes, discards, flushes.
        completed: [0, 4, 11, 15].iter().map(|field| at(*field)).sum(),
        failed: None,
    })
}

fn node(roots: &Roots, id: DeviceId, block: Option<&Block>) -> Node {
    let Ok(found) = fs::symlink_metadata(roots.dev.join(id.disk_name())) else {
        return Node::Missing;
    };
    if !found.file_type().is_block_device() {
        return Node::File;
    }
    let number = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    match block {
        Some(block) if block.number != number => Node::OtherDevice,
        _ => Node::BlockDevice,
    }
}

/// Disks' nodes that are files, and have no device: `dd` made them.
pub(super) fn stray_nodes(roots: &Roots, known: &[DeviceId]) -> Vec<DeviceId> {
    let names = files::names(&roots.dev).unwrap_or_default();
    let mut ids: Vec<DeviceId> = names
        .iter()
        .filter_map(|name| Some(DeviceId(name.strip_prefix("ublkb")?.parse().ok()?)))
        .filter(|id| !known.contains(id) && node(roots, *id, None) == Node::File)
        .collect();
    ids.sort_unstable();
    ids
}

/// The answers of the driver.
type Answers = (
    Option<u64>,
    Vec<(DeviceInfo, Vec<Vec<u32>>)>,
    Option<String>,
);

/// Asks the driver: only commands that wait for nothing, and from a thread that can be left behind all the same.
pub(super) fn ask_driver(snapshot: &mut Snapshot, limit: Duration) {
    let ids: Vec<DeviceId> = snapshot.devices.iter().map(|device| device.id).collect();
    let gap = |what: String, remedy: &str, whole: bool| Gap {
        layer: Layer::Control,
        whole,
        what,
        remedy: remedy.to_owned(),
    };
    match guarded(limit, move || ask(&ids)) {
        None => snapshot.gaps.push(gap(
            format!("the driver did not answer GET_DEV_INFO2 within {limit:?}"),
            "this should not happen: please report it with the kernel's version",
            true,
        )),
        Some(Err(error)) => {
            let remedy = error.hint().unwrap_or("run as root").to_owned();
            snapshot.gaps.push(gap(error.to_string(), &remedy, true));
        }
        Some(Ok((features, devices, refused))) => {
            snapshot.host.features = features;
            if let Some(what) = refused {
                snapshot
                    .gaps
                    .push(gap(what, "run as root", devices.is_empty()));
            }
            for (info, cpus) in devices {
                let found = snapshot
                    .devices
                    .iter_mut()
                    .find(|device| device.id == info.id);
                if let Some(device) = found {
                    apply(device, &info, cpus);
                }
            }
        }
    }
}

fn ask(ids: &[DeviceId]) -> oxublk::Result<Answers> {
    let mut control = Control::open()?;
    let features = control.features().ok().map(|features| features.bits());
    let mut refused = None;
    let mut devices = Vec::new();
    for id in ids {
        match control.info(*id) {
            Ok(info) => {
                let cpus = (0..info.queues)
                    .map(|queue| {
                        control
                            .queue_affinity(*id, QueueId(queue))
                            .unwrap_or_default()
                    })
                    .map(|cpus| {
                        cpus.into_iter()
                            .filter_map(|cpu| u32::try_from(cpu).ok())
                            .collect()
                    })
                    .collect();
                devices.push((info, cpus));
            }
            // It was deleted meanwhile.
            Err(error) if error.kind() == oxublk::ErrorKind::NoSuchDevice => {}
            Err(error) => refused = Some(error.to_string()),
        }
    }
    Ok((features, devices, refused))
}

fn apply(device: &mut Device, info: &DeviceInfo, cpus: Vec<Vec<u32>>) {
    device.state = Some(info.state);
    device.flags = Some(info.features.bits());
    device.queue_count = Some(info.queues);
    device.depth = Some(info.depth);
    device.max_io_bytes = Some(info.max_io_bytes);
    device.claimed_pid = info.server_pid.map(Pid);
    for (id, cpus) in (0..).map(QueueId).zip(cpus) {
        match device.queues.iter_mut().find(|queue| queue.id == id) {
            Some(queue) => queue.cpus = cpus,
            None => device.queues.push(Queue {
                id,
                cpus,
                armed: None,
                unarmed: Vec::new(),
                armers: Vec::new(),
                strangers: Vec::new(),
                tags: Vec::new(),
                misanswered: Vec::new(),
                well_answered: 0,
                requeued: 0,
                canceling: None,
                aborting: None,
            }),
        }
    }
}
