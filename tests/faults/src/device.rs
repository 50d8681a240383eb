//! A device's life: made, served, started, and taken away when the process is told to end.

use std::fs::File;
use std::io;
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use oxublk_sys::{
    CHAR_PATH_PREFIX, DevInfo, Features, ParamBasic, ParamTypes, Params, SECTOR_SIZE,
};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::getpid;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use zerocopy::FromZeros as _;

use crate::control::{Control, Waiting, send, send_apart};
use crate::plan::{Holder, Plan};
use crate::process;
use crate::server::{Device, Queue, say};

/// The largest request.
const MAX_IO_BYTES: u32 = 256 << 10;
/// How long STOP_DEV may take when the process is told to end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What the command line asks for beside the fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: u32,
    pub(crate) recovery: Features,
    pub(crate) size_bytes: u64,
    /// Send START_DEV from this process.
    pub(crate) start_inside: bool,
    /// Take over a device whose server died.
    pub(crate) recover: bool,
}

/// Makes a device and serves it until it is told to end.
pub(crate) fn run(plan: Plan, wanted: Wanted) -> Result<ExitCode> {
    if plan.unprivileged {
        give_up_admin().context("cannot give up CAP_SYS_ADMIN")?;
    }
    let info = if wanted.recover {
        recover(wanted.id)?
    } else {
        add(&plan, wanted)?
    };
    let id = info.dev_id;
    end_when_told(id)?;
    let path = format!("{CHAR_PATH_PREFIX}{id}");
    let node = File::options().read(true).write(true).open(&path);
    let device = Arc::new(Device::new(info, node.context(path)?));
    if plan.holder == Some(Holder::Descriptor) {
        leave_an_heir(&device)?;
    }
    let plan = Arc::new(plan);
    // Kept until the process ends, so that the rings outlive their threads.
    let queues = serve(&plan, &device)?;
    if plan.holder == Some(Holder::Mapping) {
        tell(format_args!("holder {}", process::leave_a_copy()?));
    }
    if let Some(why) = plan.never_ready {
        tell(format_args!("waiting {id}: {why}"));
    } else {
        tell(format_args!("starting {id}"));
    }
    start(&device, wanted)?;
    device.set_started();
    tell(format_args!("ready {id}"));
    // Ended by the thread that waits for signals.
    let _queues = queues;
    process::park()
}

/// A line for the program that waits for it.
fn tell(line: std::fmt::Arguments<'_>) {
    #[allow(clippy::print_stdout, reason = "a program")]
    {
        println!("{line}");
    }
}

fn add(plan: &Plan, wanted: Wanted) -> Result<DevInfo> {
    let control = Control::open()?;
    let mut info = DevInfo::new_zeroed();
    info.nr_hw_queues = plan.queues;
    info.queue_depth = plan.depth;
    info.max_io_buf_bytes = MAX_IO_BYTES;
    info.dev_id = wanted.id;
    info.flags = (plan.features | wanted.recovery).bits();
    control.add(&mut info).context("ADD_DEV")?;
    tell(format_args!("added {}", info.dev_id));
    let mut params = Params::new_zeroed();
    params.len = u32::try_from(size_of::<Params>())?;
    params.types = ParamTypes::BASIC.bits();
    params.basic = ParamBasic {
        logical_bs_shift: 9,
        physical_bs_shift: 12,
        io_min_shift: 12,
        max_sectors: MAX_IO_BYTES / u32::try_from(SECTOR_SIZE)?,
        dev_sectors: wanted.size_bytes / SECTOR_SIZE,
        ..ParamBasic::default()
    };
    control.set_params(&info, &params).context("SET_PARAMS")?;
    Ok(info)
}

fn recover(id: u32) -> Result<DevInfo> {
    send(Waiting::StartRecovery, id, 0)?;
    tell(format_args!("recovering {id}"));
    Ok(Control::open()?.info(id)?)
}

/// Starts the queues' threads, and returns when each has armed its tags, or what it thinks is that.
fn serve(plan: &Arc<Plan>, device: &Arc<Device>) -> Result<Vec<Queue>> {
    let (sender, armed) = mpsc::channel();
    let count = device.info.nr_hw_queues;
    for id in 0..count {
        let (plan, device, sender) = (Arc::clone(plan), Arc::clone(device), sender.clone());
        thread::Builder::new()
            .name(format!("queue{id}"))
            .spawn(move || {
                if let Err(error) = serve_queue(id, plan, device, &sender) {
                    say(format_args!("queue {id}: {error}"));
                }
            })?;
    }
    drop(sender);
    let mut queues = Vec::new();
    for _ in 0..count {
        queues.push(armed.recv().context("a queue's thread ended early")??);
    }
    Ok(queues)
}

fn serve_queue(
    id: u16,
    plan: Arc<Plan>,
    device: Arc<Device>,
    armed: &mpsc::Sender<io::Result<Queue>>,
) -> io::Result<()> {
    let start_first = plan.start_first;
    let queue = Queue::new(id, plan, device)?;
    let report = |result: io::Result<()>| armed.send(result.map(|()| queue.clone()));
    if start_first {
        report(Ok(())).map_err(io::Error::other)?;
        (queue.plan.arm)(&queue)?;
    } else {
        report((queue.plan.arm)(&queue)).map_err(io::Error::other)?;
    }
    queue.serve()
}

fn start(device: &Device, wanted: Wanted) -> Result<()> {
    let id = device.info.dev_id;
    let pid = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let command = if wanted.recover {
        Waiting::EndRecovery
    } else {
        Waiting::Start
    };
    if wanted.start_inside {
        return send(command, id, pid);
    }
    let status = send_apart(command, id, pid)?.wait()?;
    if !status.success() {
        bail!("{command:?} of device {id} failed");
    }
    Ok(())
}

/// A process that has `/dev/ublkcN` open and outlives this one.
fn leave_an_heir(device: &Device) -> Result<()> {
    fcntl_setfd(&device.node, FdFlags::empty())?;
    let heir = Command::new(std::env::current_exe()?).arg("--hold").spawn();
    fcntl_setfd(&device.node, FdFlags::CLOEXEC)?;
    tell(format_args!("holder {}", heir?.id()));
    Ok(())
}

/// Stops and deletes the device at a signal, if that is possible, and ends the process.
fn end_when_told(id: u32) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            let code = match stop(id) {
                Ok(()) => 0,
                Err(error) => {
                    say(format_args!("{error:#}"));
                    1
                }
            };
            std::process::exit(code);
        }
    });
    Ok(())
}

fn stop(id: u32) -> Result<()> {
    let mut sender = send_apart(Waiting::Stop, id, 0)?;
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more after the deadline.
        let _ = done.send(sender.wait());
    });
    let status = stopped
        .recv_timeout(STOP_DEADLINE)
        .with_context(|| format!("STOP_DEV of device {id} does not end"))??;
    if !status.success() {
        bail!("STOP_DEV of device {id} failed");
    }
    // It ends when this process has closed the device.
    send_apart(Waiting::Del, id, 0)?;
    Ok(())
}

fn give_up_admin() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    sets.permitted.remove(CapabilitySet::SYS_ADMIN);
    Ok(set_capabilities(None, sets)?)
}
