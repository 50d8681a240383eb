//! Requests that do not reach the server.

use crate::facts::{Place, Ring, TaskState};
use crate::finding::{Cause, Certainty};

use super::doing::{Doing, does, sleeps_in, thread};
use super::draft::Draft;
use super::late::Late;

/// Why a request does not reach the server; none when it has.
pub(super) fn cause(late: &Late<'_>) -> Option<Draft> {
    if let Some(draft) = own_device(late) {
        return Some(draft);
    }
    if late.doing() == Doing::Stopped {
        return Some(stopped(late));
    }
    let with_server = late.is_with_server();
    // Up to 7.2 a read whose data cannot be copied comes back to the server.
    let comes_back = !with_server || late.answered_between().is_some();
    if let Some(draft) = bad_buffer(late).filter(|_| comes_back) {
        return Some(draft);
    }
    if with_server {
        return None;
    }
    if late.place != Some(Place::Armed) {
        return None;
    }
    match late.doing() {
        Doing::Gone => armer_gone(late),
        // It waits for what that one waits for.
        doing if late.is_behind_another() && doing != Doing::WaitsForRing => {
            super::serving::behind(late)
        }
        Doing::Uninterruptible => Some(uninterruptible(late)),
        _ => deferred(late),
    }
}

/// The server's thread waits for the disk that it serves.
fn own_device(late: &Late<'_>) -> Option<Draft> {
    let waiters = late.device.waiters();
    let armer = late.armer()?;
    let waiter = waiters.iter().find(|waiter| waiter.tid == armer.tid)?;
    let says = format!(
        "cannot be answered: its server's {} waits for the same disk, in {}",
        thread(armer),
        waiter.what
    );
    let draft = late.stuck(Cause::OwnDevice, Certainty::Certain, &says);
    Some(draft.first("kill -9 of the server ends it: the driver then fails what it holds"))
}

fn stopped(late: &Late<'_>) -> Draft {
    let Some(task) = late.task() else {
        return late.stuck(
            Cause::ServerStopped,
            Certainty::Likely,
            "its server is stopped",
        );
    };
    let by = match (task.state, task.tracer) {
        (TaskState::Traced, Some(pid)) => format!("a debugger (pid {pid})"),
        (_, Some(pid)) => format!("a signal, and traced by pid {pid}"),
        _ => "a signal".to_owned(),
    };
    let says = format!("waits for a server that is stopped by {by}");
    late.stuck(Cause::ServerStopped, Certainty::Certain, &says)
        .because(format!(
            "thread {} ({}) of process {} is in state T",
            task.tid, task.comm, task.pid
        ))
        .first(format!("kill -CONT {}", task.pid))
}

/// The driver copies the data of a write before the server hears of it.
fn bad_buffer(late: &Late<'_>) -> Option<Draft> {
    let buffer = late.tag.buffer?;
    let fault = match (buffer.mapped, buffer.writable) {
        (Some(false), _) => "is not mapped in the server",
        (_, Some(false)) => "is not writable in the server",
        _ => return None,
    };
    let says = format!(
        "does not reach its server: the buffer at {:#x} that the server gave for this tag {fault}; the driver fails to copy the data there and tries again for ever",
        buffer.address
    );
    let draft = late.stuck(Cause::BadBuffer, Certainty::Certain, &says);
    Some(draft.because(format!(
        "{} requests of this queue rest on the list of those to be sent again",
        late.queue.requeued
    )))
}

/// The thread is gone; its process lives, or the driver would have been told.
fn armer_gone(late: &Late<'_>) -> Option<Draft> {
    let armer = late.armer()?;
    let says = format!(
        "was handed to {}, which has ended; its process lives, so that the driver was not told",
        thread(armer)
    );
    let draft = late.stuck(Cause::ArmerGone, late.outlived(), &says);
    Some(draft.because(format!(
        "thread {} is not in /proc/{}/task",
        armer.tid, armer.pid
    )))
}

fn uninterruptible(late: &Late<'_>) -> Draft {
    let doing = late.task().map(sleeps_in).unwrap_or_default();
    let who = late.armer().map(thread).unwrap_or_default();
    let says = format!("was handed to {who}, which {doing} where nothing reaches it (state D)");
    late.stuck(Cause::ArmerUninterruptible, Certainty::Certain, &says)
}

/// A thread that sleeps in the kernel or runs gets its task work, unless its ring defers it.
fn deferred(late: &Late<'_>) -> Option<Draft> {
    let ring = late.ring();
    let defers = ring.is_some_and(|ring| ring.has(Ring::SETUP_DEFER_TASKRUN));
    let pending = ring.and_then(|ring| ring.deferred_work);
    let known = ring.is_some_and(|ring| ring.setup_flags.is_some());
    // Where the kernel delivers, the owner enters.
    let enters = ring.is_some_and(|ring| late.device.is_posted_to(ring));
    if (known && !defers) || pending == Some(false) || enters {
        return None;
    }
    let who = late.armer().map_or_else(|| "its thread".to_owned(), thread);
    let doing = late.task().map_or_else(
        || "is elsewhere".to_owned(),
        |task| does(&late.doing(), task),
    );
    let says = format!(
        "was handed to {who}, whose ring defers task work until its owner enters the kernel for completions; it {doing} instead"
    );
    // A thread that was not seen may be where nothing reaches it.
    let certainty = if known && late.doing() != Doing::Unknown {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let draft = late.stuck(Cause::DeferredNotEntered, certainty, &says);
    Some(if known {
        draft.because(
            "the ring was made with IORING_SETUP_DEFER_TASKRUN, and has work pending in both looks",
        )
    } else {
        draft.because("the request was not delivered, and the thread is neither stopped, gone nor in state D: only a ring that defers task work does that")
    })
}
