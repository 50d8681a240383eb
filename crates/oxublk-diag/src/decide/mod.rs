//! From two looks to findings: a pure function.

use std::time::Duration;

use crate::facts::Snapshot;
use crate::finding::{Health, Report};

/// From when on a request counts as late.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request older than this is worth a warning.
    pub slow: Duration,
    /// A request older than this is stuck, also when its server might still answer.
    pub stuck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slow: Duration::from_secs(1),
            stuck: Duration::from_secs(5),
        }
    }
}

/// What follows from two looks at a host. Only what holds in both is reported.
#[must_use]
pub fn decide(before: &Snapshot, now: &Snapshot, limits: Limits) -> Report {
    let _ = (before, limits);
    Report {
        schema: 1,
        health: Health::Healthy,
        findings: Vec::new(),
        requests: Vec::new(),
        gaps: now.gaps.clone(),
        snapshot: now.clone(),
    }
}
