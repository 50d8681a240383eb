//! The driver's structures: devices, queues, tags, requests.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use oxublk::{QueueId, Tag};

use crate::facts::{
    Armer, Buffer, Descriptor, Place, Queue, Request, RequestState, TagRange, TagView,
};

use crate::words::operation;

use super::Kernel;
use super::layout::Queues;
use super::memory::{View, number};

const FLAG_ACTIVE: u32 = 1;
const FLAG_WITH_SERVER: u32 = 1 << 1;
/// 6.12 only.
const FLAG_ABORTED: u32 = 1 << 2;
const FLAG_NEEDS_BUFFER: u32 = 1 << 3;
const FLAG_CANCELED: u32 = 1 << 31;
/// The driver allows no more.
const MAX_DEPTH: u16 = 4096;
/// Longer than any list of requests to be sent again: every tag of every queue.
const MAX_REQUEUED: usize = 1 << 16;

/// A queue, and what else is known of it.
#[derive(Debug)]
pub(super) struct QueueView {
    /// For the report.
    pub(super) queue: Queue,
    /// The structures of the threads that armed its tags.
    pub(super) armers: BTreeMap<u64, Option<Armer>>,
    /// The io_uring commands that wait in it.
    pub(super) commands: Vec<u64>,
    /// Its structure.
    pub(super) head: View,
}

/// A device's counts, as its own copy of what `GET_DEV_INFO` returns has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) id: u32,
    pub(super) queues: u16,
    pub(super) depth: u16,
    pub(super) state: u16,
    pub(super) flags: u64,
    pub(super) max_io_bytes: u32,
}

impl Kernel {
    /// What a device says of itself; none when it makes no sense.
    pub(super) fn counts(&self, device: &View) -> Option<Counts> {
        let at = self.layout.device.info.offset;
        let info = |offset, size| number(&device.bytes, at + offset, size);
        let short = |offset| u16::try_from(info(offset, 2)?).ok();
        let counts = Counts {
            queues: short(0)?,
            depth: short(2)?,
            state: short(4)?,
            max_io_bytes: u32::try_from(info(8, 4)?).ok()?,
            id: u32::try_from(info(12, 4)?).ok()?,
            flags: info(24, 8)?,
        };
        let sane = (1..=4096).contains(&counts.queues) && (1..=MAX_DEPTH).contains(&counts.depth);
        sane.then_some(counts)
    }

    /// The addresses of a device's queues.
    pub(super) fn queue_addresses(&self, device: &View, count: u16) -> Vec<u64> {
        match &self.layout.device.queues {
            Queues::Block(block, step) => {
                let (Some(block), Some(step)) = (device.get(*block), device.get(*step)) else {
                    return Vec::new();
                };
                let at = |queue| block.checked_add(u64::from(queue) * step);
                (0..count).filter_map(at).collect()
            }
            Queues::Pointers(array) => {
                let start = device.address + u64::try_from(array.offset).unwrap_or_default();
                let pointers = self.memory.bytes(start, usize::from(count) * 8);
                let pointers = pointers.unwrap_or_default();
                let pointer = |bytes: &[u8]| number(bytes, 0, 8).filter(|pointer| *pointer != 0);
                pointers.chunks_exact(8).filter_map(pointer).collect()
            }
        }
    }

