//! The driver's control commands, one typed call each.
//!
//! Every call has a deadline, and every error names the command, the device, the errno, what it
//! means for that command and what to do.

mod apart;
mod argument;
mod envelope;
mod explain;
mod info;

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use oxublk_sys::{
    ANY_DEV_ID, CONTROL_PATH, CtrlCmd, CtrlOp, DevInfo, Features, Params, ShmemBufReg, ctrl_op,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use self::envelope::{Call, CallError, Envelope};
pub use self::info::{DeviceInfo, DeviceState};
use crate::error::{Error, ErrorKind, Result, errno_text};
use crate::id::{DeviceId, QueueId};
use crate::shared::{SharedMemory, Slot};

/// How long a control command may take unless said otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(20);

/// The driver's control node, `/dev/ublk-control`.
///
/// One call at a time; open another for another thread.
#[derive(Debug)]
pub struct Control {
    envelope: Envelope,
    deadline: Duration,
}

/// What a new device is made of: the input of ADD_DEV.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice {
    /// The wanted id, or none for a free one.
    pub id: Option<DeviceId>,
    /// How many queues; the driver gives at most as many as the host may have CPUs.
    pub queues: u16,
    /// How many tags each queue has: 1 to 4096.
    pub depth: u16,
    /// The size of the largest request in bytes; rounded down to a page.
    pub max_io_bytes: u32,
    /// What is asked for; the driver drops what it does not know and adds what it always does.
    pub features: Features,
}

impl Control {
    /// Opens the control node.
    ///
    /// # Errors
    /// [`ErrorKind::NoDriver`] without the `ublk_drv` module, [`ErrorKind::PermissionDenied`]
    /// without the right to open the node or to use io_uring.
    pub fn open() -> Result<Self> {
        let node = open_node()?;
        let envelope = Envelope::new(node).map_err(no_ring)?;
        Ok(Self {
            envelope,
            deadline: DEFAULT_DEADLINE,
        })
    }

    /// Sets how long each call may take from now on.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// GET_FEATURES: what this kernel's driver can do.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] before Linux 6.5.
    pub fn features(&mut self) -> Result<Features> {
        let header = CtrlCmd::new(ANY_DEV_ID);
        let (_, bytes) = self.call(&ctrl_op::GET_FEATURES, header, vec![0; size_of::<u64>()])?;
        Ok(Features::from_bits_retain(read::<u64>(&bytes)?))
    }

    /// ADD_DEV: makes a device, with its character node and without a disk.
    ///
    /// # Errors
    /// [`ErrorKind::DeviceExists`] when the id is taken, [`ErrorKind::PermissionDenied`],
    /// [`ErrorKind::InvalidInput`] for what the driver does not accept.
    pub fn add(&mut self, new: &NewDevice) -> Result<DeviceInfo> {
        let dev_id = new.id.map_or(ANY_DEV_ID, |id| id.0);
        let info = DevInfo {
            dev_id,
            nr_hw_queues: new.queues,
            queue_depth: new.depth,
            max_io_buf_bytes: new.max_io_bytes,
            flags: new.features.bits(),
            ..DevInfo::default()
        };
        let header = CtrlCmd::new(dev_id);
        let (_, bytes) = self.call(&ctrl_op::ADD_DEV, header, info.as_bytes().to_vec())?;
        Ok(DeviceInfo::from(&read::<DevInfo>(&bytes)?))
    }

    /// SET_PARAMS: size, block sizes, limits. Before START_DEV.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for parameters that the driver does not accept.
    pub fn set_params(&mut self, id: DeviceId, params: &Params) -> Result<()> {
        let mut params = *params;
        params.len = length_of::<Params>();
        self.call(&ctrl_op::SET_PARAMS, header(id), params.as_bytes().to_vec())
            .map(drop)
    }

    /// GET_PARAMS: size, block sizes, limits. Waits while the device is being stopped.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchDevice`], [`ErrorKind::TimedOut`].
    pub fn params(&mut self, id: DeviceId) -> Result<Params> {
        let ask = Params {
            len: length_of::<Params>(),
            ..Params::default()
        };
        let (_, bytes) = self.call(&ctrl_op::GET_PARAMS, header(id), ask.as_bytes().to_vec())?;
        read(&bytes)
    }

