//! Servers that do nothing wrong, each in another way.

use std::io;
use std::sync::atomic::{Ordering, fence};

use oxublk_sys::Features;

use super::{Fault, fault};
use crate::ring::{enter, setup, shown};
use crate::server::{self, Queue};

pub(super) const FAULTS: &[Fault] = &[
    fault("healthy", "does nothing wrong", |_| {}),
    fault(
        "healthy-deferred",
        "a ring with deferred task work, entered as it must be",
        |plan| plan.ring.flags = setup::SINGLE_ISSUER | setup::DEFER_TASKRUN,
    ),
    fault(
        "healthy-user-copy",
        "moves the data itself through /dev/ublkcN",
        |plan| plan.features = Features::USER_COPY,
    ),
    fault(
        "healthy-legacy-opcodes",
        "numbers its commands as servers did before 6.4",
        |plan| plan.legacy = true,
    ),
    fault(
        "healthy-sqpoll",
        "a polled ring whose thread is woken when it sleeps",
        |plan| {
            plan.ring.flags = setup::SQPOLL;
            plan.ring.idle_ms = 10;
            plan.arm = arm_polled;
            plan.wait = wait_polled;
        },
    ),
    fault(
        "healthy-busy-poll",
        "spins on the completion queue, and lets the kernel post to it",
        |plan| {
            plan.ring.flags = setup::SINGLE_ISSUER | setup::DEFER_TASKRUN;
            plan.wait = |queue| queue.ring.enter(true, 0, enter::GETEVENTS);
        },
    ),
    fault(
        "healthy-unprivileged",
        "makes an unprivileged device, as a process without CAP_SYS_ADMIN",
        |plan| {
            plan.features = Features::UNPRIVILEGED_DEV;
            plan.unprivileged = true;
        },
    ),
];

fn wake(queue: &Queue) -> u32 {
    // What was written must be seen before the flag is read: the thread looks the other way round.
    fence(Ordering::SeqCst);
    if queue.ring.shown() & shown::NEED_WAKEUP == 0 {
        0
    } else {
        enter::SQ_WAKEUP
    }
}

fn arm_polled(queue: &Queue) -> io::Result<()> {
    for tag in 0..queue.depth() {
        queue.fetch(tag)?;
    }
    queue.ring.enter(true, 0, wake(queue))
}

fn wait_polled(queue: &Queue) -> io::Result<()> {
    if wake(queue) == 0 {
        return server::wait(queue);
    }
    queue
        .ring
        .enter(true, 1, enter::GETEVENTS | enter::SQ_WAKEUP)
}
