//! Servers that do nothing wrong, each in another way: doctor has nothing to say.

use crate::support::Scene;
use crate::support::faulty::{Case, cases};

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
    ],
};
