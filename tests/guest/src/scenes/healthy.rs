//! Servers that do nothing wrong, each in another way: doctor has nothing to say.

use crate::support::device::{block, in_flight};
use crate::support::faulty::{Case, Faulty, TRIGGER_BLOCK, cases, healthy, read};
use crate::support::{SOON, Scene};
use anyhow::Result;

pub(crate) const SCENE: Scene = Scene {
    name: "healthy",
    needs: "timeout=500",
    tests: cases![
        plain => Case::healthy("healthy"),
        two_queues => Case::healthy("healthy").with("--queues 2"),
        deferred_task_work => Case::healthy("healthy-deferred"),
        user_copy => Case::healthy("healthy-user-copy"),
        legacy_opcodes => Case::healthy("healthy-legacy-opcodes"),
        a_polled_ring => Case::healthy("healthy-sqpoll"),
        a_busy_owner => Case::healthy("healthy-busy-poll"),
        an_unprivileged_device => Case::healthy("healthy-unprivileged"),
        ; a_device_that_was_recovered
    ],
};

/// A client of the old server gets its answer from the new one.
fn a_device_that_was_recovered() -> Result<()> {
    let mut server = Faulty::start("forgotten", "--recovery reissue")?;
    server.ready()?;
    let disk = block(server.id);
    let client = read(&disk, TRIGGER_BLOCK, 1)?;
    in_flight(server.id)?;
    let server = server.recovered()?;
    client.wait(SOON)?.success()?;
    healthy("healthy --recover")?;
    server.clear(Vec::new())
}
