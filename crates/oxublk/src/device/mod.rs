//! A device and its life: [`Builder::start`] makes it, [`Device::stop`] or dropping it ends it.

mod builder;
mod params;
mod progress;
mod server;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use oxublk_sys::Features;
use rustix::fs::Stat;

pub use self::builder::Builder;
use self::server::Server;
use crate::async_disk::AsyncDisk;
use crate::control::{Control, DeviceInfo};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::id::DeviceId;
use crate::metrics::Metrics;
use crate::path::ChosenPath;
use crate::queue::{Async, Backend, Blocking};
use crate::recorder::Station;
use crate::shared::{SharedMemory, Slot, Table};

/// A started device, served by threads of this process.
///
/// Dropping it stops and deletes it, as [`stop`](Self::stop) does; an error is logged then.
#[derive(Debug)]
#[must_use = "a device is stopped and deleted when it is dropped"]
pub struct Device {
    id: DeviceId,
    server: Arc<Server>,
    negotiated: Negotiated,
    identity: NodeIdentity,
    deadline: Duration,
    path: ChosenPath,
    removed: bool,
}

/// Features of the driver, and what became of them for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// What this kernel's driver can do.
    pub offered: Features,
    /// What was asked for.
    pub requested: Features,
    /// What the device got: the driver adds what it always does.
    pub granted: Features,
}

/// Asks a device to stop, from any thread: [`Device::stopper`].
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Server>);

impl Stopper {
    /// Has [`Device::wait`] return. Does not wait itself.
    pub fn stop(&self) {
        self.0.progress.update(|stand| stand.asked_to_stop = true);
    }
}

impl Device {
    /// Begins a device that `disk` answers for.
    pub fn builder<D: Disk>(disk: D) -> Builder<Blocking<D>> {
        Builder::new(Blocking(disk))
    }

    /// Begins a device that an asynchronous `disk` answers for.
    pub fn builder_async<D: AsyncDisk>(disk: D) -> Builder<Async<D>> {
        Builder::new(Async(disk))
    }

    /// Begins a device that a disk of either kind answers for.
    pub fn builder_of<B: Backend>(disk: B) -> Builder<B> {
        Builder::new(disk)
    }

    fn new(
        id: DeviceId,
        server: Arc<Server>,
        negotiated: Negotiated,
        identity: NodeIdentity,
        deadline: Duration,
    ) -> Self {
        Self {
            id,
            server,
            negotiated,
            identity,
            deadline,
            path: ChosenPath::default(),
            removed: false,
        }
    }

    fn on(mut self, path: ChosenPath) -> Self {
        self.path = path;
        self
    }

    /// How the requests' data come and go, and why so.
    #[must_use]
    pub fn data_path(&self) -> &ChosenPath {
        &self.path
    }

    /// The device's number.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The disk that clients use: `/dev/ublkbN`.
    #[must_use]
    pub fn block_path(&self) -> PathBuf {
        self.id.block_path()
    }

    /// The server's side: `/dev/ublkcN`.
    #[must_use]
    pub fn char_path(&self) -> PathBuf {
        self.id.char_path()
    }

    /// Which features were offered, requested and granted.
    #[must_use]
    pub fn features(&self) -> Negotiated {
        self.negotiated
    }

    /// What the driver says of the device now.
    ///
    /// # Errors
    /// What [`Control::open`] and [`Control::info`] return.
    pub fn info(&self) -> Result<DeviceInfo> {
        Control::open()?.info(self.id)
    }

