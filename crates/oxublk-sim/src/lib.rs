//! The ublk driver's side of one queue as a deterministic model, for tests.
//!
//! A queue of the library sees the kernel only through the trait [`Ring`](oxublk::queue::Ring).
//! [`SimRing`] implements it on a model of the driver, so that the queue's own code runs
//! unchanged: no kernel, no root, no waiting. Clients submit requests through a [`Driver`]; what
//! they got, and every rule that the server broke, is in its [`Report`].
//!
//! Everything that a real kernel leaves open is chosen by a seed: which requests arrive, on which
//! tags, in what order and in what portions they are delivered, when an `enter` comes back with
//! nothing, where a planned [`Event`] falls. The same [`Setup`] gives the same run.
//!
//! ```
//! use std::sync::Arc;
//! use oxublk::queue::{Calls, Ended, Queue, Share};
//! use oxublk::{DeviceId, QueueId, QueueMetrics};
//! use oxublk_sim::{ClientRequest, Driver, Setup};
//! # struct Zeroes;
//! # impl oxublk::Disk for Zeroes {
//! #     fn size(&self) -> u64 { 1 << 20 }
//! #     fn read_at(&self, buf: &mut [u8], _: u64) -> std::io::Result<()> { buf.fill(0); Ok(()) }
//! #     fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> { Ok(()) }
//! # }
//! let driver = Driver::new(Setup { depth: 4, seed: 7, ..Setup::default() });
//! for sector in 0..100 {
//!     driver.submit(ClientRequest::read(sector, 8)).unwrap();
//! }
//! let metrics = Arc::new(QueueMetrics::new(QueueId(0), 4));
//! let share = Share { device: DeviceId(0), metrics };
//! let mut queue = Queue::new(&share, driver.ring(), Calls::new(&Zeroes));
//! queue.arm().unwrap();
//! assert_eq!(queue.serve().unwrap(), Ended::Stopped);
//! drop(queue);
//! let report = driver.report();
//! assert!(report.violations.is_empty(), "{:?}", report.violations);
//! assert!(report.outcomes.iter().all(|outcome| outcome.result == Ok(())));
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `setup.rs` | [`Setup`]: the kernel, the sizes, the seed, the plan |
//! | `kernel.rs` | [`Kernel`]: in what the kernels differ, and what a client sees of an errno |
//! | `client.rs` | [`ClientRequest`] and its [`Outcome`] |
//! | `event.rs` | [`Event`]: stop, wake-up, death: when they come, what they do |
//! | `driver.rs` | [`Driver`], [`Report`]: the model's outside |
//! | `state.rs` | everything that the driver knows, and one system call |
//! | `command.rs` | what the driver does with a fetch and a commit |
//! | `requests.rs` | how requests arrive, get a tag, and finish |
//! | `work.rs` | what the driver does while the server waits |
//! | `operations.rs` | operations of asynchronous disks, on real files |
//! | `memory.rs` | descriptors and buffers, and who may touch them |
//! | `ring.rs` | [`SimRing`]: the model as a [`Ring`](oxublk::queue::Ring) |
//! | `history.rs` | which bytes a read may return when requests overlap |
//! | `violation.rs` | [`Violation`]: the rules that a server can break |
//! | `scheduler.rs`, `rng.rs` | the choices that the seed makes |
//! | `clock.rs` | [`Clock`]: virtual time |
//! | `host/` | [`host`]: a device with its server's threads and rings' memory, faults on demand, seen from outside |
//!
//! Modelled is the classic copy mode, and requests whose data lie in shared memory. Not modelled: several queues of one device, recovery by a
//! new server, `NEED_GET_DATA`, user copy, zero copy, batched commands, zones, and buffers whose
//! address is bad (here the buffers belong to the ring).

#![forbid(unsafe_code)]

mod client;
mod clock;
mod command;
mod driver;
mod event;
mod history;
pub mod host;
mod kernel;
mod memory;
mod operations;
mod requests;
mod ring;
mod rng;
mod scheduler;
mod setup;
mod state;
mod violation;
mod work;

pub use client::{ClientRequest, Misfit, Outcome, RequestId};
pub use clock::Clock;
pub use driver::{Driver, Enters, Report};
pub use event::{After, Event};
pub use kernel::Kernel;
pub use ring::SimRing;
pub use rng::Rng;
pub use setup::{Delivery, Setup, StopOrder};
pub use violation::Violation;
