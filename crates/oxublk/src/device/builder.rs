//! From a disk to a device that is ready for use.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oxublk_sys::{Features, MAX_DEV_ID, MAX_NR_QUEUES, MAX_QUEUE_DEPTH};
use rustix::fs::{Mode, OFlags};

use super::params::params;
use super::server::{Manner, Server};
use super::{Device, Negotiated, NodeIdentity};
use crate::control::{Control, DEFAULT_DEADLINE, DeviceInfo, NewDevice};
use crate::disk::Geometry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{DeviceId, QueueId};
use crate::path::{ChosenPath, DataPath};
use crate::queue::Backend;
use crate::shared::SharedMemory;

/// What this library needs of the driver: commands by their ioctl encoding.
const NEEDED: Features = Features::CMD_IOCTL_ENCODE;

/// How a device is to be: from [`Device::builder`] and [`Device::builder_async`].
#[derive(Debug)]
#[must_use = "a builder does nothing before `start`"]
pub struct Builder<B> {
    disk: B,
    id: Option<DeviceId>,
    queues: u16,
    depth: u16,
    deadline: Duration,
    stuck_after: Option<Duration>,
    threads_per_queue: u16,
    data_path: Option<DataPath>,
    batch_io: bool,
    shared_memory: bool,
    memories: Vec<SharedMemory>,
}

impl<B: Backend> Builder<B> {
    pub(super) fn new(disk: B) -> Self {
        Self {
            disk,
            id: None,
            queues: 1,
            depth: 128,
            deadline: DEFAULT_DEADLINE,
            stuck_after: None,
            threads_per_queue: 1,
            data_path: None,
            batch_io: false,
            shared_memory: false,
            memories: Vec::new(),
        }
    }

    /// The device's number. Default: the lowest that is free.
    pub fn id(mut self, id: DeviceId) -> Self {
        self.id = Some(id);
        self
    }

    /// How many queues, each with its own thread: 1 to 4096; the driver gives at most as many as
    /// the host may have CPUs. Default 1.
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// How many requests a queue has in flight at most: 1 to 4096. Default 128.
    pub fn depth(mut self, depth: u16) -> Self {
        self.depth = depth;
        self
    }

    /// How many threads share the tags of each queue, at least one tag each: more than one since Linux 6.16. Default 1.
    pub fn threads_per_queue(mut self, threads: u16) -> Self {
        self.threads_per_queue = threads;
        self
    }

    /// How the requests' data come and go; starting fails where that cannot be. Default: what suits the disk best, or what the
    /// kernel has instead; [`Device::data_path`] says which and why.
    pub fn data_path(mut self, path: DataPath) -> Self {
        self.data_path = Some(path);
        self
    }

    /// Has the driver take and give many tags by one command (`UBLK_F_BATCH_IO`, since Linux 7.0). That serves many requests at a time with less
    /// work, and single ones with more. Default: no.
    pub fn batch_io(mut self, batch: bool) -> Self {
        self.batch_io = batch;
        self
    }

    /// Whether memory can be shared with clients later, by [`Device::share`] (`UBLK_F_SHMEM_ZC`, since Linux 7.1); starting fails where that
    /// cannot be. Default: only if [`share`](Self::share) gives some now.
    pub fn shared_memory(mut self, shared: bool) -> Self {
        self.shared_memory = shared;
        self
    }

    /// Shares this memory with clients from the start: see [`Device::share`]. Since Linux 7.1; starting fails where that cannot be.
    pub fn share(mut self, memory: SharedMemory) -> Self {
        self.memories.push(memory);
        self
    }

    /// How long starting and stopping may take, each. Default 20 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Watches for requests that the server has had for longer than this: each is logged when that is seen, with its
    /// device, queue, tag and where it is, and once more when it ends after all, and counted in
    /// [`Metrics::stuck`](crate::Metrics::stuck). It costs the queues nothing. Default: nobody watches.
    pub fn stuck_after(mut self, limit: Duration) -> Self {
        self.stuck_after = Some(limit);
        self
    }

