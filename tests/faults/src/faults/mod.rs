//! The faults: a table, and what each changes in the plan of a right server.

mod answers;
mod arming;
mod delivery;
mod handling;
mod healthy;
mod life;

use crate::plan::Plan;

/// A fault, or a healthy server of a special kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What it does, in one line.
    pub(crate) does: &'static str,
    /// What it changes.
    pub(crate) change: fn(&mut Plan),
}

/// All of them, by where they strike.
const GROUPS: &[&[Fault]] = &[
    healthy::FAULTS,
    arming::FAULTS,
    delivery::FAULTS,
    handling::FAULTS,
    answers::FAULTS,
    life::FAULTS,
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    GROUPS.iter().copied().flatten()
}

/// The one of this name.
pub(crate) fn named(name: &str) -> Option<&'static Fault> {
    all().find(|fault| fault.name == name)
}

/// A table's line.
const fn fault(name: &'static str, does: &'static str, change: fn(&mut Plan)) -> Fault {
    Fault { name, does, change }
}
