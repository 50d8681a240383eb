//! The driver's own structures, read through `/proc/kcore` with the kernel's type information.
//!
//! After the fact and without any probe they give each tag's flags, its thread, its request and the request's age, and
//! what the rings' memory still holds of the past. Nothing is locked: each pointer that is followed may be stale. So
//! what is read is bounded, counted and checked for sense, and the caller looks twice.
//!
//! | file | idea |
//! |---|---|
//! | `memory.rs` | memory by the kernel's addresses |
//! | `btf.rs`, `layout.rs` | which member is where on this kernel |
//! | `types.rs` | the same for probes, without reading any memory |
//! | `symbols.rs` | where to begin |
//! | `xarray.rs` | the kernel's sparse arrays |
//! | `device.rs` | devices, queues, tags, requests |
//! | `task.rs` | threads |
//! | `ring.rs` | rings and their past |
//! | `answers.rs` | answers that are not what was asked for |

mod answers;
mod btf;
mod device;
mod layout;
mod memory;
mod open;
mod ring;
mod symbols;
mod task;
mod types;
mod xarray;

use std::collections::{BTreeMap, HashMap, HashSet};

use oxublk::{DeviceId, DeviceState, QueueId};

use crate::facts::{Command, Device, Gap, Layer, Place, Queue, Snapshot, Tid};

use device::{Counts, QueueView};
use layout::Layout;
use memory::{Memory, View};
use symbols::Symbols;

pub(crate) use types::Types;

/// The driver allows at most so many.
const MAX_DEVICES: usize = 4096;
/// A request that has been under way for longer makes its rings' past worth reading.
const OLD_MS: u64 = 200;
/// The kernel's clocks differ by less.
const SLACK_MS: u64 = 1000;

/// The kernel, opened for reading.
#[derive(Debug)]
pub(crate) struct Kernel {
    memory: Memory,
    layout: Layout,
    symbols: Symbols,
}

/// What is known of a ring's use.
#[derive(Debug, Default)]
struct Use {
    serves: HashMap<(DeviceId, QueueId), View>,
    worth_reading: bool,
}

impl Kernel {
    /// Adds to a snapshot what the kernel's structures say. What could not be read is returned.
    pub(crate) fn fill(&self, snapshot: &mut Snapshot) -> Vec<Gap> {
        let now_ns = snapshot.taken_ns;
        let head = self
            .memory
            .get(self.symbols.devices, self.layout.xarray.idr_head);
        let devices =
            head.map(|head| xarray::entries(&self.memory, &self.layout.xarray, head, MAX_DEVICES));
        let mut uses: HashMap<u64, Use> = HashMap::new();
        let mut owners: HashMap<u64, DeviceId> = HashMap::new();
        let mut gaps = Vec::new();
        let wanted: HashSet<DeviceId> = snapshot.devices.iter().map(|device| device.id).collect();
        for (index, address) in devices.unwrap_or_default() {
            let Ok(id) = u32::try_from(index) else {
                continue;
            };
            if !wanted.contains(&DeviceId(id)) {
                continue;
            }
            owners.insert(address, DeviceId(id));
            if self
                .device(snapshot, DeviceId(id), address, now_ns, &mut uses)
                .is_none()
            {
                gaps.push(Gap {
                    layer: Layer::Kernel,
                    whole: false,
                    what: format!(
                        "the driver's structures of device {id} changed while they were read"
                    ),
                    remedy: "look again".to_owned(),
                });
            }
        }
        self.control_waits(snapshot);
        self.rings(snapshot, &mut uses, &owners);
        gaps
    }

