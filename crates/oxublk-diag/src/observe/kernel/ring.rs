//! Rings, and what their memory still holds of the past.

use oxublk::{DeviceId, QueueId, Tag};

use crate::facts::{Completion, IoCommand, Ring, Submission, Tid};

use super::Kernel;
use super::layout::{DeferredWork, KiocbTask};
use super::memory::{View, number};

const SETUP_CQE32: u32 = Ring::SETUP_CQE32;
/// At most so many entries of each queue are read.
const MAX_ENTRIES: u32 = 4096;
/// `IORING_MAX_CQ_ENTRIES`.
const MAX_RING: u32 = 1 << 16;
/// Longer lists are cut.
const MAX_LIST: usize = 1024;

impl Kernel {
    /// A ring without its history.
    pub(super) fn ring(&self, address: u64) -> Option<Ring> {
        let layout = &self.layout.ring;
        let ring = self.memory.view(address, layout.size)?;
        let shared = self
            .memory
            .view(ring.get(layout.rings)?, layout.rings_size)?;
        let found = Ring {
            address: Some(address),
            sq_entries: ring.get_u32(layout.sq_entries)?,
            cq_entries: ring.get_u32(layout.cq_entries)?,
            sq_head: shared.get_u32(layout.sq_head)?,
            sq_tail: shared.get_u32(layout.sq_tail)?,
            cq_head: shared.get_u32(layout.cq_head)?,
            cq_tail: shared.get_u32(layout.cq_tail)?,
            overflowed: self.list_length(address, layout.overflow.offset),
            dropped: shared
                .get_u32(layout.cq_overflow)?
                .saturating_add(shared.get_u32(layout.sq_dropped)?),
            setup_flags: ring.get_u32(layout.flags),
            sq_flags: shared.get_u32(layout.sq_flags),
            sqpoll: self.sqpoll(&ring),
            owner: ring.get(layout.owner).and_then(|task| self.tid(task)),
            submitters: self.submitters(address),
            deferred_work: self.deferred_work(&ring),
            ..Ring::default()
        };
        let sane = |entries: u32| entries.is_power_of_two() && entries <= MAX_RING;
        (sane(found.sq_entries) && sane(found.cq_entries)).then_some(found)
    }

    /// The ring of a command that waits in the driver.
    pub(super) fn ring_of_command(&self, command: u64) -> Option<u64> {
        self.memory
            .pointer(self.kiocb_of(command)?, self.layout.ring.kiocb_ring)
    }

    /// The request of io_uring that a command is part of.
    fn kiocb_of(&self, command: u64) -> Option<u64> {
        command.checked_sub(u64::try_from(self.layout.ring.kiocb_command.offset).ok()?)
    }

    /// The thread that submitted a command.
    pub(super) fn task_of_command(&self, command: u64) -> Option<u64> {
        let kiocb = self.kiocb_of(command)?;
        match self.layout.ring.kiocb_task? {
            KiocbTask::Itself(task) => self.memory.pointer(kiocb, task),
            KiocbTask::InContext(context, task) => {
                let context = self.memory.pointer(kiocb, context)?;
                self.memory.pointer(context, task)
            }
        }
    }

    fn tid(&self, task: u64) -> Option<Tid> {
        (task != 0)
            .then(|| self.armer(task))?
            .map(|armer| armer.tid)
    }

    fn sqpoll(&self, ring: &View) -> Option<Tid> {
        let data = ring
            .get(self.layout.ring.polled)
            .filter(|data| *data != 0)?;
        self.tid(self.memory.get(data, self.layout.ring.poll_thread)?)
    }

    fn deferred_work(&self, ring: &View) -> Option<bool> {
        match &self.layout.ring.deferred {
            DeferredWork::List(first) => Some(ring.get(*first)? != 0),
            DeferredWork::Queue(tail, stub) => {
                let stub = ring.address.checked_add(u64::try_from(stub.offset).ok()?)?;
                let tail = ring.get(*tail)?;
                Some(tail != 0 && tail != stub)
            }
        }
    }

    fn submitters(&self, ring: u64) -> Vec<Tid> {
        let layout = &self.layout.task;
        let node = |entry: u64| entry.checked_sub(u64::try_from(layout.node_list.offset).ok()?);
        let task = |entry| self.memory.get(node(entry)?, layout.node_task);
        let mut tids: Vec<Tid> = self
            .list(ring, self.layout.ring.tasks.offset)
            .into_iter()
            .filter_map(|entry| self.tid(task(entry)?))
            .collect();
        tids.sort_unstable();
        tids
    }

    fn list_length(&self, structure: u64, offset: usize) -> u32 {
        u32::try_from(self.list(structure, offset).len()).unwrap_or(u32::MAX)
    }

    /// The entries of a list whose head is a member of a structure.
    fn list(&self, structure: u64, offset: usize) -> Vec<u64> {
        let mut found = Vec::new();
        let Some(head) = structure.checked_add(u64::try_from(offset).unwrap_or(u64::MAX)) else {
            return found;
        };
        let next = |at| number(&self.memory.bytes(at, 8)?, 0, 8);
        let mut at = next(head);
        while let Some(entry) = at.filter(|entry| *entry != head && *entry != 0) {
            if found.len() == MAX_LIST {
                break;
            }
            found.push(entry);
            at = next(entry);
        }
        found
    }

