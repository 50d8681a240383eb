//! A device's server: its queue threads and what they share.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use oxublk_sys::Features;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::CpuSet;

use super::progress::Progress;
use super::watchdog::Watchdog;
use crate::control::{Control, DeviceInfo};
use crate::error::{Error, ErrorKind, Result, errno_text};
use crate::id::{DeviceId, QueueId};
use crate::metrics::{Metrics, QueueMetrics};
use crate::path::DataPath;
use crate::queue::{Backend, Ended, QueueError, Share, Uring, UringSetup};
use crate::shared::{SharedMemory, Slot, Table};

/// What the queue threads of a device and its owner share.
#[derive(Debug)]
pub(super) struct Server {
    device: DeviceId,
    /// `/dev/ublkcN`. While it is open the driver keeps the id from being used anew.
    node: Mutex<Option<Arc<OwnedFd>>>,
    /// Readable when the queues shall leave.
    wake: OwnedFd,
    pub(super) progress: Arc<Progress>,
    pub(super) metrics: Box<[Arc<QueueMetrics>]>,
    watchdog: Option<Watchdog>,
    manner: Manner,
    /// The memories that clients share, of a device that can.
    shared: Option<Arc<Table>>,
}

/// What one queue thread starts with.
struct QueuePlan {
    share: Share,
    cpus: Vec<usize>,
    max_io_bytes: usize,
    path: DataPath,
}

/// How the queues of a device are served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How many threads share each queue.
    pub(super) threads: u16,
    /// How the data come and go.
    pub(super) path: DataPath,
    /// Whether the driver takes and gives many tags at once.
    pub(super) batch: bool,
    /// From when on the watchdog calls a request stuck.
    pub(super) stuck_after: Option<Duration>,
}

