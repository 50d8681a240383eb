//! Requests that the server has and does not answer.

use crate::facts::{Place, Ring, Task};
use crate::finding::{Cause, Certainty};

use super::doing::{Doing, sleeps_in, thread};
use super::draft::Draft;
use super::history::History;
use super::late::Late;

/// Why the server does not answer; none when it does not have the request.
pub(super) fn cause(late: &Late<'_>) -> Option<Draft> {
    if !late.is_with_server() {
        return None;
    }
    Some(
        swallowed(late)
            .or_else(|| overflow(late))
            .unwrap_or_else(|| handler(late)),
    )
}

/// What is left when nothing fits.
pub(super) fn unexplained(late: &Late<'_>) -> Draft {
    let says = "does not end, and what could be seen does not say why";
    let doing = late
        .task()
        .zip(late.armer())
        .map(|(task, armer)| format!("{} of its server {}", thread(armer), sleeps_in(task)));
    late.slow(Cause::Unexplained, Certainty::Possible, says)
        .because_all(doing)
}

/// The server asked for no completion, and so the request never came.
fn swallowed(late: &Late<'_>) -> Option<Draft> {
    if !late.history().is_silent() {
        return None;
    }
    let says = "was delivered without a word: the server's own command asked for no completion, so that it cannot know";
    Some(
        late.stuck(Cause::CompletionSwallowed, Certainty::Certain, says)
            .because("the command that the driver ended for it carries IOSQE_CQE_SKIP_SUCCESS"),
    )
}

fn overflow(late: &Late<'_>) -> Option<Draft> {
    let ring = late.ring()?;
    let before = late.device.ring_before(ring)?;
    let lost = ring.dropped > 0 || (ring.overflowed > 0 && before.overflowed > 0);
    if !lost || (ring.overflowed > 0 && is_in_queue(late)) {
        return None;
    }
    let says = "was delivered, and its completion found no room in the server's completion queue";
    Some(
        late.stuck(Cause::CqOverflow, Certainty::Likely, says).because(format!(
            "the completion queue has {} entries, {} of them not reaped; {} completions wait outside of it, {} were lost",
            ring.cq_entries,
            ring.unreaped(),
            ring.overflowed,
            ring.dropped
        )),
    )
}

fn is_in_queue(late: &Late<'_>) -> bool {
    late.history().delivery().is_some_and(|(ring, completion)| {
        !completion.reaped && ring.cq_tail.wrapping_sub(completion.position) <= ring.unreaped()
    })
}

/// Whether the completion was posted, and is not reaped in both looks.
pub(super) fn is_posted(late: &Late<'_>) -> bool {
    let history = late.history();
    let Some((ring, completion)) = history.delivery() else {
        return late.ring().is_some_and(|ring| {
            // Without the past: nothing was reaped, so this was not either.
            ring.cq_head == 0 && ring.cq_tail > 0
                || reaps_nothing(late, ring) && is_among_unreaped(late, ring)
        });
    };
    !completion.reaped && completion.result >= 0 && reaps_nothing(late, ring)
}

/// Whether nothing was reaped between the two looks.
fn reaps_nothing(late: &Late<'_>, ring: &Ring) -> bool {
    late.device
        .ring_before(ring)
        .is_some_and(|before| before.cq_head == ring.cq_head)
}

/// Whether a request, whose command the ring's memory no longer has, can only be one of those not reaped:
/// there are as many of them as such requests, those left out that are known to be others'.
fn is_among_unreaped(late: &Late<'_>, ring: &Ring) -> bool {
    let delivered = ring
        .completions
        .iter()
        .filter(|completion| !completion.reaped && completion.result >= 0);
    let held: Vec<History<'_>> = late
        .device
        .now
        .queues
        .iter()
        // A queue of which no tag is armed is not among those that the ring serves.
        .filter(|queue| {
            queue.id == late.queue.id || ring.serves.contains(&(late.device.now.id, queue.id))
        })
        .flat_map(|queue| queue.tags.iter().map(move |tag| (queue.id, tag)))
        .filter(|(_, tag)| tag.place == Some(Place::WithServer))
        .map(|(queue, tag)| History::of(late.device, queue, tag.tag))
        .collect();
    let known = held
        .iter()
        .filter_map(|history| history.delivery())
        .filter(|(_, completion)| !completion.reaped)
        .count();
    let unknown = held
        .iter()
        .filter(|history| history.delivery().is_none())
        .count();
    delivered.count().saturating_sub(known) >= unknown
}