    /// Reads what the ring's memory holds: entries stay there until the queue comes round.
    pub(super) fn read_history(
        &self,
        ring: &mut Ring,
        device_of: &dyn Fn(i32, bool) -> Option<DeviceId>,
    ) {
        let Some(view) = ring
            .address
            .and_then(|address| self.memory.view(address, self.layout.ring.size))
        else {
            return;
        };
        ring.completions = self.completions(ring, &view).unwrap_or_default();
        ring.submissions = self.submissions(ring, &view, device_of).unwrap_or_default();
    }

    fn completions(&self, ring: &Ring, view: &View) -> Option<Vec<Completion>> {
        let layout = &self.layout.ring;
        let size = if ring.has(SETUP_CQE32) {
            32
        } else {
            layout.cqe_size.max(16)
        };
        let start = view
            .get(layout.rings)?
            .checked_add(u64::try_from(layout.cqes.offset).ok()?)?;
        let bytes = self.array(start, ring.cq_entries, size)?;
        let newest = ring.cq_tail.min(ring.cq_entries).min(MAX_ENTRIES);
        let entry = |back: u32| {
            let position = ring.cq_tail.wrapping_sub(back);
            let at = usize::try_from(position & (ring.cq_entries - 1)).ok()? * size;
            Some(Completion {
                position,
                reaped: back > ring.unreaped(),
                user_data: number(&bytes, at, 8)?,
                result: signed(number(&bytes, at + 8, 4)?),
                flags: u32::try_from(number(&bytes, at + 12, 4)?).ok()?,
            })
        };
        Some((1..=newest).rev().filter_map(entry).collect())
    }

    fn submissions(
        &self,
        ring: &Ring,
        view: &View,
        device_of: &dyn Fn(i32, bool) -> Option<DeviceId>,
    ) -> Option<Vec<Submission>> {
        let layout = &self.layout.ring;
        let size = if ring.has(Ring::SETUP_SQE128) {
            128
        } else {
            64
        };
        let bytes = self.array(view.get(layout.sqes)?, ring.sq_entries, size)?;
        let order = match view.get(layout.sq_array)? {
            // IORING_SETUP_NO_SQARRAY.
            0 => None,
            array => Some(self.array(array, ring.sq_entries, 4)?),
        };
        let mask = ring.sq_entries - 1;
        let newest = ring.sq_tail.min(ring.sq_entries).min(MAX_ENTRIES);
        let entry = |back: u32| {
            let position = ring.sq_tail.wrapping_sub(back);
            let slot = position & mask;
            let index = match &order {
                Some(order) => {
                    u32::try_from(number(order, usize::try_from(slot).ok()? * 4, 4)?).ok()?
                }
                None => slot,
            };
            let at = usize::try_from(index & mask).ok()? * size;
            let bytes = bytes.get(at..at + size)?;
            submission(position, back > ring.unsubmitted(), bytes, device_of)
        };
        Some((1..=newest).rev().filter_map(entry).collect())
    }

    /// An array that may be larger than what is read at once.
    fn array(&self, start: u64, entries: u32, size: usize) -> Option<Vec<u8>> {
        const PIECE: usize = 1 << 18;
        let length = usize::try_from(entries).ok()?.checked_mul(size)?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = start.checked_add(u64::try_from(bytes.len()).ok()?)?;
            bytes.extend(self.memory.bytes(at, PIECE.min(length - bytes.len()))?);
        }
        Some(bytes)
    }
}

fn submission(
    position: u32,
    taken: bool,
    bytes: &[u8],
    device_of: &dyn Fn(i32, bool) -> Option<DeviceId>,
) -> Option<Submission> {
    let opcode = *bytes.first()?;
    let flags = *bytes.get(1)?;
    let fd = signed(number(bytes, 4, 4)?);
    let is_command = opcode == Submission::URING_CMD;
    let device = is_command
        .then(|| device_of(fd, flags & Submission::FIXED_FILE != 0))
        .flatten();
    Some(Submission {
        position,
        taken,
        opcode,
        flags,
        fd,
        device,
        user_data: number(bytes, 32, 8)?,
        command: if is_command { io_command(bytes) } else { None },
        bytes: bytes.to_vec(),
    })
}

/// The command as the driver reads it.
fn io_command(bytes: &[u8]) -> Option<IoCommand> {
    Some(IoCommand {
        op: u32::try_from(number(bytes, 8, 4)?).ok()?,
        queue: QueueId(u16::try_from(number(bytes, 48, 2)?).ok()?),
        tag: Tag(u16::try_from(number(bytes, 50, 2)?).ok()?),
        result: signed(number(bytes, 52, 4)?),
        address: number(bytes, 56, 8)?,
    })
}

/// The number that the lowest 32 bits are, with their sign.
fn signed(bits: u64) -> i32 {
    u32::try_from(bits & 0xffff_ffff)
        .unwrap_or_default()
        .cast_signed()
}
