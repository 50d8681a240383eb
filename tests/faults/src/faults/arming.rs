//! Faults while the tags are armed: the device never gets ready.

use std::io;
use std::thread;
use std::time::Duration;

use zerocopy::IntoBytes as _;

use super::{Fault, fault};
use crate::plan::Plan;
use crate::ring::{Entry, enter, entry, setup, shown};
use crate::server::{self, Command, Queue};

/// The tag that `skip-tag` forgets.
const SKIPPED: u16 = 3;

const NO_TAGS: &str = "START_DEV waits for tags that the driver never saw armed";

pub(super) const FAULTS: &[Fault] = &[
    fault("skip-tag", "never fetches tag 3", |plan| {
        plan.never_ready = Some("START_DEV waits for tag 3 of queue 0");
        plan.arm = |queue| {
            for tag in (0..queue.depth()).filter(|tag| *tag != SKIPPED) {
                queue.fetch(tag)?;
            }
            queue.ring.submit()
        };
    }),
    fault(
        "skip-queue",
        "never fetches a tag of the last queue",
        |plan| {
            plan.queues = 2;
            plan.never_ready = Some("START_DEV waits for the last queue");
            plan.arm = |queue| {
                if queue.id + 1 == queue.device.info.nr_hw_queues {
                    return Ok(());
                }
                server::arm(queue)
            };
        },
    ),
    fault(
        "fetch-after-start",
        "fetches when START_DEV has returned",
        |plan| {
            plan.start_first = true;
            plan.never_ready = Some("START_DEV waits for the tags, which wait for START_DEV");
            plan.arm = |queue| {
                queue.device.wait_started();
                server::arm(queue)
            };
        },
    ),
    fault(
        "wrong-opcode",
        "numbers its commands with another type byte",
        |plan| {
            refused(plan, |queue, command| {
                let op = command.op & !0xff00 | u32::from(b'v') << 8;
                server::encode(queue, &Command { op, ..*command })
            });
        },
    ),
    fault(
        "payload-at-64",
        "puts the command at byte 64 of entries of 128",
        |plan| {
            plan.ring.flags = setup::SQE128;
            refused(plan, |queue, command| {
                let mut entry = without_payload(queue, command);
                entry.put(64, server::payload(command).as_bytes());
                entry
            });
        },
    ),
    fault(
        "payload-by-pointer",
        "puts the command's address into the entry",
        |plan| {
            refused(plan, |queue, command| {
                let mut entry = without_payload(queue, command);
                let payload = Box::leak(Box::new(server::payload(command)));
                let address = std::ptr::from_ref(payload) as u64;
                entry.put(Entry::ADDR, &address.to_ne_bytes());
                entry
            });
        },
    ),
    fault(
        "sqe-stride",
        "writes entries of 64 bytes into a ring of 128",
        |plan| {
            plan.ring.flags = setup::SQE128;
            plan.never_ready = Some(NO_TAGS);
            plan.arm = |queue| {
                for tag in 0..queue.depth() {
                    let command = queue.command(oxublk_sys::io_op::FETCH_REQ, tag, 0);
                    queue.ring.write_as(&server::encode(queue, &command), 64)?;
                }
                queue.ring.submit()
            };
        },
    ),
    fault("fetch-no-address", "fetches without a buffer", |plan| {
        refused(plan, |queue, command| {
            server::encode(
                queue,
                &Command {
                    address: 0,
                    ..*command
                },
            )
        });
    }),
    fault(
        "fetch-linked",
        "links the fetches: the second waits for the first",
        |plan| {
            refused(plan, |queue, command| {
                flagged(queue, command, entry::IO_LINK)
            });
        },
    ),
    fault(
        "fetch-drained",
        "drains before each fetch: the second waits for the first",
        |plan| {
            refused(plan, |queue, command| {
                flagged(queue, command, entry::IO_DRAIN)
            });
        },
    ),
    fault(
        "fetch-not-submitted",
        "writes the fetches and gives them to nobody",
        |plan| {
            plan.never_ready = Some(NO_TAGS);
            plan.arm = fetch_all;
            plan.wait = |queue| queue.ring.enter(false, 1, enter::GETEVENTS);
        },
    ),
    fault(
        "sqpoll-asleep",
        "a polled ring whose thread sleeps and is not woken",
        |plan| {
            plan.never_ready = Some(NO_TAGS);
            plan.ring.flags = setup::SQPOLL;
            plan.ring.idle_ms = 1;
            plan.arm = |queue| {
                while queue.ring.shown() & shown::NEED_WAKEUP == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                fetch_all(queue)
            };
            plan.wait = |queue| queue.ring.enter(false, 1, enter::GETEVENTS);
        },
    ),
];

/// All commands are laid out like this, and no tag gets armed.
fn refused(plan: &mut Plan, encode: fn(&Queue, &Command) -> Entry) {
    plan.never_ready = Some(NO_TAGS);
    plan.encode = encode;
}

fn fetch_all(queue: &Queue) -> io::Result<()> {
    (0..queue.depth()).try_for_each(|tag| queue.fetch(tag))
}

fn without_payload(queue: &Queue, command: &Command) -> Entry {
    let mut entry = server::encode(queue, command);
    entry.put(Entry::COMMAND, &[0; 16]);
    entry
}

fn flagged(queue: &Queue, command: &Command, flags: u8) -> Entry {
    server::encode(queue, &Command { flags, ..*command })
}
