//! Events in, what to tell out: live and from a file alike.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{Remark, check};
use super::event::{Command, Event, Thread};
use super::filter::Filter;
use super::join::{Join, Outcome};
use super::request::{Followed, Kind, Refusal};
use super::seed::{Expected, Seed};
use super::stats::{Latency, Stats};

/// What to tell.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which requests.
    pub filter: Filter,
    /// A request that stays where it is for longer is told of while tracing, and counts as stuck at the end.
    pub stuck_after: Duration,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Said {
    /// A request ended.
    Request(Followed),
    /// A command was refused.
    Refused(Refusal),
    /// With `--raw`: a command, and what is wrong with it.
    Command(Checked),
    /// A request does not move.
    Late {
        /// It.
        request: Followed,
        /// For how long nothing has happened to it.
        still_ns: u64,
    },
    /// The kernel had no room for events.
    Lost {
        /// How many; none where the kernel does not say.
        count: Option<u64>,
    },
}

/// A command with what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When it was given.
    pub at_ns: u64,
    /// In which thread.
    pub by: Thread,
    /// It.
    pub command: Command,
    /// What is worth knowing; empty when it is as it should be.
    pub remarks: Vec<Remark>,
}

/// What there is to tell at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// For how long was traced.
    pub took_ns: u64,
    /// Requests that ended, of those that the filter takes.
    pub requests: u64,
    /// Of those, how many ended with an error.
    pub errors: u64,
    /// Of those, how many were given back and sent again.
    pub requeued: u64,
    /// Requests that ended, and whose beginning was not seen.
    pub strangers: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// With `--raw`: commands, and how many of them were wrong.
    pub commands: u64,
    /// See `commands`.
    pub wrong: u64,
    /// Events that the kernel had no room for.
    pub lost: u64,
    /// Latencies from station to station.
    pub latencies: Vec<Latency>,
    /// Requests that have not ended.
    pub open: Vec<Followed>,
    /// Of those, how many have not moved for too long.
    pub stuck: u64,
}

/// Follows requests.
#[derive(Debug)]
pub struct Follower {
    options: Options,
    expected: Expected,
    join: Join,
    stats: Stats,
    start_ns: u64,
    /// Whether every request that is under way is known.
    sure: bool,
    requests: u64,
    errors: u64,
    requeued: u64,
    refused: u64,
    commands: u64,
    wrong: u64,
    lost: u64,
    told_late: Vec<(u64, Option<super::event::Slot>)>,
}

impl Follower {
    /// Begins, with what was under way. `sure` says whether that is all there was.
    #[must_use]
    pub fn new(
        options: Options,
        start_ns: u64,
        expected: Expected,
        seeds: &[Seed],
        sure: bool,
    ) -> Self {
        let mut join = Join::default();
        for seed in seeds {
            join.seed(seed.request.clone(), seed.armed_by);
        }
        Self {
            options,
            expected,
            join,
            stats: Stats::default(),
            start_ns,
            sure,
            requests: 0,
            errors: 0,
            requeued: 0,
            refused: 0,
            commands: 0,
            wrong: 0,
            lost: 0,
            told_late: Vec::new(),
        }
    }

    /// How many requests were told of so far.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Takes an event; the events come in the order of time.
    pub fn push(&mut self, event: &Event, said: &mut Vec<Said>) {
        let mut outcomes = Vec::new();
        self.join.push(event, &mut outcomes);
        said.extend(
            outcomes
                .into_iter()
                .filter_map(|outcome| self.tell(outcome, event.at_ns)),
        );
    }

    fn tell(&mut self, outcome: Outcome, now_ns: u64) -> Option<Said> {
        match outcome {
            Outcome::Ended(request) => {
                let wanted = self.options.filter.takes(&request, now_ns);
                wanted.then(|| {
                    self.count(&request);
                    Said::Request(request)
                })
            }
            Outcome::Refused(refusal) => {
                self.refused += 1;
                Some(Said::Refused(refusal))
            }
            Outcome::Command {
                at_ns,
                by,
                command,
                request,
            } => {
                let remarks = check(&command, request.as_ref(), &self.expected, self.sure);
                self.commands += 1;
                self.wrong += u64::from(remarks.iter().any(|remark| remark.wrong));
                let slot = command.slot();
                let filter = &self.options.filter;
                let wanted = filter.queue.is_none_or(|queue| queue == slot.queue)
                    && filter.tag.is_none_or(|tag| tag == slot.tag);
                (wanted || !remarks.is_empty()).then_some(Said::Command(Checked {
                    at_ns,
                    by,
                    command,
                    remarks,
                }))
            }
            Outcome::Lost(count) => {
                self.sure = false;
                self.lost += count.unwrap_or(1);
                Some(Said::Lost { count })
            }
        }
    }

    fn count(&mut self, request: &Followed) {
        self.requests += 1;
        self.stats.add(request);
        let has = |wanted: fn(&Kind) -> bool| {
            u64::from(request.steps.iter().any(|step| wanted(&step.kind)))
        };
        self.errors += has(|kind| matches!(kind, Kind::Completed { error } if *error != 0));
        self.requeued += has(|kind| matches!(kind, Kind::Requeued));
    }

    /// Tells of requests that do not move, each once for the place where it is.
    pub fn tick(&mut self, now_ns: u64, said: &mut Vec<Said>) {
        let limit = self.options.stuck_after;
        for request in self.join.open() {
            let still_ns = request.still_ns(now_ns);
            let moved_ns = if request.circles() {
                request.issued_ns
            } else {
                request.last_ns()
            };
            let place = (moved_ns, request.slot);
            if Duration::from_nanos(still_ns) < limit
                || self.told_late.contains(&place)
                || !self.options.filter.takes(request, now_ns)
            {
                continue;
            }
            self.told_late.push(place);
            said.push(Said::Late {
                request: request.clone(),
                still_ns,
            });
        }
        if self.told_late.len() > MAX_TOLD {
            self.told_late.drain(..MAX_TOLD / 2);
        }
    }

    /// What there is to tell at the end. `lost` is the kernel's own count of events without room.
    #[must_use]
    pub fn finish(self, now_ns: u64, lost: u64) -> Summary {
        let open: Vec<Followed> = self
            .join
            .open()
            .into_iter()
            .filter(|request| self.options.filter.takes(request, now_ns))
            .cloned()
            .collect();
        let stuck_after = self.options.stuck_after;
        let still =
            |request: &&Followed| Duration::from_nanos(request.still_ns(now_ns)) >= stuck_after;
        Summary {
            took_ns: now_ns.saturating_sub(self.start_ns),
            requests: self.requests,
            errors: self.errors,
            requeued: self.requeued,
            strangers: self.join.strangers,
            refused: self.refused,
            commands: self.commands,
            wrong: self.wrong,
            lost: self.lost.max(lost),
            latencies: self.stats.latencies(),
            stuck: u64::try_from(open.iter().filter(still).count()).unwrap_or(u64::MAX),
            open,
        }
    }
}

/// A device has fewer requests under way than this, as a rule.
const MAX_TOLD: usize = 8192;
