//! What can be seen of a host at a moment. Plain data.

use std::collections::BTreeSet;

use oxublk::sys::op;

use crate::kernel::Kernel;
use crate::state::TagState;

use super::queue::{Queue, READ_ONLY, UNMAPPED};
use super::uring::Memory;
use super::{CHILD, Fault, Host, SERVER, WORKER};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Does {
    /// Waits in `io_uring_enter` for completions of its queue's ring.
    WaitsForRing,
    /// Runs.
    Runs,
    /// Waits for a lock.
    Locked,
    /// Waits in `read` of a pipe or a socket.
    Reads,
    /// Waits in `epoll_wait`.
    Polls,
    /// Waits for a signal.
    Pauses,
    /// Sleeps on a timer.
    Naps,
    /// Waits in state D for another disk.
    Medium,
    /// Waits in state D for a child, in `vfork`.
    Forks,
    /// Waits in state D for the disk that it serves.
    OwnDisk,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
}

impl Does {
    /// Whether the kernel can interrupt it to run what is pending for it.
    pub(super) const fn is_reachable(self) -> bool {
        !matches!(
            self,
            Self::Medium | Self::Forks | Self::OwnDisk | Self::Stopped | Self::Traced
        )
    }
}

/// Where the device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was added, and has no disk yet.
    Starting,
    /// It has a disk.
    Live,
    /// The server is gone; requests wait.
    Quiesced,
    /// The server is gone; requests fail.
    FailIo,
    /// The server is gone, and the disk.
    Dead,
}

/// A control command that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `START_DEV`, for tags to be armed.
    Start,
    /// `DEL_DEV`, for requests that the server has.
    Delete,
    /// `ADD_DEV` of another device, for the driver's lock.
    Add,
}

/// What can be seen.
#[derive(Clone, Debug)]
pub struct View {
    /// When, in virtual time.
    pub at_ns: u64,
    /// The kernel.
    pub kernel: Kernel,
    /// Where the device is in its life.
    pub life: Life,
    /// How many tags each queue has.
    pub depth: u16,
    /// The processes that have `/dev/ublkcN` open.
    pub servers: Vec<u32>,
    /// Where the server has mapped the queues' descriptors from.
    pub mappings: Vec<u64>,
    /// Its queues.
    pub queues: Vec<QueueView>,
    /// The server's rings.
    pub rings: Vec<RingView>,
    /// The server's threads.
    pub threads: Vec<ThreadView>,
    /// Control commands that wait.
    pub controls: Vec<ControlView>,
    /// Threads that wait for the disk.
    pub waiters: Vec<WaiterView>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Which.
    pub id: u16,
    /// Its tags, all of them.
    pub tags: Vec<TagView>,
    /// The threads that the driver has for it.
    pub armers: Vec<ArmerView>,
    /// Other threads whose fetches wait in it, where the driver serves the queue through one thread.
    pub strangers: Vec<ArmerView>,
    /// How many tags were armed.
    pub armed: u16,
}

/// A thread that the driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArmerView {
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Whether it lives.
    pub alive: bool,
}

/// A tag.
#[derive(Clone, Copy, Debug)]
pub struct TagView {
    /// Which.
    pub tag: u16,
    /// Where the driver has it.
    pub place: PlaceView,
    /// The thread that its requests go to.
    pub armer: Option<ArmerView>,
    /// The buffer that the server gave.
    pub buffer: BufferView,
    /// Its request.
    pub request: Option<RequestView>,
}

/// Where the driver has a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceView {
    /// Never armed.
    Unarmed,
    /// Armed.
    Armed,
    /// Its request was delivered, and not answered.
    WithServer,
    /// Taken back.
    Canceled,
}

/// A buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferView {
    /// Where.
    pub address: u64,
    /// Whether there is memory.
    pub mapped: bool,
    /// Whether it can be written to.
    pub writable: bool,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestView {
    /// Which of its queue.
    pub id: usize,
    /// Its operation, one of [`oxublk::sys::op`].
    pub op: u8,
    /// The first sector of what is left of it.
    pub sector: u64,
    /// The bytes that are left of it.
    pub bytes: u64,
    /// Since it got its tag.
    pub age_ns: u64,
    /// Whether it waits to be sent again.
    pub resting: bool,
}

