//! The scenes: what a guest runs after one boot.

mod death;
mod discard;
mod filesystems;
mod fio;
mod life;
mod misuse;
mod no_module;
mod origin;
mod queues;
mod shapes;
mod trouble;

use crate::support::Scene;

/// Every scene, in the order in which they are run.
pub(crate) const SCENES: &[Scene] = &[
    origin::SCENE,
    no_module::SCENE,
    misuse::SCENE,
    shapes::SCENE,
    queues::SCENE,
    discard::SCENE,
    filesystems::SCENE,
    fio::SCENE,
    life::SCENE,
    death::SCENE,
    trouble::SCENE,
];
