//! Follows requests live, from the block layer through the driver and the server and back.
//!
//! | file | idea |
//! |---|---|
//! | `probes.rs` | which probes, on which kernel: data |
//! | `session.rs` | a tracing instance of our own: set up, read, taken down whatever happens |
//! | `event.rs`, `parse.rs` | the kernel's text as data |
//! | `order.rs` | events in the order of time |
//! | `request.rs` | a request, and what happened to it |
//! | `join.rs` | from events to requests: a pure state machine |
//! | `check.rs` | what is wrong with a command's bytes: pure |
//! | `filter.rs`, `stats.rs` | which requests, and how long they took |
//! | `seed.rs` | what was under way before |
//! | `follow.rs` | events in, what to tell out |
//! | `live.rs`, `record.rs` | events of this host, and of a file |
//! | `render.rs` | what people read |

pub mod check;
pub mod event;
pub mod filter;
pub mod follow;
pub mod join;
pub mod live;
pub mod order;
pub mod parse;
pub mod probes;
pub mod record;
pub mod render;
pub mod request;
pub mod seed;
pub mod session;
pub mod stats;
