//! Findings in the making.

use std::collections::BTreeMap;

use oxublk::{DeviceId, QueueId, Tag};

use crate::finding::{Cause, Certainty, Finding, Health};

use super::advice;

/// A finding about one request, or about a device or the host.
#[derive(Debug)]
pub(super) struct Draft {
    finding: Finding,
    /// The age of the request in milliseconds: of several alike, the oldest one's words are kept.
    age_ms: u64,
}

impl Draft {
    /// A finding with the advice that always goes with its cause.
    pub(super) fn new(cause: Cause, health: Health, certainty: Certainty, says: String) -> Self {
        Self {
            finding: Finding {
                cause,
                health,
                certainty,
                device: None,
                queue: None,
                tags: Vec::new(),
                says,
                evidence: Vec::new(),
                remedy: advice::remedy(cause)
                    .iter()
                    .map(|line| (*line).to_owned())
                    .collect(),
                not_now: Vec::new(),
            },
            age_ms: 0,
        }
    }

    pub(super) const fn device(mut self, device: DeviceId) -> Self {
        self.finding.device = Some(device);
        self
    }

    pub(super) const fn queue(mut self, queue: QueueId) -> Self {
        self.finding.queue = Some(queue);
        self
    }

    pub(super) fn tag(mut self, tag: Tag, age_ms: u64) -> Self {
        self.finding.tags.push(tag);
        self.age_ms = age_ms;
        self
    }

    /// Adds a line of evidence.
    pub(super) fn because(mut self, line: impl Into<String>) -> Self {
        self.finding.evidence.push(line.into());
        self
    }

    /// Adds lines of evidence.
    pub(super) fn because_all(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.finding.evidence.extend(lines);
        self
    }

    /// Adds something to do, before the general advice.
    pub(super) fn first(mut self, line: impl Into<String>) -> Self {
        self.finding.remedy.insert(0, line.into());
        self
    }

    /// Adds things not to do now.
    pub(super) fn not_now(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.finding.not_now.extend(lines);
        self
    }
}

/// What is told once: findings of one cause in one queue are one finding, in the words of the oldest request.
pub(super) fn merged(drafts: Vec<Draft>) -> Vec<Finding> {
    let mut merged: BTreeMap<_, Draft> = BTreeMap::new();
    for draft in drafts {
        let identity = (
            draft.finding.device,
            draft.finding.queue,
            draft.finding.cause,
        );
        match merged.remove(&identity) {
            Some(known) => merged.insert(identity, join(known, draft)),
            None => merged.insert(identity, draft),
        };
    }
    let of_queues: Vec<_> = merged
        .keys()
        .filter(|(_, queue, _)| queue.is_some())
        .copied()
        .collect();
    // What is said of a queue's requests is not said of the device again.
    merged.retain(|(device, queue, cause), _| {
        let same = |(of, _, other): &(_, _, _)| of == device && other == cause;
        queue.is_some() || !of_queues.iter().any(same)
    });
    merged
        .into_values()
        .map(|draft| finish(draft.finding))
        .collect()
}

fn join(one: Draft, other: Draft) -> Draft {
    let (mut kept, more) = if other.age_ms > one.age_ms {
        (other, one)
    } else {
        (one, other)
    };
    kept.finding.tags.extend(more.finding.tags);
    kept.finding.health = kept.finding.health.max(more.finding.health);
    for line in more.finding.not_now {
        if !kept.finding.not_now.contains(&line) {
            kept.finding.not_now.push(line);
        }
    }
    kept
}

fn finish(mut finding: Finding) -> Finding {
    let others = finding.tags.len().saturating_sub(1);
    if others > 0 {
        let more = match others {
            1 => "one more request of this queue".to_owned(),
            _ => format!("{others} more requests of this queue"),
        };
        finding.evidence.push(format!("the same holds for {more}"));
    }
    finding.tags.sort_unstable();
    finding.tags.dedup();
    finding
}
