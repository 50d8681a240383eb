//! A small raw ublk server, apart from the library, that commits each known fault on demand.
//!
//! `ublk-faulty --list` names the faults. `ublk-faulty FAULT` makes a device of zeroes and serves it; most faults strike at a
//! request for the byte at 8 MiB, or at the next one, so that the device gets ready first. It prints `added N` when the device
//! exists, and `ready N` when it is started.

mod control;
mod device;
mod faults;
mod memory;
mod plan;
mod process;
mod ring;
mod server;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use oxublk_sys::{ANY_DEV_ID, Features};

use control::Waiting;
use device::Wanted;
use plan::Plan;

#[derive(Debug, Parser)]
#[command(
    name = "ublk-faulty",
    about = "A ublk server that does one thing wrong"
)]
struct Arguments {
    /// What to do wrong: see --list
    #[arg(required_unless_present_any = ["list", "send", "hold"])]
    fault: Option<String>,
    /// Name the faults
    #[arg(long)]
    list: bool,
    /// The device's id; the lowest free one when not given
    #[arg(long)]
    id: Option<u32>,
    /// Queues; the fault's own number when not given
    #[arg(long)]
    queues: Option<u16>,
    /// Tags of a queue; the fault's own number when not given
    #[arg(long)]
    depth: Option<u16>,
    /// What happens to the device when its server dies
    #[arg(long, value_enum, default_value_t = Recovery::None)]
    recovery: Recovery,
    /// Bytes of the disk
    #[arg(long, default_value_t = 16 << 20)]
    size: u64,
    /// Send START_DEV from the server's own process: then the server cannot always be killed
    #[arg(long)]
    start_inside: bool,
    /// Take over the device --id, whose server died
    #[arg(long, requires = "id")]
    recover: bool,
    /// Send a command for the device --id, and wait for its end
    #[arg(long, value_enum, conflicts_with = "fault", requires = "id")]
    send: Option<Waiting>,
    /// The command's inline argument
    #[arg(long, default_value_t = 0, requires = "send")]
    data: u64,
    /// Keep what was inherited, until killed
    #[arg(long, hide = true, conflicts_with = "fault")]
    hold: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Recovery {
    /// The device dies with it
    None,
    /// Requests wait for a new server, those under way fail
    Plain,
    /// Requests wait for a new server, those under way too
    Reissue,
    /// Requests fail until there is a new server
    FailIo,
}

impl Recovery {
    const fn features(self) -> Features {
        match self {
            Self::None => Features::empty(),
            Self::Plain => Features::USER_RECOVERY,
            Self::Reissue => Features::USER_RECOVERY.union(Features::USER_RECOVERY_REISSUE),
            Self::FailIo => Features::USER_RECOVERY.union(Features::USER_RECOVERY_FAIL_IO),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            server::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.hold {
        process::park();
    }
    let id = arguments.id.unwrap_or(ANY_DEV_ID);
    if let Some(waiting) = arguments.send {
        if matches!(waiting, Waiting::Start | Waiting::EndRecovery) {
            control::end_with_parent()?;
        }
        control::send(waiting, id, arguments.data)?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = arguments.fault.as_deref().unwrap_or_default();
    let fault =
        faults::named(name).with_context(|| format!("there is no fault {name}: see --list"))?;
    let mut plan = Plan::RIGHT;
    (fault.change)(&mut plan);
    plan.queues = arguments.queues.unwrap_or(plan.queues);
    plan.depth = arguments.depth.unwrap_or(plan.depth);
    let wanted = Wanted {
        id,
        recovery: arguments.recovery.features(),
        size_bytes: arguments.size,
        start_inside: arguments.start_inside,
        recover: arguments.recover,
    };
    device::run(plan, wanted)
}

#[allow(clippy::print_stdout, reason = "a program")]
fn list() {
    for fault in faults::all() {
        println!("{:28}  {}", fault.name, fault.does);
    }
}
