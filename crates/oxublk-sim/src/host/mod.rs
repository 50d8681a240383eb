//! A whole host on the model: a device, its server's threads and rings, who waits. For what looks at servers from
//! outside.
//!
//! A [`Host`] serves normally, in whatever order its seed says, until the [`Fault`] of its [`Plan`] happens. What can
//! be seen of it at a moment is a [`View`].
//!
//! | file | what it holds |
//! |---|---|
//! | `fault.rs`, `plan.rs` | what goes wrong, and what a host is made of |
//! | `uring.rs` | a ring's memory |
//! | `queue.rs` | a queue as the kernel has it: the model of the driver behind a ring |
//! | `arming.rs` | the server fetches |
//! | `server.rs` | the server serves |
//! | `strike.rs` | the fault happens |
//! | `view.rs` | what can be seen |

mod arming;
mod fault;
mod plan;
mod queue;
mod server;
mod strike;
mod uring;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use oxublk::Tag;

use crate::client::ClientRequest;
use crate::clock::Clock;
use crate::kernel::Kernel;
use crate::rng::Rng;

use plan::Style;
use queue::{Queue, Work};

pub use fault::Fault;
pub use plan::Plan;
pub use view::{
    ArmerView, BufferView, CompletionView, Control, ControlView, Does, Life, PlaceView, QueueView,
    RequestView, RingView, SubmissionView, TagView, ThreadView, View, WaiterView,
};

/// The server's process, and its first thread.
const SERVER: u32 = 1000;
/// The first of its queues' threads.
const THREADS: u32 = 1001;
/// A thread of it that serves no queue.
const WORKER: u32 = 1500;
/// Its child.
const CHILD: u32 = 1600;
/// The descriptor of `/dev/ublkcN`.
const DEVICE_FD: i32 = 4;
/// A healthy server answers everything in this time.
const PATIENCE_NS: u64 = 400_000_000;
/// Steps of the model in which a fault surely finds its occasion.
const MAX_STEPS: usize = 40_000;
/// Steps of one queue in which a server that works surely answers something.
const MAX_IDLE_STEPS: usize = 400;

/// A thread of the server.
#[derive(Clone, Debug)]
struct Thread {
    does: Does,
    cpu_ns: u64,
    switches: u64,
}

/// The host.
#[derive(Debug)]
pub struct Host {
    plan: Plan,
    style: Style,
    rng: Rng,
    clock: Clock,
    queues: Vec<Queue>,
    threads: BTreeMap<u32, Thread>,
    life: Life,
    /// The processes that have `/dev/ublkcN` open.
    servers: Vec<u32>,
    controls: Vec<(Control, u64)>,
    /// The thread that reads its own disk.
    own_reader: Option<u32>,
    /// The queue that the fault concerns.
    victim: usize,
    struck: bool,
    /// The one answer that goes wrong has.
    done: bool,
    answered: usize,
    commands: u64,
}

