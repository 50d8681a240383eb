//! Answers that were not sent, were refused, or are wrong.

use crate::facts::{IoCommand, Misanswer, Place, Ring};
use crate::finding::{Cause, Certainty, Health};

use super::case::DeviceCase;
use super::doing::{Doing, thread};
use super::draft::Draft;
use super::history::{commands, errno};
use super::late::Late;

/// What happened to the answer; none when none was written.
pub(super) fn cause(late: &Late<'_>) -> Option<Draft> {
    if !late.is_with_server() {
        return None;
    }
    not_submitted(late)
        .or_else(|| refused(late))
        .or_else(|| misdirected(late))
}

/// The answer lies in the ring, and the kernel has not taken it.
fn not_submitted(late: &Late<'_>) -> Option<Draft> {
    let history = late.history();
    let (ring, _) = history.untaken_answer()?;
    // A thread that is gone or busy with another request submits nothing: that is told instead.
    let elsewhere = late.doing() == Doing::Gone || late.is_behind_another();
    if !late.device.stays_unsubmitted(ring) || elsewhere && !late.waits_for_ring() {
        return None;
    }
    if let Some(draft) = foreign_single_issuer(late, ring) {
        return Some(draft);
    }
    let says = "its answer is written, and nobody gives it to the kernel";
    // A thread that was not seen may be stopped, or where nothing reaches it.
    let certainty = match late.task() {
        Some(_) => Certainty::Certain,
        None => Certainty::Likely,
    };
    Some(
        late.stuck(Cause::AnswerNotSubmitted, certainty, says)
            .because(unsubmitted(ring)),
    )
}

fn unsubmitted(ring: &Ring) -> String {
    format!(
        "{} submissions of the ring are written and not taken, the same in both looks",
        ring.unsubmitted()
    )
}

/// A ring for one thread refuses to be entered by another: what that one wrote stays where it is.
fn foreign_single_issuer(late: &Late<'_>, ring: &Ring) -> Option<Draft> {
    let owner = ring.owner.filter(|_| ring.has(Ring::SETUP_SINGLE_ISSUER))?;
    let armer = late.armer()?;
    // Threads that serve queues have rings of their own.
    let armers = || {
        late.device
            .now
            .queues
            .iter()
            .flat_map(|queue| &queue.armers)
    };
    let others = late.device.case.now.threads(armer.pid).any(|task| {
        let serves = armers().any(|armer| armer.tid == task.tid);
        !task.kernel && !serves && task.tid != owner && task.tid.0 != task.pid.0
    });
    // The owner sleeps in a wait that it began before the answer was written, or elsewhere: it did not write it.
    let owner_waits = matches!(
        late.device.case.doing(owner),
        Doing::WaitsForRing | Doing::Locked | Doing::Waits
    );
    if !others || !owner_waits {
        return None;
    }
    let says = format!(
        "its answer is written, but not by the one thread that may submit to this ring, {owner}: another one's io_uring_enter fails with -17 (EEXIST)"
    );
    Some(
        late.stuck(Cause::ForeignThread, Certainty::Likely, &says)
            .because("the ring was made with IORING_SETUP_SINGLE_ISSUER")
            .because(unsubmitted(ring)),
    )
}

/// The driver refused the newest command of this tag.
fn refused(late: &Late<'_>) -> Option<Draft> {
    let history = late.history();
    let (ring, submission, result) = history.refused()?;
    let command = submission.command?;
    let evidence = format!("{} was refused with {}", words(&command), errno(result));
    if command.is_fetch() {
        let says = "was answered with FETCH_REQ, which arms a tag for the first time only: the driver refused it";
        return Some(
            late.stuck(Cause::AnswerMisdirected, Certainty::Certain, says)
                .because(evidence),
        );
    }
    if let Some(draft) = foreign(late, ring) {
        return Some(draft.because(evidence));
    }
    let user_copy = late.device.user_copy();
    let why = match command.address {
        0 if !user_copy => "it gives no buffer (address 0)",
        1.. if user_copy => "it gives a buffer, which a device with USER_COPY does not have",
        _ => "the request is with the server still",
    };
    let says = format!("was answered, and the driver refused the answer: {why}");
    Some(
        late.stuck(Cause::AnswerRefused, Certainty::Likely, &says)
            .because(evidence),
    )
}

/// Whether another thread than the one that armed the tag submits to the ring.
fn foreign(late: &Late<'_>, ring: &Ring) -> Option<Draft> {
    let armer = late.armer()?;
    let other = ring.submitters.iter().find(|tid| **tid != armer.tid)?;
    let says = format!(
        "was answered by another thread than the one that fetched it, {}: the driver takes answers from that one alone",
        thread(armer)
    );
    let draft = late.stuck(Cause::ForeignThread, Certainty::Likely, &says);
    Some(draft.because(format!("thread {other} submits to the ring too")))
}

