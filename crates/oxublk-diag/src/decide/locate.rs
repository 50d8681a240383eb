//! The station of each request.

use crate::facts::{Place, RequestState, TagView};
use crate::finding::{Finding, Health, Located, Station};

use super::case::{Case, DeviceCase};
use super::history::History;

/// Where each request in flight is.
pub(super) fn requests(case: &Case<'_>, findings: &[Finding]) -> Vec<Located> {
    let mut located = Vec::new();
    for device in case.devices() {
        let all: usize = device.now.queues.iter().map(|queue| queue.tags.len()).sum();
        for queue in &device.now.queues {
            for tag in &queue.tags {
                located.extend(locate(&device, queue.id, tag, findings, all == 1));
            }
        }
    }
    located
}

fn locate(
    device: &DeviceCase<'_>,
    queue: oxublk::QueueId,
    tag: &TagView,
    findings: &[Finding],
    alone: bool,
) -> Option<Located> {
    let request = tag.request.as_ref()?;
    let stuck = findings.iter().any(|finding| {
        finding.health == Health::Stuck
            && finding.device == Some(device.now.id)
            && finding.queue == Some(queue)
            && finding.tags.contains(&tag.tag)
    });
    // Which of several requests a thread waits for is not known.
    let waiters = if alone { device.waiters() } else { Vec::new() };
    Some(Located {
        device: device.now.id,
        queue,
        tag: tag.tag,
        station: station(device, queue, tag, request.state),
        operation: request.operation.clone(),
        sector: request.sector,
        bytes: request.bytes,
        age_ms: request.age_ms,
        waiters: waiters
            .iter()
            .map(|waiter| format!("{} (pid {}), in {}", waiter.comm, waiter.pid, waiter.what))
            .collect(),
        stuck,
    })
}

fn station(
    device: &DeviceCase<'_>,
    queue: oxublk::QueueId,
    tag: &TagView,
    state: RequestState,
) -> Option<Station> {
    if state == RequestState::Complete {
        return Some(Station::Completed);
    }
    match tag.place? {
        Place::WithServer | Place::NeedsBuffer => Some(with_server(device, queue, tag)),
        _ if state == RequestState::Idle => Some(Station::Issued),
        Place::Armed => Some(Station::HandedToTask),
        Place::Canceled | Place::Unarmed => Some(Station::InDriver),
    }
}

fn with_server(device: &DeviceCase<'_>, queue: oxublk::QueueId, tag: &TagView) -> Station {
    let history = History::of(device, queue, tag.tag);
    if history.untaken_answer().is_some() {
        return Station::Answered;
    }
    let Some((ring, submission)) = history.last() else {
        // Its command was written over. Of completions none is left unreaped: so this one was reaped.
        let reaped = device.rings_of(queue).all(|ring| ring.unreaped() == 0);
        return if reaped && device.rings_of(queue).next().is_some() {
            Station::Reaped
        } else {
            Station::Posted
        };
    };
    match ring.completion_of(submission) {
        Some(completion) if completion.is_refusal() => Station::Answered,
        Some(completion) if completion.reaped => Station::Reaped,
        _ => Station::Posted,
    }
}
