//! What the programs `oxublk` and `ublk-mem` are made of.
//!
//! This crate is for its own programs, and for what makes their manual pages and tests. To make
//! block devices from a program, use the crate [`oxublk`].
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the command lines: [`args::Cli`], [`args::MemCli`] |
//! | `rescue_args.rs` | that of `oxublk rescue` |
//! | `size.rs` | sizes as people write them |
//! | `exit.rs` | exit codes, and how a failure is told |
//! | `report.rs`, `report/` | the JSON documents |
//! | `state.rs` | the files in `/run/oxublk` |
//! | `process.rs` | which process a pid means |
//! | `target.rs` | from the command line to a disk |
//! | `server.rs` | serving a device until a signal |
//! | `ready.rs` | waiting until a disk can be used |
//! | `live.rs` | the socket with live metrics |
//! | `text.rs` | tables and numbers for people |
//! | `logging.rs` | where the log goes |
//! | `pages.rs` | manual pages |

#![forbid(unsafe_code)]

pub mod args;
pub mod exit;
pub mod live;
pub mod logging;
pub mod pages;
pub mod process;
pub mod ready;
pub mod report;
pub mod rescue_args;
pub mod server;
pub mod size;
pub mod state;
pub mod target;
pub mod text;