/// What the thread that should answer does instead.
fn handler(late: &Late<'_>) -> Draft {
    let posted = is_posted(late);
    let others_held = posted && late.is_behind_another();
    let answers = late.history().untaken_answer().is_some();
    let reaps = !posted && late.ring().is_some_and(|ring| late.device.is_reaped(ring));
    match (late.armer(), late.doing()) {
        (Some(armer), doing) if reaps && !answers && doing != Doing::Gone => {
            goes_on_with_others(late, &thread(armer)).because_all(ring_line(late))
        }
        // An answer is on its way, of a thread that comes to its ring.
        (_, doing) if answers && (reaps || doing == Doing::WaitsForRing) => {
            unexplained(late).because_all(ring_line(late))
        }
        (Some(armer), doing) if doing != Doing::Unknown => {
            let reaped = if answers {
                "its answer is written, and its thread has not come to give it to the kernel"
            } else if posted && !others_held {
                "its completion is posted, and was not reaped"
            } else if posted {
                "its completion is posted and not reaped, behind another request that the server has"
            } else {
                "was reaped by its server, and never answered"
            };
            let draft = by_doing(late, &doing, &thread(armer), reaped, posted && !others_held);
            draft.because_all(ring_line(late))
        }
        _ => late
            .slow(
                Cause::Unexplained,
                Certainty::Possible,
                "is with its server; which of its threads has it could not be seen",
            )
            .because_all(ring_line(late))
            .because_all(late.device.server_lines()),
    }
}

/// A request that waits for the thread, which is busy with another one.
pub(super) fn behind(late: &Late<'_>) -> Option<Draft> {
    if late.doing() == Doing::Unknown {
        return None;
    }
    let who = thread(late.armer()?);
    let reaped = "waits behind another request that the server has";
    let draft = by_doing(late, &late.doing(), &who, reaped, false);
    Some(draft.because_all(ring_line(late)))
}

/// The thread has reaped other completions meanwhile: it does not sit in this request's handler.
fn goes_on_with_others(late: &Late<'_>, who: &str) -> Draft {
    let says = format!(
        "was reaped by its server, and never answered: its {who} goes on with other requests"
    );
    late.slow(Cause::Forgotten, Certainty::Possible, &says)
        .because_all(working_threads(late))
}

fn by_doing(late: &Late<'_>, doing: &Doing, who: &str, reaped: &str, only_posted: bool) -> Draft {
    let task = late.task();
    let sleeps = task.map(sleeps_in).unwrap_or_default();
    let does = if *doing == Doing::Spins {
        "runs"
    } else {
        &sleeps
    };
    match doing {
        Doing::Gone => late
            .stuck(
                Cause::ArmerGone,
                late.outlived(),
                &format!("{reaped}; its {who} has ended, and no other may answer"),
            )
            .because(format!(
                "{who} armed the tag, and is gone; its process lives"
            )),
        _ if only_posted && *doing != Doing::Uninterruptible => late.stuck(
            Cause::NotReaped,
            Certainty::Likely,
            &format!("{reaped}: its {who} {does}"),
        ),
        Doing::Spins => late
            .slow(
                Cause::HandlerSpins,
                Certainty::Likely,
                &format!("{reaped}; its {who} runs all the time"),
            )
            .because(ticks(task)),
        Doing::Locked => late.slow(
            Cause::HandlerLocked,
            Certainty::Likely,
            &format!("{reaped}; its {who} {sleeps}, in its own handler: it waits for a lock"),
        ),
        Doing::Timer => late.slow(
            Cause::SlowMedium,
            Certainty::Likely,
            &format!(
                "{}; its {who} {sleeps}, on a timer: it will go on by itself",
                not_yet(reaped)
            ),
        ),
        Doing::Uninterruptible if task.is_some_and(waits_for_child) => late.stuck(
            Cause::ArmerUninterruptible,
            Certainty::Certain,
            &format!("{reaped}; its {who} {sleeps} where nothing reaches it (state D)"),
        ),
        Doing::Uninterruptible => late.slow(
            Cause::SlowMedium,
            Certainty::Likely,
            &format!(
                "{reaped}; its {who} {sleeps}: it waits for what the server stores on (state D)"
            ),
        ),
        Doing::WaitsForRing => back_in_wait(late, who, reaped),
        _ => late.slow(
            Cause::HandlerBlocked,
            Certainty::Likely,
            &format!("{reaped}; its {who} {sleeps}"),
        ),
    }
}