    /// What the device did so far, and what it is doing.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.server.metrics()
    }

    /// Shares memory with clients: from now on requests whose data lie in it come without a copy by the kernel, to disks in memory and to
    /// asynchronous zero-copy disks also without one by the server beside the disk's own. A client maps the same file, and
    /// reads and writes the disk with `O_DIRECT` from and to it; what does not lie wholly in one memory takes the ordinary way.
    ///
    /// The device must have been made with [`Builder::shared_memory`] or [`Builder::share`]. This waits for the requests that are under way: a disk's
    /// method must not call it. What is shared when the device is stopped is given back then.
    ///
    /// # Errors
    /// What [`Control::register_buffer`] returns. After [`ErrorKind::TimedOut`] the driver may still come to use the memory, whose requests would fail:
    /// stop the device then.
    pub fn share(&self, memory: &SharedMemory) -> Result<Slot> {
        self.server.share(&mut self.control()?, memory)
    }

    /// Shares a memory no more. When this returns no request uses it; a queue lets its mapping go at its next request. Waits as
    /// [`share`](Self::share) does.
    ///
    /// # Errors
    /// What [`Control::unregister_buffer`] returns.
    pub fn unshare(&self, slot: Slot) -> Result<()> {
        let table = self.server.table()?;
        self.control()?.unregister_buffer(self.id, slot)?;
        table.remove(slot);
        Ok(())
    }

    /// The memories that clients share, by their slots.
    #[must_use]
    pub fn shared(&self) -> Vec<(Slot, SharedMemory)> {
        self.server.table().map(Table::all).unwrap_or_default()
    }

    fn control(&self) -> Result<Control> {
        let mut control = Control::open()?;
        control.set_deadline(self.deadline);
        Ok(control)
    }

    /// Something that asks the device to stop from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.server))
    }

    /// Waits until a [`Stopper`] asks, or somebody else stopped the device.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFailed`] when a queue thread failed: the device is gone then.
    pub fn wait(&self) -> Result<()> {
        let all = self.server.threads();
        let stand = self
            .server
            .progress
            .wait(|stand| stand.asked_to_stop || stand.ended == all);
        match &stand.failure {
            Some(reason) => Err(self.server.failure(reason)),
            None => Ok(()),
        }
    }

    /// Stops and deletes the device, and returns when nothing of it is left.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] when the disk does not answer a request within the deadline: the
    /// error names the requests. [`ErrorKind::Busy`] when the device is deleted, and somebody
    /// still has it open: its id becomes free when they close it.
    pub fn stop(mut self) -> Result<()> {
        self.remove()
    }

    /// Each step says what it could not do; after the first that fails the rest makes no sense.
    fn remove(&mut self) -> Result<()> {
        self.removed = true;
        let end = Instant::now() + self.deadline;
        let mut control = self.control()?;
        if self.identity.is_there() {
            gone_is_fine(control.stop(self.id)).map_err(|error| self.blame(error))?;
        }
        if !self.server.wait_ended(end) {
            let message = format!("the queues of device {} did not end in time", self.id);
            return Err(self.blame(Error::new(ErrorKind::TimedOut, message).with_device(self.id)));
        }
        // While the node is open nobody else can get this id; when it is closed, the id may be
        // another device's at any time. So: deletion first, and it must not wait for the close.
        if self.identity.is_there() {
            gone_is_fine(control.delete_async(self.id))?;
        }
        self.server.close();
        self.wait_freed(&mut control, end)
    }

    /// Waits until the id is free. The driver announces that to nobody but a DEL_DEV, which must
    /// not be sent for an id that may be another's by now; to ask is harmless.
    fn wait_freed(&self, control: &mut Control, end: Instant) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        loop {
            match control.info(self.id) {
                Err(error) if error.kind() == ErrorKind::NoSuchDevice => return Ok(()),
                Err(error) => return Err(error),
                // The id is in use again, by another device.
                Ok(_) if self.id.char_path().exists() => return Ok(()),
                Ok(_) if Instant::now() >= end => {
                    let message = format!(
                        "device {} is deleted, but {} is still open, so that its id is not free",
                        self.id,
                        self.block_path().display()
                    );
                    return Err(Error::new(ErrorKind::Busy, message)
                        .with_device(self.id)
                        .with_hint("unmount and close it; the id becomes free by itself then"));
                }
                Ok(_) => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Adds to an error which requests the disk holds.
    fn blame(&self, error: Error) -> Error {
        let held: Vec<String> = self
            .metrics()
            .queues
            .iter()
            .flat_map(|queue| {
                queue
                    .in_flight
                    .iter()
                    .map(move |request| (queue.queue, request))
            })
            .filter(|(_, request)| request.station != Station::Answered)
            .map(|(queue, request)| {
                let age = Duration::from_nanos(request.age_ns);
                format!(
                    "queue {queue} tag {}: a {} for {age:.1?}",
                    request.tag,
                    request.operation.name()
                )
            })
            .collect();
        if held.is_empty() {
            return error;
        }
        let message = format!("{error}; the disk has not answered {}", held.join(", "));
        Error::new(error.kind(), message)
            .with_device(self.id)
            .with_hint("the disk must answer or fail these requests before the device can go")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = self.remove() {
            tracing::error!(device = self.id.0, ?error, "cannot remove a device");
        }
    }
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NoSuchDevice => Ok(()),
        other => other,
    }
}

/// Which character node is ours: an id that was freed may be another device's soon.
#[derive(Debug)]
struct NodeIdentity {
    path: PathBuf,
    inode: u64,
}

impl NodeIdentity {
    fn new(id: DeviceId, stat: &Stat) -> Self {
        Self {
            path: id.char_path(),
            inode: stat.st_ino,
        }
    }

    /// Whether our node is still in `/dev`: nobody deleted the device.
    fn is_there(&self) -> bool {
        rustix::fs::stat(&self.path).is_ok_and(|stat| stat.st_ino == self.inode)
    }
}
