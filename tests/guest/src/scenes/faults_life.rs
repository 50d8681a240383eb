//! Servers that are gone, in each recovery mode, and doctor says what became of the device.

use crate::support::Scene;
use crate::support::faulty::{Case, Expected, Provoke, cases};
use oxublk_diag::finding::Cause;

const DEAD: Expected = Expected::Cause(Cause::ServerDead);
const AWAITS: Expected = Expected::Cause(Cause::AwaitsRecovery);
const FAILS: Expected = Expected::ByKernel(Cause::AwaitsRecovery, Cause::FailsUntilRecovery);
/// Up to 6.14 the driver sees the server's rings end, and later the last close of `/dev/ublkcN`.
const HALF_DEAD: Expected = Expected::Cause(Cause::ServerHalfDead);

pub(crate) const SCENE: Scene = Scene {
    name: "faults-life",
    needs: "timeout=500",
    tests: cases![
        killed => Case::new("healthy", Provoke::Kill, DEAD),
        killed_with_recovery => Case::new("healthy", Provoke::Kill, AWAITS).with("--recovery plain"),
        killed_with_reissue => Case::new("healthy", Provoke::Kill, AWAITS).with("--recovery reissue"),
        killed_with_failing => Case::new("healthy", Provoke::Kill, FAILS).with("--recovery fail-io"),
        killed_with_a_request => Case::new("forgotten", Provoke::KillUnderLoad, AWAITS).with("--recovery reissue"),
        killed_and_a_child_has_it_open => Case::new("half-dead", Provoke::Kill, HALF_DEAD),
        killed_and_a_child_has_it_mapped => Case::new("half-dead-mapping", Provoke::Kill, HALF_DEAD),
    ],
};
