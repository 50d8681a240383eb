//! From two looks to findings: a pure function.
//!
//! | file | idea |
//! |---|---|
//! | `case.rs` | both looks side by side |
//! | `late.rs`, `doing.rs` | a request that is late; what a thread does |
//! | `history.rs` | what a ring's memory says of a tag: its last command, and what came of it |
//! | `host.rs` | the host as a whole |
//! | `arming.rs` | a device that does not get ready |
//! | `delivery.rs` | requests that do not reach the server |
//! | `serving.rs` | requests that the server has and does not answer |
//! | `answers.rs` | a late request's answer that was not sent, was refused, or is wrong |
//! | `practice.rs` | what is wrong with how a server fetches, reads and answers, whether or not a request is late |
//! | `life.rs` | servers that are gone |
//! | `control.rs` | control commands that wait |
//! | `locate.rs` | the station of each request |
//! | `infer.rs` | what can be concluded where the driver's structures were not seen |
//! | `draft.rs`, `advice.rs` | findings in the making; what to do |

mod advice;
mod answers;
mod arming;
mod case;
mod control;
mod delivery;
mod doing;
mod draft;
mod history;
mod host;
mod infer;
mod late;
mod life;
mod locate;
mod practice;
mod serving;

use std::time::Duration;

use crate::facts::Snapshot;
use crate::finding::{Health, Report};

use case::Case;
use draft::Draft;

/// The version of a report's form.
const SCHEMA: u32 = 1;

/// From when on a request counts as late.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request older than this is worth a look.
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
    let (before, now) = (infer::places(before), infer::places(now));
    let case = Case::new(&before, &now, limits);
    let mut drafts = host::findings(&case);
    for device in case.devices() {
        drafts.extend(life::findings(&device));
        drafts.extend(arming::findings(&device));
        drafts.extend(practice::findings(&device));
        for late in device.late() {
            drafts.push(cause(&late));
        }
    }
    drafts.extend(control::findings(&case));
    let mut findings = draft::merged(drafts);
    findings.sort_by_key(|finding| {
        (
            std::cmp::Reverse((finding.health, finding.certainty)),
            finding.device,
            finding.queue,
        )
    });
    let health = findings
        .iter()
        .map(|finding| finding.health)
        .max()
        .unwrap_or(Health::Healthy);
    Report {
        schema: SCHEMA,
        health,
        requests: locate::requests(&case, &findings),
        findings,
        gaps: now.gaps.clone(),
        snapshot: now.clone(),
    }
}

/// Why a request is late: what excludes most is asked first.
fn cause(late: &late::Late<'_>) -> Draft {
    answers::wrong_result(late)
        .or_else(|| life::no_server(late))
        .or_else(|| delivery::cause(late))
        .or_else(|| answers::cause(late))
        .or_else(|| serving::cause(late))
        .unwrap_or_else(|| serving::unexplained(late))
}