    /// A queue with its tags.
    pub(super) fn queue(
        &self,
        device: &View,
        queue: u64,
        counts: Counts,
        requeued: &HashSet<u64>,
        now_ns: u64,
    ) -> Option<QueueView> {
        let layout = &self.layout.device;
        let head = self.memory.view(queue, layout.queue_size)?;
        let id = QueueId(
            head.get_u16(layout.q_id)
                .or_else(|| u16::try_from(head.get(layout.q_id)?).ok())?,
        );
        let depth = usize::from(counts.depth);
        let ios = queue.checked_add(u64::try_from(layout.ios.offset).ok()?)?;
        let ios = self.memory.bytes(ios, depth * layout.io_size)?;
        let requests = self.requests(device, id, depth);
        let daemon = layout
            .daemon
            .and_then(|field| head.get(field))
            .filter(|task| *task != 0);
        let flag = |field| Some(head.get(field)? != 0);
        let mut found = QueueView {
            queue: Queue {
                id,
                cpus: Vec::new(),
                armed: head.get_u16(layout.armed),
                unarmed: Vec::new(),
                armers: Vec::new(),
                strangers: Vec::new(),
                tags: Vec::new(),
                misanswered: Vec::new(),
                well_answered: 0,
                requeued: 0,
                canceling: flag(layout.canceling),
                aborting: flag(layout.force_abort)
                    .map(|abort| abort || layout.fail_io.and_then(flag).unwrap_or(false)),
            },
            armers: daemon
                .map(|task| (task, self.armer(task)))
                .into_iter()
                .collect(),
            commands: Vec::new(),
            head,
        };
        for (tag, io) in (0..counts.depth).zip(ios.chunks_exact(layout.io_size)) {
            let address = requests.get(usize::from(tag)).copied().unwrap_or_default();
            let request = self.request(address, tag, now_ns);
            let waits_again = request.is_some() && requeued.contains(&address);
            found.queue.requeued += u32::from(waits_again);
            let request =
                request.filter(|request| waits_again || request.state != RequestState::Idle);
            self.tag(&mut found, Tag(tag), io, request);
        }
        found.queue.armers = found.armers.values().flatten().cloned().collect();
        if let Some(daemon) = daemon {
            found.queue.strangers = self.strangers(&found.commands, daemon);
        }
        Some(found)
    }

    /// The threads other than a queue's own whose commands wait in it.
    fn strangers(&self, commands: &[u64], daemon: u64) -> Vec<Armer> {
        let tasks: BTreeSet<u64> = commands
            .iter()
            .filter_map(|command| self.task_of_command(*command))
            .filter(|task| *task != daemon)
            .collect();
        let armers = tasks.into_iter().filter_map(|task| self.armer(task));
        armers.collect()
    }

    fn tag(&self, found: &mut QueueView, tag: Tag, io: &[u8], request: Option<Request>) {
        let layout = &self.layout.device;
        let member = |field: super::btf::Field| number(io, field.offset, field.size);
        let flags = member(layout.io_flags)
            .and_then(|flags| u32::try_from(flags).ok())
            .unwrap_or_default();
        let task = layout.io_task.and_then(member).filter(|task| *task != 0);
        let armer = match task {
            Some(task) => found
                .armers
                .entry(task)
                .or_insert_with(|| self.armer(task))
                .clone(),
            None => found.armers.values().next().cloned().flatten(),
        };
        let place = place(flags);
        if flags & FLAG_ACTIVE != 0
            && let Some(command) = member(layout.io_command)
        {
            found.commands.push(command);
        }
        if place == Place::Unarmed {
            match found.queue.unarmed.last_mut() {
                Some(range) if range.last.0 + 1 == tag.0 => range.last = tag,
                _ => found.queue.unarmed.push(TagRange {
                    first: tag,
                    last: tag,
                }),
            }
        }
        let busy = request
            .as_ref()
            .is_some_and(|request| request.state != RequestState::Complete);
        if !busy && matches!(place, Place::Armed | Place::Unarmed) {
            return;
        }
        let address = member(layout.io_address).filter(|address| *address != 0);
        found.queue.tags.push(TagView {
            tag,
            place: Some(place),
            flags: Some(flags),
            armer,
            buffer: address.map(|address| Buffer {
                address,
                mapped: None,
                writable: None,
            }),
            descriptor: self.descriptor(&found.head, tag),
            request,
        });
    }