/// An answer for another tag, which does not wait for one, was refused while this one waits.
fn misdirected(late: &Late<'_>) -> Option<Draft> {
    let mine = (late.queue.id, late.tag.tag);
    let wrong = commands(late.device)
        .filter(|(_, submission, command)| submission.taken && command.is_commit())
        .filter(|(_, _, command)| (command.queue, command.tag) != mine)
        .filter(|(_, _, command)| !is_late(late.device, command))
        .find_map(|(ring, submission, command)| {
            let completion = ring.completion_of(submission)?;
            completion
                .is_refusal()
                .then_some((command, completion.result))
        });
    let (command, result) = wrong?;
    let says = format!(
        "was never answered, while an answer for queue {} tag {}, which waits for none, was refused: most likely it was meant for this one",
        command.queue, command.tag
    );
    Some(
        late.stuck(Cause::AnswerMisdirected, Certainty::Likely, &says)
            .because(format!(
                "{} was refused with {}",
                words(&command),
                errno(result)
            )),
    )
}

/// Whether the tag that a command names has a request that is late: then the command was meant for that one.
fn is_late(device: &DeviceCase<'_>, command: &IoCommand) -> bool {
    device.late().iter().any(|late| {
        (late.queue.id, late.tag.tag) == (command.queue, command.tag)
            && late.place == Some(Place::WithServer)
    })
}

/// `COMMIT_AND_FETCH_REQ for queue 0 tag 3, result 4096, address 0x7f00…`.
pub(super) fn words(command: &IoCommand) -> String {
    let name = match command.number() {
        0x20 => "FETCH_REQ",
        0x21 => "COMMIT_AND_FETCH_REQ",
        0x22 => "NEED_GET_DATA",
        _ => "a command",
    };
    format!(
        "{name} ({:#010x}) for queue {} tag {}, result {}, address {:#x}",
        command.op, command.queue, command.tag, command.result, command.address
    )
}

/// An answer whose result is too small: the driver sends the rest again, and again.
pub(super) fn wrong_result(late: &Late<'_>) -> Option<Draft> {
    let bytes = late.request.bytes.filter(|bytes| *bytes > 0)?;
    let answer = late.answered_between()?;
    let result = u64::try_from(answer.result)
        .ok()
        .filter(|result| *result < bytes)?;
    let what = if result > 0 && result * 512 == bytes {
        format!("{result}, which is its length in sectors")
    } else {
        result.to_string()
    };
    let says = format!(
        "is answered again and again with too few bytes ({what}): the driver delivers the rest anew each time"
    );
    Some(
        late.stuck(Cause::WrongResult, Certainty::Certain, &says)
            .because(format!(
                "between the looks the kernel took {}, and the request is there in both",
                words(&answer)
            )),
    )
}

/// What is wrong with how a server reads or answers, whether or not a request is late.
pub(super) fn structural(device: &DeviceCase<'_>) -> Vec<Draft> {
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

/// Whether the kernel's log speaks of requests of this disk that failed. Who made a ring counts among its submitters for
/// ever, also when he hands it to another thread and fetches nothing.
fn has_failed_requests(device: &DeviceCase<'_>) -> bool {
    let disk = format!("dev {},", device.now.id.disk_name());
    let log = &device.case.now.host.log;
    log.iter()
        .any(|line| line.contains("I/O error") && line.contains(&disk))
}

/// Up to 6.15 a queue has one server thread: the one that sent the last fetch. The tags that others fetched fail.
fn fetched_by_several(device: &DeviceCase<'_>) -> Option<Draft> {
    let one_for_all = device
        .case
        .now
        .host
        .series()
        .is_some_and(|series| series < (6, 16));
    if !one_for_all || device.now.block.is_none() || !has_failed_requests(device) {
        return None;
    }
    let (queue, others) = device.now.queues.iter().find_map(|queue| {
        let armer = queue.armers.first()?;
        let mut tids: Vec<_> = device
            .rings_of(queue.id)
            // There the kernel's thread submits, whoever made the ring.
            .filter(|ring| !ring.has(Ring::SETUP_SQPOLL))
            .flat_map(|ring| ring.submitters.iter().copied())
            .filter(|tid| *tid != armer.tid)
            .collect();
        tids.sort_unstable();
        tids.dedup();
        (!tids.is_empty()).then_some((queue, tids))
    })?;
    let armer = queue.armers.first()?;
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let says = format!(
        "queue {} was fetched by several threads: this kernel serves it through {} alone, and fails the requests of tags that another thread fetched",
        queue.id,
        thread(armer)
    );
    Some(
        Draft::new(
            Cause::ForeignThread,
            Health::Warning,
            Certainty::Likely,
            says,
        )
        .device(device.now.id)
        .queue(queue.id)
        .because(format!(
            "its tags wait in rings that thread {} submits to as well",
            others.join(", ")
        )),
    )
}