/// What may still come is no `never`.
fn not_yet(reaped: &str) -> String {
    format!("{} yet", reaped.replace("never", "not"))
}

fn ticks(task: Option<&Task>) -> String {
    let used = task.and_then(|task| task.cpu_ticks).unwrap_or_default();
    format!(
        "it is runnable in both looks, used processor time between them ({used} ticks in all), and never gave it up"
    )
}

/// The thread waits for completions: either something else in the ring is to answer, or nothing will.
fn back_in_wait(late: &Late<'_>, who: &str, reaped: &str) -> Draft {
    let operations = late.ring().and_then(|ring| other_operations(late, ring));
    if let Some(count @ 1..) = operations {
        let says = format!(
            "{}; the server's ring has {count} other operations under way, and its {who} waits for them",
            not_yet(reaped)
        );
        return late.slow(Cause::SlowMedium, Certainty::Likely, &says);
    }
    let others = working_threads(late);
    let says = format!("{reaped}: its {who} is back waiting for requests");
    let certainty = if others.is_empty() {
        Certainty::Likely
    } else {
        Certainty::Possible
    };
    late.slow(Cause::Forgotten, certainty, &says)
        .because_all(others)
}

/// Operations of a ring that are not armed tags. Counts only what every operation does: one submission, one completion.
fn other_operations(late: &Late<'_>, ring: &Ring) -> Option<u32> {
    let armed: u32 = late
        .device
        .now
        .queues
        .iter()
        .filter(|queue| ring.serves.contains(&(late.device.now.id, queue.id)))
        .map(|queue| armed_tags(late, queue))
        .sum();
    let pending = ring.sq_head.wrapping_sub(ring.cq_tail);
    let only_ours = ring
        .serves
        .iter()
        .all(|(device, _)| *device == late.device.now.id);
    (only_ours && pending <= ring.sq_entries.saturating_add(ring.cq_entries))
        .then(|| pending.saturating_sub(armed))
}

fn armed_tags(late: &Late<'_>, queue: &crate::facts::Queue) -> u32 {
    let depth = u32::from(late.device.now.depth.unwrap_or_default());
    let not_armed = queue
        .tags
        .iter()
        .filter(|tag| tag.place != Some(Place::Armed))
        .count();
    depth.saturating_sub(u32::try_from(not_armed).unwrap_or(u32::MAX))
}

/// Other threads of the server that work on something, and so may have the request. Those that wait for a lock, a message or a
/// child do not count: an idle pool looks like that.
fn working_threads(late: &Late<'_>) -> Vec<String> {
    const MAX: usize = 4;
    let Some(armer) = late.armer() else {
        return Vec::new();
    };
    let case = late.device.case;
    let armers = &late.queue.armers;
    case.now
        .threads(armer.pid)
        .filter(|task| !task.kernel && armers.iter().all(|armer| armer.tid != task.tid))
        .filter(|task| match case.doing(task.tid) {
            Doing::Spins | Doing::Uninterruptible | Doing::Timer => true,
            Doing::Waits => is_io(task),
            _ => false,
        })
        .take(MAX)
        .map(|task| {
            format!(
                "another thread of the server may have it: {} ({}) {}",
                task.tid,
                task.comm,
                sleeps_in(task)
            )
        })
        .collect()
}

/// Whether a thread in D is in vfork: it waits for a child, and not for what the server stores on.
fn waits_for_child(task: &Task) -> bool {
    const FORKS: &[&str] = &["vfork", "clone", "clone3"];
    let call = task.syscall.as_ref().and_then(|call| call.name.as_deref());
    call.is_some_and(|name| FORKS.contains(&name))
}

/// Whether a thread is in a system call that reads or writes what a server may store on.
fn is_io(task: &Task) -> bool {
    const IO: &[&str] = &[
        "read",
        "write",
        "pread64",
        "pwrite64",
        "readv",
        "writev",
        "preadv",
        "pwritev",
        "preadv2",
        "pwritev2",
        "fsync",
        "fdatasync",
        "fallocate",
        "sync_file_range",
    ];
    let call = task.syscall.as_ref().and_then(|call| call.name.as_deref());
    call.is_some_and(|name| IO.contains(&name))
}

fn ring_line(late: &Late<'_>) -> Option<String> {
    let ring = late.ring()?;
    Some(format!(
        "its ring: {} completions posted, {} reaped; {} submissions written, {} taken",
        ring.cq_tail, ring.cq_head, ring.sq_tail, ring.sq_head
    ))
}
