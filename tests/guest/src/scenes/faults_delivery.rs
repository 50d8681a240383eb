//! Requests that do not reach the server, and doctor says why.

use crate::support::Scene;
use crate::support::faulty::{Case, Expected, Provoke, cases};
use oxublk_diag::finding::Cause;

const BAD_BUFFER: Expected = Expected::Cause(Cause::BadBuffer);

pub(crate) const SCENE: Scene = Scene {
    name: "faults-delivery",
    needs: "timeout=500",
    tests: cases![
        deferred_work_is_not_run => Case::read("deferred-not-entered", Cause::DeferredNotEntered),
        the_fetching_thread_ends => Case::read("armer-exits", Cause::ArmerGone),
        the_fetching_thread_ends_with_recovery => Case::read("armer-exits", Cause::ArmerGone).with("--recovery reissue"),
        the_server_reads_its_own_disk => Case::read("own-device", Cause::OwnDevice),
        the_fetching_thread_waits_in_vfork => Case::read("armer-vfork", Cause::ArmerUninterruptible),
        the_server_is_stopped => Case::read("sigstop", Cause::ServerStopped),
        the_buffer_is_not_mapped => Case::new("buffer-unmapped", Provoke::Writes, BAD_BUFFER),
        the_buffer_is_read_only => Case::new("buffer-readonly", Provoke::Writes, BAD_BUFFER),
    ],
};
