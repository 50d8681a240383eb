//! The sequence: stop a thread, look, answer, let it go; and again, until nothing that it has is stuck.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use oxublk::{QueueId, Tag};

use crate::facts::{Place as Station, Request, Snapshot, TagView, Tid};
use crate::observe::Observer;

use super::inject::{self, ANSWER_LIMIT, Answer, Done, Hold, Place, STOP_LIMIT};
use super::plan::{self, Choice, Chosen, Plan};
use super::{Ended, Failed, LeftRing, Outcome, PAUSE};

/// So many looks in a row must find nothing before it is over.
const QUIET_LOOKS: u32 = 3;
/// All of it.
const WHOLE_LIMIT: Duration = Duration::from_secs(90);

/// A thread that is made to answer.
struct Thread {
    tid: Tid,
    /// One of its requests: what holds for all of them.
    example: Chosen,
    hold: Hold,
    /// Nothing more can be done in it.
    given_up: bool,
}

/// What is under way.
struct Rounds<'a> {
    observer: &'a mut Observer,
    choice: &'a Choice,
    planned: &'a [Chosen],
    threads: Vec<Thread>,
    outcome: Outcome,
}

pub(super) fn run(observer: &mut Observer, choice: &Choice, plan: &Plan) -> Outcome {
    let mut threads: BTreeMap<Tid, Thread> = BTreeMap::new();
    for request in &plan.requests {
        let tid = request.thread.tid;
        threads.entry(tid).or_insert_with(|| Thread {
            tid,
            example: request.clone(),
            hold: Hold::default(),
            given_up: false,
        });
    }
    let mut rounds = Rounds {
        observer,
        choice,
        planned: &plan.requests,
        threads: threads.into_values().collect(),
        outcome: Outcome::of(plan.device),
    };
    let last = rounds.go();
    rounds.finish(&last)
}

