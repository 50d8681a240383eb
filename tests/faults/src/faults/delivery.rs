//! Faults on the way from the driver to the server. The trigger's request is still answered: the next one is stuck.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use oxublk_sys::BLOCK_PATH_PREFIX;
use rustix::process::{Signal, getpid, kill_process};

use super::{Fault, fault};
use crate::plan::{Plan, TRIGGER_BYTE};
use crate::process;
use crate::ring::setup;
use crate::server::{self, Queue, Request};

/// Where a server reads its own disk.
const ELSEWHERE: u64 = TRIGGER_BYTE + (1 << 20);

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "deferred-not-entered",
        "a ring with deferred task work, whose owner sleeps elsewhere",
        |plan| {
            plan.ring.flags = setup::SINGLE_ISSUER | setup::DEFER_TASKRUN;
            after(plan, |_| process::park());
        },
    ),
    fault(
        "armer-exits",
        "the thread that fetched ends, its process lives",
        |plan| {
            plan.after = |queue| {
                queue.ring.submit()?;
                Ok(ControlFlow::Break(()))
            };
        },
    ),
    fault(
        "own-device",
        "reads its own disk, through the cache",
        |plan| {
            plan.handle = |queue, request| read_own_disk(queue, request, 0);
        },
    ),
    fault(
        "own-device-direct",
        "reads its own disk, past the cache",
        |plan| {
            plan.handle = |queue, request| read_own_disk(queue, request, libc::O_DIRECT);
        },
    ),
    fault(
        "armer-vfork",
        "the thread that fetched waits in vfork",
        |plan| {
            after(plan, |_| process::hang_in_vfork());
        },
    ),
    fault("sigstop", "stops itself with SIGSTOP", |plan| {
        after(plan, |_| Ok(kill_process(getpid(), Signal::STOP)?));
    }),
    fault(
        "buffer-unmapped",
        "unmaps the buffers that it gave",
        |plan| {
            plan.handle = untouched;
            after(plan, |queue| queue.buffers.unmap());
        },
    ),
    fault(
        "buffer-readonly",
        "makes the buffers that it gave read-only",
        |plan| {
            plan.handle = untouched;
            after(plan, |queue| queue.buffers.protect());
        },
    ),
];

/// What comes after the trigger's request.
fn after(plan: &mut Plan, then: fn(&Queue) -> io::Result<()>) {
    plan.then = then;
    plan.after = |queue| {
        queue.ring.submit()?;
        (queue.plan.then)(queue)?;
        Ok(ControlFlow::Continue(()))
    };
}

/// The buffers are zero from the start, and may be gone.
fn untouched(_: &Queue, request: &Request) -> io::Result<Option<i32>> {
    Ok(Some(request.all()))
}

fn read_own_disk(queue: &Queue, request: &Request, flags: i32) -> io::Result<Option<i32>> {
    if request.strikes() {
        let path = format!("{BLOCK_PATH_PREFIX}{}", queue.device.info.dev_id);
        let disk = File::options().read(true).custom_flags(flags).open(path)?;
        let mut data = vec![0; 2 * PAGE];
        let aligned = data.as_ptr().align_offset(PAGE);
        disk.read_exact_at(&mut data[aligned..aligned + PAGE], ELSEWHERE)?;
    }
    server::handle(queue, request)
}

const PAGE: usize = 4096;