    /// START_DEV: makes the disk, served by this process. Returns when the disk exists; before
    /// 6.18 that includes a scan for partitions, which the server must answer.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] when not all tags are fetched or the disk does not answer.
    pub fn start(&mut self, id: DeviceId) -> Result<()> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.call(
            &ctrl_op::START_DEV,
            with_data(id, u64::from(pid.unsigned_abs())),
            vec![],
        )
        .map(drop)
    }

    /// STOP_DEV: removes the disk. Waits for the requests that the server has not answered.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchDevice`], [`ErrorKind::TimedOut`].
    pub fn stop(&mut self, id: DeviceId) -> Result<()> {
        self.call_with_path(&ctrl_op::STOP_DEV, id, &[]).map(drop)
    }

    /// DEL_DEV: removes the disk and the device, and waits until nobody holds it.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchDevice`]; [`ErrorKind::TimedOut`] when somebody still holds it: then it
    /// is deleted all the same, and its id becomes free with the last holder.
    pub fn delete(&mut self, id: DeviceId) -> Result<()> {
        self.call_with_path(&ctrl_op::DEL_DEV, id, &[]).map(drop)
    }

    /// DEL_DEV_ASYNC: as [`delete`](Self::delete), without the wait for its holders. Since 6.9.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchDevice`]; [`ErrorKind::Unsupported`] for unprivileged devices.
    pub fn delete_async(&mut self, id: DeviceId) -> Result<()> {
        self.call(&ctrl_op::DEL_DEV_ASYNC, header(id), vec![])
            .map(drop)
    }

    /// GET_DEV_INFO2, or GET_DEV_INFO where that cannot be used: what the device is. Never waits.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchDevice`], [`ErrorKind::PermissionDenied`].
    pub fn info(&mut self, id: DeviceId) -> Result<DeviceInfo> {
        let empty = DevInfo::default();
        let answered = match self.call_with_path(&ctrl_op::GET_DEV_INFO2, id, empty.as_bytes()) {
            // Before 6.3, or a container that shows no character node.
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => self
                .call(
                    &ctrl_op::GET_DEV_INFO,
                    header(id),
                    empty.as_bytes().to_vec(),
                )
                .map(|(_, bytes)| bytes),
            answered => answered,
        };
        Ok(DeviceInfo::from(&read::<DevInfo>(&answered?)?))
    }

    /// REG_BUF: from now on requests of clients whose data lie in this memory of ours are delivered without a copy, where the device
    /// has [`Features::SHMEM_ZC`]. Since 7.1. The server must know the slot that is returned: [`Device::share`](crate::Device::share)
    /// sees to that.
    ///
    /// Waits for the requests that the server has: not to be called by what answers them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the device has not the feature; [`ErrorKind::InvalidInput`] when the memory is
    /// registered already; [`ErrorKind::TimedOut`] while a request is not answered.
    pub fn register_buffer(&mut self, id: DeviceId, memory: &SharedMemory) -> Result<Slot> {
        let buffer = ShmemBufReg {
            addr: memory.start().as_ptr() as u64,
            len: memory.len() as u64,
            ..ShmemBufReg::default()
        };
        let (slot, _) = self.call(&ctrl_op::REG_BUF, header(id), buffer.as_bytes().to_vec())?;
        u16::try_from(slot).map(Slot).map_err(|_| {
            let message = format!("the driver answers REG_BUF with {slot}, which is no slot");
            Error::new(ErrorKind::Io, message).with_device(id)
        })
    }

    /// UNREG_BUF: no request uses the slot's memory any more when this returns. Waits as [`register_buffer`](Self::register_buffer) does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a slot without memory; [`ErrorKind::TimedOut`] while a request is not answered.
    pub fn unregister_buffer(&mut self, id: DeviceId, slot: Slot) -> Result<()> {
        let header = with_data(id, u64::from(slot.0));
        self.call(&ctrl_op::UNREG_BUF, header, vec![]).map(drop)
    }

    /// GET_QUEUE_AFFINITY: the CPUs whose requests come to this queue.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no such queue.
    pub fn queue_affinity(&mut self, id: DeviceId, queue: QueueId) -> Result<Vec<usize>> {
        // As many bits as any kernel has CPUs (8192).
        let mask = vec![0; 1024];
        let header = with_data(id, u64::from(queue.0));
        let (_, mask) = self.call(&ctrl_op::GET_QUEUE_AFFINITY, header, mask)?;
        let cpus = mask.iter().zip(0..).flat_map(|(byte, index)| {
            (0..8)
                .filter(move |bit| byte >> bit & 1 == 1)
                .map(move |bit| index * 8 + bit)
        });
        Ok(cpus.collect())
    }

    /// Sends a command whose buffer starts with the character node's path, as unprivileged
    /// devices demand; for others only GET_DEV_INFO2 looks at it. Returns what follows the path.
    fn call_with_path(&mut self, op: &CtrlOp, id: DeviceId, payload: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = id.char_path().into_os_string().into_encoded_bytes();
        buffer.push(0);
        let path_len = buffer.len();
        buffer.extend_from_slice(payload);
        let header = CtrlCmd {
            dev_path_len: short(path_len),
            ..header(id)
        };
        let (_, mut buffer) = self.call(op, header, buffer)?;
        Ok(buffer.split_off(path_len))
    }

    fn call(
        &mut self,
        op: &CtrlOp,
        mut header: CtrlCmd,
        buffer: Vec<u8>,
    ) -> Result<(i32, Vec<u8>)> {
        let id = (header.dev_id != ANY_DEV_ID).then_some(DeviceId(header.dev_id));
        header.len = short(buffer.len());
        let call = Call {
            op: *op,
            header,
            argument: buffer,
        };
        self.envelope
            .call(call, self.deadline)
            .map_err(|error| failed(op, id, error, self.deadline))
    }
}

