//! What is wrong with how a server fetches, reads descriptors and answers, whether or not a request is late.

use crate::facts::{Armer, Misanswer, Ring};
use crate::finding::{Cause, Certainty, Health};

use super::case::DeviceCase;
use super::doing::thread;
use super::draft::Draft;

/// All of it. What a server that dies leaves in memory for a moment says nothing of how it served.
pub(super) fn findings(device: &DeviceCase<'_>) -> Vec<Draft> {
    if !device.in_both(|device| !device.servers.is_empty()) {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    drafts.extend(descriptors_mapped_wrong(device));
    drafts.extend(fetched_by_several(device));
    drafts.extend(misanswered(device));
    drafts
}

/// Answers of the past with wrong numbers of bytes.
fn misanswered(device: &DeviceCase<'_>) -> Option<Draft> {
    // Under load a descriptor and an answer may be of different requests.
    let moved = |ring: &Ring| {
        device
            .ring_before(ring)
            .is_none_or(|old| (old.sq_tail, old.cq_tail) != (ring.sq_tail, ring.cq_tail))
    };
    let before = device.before?;
    let (queue, wrong) = device.now.queues.iter().find_map(|queue| {
        let old = before.queues.iter().find(|old| old.id == queue.id)?;
        let quiet = !device.rings_of(queue.id).any(moved);
        (quiet && !queue.misanswered.is_empty() && queue.misanswered == old.misanswered)
            .then_some((queue, &queue.misanswered))
    })?;
    let first = wrong.first()?;
    let lines = wrong.iter().take(4).map(|wrong| {
        format!(
            "queue {} tag {}: the last {} of {} bytes was answered with {}",
            queue.id, wrong.tag, wrong.operation, wrong.asked_bytes, wrong.result
        )
    });
    // A length that no request of this device can have is other members' bytes, too.
    let largest = device.now.max_io_bytes.map_or(i64::MAX, i64::from);
    let impossible = |wrong: &Misanswer| wrong.tag.0 != 0 && i64::from(wrong.result) > largest;
    let stride = reads_beside(wrong, queue.well_answered) || wrong.iter().any(impossible);
    let (cause, certainty, says) = if stride {
        let says = "requests of most tags but the first are answered with wrong numbers of bytes: the server most likely reads their descriptors with a wrong stride".to_owned();
        (Cause::WrongDescriptors, Certainty::Likely, says)
    } else {
        (
            Cause::WrongResult,
            Certainty::Likely,
            format!(
                "requests are answered with wrong numbers of bytes: {}",
                consequence(device, first)
            ),
        )
    };
    Some(
        Draft::new(cause, Health::Warning, certainty, says)
            .device(device.now.id)
            .queue(queue.id)
            .because_all(lines),
    )
}

/// Whether wrong answers look like descriptors that were read at the wrong places: only the first tag's is where it is looked
/// for, and the others' lengths are zeroes or other members' bytes. A wrong unit is wrong by one factor.
fn reads_beside(wrong: &[Misanswer], well_answered: u16) -> bool {
    if wrong.iter().any(|wrong| wrong.tag.0 == 0) {
        return false;
    }
    let first = wrong.first();
    let one_factor = wrong.iter().all(|wrong| {
        first.is_some_and(|first| {
            i128::from(wrong.result) * i128::from(first.asked_bytes)
                == i128::from(first.result) * i128::from(wrong.asked_bytes)
        })
    });
    let all_zero = wrong.iter().all(|wrong| wrong.result == 0);
    !one_factor || (all_zero && wrong.len() > 2 && wrong.len() > usize::from(well_answered))
}

/// What the kernel makes of such an answer.
fn consequence(device: &DeviceCase<'_>, wrong: &Misanswer) -> String {
    let short = u64::try_from(wrong.result).is_ok_and(|result| result < wrong.asked_bytes.max(1));
    let takes_short_writes = device
        .case
        .now
        .host
        .series()
        .is_some_and(|series| series >= (7, 3));
    match wrong.operation.as_str() {
        _ if !short => "the driver takes them for full",
        _ if wrong.asked_bytes == 0 => {
            "what was left of one in the end was less than a sector, and failed"
        }
        "write" if takes_short_writes => {
            "this kernel takes a short write for a whole one, so that data was lost"
        }
        "write" => "the driver delivers the rest again",
        _ if wrong.result == 0 => "the client gets an error",
        _ => "the driver delivers the rest again, and what is left of less than a sector fails",
    }
    .to_owned()
}

/// All queues' descriptors mapped from the place of the first.
fn descriptors_mapped_wrong(device: &DeviceCase<'_>) -> Option<Draft> {
    let queues = device.now.queue_count.filter(|queues| *queues > 1)?;
    let server = device.now.servers.iter().find(|server| {
        server.mappings.len() >= usize::from(queues)
            && server.mappings.iter().all(|mapping| mapping.offset == 0)
    })?;
    let says = format!(
        "the server {} (pid {}) has mapped the descriptors of queue 0 for all {queues} queues: what it reads of the others' requests is not theirs",
        server.comm, server.pid
    );
    Some(
        Draft::new(
            Cause::WrongDescriptors,
            Health::Warning,
            Certainty::Certain,
            says,
        )
        .device(device.now.id)
        .because(format!(
            "/proc/{}/maps shows {} mappings of the device, all at offset 0",
            server.pid,
            server.mappings.len()
        )),
    )
}

/// Up to 6.15 a queue has one server thread: the one that sent the last fetch. The tags that others fetched fail.
fn fetched_by_several(device: &DeviceCase<'_>) -> Option<Draft> {
    let before = device.before?;
    device.now.block.as_ref()?;
    let queue = device.now.queues.iter().find(|queue| {
        let old = before.queues.iter().find(|old| old.id == queue.id);
        !queue.strangers.is_empty() && old.is_some_and(|old| old.strangers == queue.strangers)
    })?;
    let armer = queue.armers.first()?;
    let says = format!(
        "queue {} was fetched by several threads: this kernel serves it through {} alone, and fails the requests of tags that another thread fetched",
        queue.id,
        thread(armer)
    );
    let fetched = |stranger: &Armer| format!("{} fetched tags of it, which wait", thread(stranger));
    Some(
        Draft::new(
            Cause::ForeignThread,
            Health::Warning,
            Certainty::Certain,
            says,
        )
        .device(device.now.id)
        .queue(queue.id)
        .because_all(queue.strangers.iter().map(fetched)),
    )
}
