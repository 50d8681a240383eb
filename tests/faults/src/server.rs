//! The plain right loop of a queue. Each step is one of the plan's, so that a fault replaces just that.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use oxublk_sys::{
    DevInfo, Features, IO_RES_ABORT, IO_RES_OK, IoCmd, IoDesc, SECTOR_SIZE, io_op, op,
    user_copy_pos,
};
use zerocopy::IntoBytes as _;

use crate::memory::{Buffers, Descriptors};
use crate::plan::{Plan, TRIGGER_BYTE};
use crate::ring::{Entry, Ring};

/// A device that is being served.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) info: DevInfo,
    pub(crate) node: File,
    started: Mutex<bool>,
    changed: Condvar,
}

impl Device {
    pub(crate) fn new(info: DevInfo, node: File) -> Self {
        Self {
            info,
            node,
            started: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// START_DEV has succeeded.
    pub(crate) fn set_started(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Sleeps until START_DEV has succeeded.
    pub(crate) fn wait_started(&self) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        while !*started {
            started = self
                .changed
                .wait(started)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A queue: one thread's, unless a fault shares it.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) id: u16,
    pub(crate) plan: Arc<Plan>,
    pub(crate) device: Arc<Device>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) buffers: Arc<Buffers>,
    /// Whether the trigger's request was seen.
    struck: Arc<AtomicBool>,
}

/// A command for a tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) op: u32,
    pub(crate) queue: u16,
    pub(crate) tag: u16,
    pub(crate) result: i32,
    pub(crate) address: u64,
    /// Flags of the entry.
    pub(crate) flags: u8,
}

/// A request, as the server read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) tag: u16,
    pub(crate) descriptor: IoDesc,
}

impl Request {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.descriptor.nr_sectors) * SECTOR_SIZE
    }

    pub(crate) fn carries_data(&self) -> bool {
        matches!(self.descriptor.op(), op::READ | op::WRITE)
    }

    /// Whether it touches the trigger.
    pub(crate) fn strikes(&self) -> bool {
        let Some(start) = self.descriptor.start_sector.checked_mul(SECTOR_SIZE) else {
            return false;
        };
        (start..start.saturating_add(self.bytes())).contains(&TRIGGER_BYTE)
    }

    /// Its bytes, the result of a request that went well.
    pub(crate) fn all(&self) -> i32 {
        if self.carries_data() {
            i32::try_from(self.bytes()).unwrap_or(i32::MAX)
        } else {
            0
        }
    }
}

impl Queue {
    pub(crate) fn new(id: u16, plan: Arc<Plan>, device: Arc<Device>) -> io::Result<Self> {
        let depth = device.info.queue_depth;
        let descriptors = Descriptors::map(
            &device.node,
            (plan.descriptors_of)(id),
            depth,
            plan.descriptor_stride,
            plan.holder.is_some(),
        )?;
        let each = usize::try_from(device.info.max_io_buf_bytes).map_err(io::Error::other)?;
        Ok(Self {
            id,
            ring: Arc::new(Ring::new(&plan.ring, u32::from(depth))?),
            descriptors: Arc::new(descriptors),
            buffers: Arc::new(Buffers::map(depth, each)?),
            struck: Arc::default(),
            plan,
            device,
        })
    }

    pub(crate) fn depth(&self) -> u16 {
        self.device.info.queue_depth
    }

    pub(crate) fn struck(&self) -> bool {
        self.struck.load(Ordering::Relaxed)
    }

    /// A right command for a tag.
    pub(crate) fn command(&self, op: u32, tag: u16, result: i32) -> Command {
        let user_copy = self.device.info.features().contains(Features::USER_COPY);
        Command {
            op: if self.plan.legacy { op & 0xff } else { op },
            queue: self.id,
            tag,
            result,
            address: if user_copy {
                0
            } else {
                self.buffers.address(tag)
            },
            flags: 0,
        }
    }

    pub(crate) fn fetch(&self, tag: u16) -> io::Result<()> {
        self.write(&self.command(io_op::FETCH_REQ, tag, 0))
    }

    /// The right answer to a request, not yet written.
    pub(crate) fn commit(&self, request: &Request, result: i32) -> Command {
        self.command(io_op::COMMIT_AND_FETCH_REQ, request.tag, result)
    }