fn header(id: DeviceId) -> CtrlCmd {
    CtrlCmd::new(id.0)
}

fn with_data(id: DeviceId, data: u64) -> CtrlCmd {
    CtrlCmd {
        data: [data],
        ..header(id)
    }
}

/// A buffer's length for the header. No buffer of ours comes near the limit.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn length_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| {
            Error::new(
                ErrorKind::Io,
                "the driver's answer is shorter than its structure",
            )
        })
}

fn open_node() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(CONTROL_PATH, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::new(
            ErrorKind::NoDriver,
            format!("the ublk driver is not loaded: there is no {CONTROL_PATH}"),
        )
        .with_hint("load it with `modprobe ublk_drv` (Linux 6.0 or later, CONFIG_BLK_DEV_UBLK)"),
        Errno::ACCESS | Errno::PERM => Error::io(format!("cannot open {CONTROL_PATH}"), errno)
            .with_hint("run it as root, or give the user access to the node with a udev rule"),
        errno => Error::io(format!("cannot open {CONTROL_PATH}"), errno),
    })
}

/// Why there is no io_uring.
pub(crate) fn no_ring(error: std::io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is not allowed here: see the sysctl kernel.io_uring_disabled, and in a \
             container its seccomp profile"
        }
        Some(libc::ENOSYS) => "this kernel is built without io_uring (CONFIG_IO_URING)",
        Some(libc::ENOMEM) => "raise the limit of locked memory (ulimit -l)",
        _ => "check the limits of open files and of memory",
    };
    Error::io("cannot make an io_uring", error).with_hint(hint)
}

fn failed(op: &CtrlOp, id: Option<DeviceId>, error: CallError, deadline: Duration) -> Error {
    let mut what = op.name.to_owned();
    if let Some(id) = id {
        // Writing to a String cannot fail.
        let _ = write!(what, " of device {id}");
    }
    let error = match error {
        CallError::Ring(source) => Error::io(format!("cannot send {what}"), source),
        CallError::Errno(errno) => {
            let explanation = explain::explain(op, errno);
            let error = Error::new(
                explanation.kind,
                format!(
                    "{what} failed: {} ({})",
                    explanation.meaning,
                    errno_text(errno)
                ),
            )
            .with_command(op.name, Some(errno));
            match explanation.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        CallError::TimedOut { cancelled } => {
            let (waits_for, hint) = explain::waits_for(op);
            let state = if cancelled {
                "was given up"
            } else {
                "goes on in the kernel"
            };
            Error::new(
                ErrorKind::TimedOut,
                format!("{what} did not end within {deadline:?} and {state}: the driver waits for {waits_for}"),
            )
            .with_command(op.name, None)
            .with_hint(hint)
        }
    };
    match id {
        Some(id) => error.with_device(id),
        None => error,
    }
}
