//! Faults inside the server: requests arrive, and are not seen or not finished.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Fault, fault};
use crate::plan::{Plan, TRIGGER_BYTE};
use crate::process;
use crate::ring::{entry, setup, shown};
use crate::server::{self, Command, Queue, Request};

/// How long `slow` takes for a request beyond the trigger.
const SLOW: Duration = Duration::from_secs(3);
/// Between two looks of a server that polls.
const NAP: Duration = Duration::from_millis(1);

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "not-reaped",
        "never looks at its completions again",
        |plan| {
            plan.after = |queue| {
                queue.ring.submit()?;
                process::park()
            };
        },
    ),
    fault(
        "cq-overflow",
        "a small completion queue that overflows, polled without entering the kernel",
        |plan| {
            plan.ring.flags = setup::CQSIZE;
            plan.ring.entries = Some(1);
            plan.ring.completions = 2;
            plan.arm = |queue| {
                (0..queue.depth()).try_for_each(|tag| {
                    queue.fetch(tag)?;
                    queue.ring.submit()
                })
            };
            plan.wait = |_| {
                thread::sleep(NAP);
                Ok(())
            };
            plan.answer = |queue, request, result| {
                server::answer(queue, request, result)?;
                queue.ring.submit()
            };
            plan.after = |queue| {
                while queue.ring.shown() & shown::CQ_OVERFLOW == 0 {
                    thread::sleep(NAP);
                }
                Ok(std::ops::ControlFlow::Continue(()))
            };
        },
    ),
    fault(
        "cqe-skip",
        "suppresses the completions of its fetches, from the scan on",
        |plan| {
            plan.encode = |queue, command| {
                let flags = entry::CQE_SKIP_SUCCESS;
                server::encode(queue, &Command { flags, ..*command })
            };
        },
    ),
    fault("deadlock", "locks a lock twice, from the scan on", |plan| {
        plan.handle = |_, _| lock_twice();
    }),
    fault("locked", "locks a lock twice, at the trigger", |plan| {
        at_trigger(plan, |_, _| lock_twice());
    }),
    fault("spin", "spins", |plan| {
        at_trigger(plan, |_, _| {
            loop {
                std::hint::spin_loop();
            }
        });
    }),
    fault("blocked-pipe", "reads a pipe that never speaks", |plan| {
        at_trigger(plan, |_, request| {
            let (reader, _writer) = rustix::pipe::pipe()?;
            rustix::io::read(&reader, &mut [0; 1])?;
            Ok(Some(request.all()))
        });
    }),
    fault(
        "forgotten",
        "drops the request and waits for the next",
        |plan| {
            at_trigger(plan, |_, _| Ok(None));
        },
    ),
    fault(
        "slow",
        "takes three seconds for each request beyond the trigger",
        |plan| {
            plan.handle = |queue, request| {
                if request.descriptor.start_sector >= TRIGGER_BYTE / 512 {
                    thread::sleep(SLOW);
                }
                server::handle(queue, request)
            };
        },
    ),
];

/// Handles the trigger's request like this, and others rightly.
fn at_trigger(plan: &mut Plan, handle: fn(&Queue, &Request) -> io::Result<Option<i32>>) {
    plan.special = handle;
    plan.handle = |queue, request| {
        if request.strikes() {
            return (queue.plan.special)(queue, request);
        }
        server::handle(queue, request)
    };
}

fn lock_twice() -> io::Result<Option<i32>> {
    let lock = Mutex::new(());
    let _first = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let _second = lock.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(None)
}
