//! What the tests of the queue's code on the model share: a disk that misbehaves, and a whole run.

pub(crate) mod disk;
pub(crate) mod metrics;
pub(crate) mod plan;
pub(crate) mod run;