    fn device(
        &self,
        snapshot: &mut Snapshot,
        id: DeviceId,
        address: u64,
        now_ns: u64,
        uses: &mut HashMap<u64, Use>,
    ) -> Option<()> {
        let view = self.memory.view(address, self.layout.device.size)?;
        let counts = self.counts(&view).filter(|counts| counts.id == id.0)?;
        let disk = view.get(self.layout.device.disk).filter(|disk| *disk != 0);
        let requeued = disk.map(|disk| self.requeued(disk)).unwrap_or_default();
        let queues: Vec<QueueView> = self
            .queue_addresses(&view, counts.queues)
            .into_iter()
            .filter_map(|queue| self.queue(&view, queue, counts, &requeued, now_ns))
            .collect();
        if queues.len() != usize::from(counts.queues) {
            return None;
        }
        let all_armed = view
            .get(self.layout.device.queues_ready)
            .map(|ready| ready == u64::from(counts.queues));
        let device = snapshot.devices.iter_mut().find(|device| device.id == id)?;
        let stuck_command = snapshot
            .control_waits
            .iter()
            .any(|wait| wait.device.is_none_or(|device| device == id));
        for queue in queues {
            let worth_reading = stuck_command || all_armed == Some(false) || is_late(&queue.queue);
            for ring in self.rings_of_queue(&queue) {
                let entry = uses.entry(ring).or_default();
                entry.worth_reading |= worth_reading;
                if queue
                    .commands
                    .iter()
                    .any(|command| self.ring_of_command(*command) == Some(ring))
                {
                    entry
                        .serves
                        .insert((id, queue.queue.id), queue.head.clone());
                }
            }
            merge(device, queue.queue);
        }
        apply(device, counts, all_armed);
        Some(())
    }

    /// The rings that have to do with a queue: those that its armed tags are in, and those that its threads use.
    fn rings_of_queue(&self, queue: &QueueView) -> HashSet<u64> {
        let armed = queue
            .commands
            .iter()
            .filter_map(|command| self.ring_of_command(*command));
        let used = queue
            .armers
            .keys()
            .flat_map(|task| self.rings_of_task(*task));
        armed.chain(used).collect()
    }

    /// Adds the rings, or what the driver knows of those that are there already.
    fn rings(
        &self,
        snapshot: &mut Snapshot,
        uses: &mut HashMap<u64, Use>,
        owners: &HashMap<u64, DeviceId>,
    ) {
        let mut places: BTreeMap<u64, (crate::facts::Pid, i32)> = BTreeMap::new();
        let mut files: HashMap<(crate::facts::Pid, i32), DeviceId> = HashMap::new();
        for device in &snapshot.devices {
            for server in &device.servers {
                let Some(task) = self.task(Tid(server.pid.0)) else {
                    continue;
                };
                for fd in &server.rings {
                    let Some((ring, operations)) = self.file(task, *fd) else {
                        continue;
                    };
                    if operations == self.symbols.ring_operations
                        || self.symbols.ring_operations == 0
                    {
                        places.insert(ring, (server.pid, *fd));
                        // Also a ring that no tag waits in: an answer may have been refused there.
                        let unready = device.all_armed == Some(false);
                        let late = device.queues.iter().any(is_late);
                        uses.entry(ring).or_default().worth_reading |= unready || late;
                    }
                }
                for fd in &server.fds {
                    if let Some((data, _)) = self.file(task, *fd)
                        && let Some(id) = owners.get(&data)
                    {
                        files.insert((server.pid, *fd), *id);
                    }
                }
            }
        }
        let mut rings = Vec::new();
        for (address, used) in uses.iter() {
            let Some(mut ring) = self.ring(*address) else {
                continue;
            };
            if let Some((pid, fd)) = places.get(address) {
                (ring.pid, ring.fd) = (Some(*pid), Some(*fd));
            }
            ring.serves = used.serves.keys().copied().collect();
            ring.serves.sort_unstable();
            let pid = ring.pid;
            let only = ring.serves.first().map(|(id, _)| *id);
            let device_of = |fd: i32, fixed: bool| match pid {
                Some(pid) if !fixed => files.get(&(pid, fd)).copied().or(only),
                _ => only,
            };
            self.read_history(&mut ring, &device_of);
            self.misanswered(snapshot, &ring, &used.serves);
            if !used.worth_reading && ring.overflowed == 0 {
                ring.submissions.clear();
                ring.completions.clear();
            }
            rings.push(ring);
        }
        rings.sort_by_key(|ring| (ring.pid, ring.fd, ring.address));
        // What the structures say is more than what fdinfo says: they replace each other by place.
        snapshot.rings.retain(|old| {
            old.address.is_none()
                && !rings
                    .iter()
                    .any(|ring| ring.fd.is_some() && (ring.pid, ring.fd) == (old.pid, old.fd))
        });
        snapshot.rings.extend(rings);
    }

