//! Commands to `/dev/ublk-control`, and the short-lived process that sends those which wait for a server.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use oxublk_sys::{CONTROL_PATH, CtrlCmd, CtrlOp, DevInfo, Features, NO_QUEUE, Params, ctrl_op};
use rustix::process::{Signal, set_parent_process_death_signal};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::ring::{Entry, Ring, Setup, setup};

/// The node, and a ring for it.
#[derive(Debug)]
pub(crate) struct Control {
    node: File,
    ring: Ring,
}

impl Control {
    pub(crate) fn open() -> Result<Self> {
        let node = File::options()
            .read(true)
            .write(true)
            .open(CONTROL_PATH)
            .context(CONTROL_PATH)?;
        let setup = Setup {
            flags: setup::SQE128,
            ..Setup::PLAIN
        };
        let ring = Ring::new(&setup, 4).context("a ring for control commands")?;
        Ok(Self { node, ring })
    }

    /// Sends a command and waits for its end. `argument` is written by the driver.
    fn call(&self, op: CtrlOp, mut command: CtrlCmd, argument: &mut [u8]) -> io::Result<i32> {
        command.queue_id = NO_QUEUE;
        command.len = u16::try_from(argument.len()).map_err(io::Error::other)?;
        if !argument.is_empty() {
            command.addr = argument.as_mut_ptr() as u64;
        }
        let mut entry = Entry::command(self.node.as_raw_fd(), op.opcode, 0);
        entry.put(Entry::COMMAND, command.as_bytes());
        self.ring.write(&entry)?;
        loop {
            self.ring.submit_and_wait()?;
            if let Some(completion) = self.ring.reap() {
                return match completion.result {
                    result @ 0.. => Ok(result),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
    }

    /// Sends a command for a device that may be unprivileged: then its node's path goes in front of the argument.
    fn call_for(&self, op: CtrlOp, info: &DevInfo, data: u64, argument: &[u8]) -> io::Result<i32> {
        let mut command = CtrlCmd::new(info.dev_id);
        command.data = [data];
        let mut whole = Vec::new();
        if info.features().contains(Features::UNPRIVILEGED_DEV) {
            whole = node_path(info.dev_id);
            command.dev_path_len = u16::try_from(whole.len()).map_err(io::Error::other)?;
        }
        whole.extend_from_slice(argument);
        self.call(op, command, &mut whole)
    }

    pub(crate) fn add(&self, info: &mut DevInfo) -> io::Result<()> {
        let command = CtrlCmd::new(info.dev_id);
        self.call(ctrl_op::ADD_DEV, command, info.as_mut_bytes())
            .map(drop)
    }

    pub(crate) fn set_params(&self, info: &DevInfo, params: &Params) -> io::Result<()> {
        self.call_for(ctrl_op::SET_PARAMS, info, 0, params.as_bytes())
            .map(drop)
    }

    /// What the driver knows of a device. Never waits for a server.
    pub(crate) fn info(&self, id: u32) -> io::Result<DevInfo> {
        let mut command = CtrlCmd::new(id);
        let mut whole = node_path(id);
        let path = whole.len();
        command.dev_path_len = u16::try_from(path).map_err(io::Error::other)?;
        whole.resize(path + size_of::<DevInfo>(), 0);
        self.call(ctrl_op::GET_DEV_INFO2, command, &mut whole)?;
        let mut info = DevInfo::new_zeroed();
        info.as_mut_bytes().copy_from_slice(&whole[path..]);
        Ok(info)
    }
}

fn node_path(id: u32) -> Vec<u8> {
    format!("{}{id}\0", oxublk_sys::CHAR_PATH_PREFIX).into_bytes()
}

/// A command that may wait for a server.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Waiting {
    /// START_DEV
    Start,
    /// STOP_DEV
    Stop,
    /// DEL_DEV
    Del,
    /// DEL_DEV_ASYNC
    DelAsync,
    /// START_USER_RECOVERY
    StartRecovery,
    /// END_USER_RECOVERY
    EndRecovery,
}

impl Waiting {
    const fn op(self) -> CtrlOp {
        match self {
            Self::Start => ctrl_op::START_DEV,
            Self::Stop => ctrl_op::STOP_DEV,
            Self::Del => ctrl_op::DEL_DEV,
            Self::DelAsync => ctrl_op::DEL_DEV_ASYNC,
            Self::StartRecovery => ctrl_op::START_USER_RECOVERY,
            Self::EndRecovery => ctrl_op::END_USER_RECOVERY,
        }
    }
}

/// Sends a command from this process and waits for its end. `data` is the server's pid where the command takes one.
pub(crate) fn send(waiting: Waiting, id: u32, data: u64) -> Result<()> {
    let control = Control::open()?;
    let info = control
        .info(id)
        .with_context(|| format!("GET_DEV_INFO2 of device {id}"))?;
    match control.call_for(waiting.op(), &info, data, &[]) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{waiting:?} of device {id}: {error}"),
    }
}

/// Has it sent by a process of its own, so that this one stays killable.
pub(crate) fn send_apart(waiting: Waiting, id: u32, data: u64) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--data", &data.to_string(), "--id", &id.to_string()]);
    command.arg(match waiting {
        Waiting::Start => "--send=start",
        Waiting::Stop => "--send=stop",
        Waiting::Del => "--send=del",
        Waiting::DelAsync => "--send=del-async",
        Waiting::StartRecovery => "--send=start-recovery",
        Waiting::EndRecovery => "--send=end-recovery",
    });
    command.spawn()
}

/// In the process that sends: a server that dies takes it along. START_DEV would wait for ever for tags that
/// nobody arms any more, and keep the device from being deleted (6.12).
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}
