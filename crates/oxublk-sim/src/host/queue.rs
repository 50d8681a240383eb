//! A queue as the kernel has it: the model of the driver behind a ring whose memory can be read.

use std::collections::{BTreeSet, VecDeque};

use libc::{EINVAL, EIO, EOPNOTSUPP};
use oxublk::Tag;
use oxublk::sys::{IO_RES_OK, op};

use crate::client::RequestId;
use crate::command::Command;
use crate::driver::Driver;
use crate::kernel::Kernel;
use crate::memory::Memory as Buffers;
use crate::setup::Setup;
use crate::state::{State, TagState};

use super::plan::{Plan, Style};
use super::uring::{DRAIN, Entry, LINK, Memory, SKIP_SUCCESS};

/// The largest request.
const MAX_IO_BYTES: usize = 8 << 10;
/// Between the buffers of two tags.
pub(crate) const BUFFER_STEP: u64 = 0x10_0000;
/// The first buffer of a queue.
pub(crate) const BUFFERS: u64 = 0x7f00_0000_0000;
/// Memory that is not mapped, and memory that is mapped for reading.
pub(crate) const UNMAPPED: u64 = 0x6600_0000;
pub(crate) const READ_ONLY: u64 = 0x5500_0000;

/// What the driver knows of a tag, besides the model's state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Armed {
    /// The thread that fetched it.
    pub(crate) armer: Option<u32>,
    /// Of the command that waits in it.
    user_data: u64,
    silent: bool,
    /// Whether that command came through the second ring.
    pub(crate) second: bool,
    pub(crate) address: u64,
    /// Its request was given back to the block layer, to be sent again.
    pub(crate) resting: bool,
}

/// What the kernel can do for a queue at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    pub(crate) kernel: Kernel,
    /// Threads that live.
    pub(crate) living: &'a BTreeSet<u32>,
    /// Threads that can be interrupted, and so run what is pending for them.
    pub(crate) reachable: &'a BTreeSet<u32>,
    /// Whether requests of a thread that is gone rest, rather than fail.
    pub(crate) recoverable: bool,
    /// Whether what is deferred is run: the owner is in a wait.
    pub(crate) waits: bool,
    /// Whether all of it is done, or as much as the seed says.
    pub(crate) all: bool,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) id: u16,
    pub(crate) tid: u32,
    pub(crate) driver: Driver,
    buffers: Buffers,
    pub(crate) ring: Memory,
    /// A ring of another thread.
    pub(crate) second: Memory,
    pub(crate) tags: Vec<Armed>,
    /// Up to 6.15: the thread that sent the last fetch.
    pub(crate) daemon: Option<u32>,
    /// Threads that have submitted to the ring, and to the second.
    pub(crate) submitters: [BTreeSet<u32>; 2],
    pub(crate) deferred: bool,
    /// Requests that the server has, the oldest first.
    pub(crate) held: VecDeque<Tag>,
    /// Nobody asks for anything any more.
    pub(crate) quiet: bool,
    /// Submissions stand behind one that does not complete.
    blocked: bool,
}

impl Queue {
    pub(crate) fn new(id: u16, tid: u32, plan: &Plan, style: &Style) -> Self {
        let seed = plan.seed ^ u64::from(id);
        let setup = Setup {
            kernel: plan.kernel,
            depth: plan.depth,
            max_io_bytes: MAX_IO_BYTES,
            seed,
            ..Setup::default()
        };
        Self {
            id,
            tid,
            buffers: Buffers::new(&setup),
            driver: Driver::new(setup),
            ring: Memory::new(style.entries, style.wide),
            second: Memory::new(style.entries, style.wide),
            tags: vec![Armed::default(); usize::from(plan.depth)],
            daemon: None,
            submitters: [BTreeSet::new(), BTreeSet::new()],
            deferred: plan.deferred,
            held: VecDeque::new(),
            quiet: false,
            blocked: false,
        }
    }

    pub(crate) fn address(&self, tag: u16) -> u64 {
        BUFFERS + (u64::from(self.id) << 32) + u64::from(tag) * BUFFER_STEP
    }

    pub(crate) const fn ring_mut(&mut self, second: bool) -> &mut Memory {
        if second {
            &mut self.second
        } else {
            &mut self.ring
        }
    }

    /// A thread enters the kernel: what is written is taken.
    pub(crate) fn submit(&mut self, tid: u32, second: bool, kernel: Kernel) {
        let mut behind_link = false;
        while let Some(entry) = self.ring_mut(second).take() {
            self.submitters[usize::from(second)].insert(tid);
            let drains = entry.flags & DRAIN != 0 && self.armed() > 0;
            self.blocked |= drains;
            if self.blocked || behind_link {
                behind_link &= entry.flags & LINK != 0;
                continue;
            }
            match self.execute(&entry, tid, second, kernel) {
                Ok(()) => behind_link = entry.flags & LINK != 0,
                Err(errno) => self.ring_mut(second).post(entry.user_data, -errno),
            }
        }
    }

    fn execute(
        &mut self,
        entry: &Entry,
        tid: u32,
        second: bool,
        kernel: Kernel,
    ) -> Result<(), i32> {
        let command = self.check(entry, tid, kernel)?;
        let refusal = {
            let mut state = self.driver.lock();
            match unreadable(&state, command, entry.address, kernel) {
                Some(id) => state.arm(Tag(entry.tag), Some(id), &mut self.buffers),
                None => state.execute(command, &mut self.buffers),
            }
            state.posted.pop_back()
        };
        if let Some(oxublk::queue::Completion::Tag(_, result)) = refusal {
            return Err(-result);
        }
        if let Some(slot) = self.tags.get_mut(usize::from(entry.tag)) {
            *slot = Armed {
                armer: Some(tid),
                user_data: entry.user_data,
                silent: entry.flags & SKIP_SUCCESS != 0,
                second,
                address: entry.address,
                resting: false,
            };
        }
        if matches!(command, Command::Fetch(_)) && self.state().ready() {
            self.daemon = Some(tid);
        }
        Ok(())
    }

