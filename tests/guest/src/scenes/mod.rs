//! The scenes: what a guest runs after one boot.

mod death;
mod discard;
mod doctor;
mod faults_answers;
mod faults_arming;
mod faults_control;
mod faults_delivery;
mod faults_life;
mod faults_reboot;
mod faults_server;
mod file;
mod file_trouble;
mod filesystems;
mod fio;
mod healthy;
mod idle;
mod life;
mod misuse;
mod no_module;
mod origin;
mod origin_hang;
mod paths;
mod queues;
mod recorder;
mod rescue;
mod shapes;
mod shared_memory;
mod trace;
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
    paths::SCENE,
    file::SCENE,
    file_trouble::SCENE,
    shared_memory::SCENE,
    life::SCENE,
    death::SCENE,
    trouble::SCENE,
    recorder::SCENE,
    trace::SCENE,
    healthy::SCENE,
    faults_arming::SCENE,
    faults_delivery::SCENE,
    faults_server::SCENE,
    faults_answers::SCENE,
    faults_life::SCENE,
    faults_control::SCENE,
    doctor::SCENE,
    rescue::SCENE,
    origin_hang::SCENE,
    faults_reboot::INSIDE,
    faults_reboot::OWN_DEVICE,
    faults_reboot::SPLIT_FETCH,
];
