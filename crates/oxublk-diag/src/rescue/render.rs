//! Plans and outcomes as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use oxublk::{QueueId, Tag};

use crate::render::wrap::wrap;

use super::{Outcome, Plan};

const WIDTH: usize = 100;

/// What would be done, and what cannot be.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let id = plan.device;
    let mut text = String::new();
    if plan.requests.is_empty() && plan.cannot.is_empty() {
        return format!("device {id}: no request is stuck with its server\n");
    }
    if !plan.requests.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "device {id}: to be ended with EIO:");
    }
    for request in &plan.requests {
        let thread = &request.thread;
        let sleeps = request.sleeps_in.as_ref();
        let sleeps = sleeps.map_or_else(String::new, |name| format!(", which sleeps in {name}"));
        let line = format!(
            "queue {} tag {}: {}; with thread {} ({}) of process {}{sleeps}",
            request.queue, request.tag, request.what, thread.tid, thread.comm, thread.pid
        );
        text.push_str(&wrap(&line, "  ", "    ", WIDTH));
    }
    if !plan.requests.is_empty() {
        text.push_str(&wrap(
            "The driver takes an answer only from the thread that fetched the tag. So each of these threads is stopped for a \
             moment, made to submit the answer -EIO itself, and goes on where it was. The requests that come to it meanwhile, \
             and cannot be answered either, are ended too.",
            "how: ",
            "     ",
            WIDTH,
        ));
        text.push_str(&wrap(
            "The tags are armed again on a ring that nobody reads: the server must be ended afterwards. \
             Should it still answer one of these requests, the driver would take that for the answer to the next one on the same tag.",
            "afterwards: ",
            "            ",
            WIDTH,
        ));
    }
    for note in &plan.notes {
        text.push_str(&wrap(note, "note: ", "      ", WIDTH));
    }
    for cannot in &plan.cannot {
        let whose = whose(cannot.queue, cannot.tag);
        let what = cannot.what.as_ref();
        let what = what.map_or_else(String::new, |what| format!(" ({what})"));
        let line = format!("device {id}{whose}{what} cannot be rescued: {}", cannot.why);
        text.push_str(&wrap(&line, "", "    ", WIDTH));
        text.push_str(&wrap(&cannot.remedy, "  what to do: ", "    ", WIDTH));
    }
    text
}

fn whose(queue: Option<QueueId>, tag: Option<Tag>) -> String {
    match (queue, tag) {
        (Some(queue), Some(tag)) => format!(" queue {queue} tag {tag}"),
        _ => String::new(),
    }
}

/// What was done, what state that left, and what to do next.
#[must_use]
pub fn outcome(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Those that followed are counted with the first of their tag.
    let mut tags: BTreeMap<(QueueId, Tag), (Option<&String>, usize)> = BTreeMap::new();
    for ended in &outcome.ended {
        let entry = tags.entry((ended.queue, ended.tag)).or_default();
        entry.0 = entry.0.or(ended.what.as_ref());
        entry.1 += 1;
    }
    for ((queue, tag), (what, count)) in tags {
        let what = what.map_or("a request", String::as_str);
        let more = match count {
            0 | 1 => String::new(),
            2 => ", and one that followed".to_owned(),
            more => format!(", and {} that followed", more - 1),
        };
        let line = format!("queue {queue} tag {tag}: {what}{more}");
        text.push_str(&wrap(&line, "ended with EIO: ", "    ", WIDTH));
    }
    for failed in &outcome.failed {
        let line = format!("queue {} tag {}: {}", failed.queue, failed.tag, failed.why);
        text.push_str(&wrap(&line, "not ended: ", "    ", WIDTH));
    }
    for left in &outcome.left {
        text.push_str(&wrap(left, "still there: ", "    ", WIDTH));
    }
    for ring in &outcome.rings {
        let line = format!(
            "process {} keeps a ring, its descriptor {}, in which these tags are armed and which nobody reads: a request that gets \
             such a tag is stuck again. Thread {} is where it was.",
            ring.pid, ring.fd, ring.tid
        );
        text.push_str(&wrap(&line, "state: ", "       ", WIDTH));
    }
    if outcome.ended.is_empty() && outcome.failed.is_empty() && outcome.left.is_empty() {
        text.push_str("nothing to end: the requests have gone by themselves\n");
    }
    for (number, step) in (1..).zip(&outcome.next) {
        text.push_str(&wrap(step, &format!("next {number}: "), "    ", WIDTH));
    }
    text
}
