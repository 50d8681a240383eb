//! What the scenes share.

pub(crate) mod bridge;
pub(crate) mod data;
pub(crate) mod device;
pub(crate) mod direct;
pub(crate) mod faulty;
pub(crate) mod kernel_log;
pub(crate) mod leftovers;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod runner;
pub(crate) mod shared;
pub(crate) mod special;
pub(crate) mod trace;
pub(crate) mod traced;
pub(crate) mod usdt;
pub(crate) mod wait;

pub(crate) use device::Added;
pub(crate) use process::{Process, ok, run, run_for, shell};
pub(crate) use runner::{Scene, Test, note};
pub(crate) use wait::{LONG, SOON, wait_for, wait_until};