impl Server {
    pub(super) fn new(info: &DeviceInfo, node: OwnedFd, manner: Manner) -> Result<Self> {
        let DeviceInfo {
            id: device,
            queues,
            depth,
            ..
        } = *info;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::io("cannot make an eventfd", errno).with_device(device))?;
        Ok(Self {
            device,
            node: Mutex::new(Some(Arc::new(node))),
            wake,
            progress: Arc::default(),
            metrics: QueueMetrics::of_device(device, queues, depth, manner.threads),
            watchdog: manner.stuck_after.map(Watchdog::new),
            manner,
            shared: info
                .features
                .contains(Features::SHMEM_ZC)
                .then(Arc::default),
        })
    }

    /// How many threads serve queues.
    pub(super) fn threads(&self) -> usize {
        self.metrics.len()
    }

    /// What the device did so far, and what it is doing.
    pub(super) fn metrics(&self) -> Metrics {
        Metrics::snapshot(&self.metrics, self.watchdog.as_ref().map(Watchdog::stuck))
    }

    /// Starts the thread that looks for requests that take too long. It ends with the last queue.
    pub(super) fn watch(self: &Arc<Self>) -> Result<()> {
        if self.watchdog.is_none() {
            return Ok(());
        }
        let server = Arc::clone(self);
        thread::Builder::new()
            .name(format!("ublk{}watch", self.device))
            .spawn(move || {
                if let Some(watchdog) = &server.watchdog {
                    watchdog.run(server.device, &server.metrics, &server.progress);
                }
            })
            .map(drop)
            .map_err(|error| {
                Error::io("cannot start the watchdog's thread", error).with_device(self.device)
            })
    }

    /// Starts the threads of a queue. They tell of themselves through `progress`. Returns how many were started.
    pub(super) fn spawn<B: Backend>(
        self: &Arc<Self>,
        queue: QueueId,
        cpus: &[usize],
        max_io_bytes: usize,
        disk: &Arc<B>,
    ) -> std::result::Result<usize, (usize, Error)> {
        let mut started = 0;
        let threads = self.metrics.iter().filter(|thread| thread.queue() == queue);
        for (number, metrics) in threads.enumerate() {
            let plan = QueuePlan {
                share: Share {
                    device: self.device,
                    metrics: Arc::clone(metrics),
                },
                cpus: cpus.to_vec(),
                max_io_bytes,
                path: self.manner.path,
            };
            let name = match number {
                0 => format!("ublk{}q{queue}", self.device),
                _ => format!("ublk{}q{queue}t{number}", self.device),
            };
            let (server, disk) = (Arc::clone(self), Arc::clone(disk));
            thread::Builder::new()
                .name(name)
                .spawn(move || server.run(&plan, disk.as_ref()))
                .map_err(|error| {
                    let what = format!("cannot start the thread of queue {queue}");
                    (started, Error::io(what, error).with_device(self.device))
                })?;
            started += 1;
        }
        Ok(started)
    }

    /// A queue thread's whole life.
    fn run<B: Backend>(&self, plan: &QueuePlan, disk: &B) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(plan, disk)));
        let failure = match served {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some("its thread panicked".to_owned()),
        };
        if let Some(reason) = &failure {
            tracing::error!(
                device = self.device.0,
                queue = plan.share.metrics.queue().0,
                reason,
                "a queue failed"
            );
            // A device with a queue that nobody serves would hang its clients: all leave.
            self.wake_all();
        }
        let last_of_failed = self.progress.update(|stand| {
            stand.ended += 1;
            if let Some(reason) = failure {
                let reason = format!("queue {} failed: {reason}", plan.share.metrics.queue());
                stand.failure.get_or_insert(reason);
            }
            stand.ended == self.threads() && stand.failure.is_some()
        });
        if last_of_failed {
            // The last close tells the driver that the server is gone; it fails what waits.
            self.close();
        }
    }

    fn serve<B: Backend>(&self, plan: &QueuePlan, disk: &B) -> std::result::Result<(), String> {
        settle_in(self.device, plan);
        let node = self.node().ok_or("the device was closed")?;
        let setup = UringSetup {
            device: &node,
            wake: self.wake.as_fd(),
            queue: plan.share.metrics.queue(),
            depth: plan.share.metrics.depth(),
            max_io_bytes: plan.max_io_bytes,
            path: plan.path,
            batch: self.manner.batch,
            shared: self.shared.as_ref(),
        };
        let ring = Uring::new(&setup).map_err(|error| {
            let error = crate::control::no_ring(error);
            format!("{error:?}")
        })?;
        let mut armed = || self.progress.update(|stand| stand.armed += 1);
        let (ring, served) = disk.serve(&plan.share, ring, plan.path, &mut armed);
        match served {
            Ok(Ended::Stopped) => Ok(()),
            Ok(Ended::Woken) => {
                ring.abandon();
                Ok(())
            }
            Err(error) => {
                ring.abandon();
                Err(describe(&error))
            }
        }
    }

    /// Registers memory, and lets the queues know of it.
    pub(super) fn share(&self, control: &mut Control, memory: &SharedMemory) -> Result<Slot> {
        self.table()?
            .add(memory, || control.register_buffer(self.device, memory))
    }

    /// The memories that clients share.
    pub(super) fn table(&self) -> Result<&Table> {
        self.shared.as_deref().ok_or_else(|| {
            let message = format!(
                "device {} was made without shared memory (SHMEM_ZC)",
                self.device
            );
            Error::new(ErrorKind::Unsupported, message)
                .with_device(self.device)
                .with_hint("ask for it with `Builder::shared_memory`; it needs Linux 7.1 or later")
        })
    }

    /// Waits until every queue thread has ended; false when that takes longer than until `end`.
    pub(super) fn wait_ended(&self, end: Instant) -> bool {
        let all = self.threads();
        self.progress
            .wait_until(end, |stand| stand.ended == all)
            .is_some()
    }

    /// Has every queue thread leave when its disk lets it.
    pub(super) fn wake_all(&self) {
        // The counter cannot overflow, so that the write cannot block or fail.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Closes `/dev/ublkcN`; threads that still serve keep it open until they end.
    pub(super) fn close(&self) {
        self.node
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn node(&self) -> Option<Arc<OwnedFd>> {
        self.node
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The error of a device one of whose queues failed.
    pub(super) fn failure(&self, reason: &str) -> Error {
        Error::new(
            ErrorKind::QueueFailed,
            format!("device {}: {reason}", self.device),
        )
        .with_device(self.device)
    }
}

/// Prepares the calling thread to serve: on the queue's CPUs, and marked as one whose work the
/// kernel's writeback waits for, so that its own allocations do not wait for writeback. Both are
/// better to have, and not needed.
fn settle_in(device: DeviceId, plan: &QueuePlan) {
    let (device, queue) = (device.0, plan.share.metrics.queue().0);
    let mut set = CpuSet::new();
    for &cpu in plan.cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    if set.count() > 0
        && let Err(error) = rustix::thread::sched_setaffinity(None, &set)
    {
        tracing::debug!(device, queue, %error, "cannot bind the queue's thread to its CPUs");
    }
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(device, queue, %error, "cannot mark the queue's thread as an I/O flusher");
    }
}

fn describe(error: &QueueError) -> String {
    match error {
        QueueError::Ring(error) => format!("its ring failed: {error}"),
        QueueError::Refused(tag, errno) => {
            format!(
                "the driver refused a command of tag {tag} ({})",
                errno_text(*errno)
            )
        }
        QueueError::Unexpected(tag, result) => {
            format!("tag {tag} completed with {result} when it was not with the driver")
        }
    }
}