impl Host {
    /// A host whose server has done nothing yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let plan = plan.suited();
        let mut rng = Rng::new(plan.seed);
        let style = Style::of(&plan, &mut rng);
        let queues: Vec<Queue> = (0..plan.queues)
            .map(|id| Queue::new(id, THREADS + u32::from(id), &plan, &style))
            .collect();
        let thread = |tid| {
            let does = if tid == SERVER {
                Does::Pauses
            } else {
                Does::Runs
            };
            let (cpu_ns, switches) = (0, 0);
            (
                tid,
                Thread {
                    does,
                    cpu_ns,
                    switches,
                },
            )
        };
        let mut threads: BTreeMap<u32, Thread> = [SERVER]
            .into_iter()
            .chain(queues.iter().map(|queue| queue.tid))
            .map(thread)
            .collect();
        if rng.below(2) == 0 {
            threads.insert(WORKER, thread(SERVER).1);
        }
        Self {
            victim: rng.below(queues.len()),
            clock: Clock::default(),
            life: Life::Starting,
            servers: vec![SERVER],
            controls: Vec::new(),
            own_reader: None,
            struck: false,
            done: false,
            answered: 0,
            commands: 0,
            plan,
            style,
            rng,
            queues,
            threads,
        }
    }

    /// The plan, as it was made to suit its fault.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The server fetches, starts and serves, until its fault has happened; one without a fault, for a while.
    ///
    /// Returns whether it has happened: a fault may find no occasion.
    pub fn run(&mut self) -> bool {
        self.arm();
        if self.life == Life::Starting {
            return true;
        }
        for step in 0..MAX_STEPS {
            if self.struck || (self.plan.fault.is_none() && step >= self.plan.after) {
                return true;
            }
            if self.answered >= self.plan.after && self.strikes_idle() {
                self.settle();
                self.strikes(self.victim);
            } else {
                self.step();
            }
        }
        false
    }

    fn strikes_idle(&self) -> bool {
        let fault = self.plan.fault;
        fault.is_some_and(|fault| fault.when() == fault::When::Idle)
    }

    /// Time passes: some of it in small steps, at its beginning and end, the rest with nothing to do for whoever works.
    pub fn pass(&mut self, milliseconds: u64) {
        let end = self.clock.now_ns() + milliseconds * 1_000_000;
        self.burst();
        self.settle();
        let rest = end.saturating_sub(self.clock.now_ns());
        let jump = rest - (rest / 4).min(30_000_000);
        self.advance(jump);
        self.burst();
        let rest = end.saturating_sub(self.clock.now_ns());
        if rest > 30_000_000 {
            self.settle();
        }
        self.advance(rest);
    }

    fn burst(&mut self) {
        for _ in 0..10 + self.rng.below(40) {
            self.step();
        }
    }

    fn step(&mut self) {
        let queue = self.rng.below(self.queues.len());
        let ns = self.rng.next() % self.style.step_ns;
        self.advance(ns);
        match self.rng.below(4) {
            0 => self.ask(queue),
            1 => self.work(queue, false, false),
            _ => self.act(queue),
        }
        if self.oldest_ns() > PATIENCE_NS {
            self.settle();
        }
    }

    fn advance(&mut self, ns: u64) {
        self.clock.advance(ns);
        for queue in &self.queues {
            queue.driver.clock().advance(ns);
        }
        for thread in self.threads.values_mut() {
            if thread.does == Does::Runs {
                thread.cpu_ns += ns;
            }
        }
    }

    /// Everybody who can finishes what there is, and waits. Whoever has got nowhere for a while is stuck.
    fn settle(&mut self) {
        for queue in 0..self.queues.len() {
            let (mut idle_steps, mut last) = (0, usize::MAX);
            while idle_steps < MAX_IDLE_STEPS {
                let unfinished = self.queues[queue].unfinished();
                if unfinished == 0 && self.rests(queue) {
                    break;
                }
                idle_steps = if unfinished == last {
                    idle_steps + 1
                } else {
                    0
                };
                last = unfinished;
                self.work(queue, false, true);
                self.act(queue);
            }
        }
    }

    fn rests(&self, queue: usize) -> bool {
        let queue = &self.queues[queue];
        let thread = self.threads.get(&queue.tid);
        queue.ring.unreaped() == 0
            && queue.ring.unsubmitted() == 0
            && thread.is_none_or(|thread| thread.does != Does::Runs)
    }

    /// The age of the oldest request that is not of the victim.
    fn oldest_ns(&self) -> u64 {
        let now = self.clock.now_ns();
        let healthy = |index: &usize| {
            let serves = matches!(
                self.does(self.queues[*index].tid),
                Some(Does::WaitsForRing | Does::Runs)
            );
            serves && !(self.struck && *index == self.victim)
        };
        (0..self.queues.len())
            .filter(healthy)
            .filter_map(|index| {
                let state = self.queues[index].state();
                let issued = state.slots.iter().filter_map(|slot| slot.request);
                issued.map(|id| state.entries[id.0].issued_ns).min()
            })
            .map(|issued| now.saturating_sub(issued))
            .max()
            .unwrap_or_default()
    }

    /// Somebody asks for something.
    fn ask(&mut self, queue: usize) {
        let most = usize::from(self.plan.depth) * 2;
        let quiet = self.queues[queue].quiet || self.life != Life::Live;
        // An answer goes astray most easily seen when nothing follows it.
        let calm = self.plan.fault.is_some_and(Fault::is_misdirected)
            && queue == self.victim
            && self.answered >= self.plan.after;
        let most = if calm { 1 } else { most };
        if quiet || self.queues[queue].unfinished() >= most {
            return;
        }
        let sectors = 1 + self.rng.below(self.style.sectors as usize);
        let sectors = u32::try_from(sectors).unwrap_or(1);
        let sector = self.rng.next() % 200;
        let request = match self.rng.below(9) {
            0 => ClientRequest::flush(),
            1..=4 => ClientRequest::read(sector, sectors),
            _ => ClientRequest::write(sector, sectors),
        };
        let _ = self.queues[queue].driver.submit(request);
    }

    /// The kernel does what it can for a queue.
    fn work(&mut self, queue: usize, waits: bool, all: bool) {
        let living: BTreeSet<u32> = self.threads.keys().copied().collect();
        let threads = self.threads.iter();
        let reachable = threads
            .filter(|(_, thread)| thread.does.is_reachable())
            .map(|(tid, _)| *tid)
            .collect();
        let tid = self.queues[queue].tid;
        let in_wait = self.does(tid) == Some(Does::WaitsForRing);
        let work = Work {
            kernel: self.plan.kernel,
            living: &living,
            reachable: &reachable,
            recoverable: self.plan.seed.is_multiple_of(2),
            waits: waits || in_wait,
            all,
        };
        if matches!(self.life, Life::Live) {
            self.queues[queue].work(work);
        }
    }

    fn does(&self, tid: u32) -> Option<Does> {
        self.threads.get(&tid).map(|thread| thread.does)
    }

    fn set(&mut self, tid: u32, does: Does) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.switches += u64::from(thread.does == Does::Runs && does != Does::Runs);
            thread.does = does;
        }
    }

    /// The fault, in the queue that has it.
    fn fault_of(&self, queue: usize) -> Option<Fault> {
        self.plan
            .fault
            .filter(|_| self.struck && queue == self.victim)
    }

    /// What tells a command's completion.
    const fn user_data(&mut self, tag: u16) -> u64 {
        self.commands += 1;
        let own = if self.style.unique { self.commands } else { 1 };
        queue::user_data(tag, own)
    }

    fn opcode(&self, number: u32) -> u32 {
        if self.style.legacy {
            number
        } else {
            0xc010_7500 | number
        }
    }

    fn free_tag(&self, queue: usize) -> Option<Tag> {
        self.queues[queue].state().free_tags().pop()
    }

    const fn is_old_kernel(&self) -> bool {
        matches!(self.plan.kernel, Kernel::V6_12)
    }
}