/// A ring.
#[derive(Clone, Debug)]
pub struct RingView {
    /// A number of its own, the same in each view.
    pub number: u64,
    /// The thread that made it.
    pub maker: u32,
    /// Whether only that one may enter it.
    pub owned: bool,
    /// Whether task work is deferred.
    pub deferred: bool,
    /// Whether submissions have 128 bytes.
    pub wide: bool,
    /// Whether a thread of the kernel polls for submissions. It sleeps.
    pub polled: bool,
    /// Whether task work is pending.
    pub pending: bool,
    /// The queues whose armed tags are in it.
    pub serves: Vec<u16>,
    /// The living threads that have submitted to it.
    pub submitters: Vec<u32>,
    /// Entries of both queues.
    pub entries: (u32, u32),
    /// Head and tail of the submission queue.
    pub sq: (u32, u32),
    /// Head and tail of the completion queue.
    pub cq: (u32, u32),
    /// Completions that found no room.
    pub overflowed: u32,
    /// What its memory holds of the newest submissions, the oldest first.
    pub submissions: Vec<SubmissionView>,
    /// The same of completions.
    pub completions: Vec<CompletionView>,
}

/// A submission.
#[derive(Clone, Debug)]
pub struct SubmissionView {
    /// The tail when it was written.
    pub position: u32,
    /// Whether the kernel has taken it.
    pub taken: bool,
    /// The entry.
    pub bytes: Vec<u8>,
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub struct CompletionView {
    /// The tail when it was posted.
    pub position: u32,
    /// Whether the server has reaped it.
    pub reaped: bool,
    /// The submission's.
    pub user_data: u64,
    /// The result.
    pub result: i32,
}

/// A thread.
#[derive(Clone, Copy, Debug)]
pub struct ThreadView {
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// What it does.
    pub does: Does,
    /// Processor time that it has used.
    pub cpu_ns: u64,
    /// How often it gave the processor up.
    pub switches: u64,
}

/// A control command.
#[derive(Clone, Copy, Debug)]
pub struct ControlView {
    /// Which.
    pub control: Control,
    /// Since when.
    pub since_ns: u64,
}

/// A thread that waits for the disk.
#[derive(Clone, Copy, Debug)]
pub struct WaiterView {
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
}

impl Host {
    /// What can be seen now.
    #[must_use]
    pub fn view(&self) -> View {
        let now = self.clock.now_ns();
        let several = self.plan.fault != Some(Fault::DescriptorsOfQueueZero);
        let offset = |queue: &Queue| u64::from(several) * u64::from(queue.id) * 0x1_8000;
        let served = self.servers.contains(&SERVER);
        let rings = self.queues.iter().flat_map(|queue| self.rings(queue));
        View {
            at_ns: now,
            kernel: self.plan.kernel,
            life: self.life,
            depth: self.plan.depth,
            servers: self.servers.clone(),
            mappings: self.queues.iter().map(offset).collect(),
            queues: self.queues.iter().map(|queue| self.queue(queue)).collect(),
            rings: rings.filter(|_| served).collect(),
            threads: self.threads.iter().map(thread).collect(),
            controls: self
                .controls
                .iter()
                .map(|(control, since)| ControlView {
                    control: *control,
                    since_ns: now - since,
                })
                .collect(),
            waiters: self
                .own_reader
                .map(|tid| WaiterView { tid, pid: SERVER })
                .into_iter()
                .collect(),
        }
    }

    fn queue(&self, queue: &Queue) -> QueueView {
        let tags: Vec<TagView> = (0..self.plan.depth)
            .map(|tag| self.tag(queue, tag))
            .collect();
        let mut armers: Vec<ArmerView> = tags.iter().filter_map(|tag| tag.armer).collect();
        armers.sort_unstable();
        armers.dedup();
        QueueView {
            id: queue.id,
            armers,
            strangers: self.strangers(queue),
            armed: if self.was_released() {
                0
            } else {
                u16::try_from(queue.state().fetched).unwrap_or(u16::MAX)
            },
            tags,
        }
    }

    fn strangers(&self, queue: &Queue) -> Vec<ArmerView> {
        let kernel = self.plan.kernel;
        let fetched = queue.tags.iter().filter_map(|slot| {
            let tid = slot.armer?;
            (queue.owner(slot, kernel) != Some(tid)).then_some(tid)
        });
        let tids: BTreeSet<u32> = fetched.filter(|_| !self.was_released()).collect();
        tids.into_iter().map(|tid| self.armer(tid)).collect()
    }

