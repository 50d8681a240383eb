//! Looking twice and deciding: once, or again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oxublk::{DeviceId, QueueId, Tag};
use serde::{Deserialize, Serialize};

use crate::decide::{Limits, decide};
use crate::facts::Snapshot;
use crate::finding::{Cause, Finding, Health, Report};
use crate::observe::{Observer, Options, Timing};

/// Between the two looks. Long enough for a healthy request to end, short enough for a person to wait.
const PAUSE: Duration = Duration::from_millis(250);

/// Two looks at a host, as they are kept in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    /// The first.
    pub before: Snapshot,
    /// The second.
    pub now: Snapshot,
}

impl Looks {
    /// Whether a tag has a request of unknown age in both looks.
    fn has_ageless(&self) -> bool {
        let busy = |snapshot: &Snapshot| -> BTreeSet<(DeviceId, QueueId, Tag)> {
            let queues = snapshot
                .devices
                .iter()
                .flat_map(|device| device.queues.iter().map(move |queue| (device.id, queue)));
            queues
                .flat_map(|(id, queue)| queue.tags.iter().map(move |tag| (id, queue.id, tag)))
                .filter(|(_, _, tag)| {
                    tag.request
                        .as_ref()
                        .is_some_and(|request| request.age_ms.is_none())
                })
                .map(|(id, queue, tag)| (id, queue, tag.tag))
                .collect()
        };
        !busy(&self.before).is_disjoint(&busy(&self.now))
    }

    /// What follows from them.
    #[must_use]
    pub fn decide(&self, limits: Limits) -> Report {
        decide(&self.before, &self.now, limits)
    }
}

/// Examines a host.
#[derive(Debug)]
pub struct Doctor {
    observer: Observer,
    limits: Limits,
}

impl Doctor {
    /// A doctor who has not looked yet.
    #[must_use]
    pub fn new(options: Options, limits: Limits) -> Self {
        Self {
            observer: Observer::new(options),
            limits,
        }
    }

    /// Looks twice. Where nothing says how old a request is, only that time itself does: the second look comes late enough.
    pub fn look(&mut self) -> Looks {
        let (before, now) = self.observer.look_twice(PAUSE);
        let mut looks = Looks { before, now };
        if looks.has_ageless() {
            std::thread::sleep(self.limits.slow);
            looks.now = self.observer.look();
        }
        looks
    }

    /// Looks twice and decides.
    pub fn examine(&mut self) -> Report {
        let limits = self.limits;
        self.look().decide(limits)
    }

    /// How long each part of the looks so far took.
    #[must_use]
    pub fn timings(&self) -> &[Timing] {
        self.observer.timings()
    }
}

/// What tells one finding from another over time.
type Identity = (Option<DeviceId>, Option<QueueId>, Cause);

/// Compares one examination with those before it.
#[derive(Debug, Default)]
pub struct Watch {
    known: BTreeMap<Identity, Known>,
    warned_of_hung_tasks: bool,
}

#[derive(Debug)]
struct Known {
    since_ns: u64,
    health: Health,
    says: String,
}

/// Something that is different from the examination before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A finding that was not there, or is worse than it was.
    Appeared {
        /// It.
        finding: Finding,
    },
    /// A finding that is no longer there.
    Ended {
        /// Which device.
        device: Option<DeviceId>,
        /// What it was.
        cause: Cause,
        /// Its verdict.
        says: String,
        /// For how long it was seen, in milliseconds.
        lasted_ms: u64,
    },
    /// The kernel is about to complain of a task that hangs.
    HungTaskSoon {
        /// The oldest request's device.
        device: DeviceId,
        /// Its age in milliseconds.
        age_ms: u64,
        /// When the kernel complains, in seconds.
        after_seconds: u64,
    },
}

impl Watch {
    /// What changed since the last examination.
    pub fn compare(&mut self, report: &Report) -> Vec<Change> {
        let now_ns = report.snapshot.taken_ns;
        let mut changes = Vec::new();
        let mut seen = BTreeMap::new();
        for finding in &report.findings {
            let identity = (finding.device, finding.queue, finding.cause);
            let known = self.known.remove(&identity);
            if known
                .as_ref()
                .is_none_or(|known| known.health < finding.health)
            {
                changes.push(Change::Appeared {
                    finding: finding.clone(),
                });
            }
            let since_ns = known.map_or(now_ns, |known| known.since_ns);
            seen.insert(
                identity,
                Known {
                    since_ns,
                    health: finding.health,
                    says: finding.says.clone(),
                },
            );
        }
        for ((device, _, cause), known) in std::mem::replace(&mut self.known, seen) {
            changes.push(Change::Ended {
                device,
                cause,
                says: known.says,
                lasted_ms: now_ns.saturating_sub(known.since_ns) / 1_000_000,
            });
        }
        changes.extend(self.hung_task_soon(report));
        changes
    }

    /// The kernel complains of tasks that sleep for longer than its limit: half of it is late enough to be told.
    fn hung_task_soon(&mut self, report: &Report) -> Option<Change> {
        let after_seconds = report
            .snapshot
            .host
            .hung_task_seconds
            .filter(|seconds| *seconds > 0)?;
        let oldest = report
            .requests
            .iter()
            .max_by_key(|request| request.age_ms)?;
        let age_ms = oldest.age_ms?;
        let late = age_ms >= after_seconds.saturating_mul(500);
        if !late || std::mem::replace(&mut self.warned_of_hung_tasks, late) {
            self.warned_of_hung_tasks = late;
            return None;
        }
        Some(Change::HungTaskSoon {
            device: oldest.device,
            age_ms,
            after_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Watch};
    use crate::facts::Snapshot;
    use crate::finding::{Cause, Certainty, Finding, Health, Report};
    use oxublk::DeviceId;

    fn report(seconds: u64, health: Option<Health>) -> Report {
        let finding = |health| Finding {
            cause: Cause::SlowMedium,
            health,
            certainty: Certainty::Likely,
            device: Some(DeviceId(3)),
            queue: None,
            tags: Vec::new(),
            says: "slow".to_owned(),
            evidence: Vec::new(),
            remedy: Vec::new(),
            not_now: Vec::new(),
        };
        Report {
            schema: 1,
            health: health.unwrap_or(Health::Healthy),
            findings: health.map(finding).into_iter().collect(),
            requests: Vec::new(),
            snapshot: Snapshot {
                taken_ns: seconds * 1_000_000_000,
                ..Snapshot::default()
            },
            gaps: Vec::new(),
        }
    }

    #[test]
    fn only_changes_are_told() {
        let mut watch = Watch::default();
        assert_eq!(watch.compare(&report(1, None)), []);
        assert_eq!(watch.compare(&report(2, Some(Health::Warning))).len(), 1);
        assert_eq!(watch.compare(&report(3, Some(Health::Warning))), []);
        let worse = watch.compare(&report(4, Some(Health::Stuck)));
        assert!(matches!(worse.as_slice(), [Change::Appeared { .. }]));
        let ended = watch.compare(&report(9, None));
        assert!(
            matches!(
                ended.as_slice(),
                [Change::Ended {
                    lasted_ms: 7000,
                    ..
                }]
            ),
            "{ended:?}"
        );
        assert_eq!(watch.compare(&report(10, None)), []);
    }
}