    /// What the driver checks before it looks at the tag's state.
    fn check(&self, entry: &Entry, tid: u32, kernel: Kernel) -> Result<Command, i32> {
        let kind = entry.op >> 8 & 0xff;
        if kind != u32::from(b'u') && kind != 0 {
            return Err(EOPNOTSUPP);
        }
        // No thread here is the armer of another queue's tags.
        let slot = self.tags.get(usize::from(entry.tag)).ok_or(EINVAL)?;
        if entry.queue != self.id || entry.address == 0 {
            return Err(EINVAL);
        }
        match entry.op & 0xff {
            0x20 => Ok(Command::Fetch(Tag(entry.tag))),
            0x21 if self.owner(slot, kernel) == Some(tid) => {
                Ok(Command::Commit(Tag(entry.tag), entry.result))
            }
            _ => Err(EINVAL),
        }
    }

    /// The thread that a tag's requests go to.
    pub(crate) const fn owner(&self, slot: &Armed, kernel: Kernel) -> Option<u32> {
        match kernel {
            Kernel::V6_12 => self.daemon,
            _ => slot.armer,
        }
    }

    fn armed(&self) -> usize {
        self.tags.iter().filter(|slot| slot.armer.is_some()).count()
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.driver.lock()
    }

    /// Requests that were asked for and have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        let state = self.state();
        state.entries.len() - state.outcomes.len()
    }

    /// Requests arrive and get a tag; those that can be handed over are.
    pub(crate) fn work(&mut self, work: Work<'_>) {
        let ready = {
            let mut state = self.state();
            state.arrive(usize::from(work.all));
            state.assign_tags();
            let mut ready = state.deliverable();
            let most = ready.len();
            let portion = if work.all {
                most
            } else {
                state.scheduler.portion(most)
            };
            while ready.len() > portion {
                let at = state.scheduler.pick(ready.len());
                ready.swap_remove(at);
            }
            ready
        };
        for tag in ready {
            self.hand_over(tag, work);
        }
    }

    fn hand_over(&mut self, tag: Tag, work: Work<'_>) {
        let Some(slot) = self.tags.get(tag.index()).copied() else {
            return;
        };
        let owner = self.owner(&slot, work.kernel);
        let lives = owner.is_some_and(|tid| work.living.contains(&tid));
        // The tags of a queue that another thread than its server fetched.
        let misowned = slot.armer != owner;
        if misowned || !lives {
            if work.recoverable && !misowned {
                self.rest(tag, true);
            } else {
                self.abort(tag);
            }
            return;
        }
        let reachable = owner.is_some_and(|tid| work.reachable.contains(&tid));
        if !reachable || (self.deferred && !work.waits) {
            return;
        }
        let is_write = {
            let mut state = self.state();
            let id = state.request_of(tag);
            id.is_some_and(|id| state.entry(id).request.op == op::WRITE)
        };
        if is_write && matches!(slot.address, UNMAPPED | READ_ONLY) {
            let resting = self.state().scheduler.pick(8) != 0;
            self.rest(tag, resting);
            return;
        }
        self.rest(tag, false);
        self.driver.lock().deliver(tag, &mut self.buffers);
        self.driver.lock().posted.clear();
        if !slot.silent {
            self.ring_mut(slot.second).post(slot.user_data, IO_RES_OK);
        }
    }

    pub(crate) fn rest(&mut self, tag: Tag, resting: bool) {
        if let Some(slot) = self.tags.get_mut(tag.index()) {
            slot.resting = resting;
        }
    }

    fn abort(&self, tag: Tag) {
        let mut state = self.state();
        let request = state.slots.get_mut(tag.index());
        if let Some(id) = request.and_then(|slot| slot.request.take()) {
            state.finish(id, Err(EIO));
        }
    }

    /// The server takes one completion out of the ring.
    pub(crate) fn reap(&mut self) -> bool {
        let Some((user_data, result)) = self.ring.reap() else {
            return false;
        };
        let tag = Tag(tag_of(user_data));
        if result == IO_RES_OK && self.state().tag_state(tag) == Some(TagState::Posted) {
            self.state().set_state(tag, TagState::Held);
            self.held.push_back(tag);
        }
        true
    }

    /// The bytes that are left of a tag's request, and whether it is a write.
    pub(crate) fn asked(&self, tag: Tag) -> (i32, bool) {
        let mut state = self.state();
        let Some(id) = state.request_of(tag) else {
            return (0, false);
        };
        let (request, done) = state.progress_of(id);
        let left = request.bytes().saturating_sub(done);
        let left = i32::try_from(left).unwrap_or(i32::MAX);
        (left, request.op == op::WRITE)
    }
}

/// The request of a read whose data cannot be copied from where its answer says: it is delivered again. Since 7.3 it
/// fails, as the model has it fail when its answer is 0.
fn unreadable(state: &State, command: Command, address: u64, kernel: Kernel) -> Option<RequestId> {
    let Command::Commit(tag, 1..) = command else {
        return None;
    };
    let id = state.request_of(tag)?;
    let is_read = state.entries.get(id.0)?.request.op == op::READ;
    (is_read && address == UNMAPPED && kernel != Kernel::V7_3).then_some(id)
}

/// A server's `user_data`: the tag in its low half, and something of its own in the high.
pub(crate) const fn user_data(tag: u16, own: u64) -> u64 {
    own << 16 | tag as u64
}

const fn tag_of(user_data: u64) -> u16 {
    (user_data & 0xffff) as u16
}