    fn armer(&self, tid: u32) -> ArmerView {
        ArmerView {
            tid,
            pid: SERVER,
            alive: self.threads.contains_key(&tid),
        }
    }

    /// Whether the driver has seen the device closed, and forgotten who armed what.
    const fn was_released(&self) -> bool {
        !self.is_old_kernel() && !matches!(self.life, Life::Starting | Life::Live)
    }

    fn tag(&self, queue: &Queue, tag: u16) -> TagView {
        let state = queue.state();
        let slot = &state.slots[usize::from(tag)];
        let armed = queue.tags[usize::from(tag)];
        let owner = queue
            .owner(&armed, self.plan.kernel)
            .filter(|_| !self.was_released());
        TagView {
            tag,
            place: match slot.state {
                TagState::Unarmed => PlaceView::Unarmed,
                TagState::Armed => PlaceView::Armed,
                TagState::Posted | TagState::Held => PlaceView::WithServer,
                TagState::Gone => PlaceView::Canceled,
            },
            armer: owner.map(|tid| self.armer(tid)),
            buffer: BufferView {
                address: armed.address,
                mapped: armed.address != UNMAPPED,
                writable: !matches!(armed.address, UNMAPPED | READ_ONLY),
            },
            request: slot.request.map(|id| {
                let entry = &state.entries[id.0];
                let left = entry.request.bytes().saturating_sub(entry.done);
                let sector = entry.request.sector + entry.done as u64 / 512;
                RequestView {
                    id: id.0,
                    op: entry.request.op,
                    sector: if entry.request.op == op::FLUSH {
                        u64::MAX
                    } else {
                        sector
                    },
                    bytes: left as u64,
                    age_ns: self.clock.now_ns() - entry.issued_ns,
                    resting: armed.resting,
                }
            }),
        }
    }

    fn rings(&self, queue: &Queue) -> Vec<RingView> {
        let alive = |tid: &&u32| self.threads.contains_key(tid);
        let polled = self.plan.fault == Some(Fault::PollerAsleep);
        let state = queue.state();
        let tags = || state.slots.iter().zip(&queue.tags);
        let of = |memory: &Memory, second: bool| {
            let mine = || {
                tags().filter(move |(slot, armed)| {
                    slot.state == TagState::Armed && armed.second == second
                })
            };
            let waits = mine().any(|(slot, armed)| slot.request.is_some() && !armed.resting);
            RingView {
                number: u64::from(queue.id) * 2 + u64::from(second),
                maker: if second { WORKER } else { queue.tid },
                owned: self.style.single_issuer && !polled,
                deferred: queue.deferred,
                wide: self.style.wide,
                polled,
                pending: queue.deferred && waits,
                serves: mine().next().map(|_| queue.id).into_iter().collect(),
                submitters: queue.submitters[usize::from(second)]
                    .iter()
                    .filter(alive)
                    .copied()
                    .collect(),
                entries: (memory.entries(), memory.completion_entries()),
                sq: (memory.sq_head, memory.sq_tail),
                cq: (memory.cq_head, memory.cq_tail),
                overflowed: u32::try_from(memory.overflow.len()).unwrap_or(u32::MAX),
                submissions: submissions(memory),
                completions: completions(memory),
            }
        };
        let mut rings = vec![of(&queue.ring, false)];
        if !queue.submitters[1].is_empty() {
            rings.push(of(&queue.second, true));
        }
        rings
    }
}

fn submissions(memory: &Memory) -> Vec<SubmissionView> {
    let past = memory.past_submissions();
    past.map(|(position, taken, bytes)| SubmissionView {
        position,
        taken,
        bytes: bytes.to_vec(),
    })
    .collect()
}

fn completions(memory: &Memory) -> Vec<CompletionView> {
    let past = memory.past_completions();
    past.map(|(position, reaped, user_data, result)| CompletionView {
        position,
        reaped,
        user_data,
        result,
    })
    .collect()
}

fn thread((tid, thread): (&u32, &super::Thread)) -> ThreadView {
    ThreadView {
        tid: *tid,
        pid: if *tid == CHILD { CHILD } else { SERVER },
        does: thread.does,
        cpu_ns: thread.cpu_ns,
        switches: thread.switches,
    }
}
