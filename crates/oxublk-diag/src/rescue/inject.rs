//! Answers requests in the thread that has them.
//!
//! The driver takes the answer to a request from the thread that fetched its tag, and from no other. So that thread
//! is stopped, and made to submit the answers itself, on a ring of our own: the server's rings are as they were.
//! All of it is done by a thread of ours, whose end lets the server's thread go whatever happens.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use oxublk::{DeviceId, QueueId, Tag};

use crate::facts::Tid;

use super::arch::Stand;
use super::remote::{Remote, Trouble};
use super::ring::{Completion, ENTRIES, Ring};

/// For the thread to stop.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Waiting for the decision which requests to answer.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
/// After an answer, the next request of the same tag may come: a scan for partitions asks again and again.
const LINGER: Duration = Duration::from_millis(100);
/// For all requests that follow, while the thread is stopped.
const FOLLOW_LIMIT: Duration = Duration::from_secs(5);
/// The longest that [`answer`] takes after it was given its order.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

const EIO: i32 = -5;
/// The driver gave the command back: the device stops.
const ENODEV: i32 = -19;

/// What is kept of a thread from one stop to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    /// Our ring in its process.
    pub(super) ring: Option<Ring>,
    /// Tags that are armed in our ring.
    pub(super) armed: BTreeSet<(QueueId, Tag)>,
    /// Where it stood when it was stopped first.
    pub(super) stand: Option<Stand>,
}

/// Which thread, and how it reaches the driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) device: DeviceId,
    pub(super) tid: Tid,
    /// Its descriptor of `/dev/ublkcN`.
    pub(super) fd: i32,
}

/// A request to be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) queue: QueueId,
    pub(super) tag: Tag,
    /// The buffer's address that goes with the answer.
    pub(super) address: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) hold: Hold,
    /// Answers that the driver took.
    pub(super) taken: Vec<(QueueId, Tag)>,
    /// Answers that it took to requests which came after them on the same tags.
    pub(super) later: Vec<(QueueId, Tag)>,
    /// Answers that it refused, and the errno.
    pub(super) refused: Vec<(QueueId, Tag, i32)>,
    /// What went wrong.
    pub(super) trouble: Option<Trouble>,
}

/// Stops the thread, says so, waits for the order what to answer, and does it.
pub(super) fn answer(
    place: Place,
    hold: Hold,
    stopped: &Sender<Stand>,
    orders: &Receiver<Vec<Answer>>,
) -> Done {
    let mut done = Done {
        hold,
        ..Done::default()
    };
    let mut remote = match Remote::stop(place.tid, STOP_LIMIT) {
        Ok(remote) => remote,
        Err(trouble) => {
            done.trouble = Some(trouble);
            return done;
        }
    };
    done.hold.stand.get_or_insert(remote.stand());
    let order = match stopped.send(remote.stand()) {
        Ok(()) => orders.recv_timeout(ORDER_LIMIT).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let answered = if order.is_empty() {
        Ok(())
    } else {
        answer_in(&mut remote, place, &order, &mut done)
    };
    let back = remote.release();
    done.trouble = answered.and(back).err();
    done
}

fn answer_in(
    remote: &mut Remote,
    place: Place,
    order: &[Answer],
    done: &mut Done,
) -> Result<(), Trouble> {
    check_descriptor(place)?;
    let mut ring = match done.hold.ring.take() {
        Some(ring) => ring,
        None => Ring::make(remote)?,
    };
    let end = Instant::now() + FOLLOW_LIMIT;
    // Requests that came to our ring since the last stop: whoever gave the order has seen them.
    let mut outcome = ring.reap(remote).map(drop);
    for batch in order.chunks(usize::try_from(ENTRIES).unwrap_or(1)) {
        if outcome.is_ok() {
            outcome = submit(remote, place, &mut ring, batch, end, done);
        }
    }
    if done.hold.armed.is_empty() && outcome.is_ok() {
        ring.unmake(remote);
    } else {
        done.hold.ring = Some(ring);
    }
    outcome
}

/// Answers a batch, then each request that follows on the same tags.
fn submit(
    remote: &mut Remote,
    place: Place,
    ring: &mut Ring,
    batch: &[Answer],
    end: Instant,
    done: &mut Done,
) -> Result<(), Trouble> {
    let mut pending = batch.to_vec();
    let mut first = true;
    loop {
        for answer in &pending {
            let slot = (answer.queue, answer.tag);
            ring.push(remote, place.fd, slot, EIO, answer.address)?;
            done.hold.armed.insert(slot);
        }
        let count = u32::try_from(pending.len()).unwrap_or(ENTRIES);
        ring.enter(remote, count, Duration::ZERO)?;
        let mut came = ring.reap(remote)?;
        if came.is_empty() && Instant::now() < end {
            ring.enter(remote, 0, LINGER)?;
            came = ring.reap(remote)?;
        }
        for answer in &pending {
            let slot = (answer.queue, answer.tag);
            match errno(&came, slot) {
                Some(errno) => {
                    done.hold.armed.remove(&slot);
                    done.refused.push((answer.queue, answer.tag, errno));
                }
                None if first => done.taken.push(slot),
                None => done.later.push(slot),
            }
        }
        first = false;
        let mut next = Vec::new();
        for completion in &came {
            let slot = (completion.queue, completion.tag);
            match completion.result {
                0 => next.extend(
                    batch
                        .iter()
                        .find(|answer| (answer.queue, answer.tag) == slot),
                ),
                ENODEV => drop(done.hold.armed.remove(&slot)),
                _ => {}
            }
        }
        if next.is_empty() || Instant::now() >= end {
            return Ok(());
        }
        pending = next;
    }
}

/// Why the driver refused the answer for a tag, if it did.
fn errno(came: &[Completion], slot: (QueueId, Tag)) -> Option<i32> {
    came.iter()
        .filter(|completion| (completion.queue, completion.tag) == slot)
        .map(|completion| completion.result)
        .find(|result| *result < 0 && *result != ENODEV)
        .map(|result| -result)
}

/// What was the device when it was looked at must be it still.
fn check_descriptor(place: Place) -> Result<(), Trouble> {
    let path = format!("/proc/{}/fd/{}", place.tid, place.fd);
    let target = fs::read_link(&path).unwrap_or_default();
    let target = target.to_string_lossy();
    let name = format!("/ublkc{}", place.device);
    if target.trim_end_matches(" (deleted)").ends_with(&name) {
        return Ok(());
    }
    Err(Trouble::Other(format!(
        "descriptor {} of the server is no longer /dev{name}",
        place.fd
    )))
}
