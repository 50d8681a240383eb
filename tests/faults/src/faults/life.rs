//! Servers whose death leaves something behind.

use super::{Fault, fault};
use crate::plan::Holder;

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "half-dead",
        "leaves a child that has /dev/ublkcN open; to be killed",
        |plan| plan.holder = Some(Holder::Descriptor),
    ),
    fault(
        "half-dead-mapping",
        "leaves a child that has the descriptors mapped; to be killed",
        |plan| plan.holder = Some(Holder::Mapping),
    ),
];