    /// The descriptor that the driver wrote last for a tag.
    pub(super) fn descriptor(&self, queue: &View, tag: Tag) -> Option<Descriptor> {
        let layout = &self.layout.device;
        let size = layout
            .descriptor_size
            .and_then(|field| queue.get(field))
            .filter(|size| *size >= 24);
        let at = queue
            .get(layout.descriptors)?
            .checked_add(u64::from(tag.0) * size.unwrap_or(24))?;
        let bytes = self.memory.bytes(at, 24)?;
        Some(Descriptor {
            op_flags: u32::try_from(number(&bytes, 0, 4)?).ok()?,
            sectors: u32::try_from(number(&bytes, 4, 4)?).ok()?,
            start_sector: number(&bytes, 8, 8)?,
            address: number(&bytes, 16, 8)?,
        })
    }

    /// The block layer's request of each tag of a queue.
    fn requests(&self, device: &View, queue: QueueId, depth: usize) -> Vec<u64> {
        let layout = &self.layout.request;
        let read = || {
            let tags = device
                .get(self.layout.device.tags)
                .filter(|tags| *tags != 0)?;
            let own = self
                .memory
                .bytes(tags.checked_add(u64::from(queue.0) * 8)?, 8)?;
            let own = number(&own, 0, 8).filter(|own| *own != 0)?;
            let count = usize::try_from(self.memory.get(own, layout.tag_count)?).ok()?;
            let array = self.memory.pointer(own, layout.requests)?;
            self.memory.bytes(array, count.min(depth) * 8)
        };
        let pointers = read().unwrap_or_default();
        pointers
            .chunks_exact(8)
            .map(|bytes| number(bytes, 0, 8).unwrap_or_default())
            .collect()
    }

    /// A request, when it has this tag and has not ended.
    fn request(&self, address: u64, tag: u16, now_ns: u64) -> Option<Request> {
        let layout = &self.layout.request;
        if address == 0 {
            return None;
        }
        let view = self.memory.view(address, layout.size)?;
        let state = match view.get(layout.state)? {
            0 => RequestState::Idle,
            1 => RequestState::InFlight,
            _ => RequestState::Complete,
        };
        if view.get(layout.tag)? != u64::from(tag) {
            return None;
        }
        let start = view.get(layout.start)?;
        let bytes = view.get(layout.length)?;
        let sector = view.get(layout.sector)?;
        Some(Request {
            operation: operation_or_number(view.get(layout.flags)? & 0xff),
            // A flush has no place: all bits are set.
            sector: (bytes > 0 && sector != u64::MAX).then_some(sector),
            bytes: Some(bytes),
            age_ms: (start > 0).then(|| now_ns.saturating_sub(start) / 1_000_000),
            identity: Some(address.rotate_left(32) ^ start),
            state,
            waiter: None,
        })
    }

    /// The addresses of the requests that rest on the disk's list of those to be sent again.
    pub(super) fn requeued(&self, disk: u64) -> HashSet<u64> {
        let layout = &self.layout.request;
        let mut found = HashSet::new();
        let Some(queue) = self.memory.pointer(disk, layout.disk_queue) else {
            return found;
        };
        let offset = |field: super::btf::Field| u64::try_from(field.offset).unwrap_or_default();
        let head = queue.wrapping_add(offset(layout.requeue_list));
        let next = |at| number(&self.memory.bytes(at, 8)?, 0, 8);
        let mut at = next(head);
        while let Some(entry) = at.filter(|entry| *entry != head && *entry != 0) {
            if found.len() == MAX_REQUEUED {
                break;
            }
            found.insert(entry.wrapping_sub(offset(layout.list)));
            at = next(entry);
        }
        found
    }
}

fn place(flags: u32) -> Place {
    if flags & (FLAG_CANCELED | FLAG_ABORTED) != 0 {
        Place::Canceled
    } else if flags & FLAG_NEEDS_BUFFER != 0 {
        Place::NeedsBuffer
    } else if flags & FLAG_WITH_SERVER != 0 {
        Place::WithServer
    } else if flags & FLAG_ACTIVE != 0 {
        Place::Armed
    } else {
        Place::Unarmed
    }
}

fn operation_or_number(code: u64) -> String {
    operation(code).map_or_else(|| format!("operation {code}"), str::to_owned)
}