    /// Makes the device and returns when it is ready for use. If that fails nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a size, geometry, depth or number of queues that cannot be;
    /// what [`Control::open`], [`Control::add`] and [`Control::start`] return;
    /// [`ErrorKind::QueueFailed`] when a queue thread could not arm its tags.
    pub fn start(self) -> Result<Device> {
        let (size_bytes, geometry) = (self.disk.size(), self.disk.geometry());
        self.check(size_bytes, &geometry)?;
        let end = Instant::now() + self.deadline;
        let mut control = Control::open()?;
        control.set_deadline(self.deadline);
        let offered = control.features()?;
        if let Some(missing) = (NEEDED - offered).iter_names().next() {
            let message = format!("this kernel's ublk driver does not have {}", missing.0);
            return Err(
                Error::new(ErrorKind::Unsupported, message).with_hint("use Linux 6.12 or later")
            );
        }
        let chosen = choose(self.data_path, self.disk.suits(), offered)?;
        if self.threads_per_queue > 1 && !offered.contains(Features::PER_IO_DAEMON) {
            let message = "this kernel's ublk driver serves each queue by one thread";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("several threads a queue need Linux 6.16 or later"));
        }
        let requested = NEEDED | chosen.path.needs() | self.wishes(offered)?;
        let info = control.add(&NewDevice {
            id: self.id,
            queues: self.queues,
            depth: self.depth,
            max_io_bytes: geometry.max_io_bytes,
            features: requested,
        })?;
        let unfinished = Unfinished {
            control,
            info,
            deadline: self.deadline,
            manner: Manner {
                threads: self.threads_per_queue,
                path: chosen.path,
                batch: self.batch_io,
                stuck_after: self.stuck_after,
            },
            server: None,
            finished: false,
        };
        let negotiated = Negotiated {
            offered,
            requested,
            granted: info.features,
        };
        let device = unfinished.start(
            &Arc::new(self.disk),
            size_bytes,
            &geometry,
            &self.memories,
            negotiated,
            end,
        )?;
        Ok(device.on(chosen))
    }

    /// The features that were asked for.
    fn wishes(&self, offered: Features) -> Result<Features> {
        let shares = self.shared_memory || !self.memories.is_empty();
        let batch = "has no commands for many tags (BATCH_IO)";
        let shared = "serves no requests from shared memory (SHMEM_ZC)";
        let mut wishes = Features::empty();
        for (wanted, feature, lacks, since) in [
            (self.batch_io, Features::BATCH_IO, batch, "7.0"),
            (shares, Features::SHMEM_ZC, shared, "7.1"),
        ] {
            if wanted && !offered.contains(feature) {
                let message = format!("this kernel's ublk driver {lacks}");
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint(format!("that needs Linux {since} or later")));
            }
            wishes.set(feature, wanted);
        }
        Ok(wishes)
    }

    fn check(&self, size_bytes: u64, geometry: &Geometry) -> Result<()> {
        geometry.check(size_bytes)?;
        if !(1..=MAX_QUEUE_DEPTH).contains(&self.depth) {
            return Err(Error::invalid(format!(
                "queue depth {} is not between 1 and {MAX_QUEUE_DEPTH}",
                self.depth
            )));
        }
        if !(1..=MAX_NR_QUEUES).contains(&self.queues) {
            return Err(Error::invalid(format!(
                "{} queues are not between 1 and {MAX_NR_QUEUES}",
                self.queues
            )));
        }
        if !(1..=self.depth).contains(&self.threads_per_queue) {
            return Err(Error::invalid(format!(
                "{} threads a queue are not between 1 and its {} tags",
                self.threads_per_queue, self.depth
            )));
        }
        if self.batch_io && self.threads_per_queue > 1 {
            return Err(Error::invalid(
                "commands for many tags (BATCH_IO) are taken by one thread a queue here",
            ));
        }
        match self.id {
            Some(id) if id.0 > MAX_DEV_ID => Err(Error::invalid(format!(
                "device id {id} is above {MAX_DEV_ID}"
            ))),
            _ => Ok(()),
        }
    }
}

/// A device that was added and is not started. Dropped before it is finished, it is deleted again.
struct Unfinished {
    control: Control,
    info: DeviceInfo,
    deadline: Duration,
    manner: Manner,
    server: Option<Arc<Server>>,
    finished: bool,
}

impl Unfinished {
    fn start<B: Backend>(
        mut self,
        disk: &Arc<B>,
        size_bytes: u64,
        geometry: &Geometry,
        memories: &[SharedMemory],
        negotiated: Negotiated,
        end: Instant,
    ) -> Result<Device> {
        let id = self.info.id;
        self.control.set_params(id, &params(size_bytes, geometry))?;
        let (node, identity) = open_node(id)?;
        let server = Arc::new(Server::new(&self.info, node, self.manner)?);
        self.server = Some(Arc::clone(&server));
        // While there is no disk nothing is under way that this could wait for.
        for memory in memories {
            server.share(&mut self.control, memory)?;
        }
        self.spawn(&server, disk, geometry)?;
        server.watch()?;
        self.wait_armed(&server, end)?;
        self.control
            .start(id)
            .map_err(|error| why_not_started(&server, error))?;
        self.finished = true;
        Ok(Device::new(id, server, negotiated, identity, self.deadline))
    }