impl Rounds<'_> {
    /// Goes round until nothing is stuck, and returns the last look.
    fn go(&mut self) -> Snapshot {
        let end = Instant::now() + WHOLE_LIMIT;
        for index in 0..self.threads.len() {
            self.visit(index, None);
        }
        let mut quiet = 0;
        let mut before = self.observer.look();
        loop {
            let mut busy = false;
            for index in 0..self.threads.len() {
                if self.follows(index, &before) {
                    busy = true;
                    self.visit(index, Some(&before));
                }
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == QUIET_LOOKS || Instant::now() >= end {
                return before;
            }
            thread::sleep(PAUSE);
            before = self.observer.look();
        }
    }

    /// Whether a thread that was made to answer has something again.
    fn follows(&self, index: usize, now: &Snapshot) -> bool {
        let thread = &self.threads[index];
        !thread.given_up
            && !thread.hold.armed.is_empty()
            && plan::held_by(now, self.choice.device, thread.tid)
                .any(|(_, view, _)| view.place == Some(Station::WithServer))
    }

    /// Stops a thread, looks what it has, makes it answer, and lets it go.
    fn visit(&mut self, index: usize, before: Option<&Snapshot>) {
        let thread = &self.threads[index];
        let place = Place {
            device: self.choice.device,
            tid: thread.tid,
            fd: thread.example.fd,
        };
        let hold = thread.hold.clone();
        let first_stand = hold.stand;
        let (say_stopped, stopped) = mpsc::channel();
        let (order, orders) = mpsc::channel();
        let (say_done, done) = mpsc::channel();
        let worker = thread::Builder::new()
            .name("oxublk-rescue".to_owned())
            .spawn(move || {
                let outcome = inject::answer(place, hold, &say_stopped, &orders);
                // Nobody listens any more when this was too late.
                let _ = say_done.send(outcome);
            });
        if let Err(error) = worker {
            self.give_up(index, &format!("no thread can be made for it: {error}"));
            return;
        }
        // A thread that does not stop is told by `done`.
        let stand = stopped.recv_timeout(STOP_LIMIT * 2).ok();
        let mut wanted = Vec::new();
        if let Some(stand) = stand {
            // Now that it is stopped, nothing of it can change: what is seen is so.
            let now = self.observer.look();
            let same_stand = first_stand.is_some_and(|first| first == stand);
            wanted = self.wanted(index, &now, before, same_stand);
            let answers = wanted.iter().map(|request| Answer {
                queue: request.queue,
                tag: request.tag,
                address: request.address,
            });
            // A worker that is gone is told by `done`.
            let _ = order.send(answers.collect());
        }
        match done.recv_timeout(ANSWER_LIMIT) {
            Ok(done) => self.note(index, &wanted, done),
            Err(_) => self.give_up(
                index,
                "it did not come back from what was made to run in it",
            ),
        }
    }

    /// What a stopped thread is to answer: of the plan, what is still there; later, what nobody else would answer.
    fn wanted(
        &self,
        index: usize,
        now: &Snapshot,
        before: Option<&Snapshot>,
        same_stand: bool,
    ) -> Vec<Chosen> {
        let thread = &self.threads[index];
        let id = self.choice.device;
        let Some(device) = now.device(id) else {
            return Vec::new();
        };
        let wants = |queue: QueueId, view: &TagView, request: &Request| match before {
            None => self.planned.iter().any(|planned| {
                (planned.queue, planned.tag, planned.identity)
                    == (queue, view.tag, request.identity)
            }),
            Some(before) => {
                // In our ring, it is seen by nobody. In the server's, it is seen when the thread goes on; it has not moved.
                thread.hold.armed.contains(&(queue, view.tag))
                    || same_stand
                    || self.is_old(before, queue, view.tag, request)
            }
        };
        plan::held_by(now, id, thread.tid)
            .filter(|(queue, view, request)| {
                view.place == Some(Station::WithServer) && wants(*queue, view, request)
            })
            .filter_map(|(id, view, request)| {
                let queue = device.queues.iter().find(|queue| queue.id == id)?;
                // That it is stopped now is our doing: what was found out before holds.
                plan::described(queue, view, request, &thread.example, device)
            })
            .collect()
    }

    fn is_old(&self, before: &Snapshot, queue: QueueId, tag: Tag, request: &Request) -> bool {
        let earlier = plan::find(before, self.choice.device, queue, tag);
        let same = earlier
            .and_then(|view| view.request.as_ref())
            .is_some_and(|earlier| earlier.identity == request.identity);
        let limit = self.choice.stuck_after.as_millis();
        same && request.age_ms.is_some_and(|age| u128::from(age) >= limit)
    }

    /// Keeps what came of a visit.
    fn note(&mut self, index: usize, wanted: &[Chosen], done: Done) {
        let thread = &mut self.threads[index];
        thread.hold = done.hold;
        let tid = thread.tid;
        let what = |slot: (QueueId, Tag)| {
            let request = wanted
                .iter()
                .find(|request| (request.queue, request.tag) == slot)?;
            Some(request.what.clone())
        };
        let taken = done.taken.iter().map(|slot| (*slot, what(*slot)));
        let later = done.later.iter().map(|slot| (*slot, None));
        for ((queue, tag), what) in taken.chain(later) {
            self.outcome.ended.push(Ended {
                queue,
                tag,
                what,
                tid,
            });
        }
        if !done.refused.is_empty() {
            thread.given_up = true;
        }
        for (queue, tag, errno) in done.refused {
            let why = refusal(errno);
            self.outcome.failed.push(Failed { queue, tag, why });
        }
        if let Some(trouble) = done.trouble {
            self.give_up(index, &trouble.to_string());
        }
    }

    /// A thread in which nothing more can be done: what it has, and was to be ended, was not.
    fn give_up(&mut self, index: usize, why: &str) {
        let thread = &mut self.threads[index];
        thread.given_up = true;
        let tid = thread.tid;
        for request in self
            .planned
            .iter()
            .filter(|request| request.thread.tid == tid)
        {
            let slot = (request.queue, request.tag);
            let ended = &self.outcome.ended;
            if !ended.iter().any(|ended| (ended.queue, ended.tag) == slot) {
                self.outcome.failed.push(Failed {
                    queue: request.queue,
                    tag: request.tag,
                    why: format!("thread {tid}: {why}"),
                });
            }
        }
    }

    fn finish(mut self, last: &Snapshot) -> Outcome {
        let id = self.choice.device;
        for thread in &self.threads {
            if let Some(ring) = &thread.hold.ring {
                self.outcome.rings.push(LeftRing {
                    pid: thread.example.thread.pid,
                    tid: thread.tid,
                    fd: ring.fd,
                });
            }
            for (queue, view, request) in plan::held_by(last, id, thread.tid) {
                let failed = &self.outcome.failed;
                let slot = (queue, view.tag);
                if !failed
                    .iter()
                    .any(|failed| (failed.queue, failed.tag) == slot)
                {
                    let what = plan::what(request);
                    let left = format!("queue {queue} tag {}: {what}", view.tag);
                    self.outcome.left.push(left);
                }
            }
        }
        self.outcome.next = next(&self.outcome);
        self.outcome
    }
}

/// What to do after it.
fn next(outcome: &Outcome) -> Vec<String> {
    let id = outcome.device;
    let mut pids: Vec<_> = outcome.rings.iter().map(|ring| ring.pid).collect();
    pids.dedup();
    let mut next: Vec<String> = pids
        .iter()
        .map(|pid| format!("end the server: `kill -9 {pid}`"))
        .collect();
    if !next.is_empty() {
        next.push(format!(
            "delete the device: `oxublk del {id}`, unless a new server recovers it"
        ));
        next.push("start the server again".to_owned());
    }
    if !outcome.complete() {
        next.push(format!(
            "`oxublk doctor {id}` says what is still stuck, and why"
        ));
    }
    next
}

/// What the driver means by refusing an answer.
fn refusal(errno: i32) -> String {
    let error = std::io::Error::from_raw_os_error(errno);
    let why = match errno {
        9 => "the descriptor of the device was closed meanwhile",
        16 => "the request is no longer with the server: it was answered meanwhile",
        22 => "another thread fetched the tag, or the driver wants another buffer address",
        95 => "the driver does not know the command",
        _ => "no known reason",
    };
    format!("the driver refused the answer: {error}: {why}")
}
