//! Faults on the way from the server to the driver: answers that are not given, refused, or wrong.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use oxublk_sys::{SECTOR_SIZE, io_op};

use super::{Fault, fault};
use crate::plan::{Plan, TRIGGER_BYTE};
use crate::process;
use crate::ring::{Ring, enter, setup};
use crate::server::{self, Command, Queue, Request, say};

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "commit-not-submitted",
        "writes the answer and gives it to nobody",
        |plan| {
            plan.wait = |queue| queue.ring.enter(!queue.struck(), 1, enter::GETEVENTS);
        },
    ),
    fault(
        "foreign-thread",
        "answers from another thread than fetched",
        elsewhere,
    ),
    fault(
        "foreign-thread-single-issuer",
        "answers from another thread on a ring of one thread",
        |plan| {
            plan.ring.flags = setup::SINGLE_ISSUER;
            elsewhere(plan);
        },
    ),
    fault(
        "foreign-thread-own-ring",
        "answers from another thread through a ring of its own",
        |plan| plan.answer = answer_on_another_ring,
    ),
    fault(
        "split-fetch",
        "two threads fetch the tags of a queue, one answers",
        |plan| {
            plan.depth = 4;
            // So that the refused answers can still be read when others have come after them.
            plan.ring.entries = Some(64);
            plan.arm = split_fetch;
        },
    ),
    fault("wrong-tag", "answers with another tag", |plan| {
        misdirect(plan, |queue, command| {
            command.tag = (command.tag + 1) % queue.depth()
        });
    }),
    fault("wrong-queue", "answers with another queue", |plan| {
        plan.queues = 2;
        misdirect(plan, |queue, command| {
            command.queue = (command.queue + 1) % queue.device.info.nr_hw_queues;
        });
    }),
    fault(
        "fetch-instead-of-commit",
        "fetches again instead of answering",
        |plan| {
            misdirect(plan, |_, command| command.op = io_op::FETCH_REQ);
        },
    ),
    fault("commit-no-address", "answers without a buffer", |plan| {
        misdirect(plan, |_, command| command.address = 0);
    }),
    fault(
        "result-sectors",
        "answers with sectors instead of bytes, beyond the trigger",
        |plan| {
            results(plan, |result| result / SECTOR);
        },
    ),
    fault(
        "result-zero",
        "answers with 0, beyond the trigger",
        |plan| {
            results(plan, |_| 0);
        },
    ),
    fault(
        "result-too-big",
        "answers with twice the bytes, beyond the trigger",
        |plan| {
            results(plan, |result| result * 2);
        },
    ),
    fault(
        "descriptor-stride-32",
        "reads a descriptor every 32 bytes instead of 24",
        |plan| {
            plan.descriptor_stride = 32;
        },
    ),
    fault(
        "descriptor-queue-0",
        "maps queue 0's descriptors for all queues",
        |plan| {
            plan.queues = 2;
            plan.descriptors_of = |_| 0;
        },
    ),
];

#[allow(clippy::cast_possible_truncation, reason = "512")]
const SECTOR: i32 = SECTOR_SIZE as i32;

/// The answer to the trigger's request is changed like this.
fn misdirect(plan: &mut Plan, change: fn(&Queue, &mut Command)) {
    plan.misdirect = change;
    plan.answer = |queue, request, result| {
        let mut command = queue.commit(request, result);
        if request.strikes() {
            (queue.plan.misdirect)(queue, &mut command);
        }
        queue.write(&command)
    };
}

/// The results of requests beyond the trigger are changed like this.
fn results(plan: &mut Plan, change: fn(i32) -> i32) {
    plan.result = change;
    plan.answer = |queue, request, result| {
        let beyond = request.descriptor.start_sector >= TRIGGER_BYTE / SECTOR_SIZE;
        let result = if beyond && request.carries_data() {
            (queue.plan.result)(result)
        } else {
            result
        };
        server::answer(queue, request, result)
    };
}

/// The trigger's answer comes from another thread. This one does not give it to the kernel in passing.
fn elsewhere(plan: &mut Plan) {
    plan.answer = answer_elsewhere;
    plan.wait = |queue| queue.ring.enter(!queue.struck(), 1, enter::GETEVENTS);
}

/// The answer to the trigger's request is given by a thread of its own, which then sleeps.
fn answer_elsewhere(queue: &Queue, request: &Request, result: i32) -> io::Result<()> {
    if !request.strikes() {
        return server::answer(queue, request, result);
    }
    by_another_thread(queue.clone(), queue.commit(request, result))
}

fn answer_on_another_ring(queue: &Queue, request: &Request, result: i32) -> io::Result<()> {
    if !request.strikes() {
        return server::answer(queue, request, result);
    }
    let mut theirs = queue.clone();
    theirs.ring = Arc::new(Ring::new(&queue.plan.ring, u32::from(queue.depth()))?);
    by_another_thread(theirs, queue.commit(request, result))
}

fn by_another_thread(theirs: Queue, command: Command) -> io::Result<()> {
    thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || {
            let given = theirs.write(&command).and_then(|()| theirs.ring.submit());
            if let Err(error) = given {
                say(format_args!("an answer from another thread: {error}"));
            }
            process::park()
        })?;
    Ok(())
}

/// The first half of the tags by this thread, then the others by another, which stays.
fn split_fetch(queue: &Queue) -> io::Result<()> {
    let half = queue.depth() / 2;
    (0..half).try_for_each(|tag| queue.fetch(tag))?;
    queue.ring.submit()?;
    let (done, fetched) = mpsc::channel();
    let theirs = queue.clone();
    thread::Builder::new()
        .name("fetches".to_owned())
        .spawn(move || {
            let armed = (half..theirs.depth())
                .try_for_each(|tag| theirs.fetch(tag))
                .and_then(|()| theirs.ring.submit());
            // The receiver waits for this.
            let _ = done.send(armed);
            process::park()
        })?;
    fetched.recv().map_err(io::Error::other)?
}