    /// Which command for which device the io-wq workers execute.
    fn control_waits(&self, snapshot: &mut Snapshot) {
        for wait in &mut snapshot.control_waits {
            let command = self
                .task(wait.tid)
                .and_then(|task| self.worker_command(task));
            let Some((op, sqe)) = command else { continue };
            if op >> 8 & 0xff != u32::from(b'u') && op > 0xff {
                continue;
            }
            wait.command = control_command(op & 0xff);
            let device = memory::number(&sqe.bytes, 48, 4).and_then(|id| u32::try_from(id).ok());
            wait.device = device
                .filter(|id| *id != u32::MAX)
                .map(DeviceId)
                .or(wait.device);
        }
    }

    /// For how long the threads have slept that wait for a disk or serve one.
    pub(crate) fn sleepers(&self, snapshot: &mut Snapshot) {
        let (now_ns, boot_ms) = (snapshot.taken_ns, super::boot_ms());
        let waiting: HashSet<Tid> = snapshot.waiters.iter().map(|waiter| waiter.tid).collect();
        let armers: HashSet<Tid> = snapshot
            .devices
            .iter()
            .flat_map(|device| &device.queues)
            .flat_map(|queue| {
                queue
                    .armers
                    .iter()
                    .chain(queue.tags.iter().filter_map(|tag| tag.armer.as_ref()))
            })
            .map(|armer| armer.tid)
            .chain(snapshot.control_waits.iter().map(|wait| wait.tid))
            .collect();
        for (tid, task) in &mut snapshot.tasks {
            if waiting.contains(tid) || armers.contains(tid) {
                let asleep = self
                    .task(*tid)
                    .and_then(|task| self.asleep_ms(task, now_ns));
                // Of a thread that has not been scheduled out yet the kernel knows no time, and it would be that of the boot.
                let age = task.age_ms(boot_ms).map(|age| age + SLACK_MS);
                task.asleep_ms = asleep.filter(|asleep| age.is_none_or(|age| *asleep <= age));
            }
        }
        for waiter in &mut snapshot.waiters {
            let asleep = snapshot
                .tasks
                .get(&waiter.tid)
                .and_then(|task| task.asleep_ms);
            waiter.since_ms = waiter.since_ms.or(asleep);
        }
        for wait in &mut snapshot.control_waits {
            let task = snapshot.tasks.get(&wait.tid);
            wait.since_ms = wait.since_ms.or(task.and_then(|task| task.asleep_ms));
        }
    }
}

/// Whether a queue has something that its rings' past could explain.
fn is_late(queue: &Queue) -> bool {
    queue.requeued > 0
        || queue.canceling == Some(true)
        || queue.tags.iter().any(|tag| {
            tag.place == Some(Place::Canceled)
                || tag
                    .request
                    .as_ref()
                    .is_some_and(|request| request.age_ms.is_none_or(|age| age > OLD_MS))
        })
}

/// Adds what the driver's structures say of a queue to what other sources said.
fn merge(device: &mut Device, queue: Queue) {
    match device.queues.iter_mut().find(|known| known.id == queue.id) {
        Some(known) => {
            let cpus = std::mem::take(&mut known.cpus);
            *known = Queue { cpus, ..queue };
        }
        None => device.queues.push(queue),
    }
}

fn apply(device: &mut Device, counts: Counts, all_armed: Option<bool>) {
    let state = match counts.state {
        0 => DeviceState::Dead,
        1 => DeviceState::Live,
        2 => DeviceState::Quiesced,
        3 => DeviceState::FailIo,
        other => DeviceState::Unknown(other),
    };
    device.state.get_or_insert(state);
    device.flags.get_or_insert(counts.flags);
    device.queue_count.get_or_insert(counts.queues);
    device.depth.get_or_insert(counts.depth);
    device.max_io_bytes.get_or_insert(counts.max_io_bytes);
    device.all_armed = all_armed;
}

fn control_command(number: u32) -> Command {
    match number {
        0x04 => Command::AddDev,
        0x05 | 0x14 => Command::DelDev,
        0x06 => Command::StartDev,
        0x07 | 0x17 => Command::StopDev,
        0x08 => Command::SetParams,
        0x09 => Command::GetParams,
        0x10 => Command::StartUserRecovery,
        0x11 => Command::EndUserRecovery,
        0x16 => Command::QuiesceDev,
        _ => Command::Other,
    }
}