    /// Writes a command into the ring.
    pub(crate) fn write(&self, command: &Command) -> io::Result<()> {
        self.ring.write(&(self.plan.encode)(self, command))
    }

    /// The thread's whole life after the queue was armed.
    pub(crate) fn serve(&self) -> io::Result<()> {
        let mut aborted = 0;
        while aborted < self.depth() {
            (self.plan.wait)(self)?;
            while let Some(completion) = self.ring.reap() {
                match completion.result {
                    IO_RES_ABORT => aborted += 1,
                    IO_RES_OK => {
                        if self.serve_one(tag_of(completion.user_data))?.is_break() {
                            return Ok(());
                        }
                    }
                    // The driver refused a command. A server that says so and goes on has lost the tag.
                    errno => say(format_args!(
                        "queue {} tag {}: a command came back with {errno}",
                        self.id,
                        tag_of(completion.user_data)
                    )),
                }
            }
        }
        Ok(())
    }

    fn serve_one(&self, tag: u16) -> io::Result<ControlFlow<()>> {
        let request = Request {
            tag,
            descriptor: self.descriptors.get(tag),
        };
        let strikes = request.strikes();
        let result = (self.plan.handle)(self, &request)?;
        if let Some(result) = result {
            (self.plan.answer)(self, &request, result)?;
        }
        if strikes && !self.struck.swap(true, Ordering::Relaxed) {
            return (self.plan.after)(self);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The tag that a completion is about.
fn tag_of(user_data: u64) -> u16 {
    u16::try_from(user_data & 0xffff).unwrap_or_default()
}

/// Tells what happened, for a person who reads along.
pub(crate) fn say(what: std::fmt::Arguments<'_>) {
    #[allow(clippy::print_stderr, reason = "a program")]
    {
        eprintln!("ublk-faulty: {what}");
    }
}

/// The right layout: the payload at byte 48.
pub(crate) fn encode(queue: &Queue, command: &Command) -> Entry {
    let mut entry = Entry::command(
        queue.device.node.as_raw_fd(),
        command.op,
        u64::from(command.tag),
    );
    entry.put(Entry::FLAGS, &[command.flags]);
    entry.put(Entry::COMMAND, payload(command).as_bytes());
    entry
}

/// The 16 bytes that the driver reads.
pub(crate) fn payload(command: &Command) -> IoCmd {
    IoCmd {
        q_id: command.queue,
        tag: command.tag,
        result: command.result,
        addr: command.address,
    }
}

/// Fetches every tag and enters the kernel.
pub(crate) fn arm(queue: &Queue) -> io::Result<()> {
    for tag in 0..queue.depth() {
        queue.fetch(tag)?;
    }
    queue.ring.submit()
}

/// One entry hands over the answers and waits for more.
pub(crate) fn wait(queue: &Queue) -> io::Result<()> {
    queue.ring.submit_and_wait()
}

/// A disk of zeroes.
pub(crate) fn handle(queue: &Queue, request: &Request) -> io::Result<Option<i32>> {
    if queue.device.info.features().contains(Features::USER_COPY) {
        copy(queue, request)?;
    } else if request.descriptor.op() == op::READ {
        let length = usize::try_from(request.bytes()).map_err(io::Error::other)?;
        queue.buffers.fill(request.tag, length, 0);
    }
    Ok(Some(request.all()))
}

/// Moves the data of a request with user copy.
fn copy(queue: &Queue, request: &Request) -> io::Result<()> {
    let mut data = vec![0; usize::try_from(request.bytes()).map_err(io::Error::other)?];
    let position = user_copy_pos(queue.id, request.tag, 0);
    match request.descriptor.op() {
        op::READ => rustix::io::pwrite(&queue.device.node, &data, position).map(drop)?,
        op::WRITE => rustix::io::pread(&queue.device.node, &mut data, position).map(drop)?,
        _ => {}
    }
    Ok(())
}

/// Commits; the entry goes with the next wait.
pub(crate) fn answer(queue: &Queue, request: &Request, result: i32) -> io::Result<()> {
    queue.write(&queue.commit(request, result))
}