    fn spawn<B: Backend>(
        &mut self,
        server: &Arc<Server>,
        disk: &Arc<B>,
        geometry: &Geometry,
    ) -> Result<()> {
        let max_io_bytes = usize::try_from(geometry.max_io_bytes)
            .map_err(|_| Error::invalid("the maximum I/O size does not fit in memory"))?;
        let mut started = 0;
        for queue in (0..self.info.queues).map(QueueId) {
            let spawned = self
                .control
                .queue_affinity(self.info.id, queue)
                .map_err(|error| (0, error))
                .and_then(|cpus| server.spawn(queue, &cpus, max_io_bytes, disk));
            match spawned {
                Ok(threads) => started += threads,
                Err((threads, error)) => {
                    // Threads that were never started will not end: count them out.
                    let missing = server.threads() - started - threads;
                    server.progress.update(|stand| stand.ended += missing);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// START_DEV waits for every tag to be fetched: it is sent only when that is known.
    fn wait_armed(&self, server: &Server, end: Instant) -> Result<()> {
        let all = server.threads();
        let stand = server
            .progress
            .wait_until(end, |stand| stand.armed == all || stand.ended > 0)
            .ok_or_else(|| {
                let message = format!(
                    "the queues of device {} were not armed within {:?}",
                    self.info.id, self.deadline
                );
                Error::new(ErrorKind::TimedOut, message).with_device(self.info.id)
            })?;
        match &stand.failure {
            Some(reason) => Err(server.failure(reason)),
            None if stand.ended > 0 => Err(server.failure("it was stopped before it started")),
            None => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let id = self.info.id;
        if let Some(server) = &self.server {
            server.wake_all();
            let ended = server.wait_ended(Instant::now() + self.deadline);
            server.close();
            if !ended {
                // DEL_DEV would wait for the disk too, and hold the driver's lock meanwhile, so
                // that no device of the host could be made or deleted.
                tracing::error!(
                    device = id.0,
                    "the disk holds queue threads of a device that did not start: it is left"
                );
                return;
            }
        }
        if let Err(error) = self.control.delete(id) {
            tracing::error!(
                device = id.0,
                ?error,
                "cannot delete a device that did not start"
            );
        }
    }
}

/// Which way the data take.
fn choose(asked: Option<DataPath>, suits: DataPath, offered: Features) -> Result<ChosenPath> {
    let possible = |path: DataPath| offered.contains(path.needs());
    let lacks = |path: DataPath| {
        format!(
            "this kernel's ublk driver has no {path} path, which is in Linux since {}",
            path.since()
        )
    };
    match asked {
        Some(path) if path != DataPath::Copy && path != suits => Err(Error::invalid(format!(
            "this disk cannot be served by the {path} path: it has {suits}"
        ))),
        Some(path) if !possible(path) => Err(Error::new(ErrorKind::Unsupported, lacks(path))
            .with_hint("leave the choice of the path to the library, or use a later kernel")),
        Some(path) => Ok(ChosenPath {
            path,
            why: "it was asked for".to_owned(),
        }),
        None if possible(suits) => Ok(ChosenPath {
            path: suits,
            why: "it suits the disk best".to_owned(),
        }),
        None => Ok(ChosenPath {
            path: DataPath::Copy,
            why: lacks(suits),
        }),
    }
}

/// A queue that failed meanwhile is the reason, whatever START_DEV says.
fn why_not_started(server: &Server, error: Error) -> Error {
    match server.progress.update(|stand| stand.failure.clone()) {
        Some(reason) => server.failure(&reason),
        None => error,
    }
}

fn open_node(id: DeviceId) -> Result<(OwnedFd, NodeIdentity)> {
    let path = id.char_path();
    let cannot = |errno| {
        Error::io(format!("cannot open {}", path.display()), errno)
            .with_device(id)
            .with_hint("check that /dev is the host's devtmpfs, and who else has the node open")
    };
    let node =
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(cannot)?;
    let stat = rustix::fs::fstat(&node).map_err(cannot)?;
    Ok((node, NodeIdentity::new(id, &stat)))
}
