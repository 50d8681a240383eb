//! A ring's memory: entries stay where they are until the ring comes round.

use std::collections::VecDeque;

/// `IORING_OP_URING_CMD`.
const URING_CMD: u8 = 46;
/// Bits of an entry's flags.
pub(crate) const FIXED_FILE: u8 = 1 << 0;
pub(crate) const DRAIN: u8 = 1 << 1;
pub(crate) const LINK: u8 = 1 << 2;
pub(crate) const SKIP_SUCCESS: u8 = 1 << 6;

/// A command on its way into a submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) flags: u8,
    pub(crate) op: u32,
    pub(crate) user_data: u64,
    pub(crate) queue: u16,
    pub(crate) tag: u16,
    pub(crate) result: i32,
    pub(crate) address: u64,
    pub(crate) at: Payload,
}

/// Where the 16 bytes of the command are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// At byte 48, where the driver reads.
    Right,
    /// At byte 64, in the second half of a wide entry.
    Behind,
    /// Elsewhere: byte 16 says where.
    Pointer,
}

impl Entry {
    /// The entry as it lies in memory.
    fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        put(0, &[URING_CMD, self.flags]);
        put(4, &super::DEVICE_FD.to_le_bytes());
        put(8, &self.op.to_le_bytes());
        put(32, &self.user_data.to_le_bytes());
        let at = match self.at {
            Payload::Right => 48,
            Payload::Behind => 64,
            Payload::Pointer => {
                put(16, &0x7fff_5000_0000_u64.to_le_bytes());
                return bytes;
            }
        };
        put(at, &self.queue.to_le_bytes());
        put(at + 2, &self.tag.to_le_bytes());
        put(at + 4, &self.result.to_le_bytes());
        put(at + 8, &self.address.to_le_bytes());
        bytes
    }

    /// What the driver reads of an entry.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self {
            flags: byte(bytes, 1),
            op: u32::from_le_bytes(array(bytes, 8)),
            user_data: u64::from_le_bytes(array(bytes, 32)),
            queue: u16::from_le_bytes(array(bytes, 48)),
            tag: u16::from_le_bytes(array(bytes, 50)),
            result: i32::from_le_bytes(array(bytes, 52)),
            address: u64::from_le_bytes(array(bytes, 56)),
            at: Payload::Right,
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or_default()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let slice = bytes.get(at..at + N).unwrap_or_default();
    slice.try_into().unwrap_or([0; N])
}

/// Both queues.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    entry_bytes: usize,
    submissions: Vec<Vec<u8>>,
    completions: Vec<(u64, i32)>,
    pub(crate) sq_head: u32,
    pub(crate) sq_tail: u32,
    pub(crate) cq_head: u32,
    pub(crate) cq_tail: u32,
    /// Completions that found no room.
    pub(crate) overflow: VecDeque<(u64, i32)>,
}

impl Memory {
    pub(crate) fn new((entries, completions): (u32, u32), wide: bool) -> Self {
        let entry_bytes = if wide { 128 } else { 64 };
        Self {
            entry_bytes,
            submissions: vec![vec![0; entry_bytes]; index(entries)],
            completions: vec![(0, 0); index(completions)],
            sq_head: 0,
            sq_tail: 0,
            cq_head: 0,
            cq_tail: 0,
            overflow: VecDeque::new(),
        }
    }

    pub(crate) fn entries(&self) -> u32 {
        u32::try_from(self.submissions.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn completion_entries(&self) -> u32 {
        u32::try_from(self.completions.len()).unwrap_or(u32::MAX)
    }

    pub(crate) const fn unsubmitted(&self) -> u32 {
        self.sq_tail.wrapping_sub(self.sq_head)
    }

    pub(crate) const fn unreaped(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.cq_head)
    }

    /// The server writes a submission, if there is room.
    pub(crate) fn write(&mut self, entry: &Entry) -> bool {
        if self.unsubmitted() == self.entries() {
            return false;
        }
        let at = index(self.sq_tail % self.entries());
        self.submissions[at] = entry.bytes(self.entry_bytes);
        self.sq_tail = self.sq_tail.wrapping_add(1);
        true
    }

    /// The kernel takes one.
    pub(crate) fn take(&mut self) -> Option<Entry> {
        if self.unsubmitted() == 0 {
            return None;
        }
        let at = index(self.sq_head % self.entries());
        self.sq_head = self.sq_head.wrapping_add(1);
        Some(Entry::read(&self.submissions[at]))
    }

    /// The kernel posts a completion. When some wait outside of the queue, so does this one: they keep their order.
    pub(crate) fn post(&mut self, user_data: u64, result: i32) {
        if self.unreaped() == self.completion_entries() || !self.overflow.is_empty() {
            self.overflow.push_back((user_data, result));
            return;
        }
        let at = index(self.cq_tail % self.completion_entries());
        self.completions[at] = (user_data, result);
        self.cq_tail = self.cq_tail.wrapping_add(1);
    }

    /// The kernel moves what found no room into the queue, as a wait for completions makes it.
    pub(crate) fn flush(&mut self) {
        for (user_data, result) in std::mem::take(&mut self.overflow) {
            self.post(user_data, result);
        }
    }

    /// The server reaps one.
    pub(crate) fn reap(&mut self) -> Option<(u64, i32)> {
        if self.unreaped() == 0 {
            return None;
        }
        let at = index(self.cq_head % self.completion_entries());
        self.cq_head = self.cq_head.wrapping_add(1);
        Some(self.completions[at])
    }

    /// What the memory holds of the newest submissions, the oldest first: position, whether the kernel has taken it,
    /// the entry.
    pub(crate) fn past_submissions(&self) -> impl Iterator<Item = (u32, bool, &[u8])> {
        let newest = self.sq_tail.min(self.entries());
        (1..=newest).rev().map(move |back| {
            let position = self.sq_tail.wrapping_sub(back);
            let bytes = &self.submissions[index(position % self.entries())];
            (position, back > self.unsubmitted(), bytes.as_slice())
        })
    }

    /// The same of completions: position, whether the server has reaped it, user data, result.
    pub(crate) fn past_completions(&self) -> impl Iterator<Item = (u32, bool, u64, i32)> {
        let newest = self.cq_tail.min(self.completion_entries());
        (1..=newest).rev().map(move |back| {
            let position = self.cq_tail.wrapping_sub(back);
            let (user_data, result) = self.completions[index(position % self.completion_entries())];
            (position, back > self.unreaped(), user_data, result)
        })
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
