//! Answers that were not sent, were refused, or are wrong.

use crate::facts::{IoCommand, Place, Ring};
use crate::finding::{Cause, Certainty};

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
        .filter_map(|(ring, submission, command)| Some((command, ring.refusal_of(submission)?)))
        .find(|(command, _)| !is_late(late.device, command));
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
