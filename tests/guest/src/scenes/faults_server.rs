//! Requests that reach the server and are not finished there, and doctor says why.

use crate::support::Scene;
use crate::support::faulty::{Case, Expected, Provoke, cases};
use oxublk_diag::finding::Cause;

const SLOW: Expected = Expected::Cause(Cause::SlowMedium);
const OVERFLOW: Expected = Expected::Cause(Cause::CqOverflow);
const SWALLOWED: Expected = Expected::Cause(Cause::CompletionSwallowed);
const LOCKED: Expected = Expected::Cause(Cause::HandlerLocked);

/// In the moment in which a slow server goes from one request to the next, those that wait for their turn look so.
const BETWEEN_TWO: &[Cause] = &[Cause::Forgotten, Cause::Unexplained];

pub(crate) const SCENE: Scene = Scene {
    name: "faults-server",
    needs: "timeout=500",
    tests: cases![
        completions_are_not_reaped => Case::read("not-reaped", Cause::NotReaped),
        the_completion_queue_overflows => Case::new("cq-overflow", Provoke::Burst, OVERFLOW),
        completions_are_suppressed => Case::new("cqe-skip", Provoke::Nothing, SWALLOWED),
        the_handler_locks_itself_up_in_the_scan => Case::new("deadlock", Provoke::Nothing, LOCKED),
        the_handler_locks_itself_up => Case::read("locked", Cause::HandlerLocked),
        the_handler_spins => Case::read("spin", Cause::HandlerSpins),
        the_handler_waits_for_a_pipe => Case::read("blocked-pipe", Cause::HandlerBlocked),
        the_request_is_forgotten => Case::read("forgotten", Cause::Forgotten),
        the_medium_is_slow => Case::new("slow", Provoke::Load, SLOW).slow_after(1, 60).also(BETWEEN_TWO),
    ],
};
