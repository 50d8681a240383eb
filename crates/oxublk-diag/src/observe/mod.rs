//! Looks at a host, and changes nothing.
//!
//! Three layers of sight, each optional: what anybody may read in `/proc` and `/sys`; what root may read of other
//! processes, of debugfs, and from the driver's commands that never block; and the driver's own structures, through
//! `/proc/kcore` with the kernel's type information. What a layer could not show is a [`Gap`].
//!
//! Nothing here opens a disk, and nothing waits behind what it looks at: what could is read by a thread that can be left
//! behind (`guard.rs`).

mod debugfs;
mod devices;
mod fdinfo;
mod files;
mod guard;
mod host;
pub(crate) mod kernel;
mod log;
mod processes;
mod recorder;
mod threads;
mod waiters;

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use oxublk::{DeviceId, DeviceState};
use rustix::time::ClockId;

use crate::facts::{Buffer, Device, Gap, Layer, Node, Snapshot};

pub use recorder::recorder;

use kernel::Kernel;
use processes::Processes;

/// What to look at, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The devices; all when empty.
    pub devices: Vec<DeviceId>,
    /// Whether to read the driver's own structures.
    pub kernel: bool,
    /// A look that takes longer leaves out what is missing, and says so.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            kernel: true,
            deadline: Duration::from_secs(2),
        }
    }
}

/// Where the kernel's file systems are.
#[derive(Clone, Debug)]
struct Roots {
    proc: PathBuf,
    sys: PathBuf,
    debug: PathBuf,
    dev: PathBuf,
}

/// How long a part of a look took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The part.
    pub part: &'static str,
    /// How long.
    pub took: Duration,
}

/// Looks at hosts; keeps what is dear to find (the kernel's types and symbols) from one look to the next.
#[derive(Debug)]
pub struct Observer {
    options: Options,
    roots: Roots,
    kernel: Option<Result<Kernel, Gap>>,
    timings: Vec<Timing>,
}

impl Observer {
    /// An observer that has not looked yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            roots: Roots {
                proc: PathBuf::from("/proc"),
                sys: PathBuf::from("/sys"),
                debug: PathBuf::from("/sys/kernel/debug"),
                dev: PathBuf::from("/dev"),
            },
            kernel: None,
            timings: Vec::new(),
        }
    }

    /// Two looks with a pause between them: what is racy shows itself in the difference.
    pub fn look_twice(&mut self, pause: Duration) -> (Snapshot, Snapshot) {
        // Reading symbols and types takes longer than a look: it is done before both, so that they are alike.
        self.open_kernel();
        let before = self.look();
        thread::sleep(pause);
        (before, self.look())
    }

    /// How long each part of the looks so far took, in their order.
    #[must_use]
    pub fn timings(&self) -> &[Timing] {
        &self.timings
    }

    /// One look. It never fails: what could not be seen is in the snapshot's gaps.
    pub fn look(&mut self) -> Snapshot {
        self.open_kernel();
        let deadline = Instant::now() + self.options.deadline;
        let roots = self.roots.clone();
        let mut snapshot = Snapshot::default();
        self.time("host", || {
            snapshot.host = host::look(&roots);
            match log::lines(&roots.dev) {
                Ok(lines) => snapshot.host.log = lines,
                Err(gap) => snapshot.gaps.push(gap),
            }
        });
        snapshot.devices = self.devices();
        self.time("driver", || {
            devices::ask_driver(&mut snapshot, Duration::from_secs(1))
        });
        let idle = self.time("debugfs", || read_debugfs(&roots, &mut snapshot));
        let processes = self.time("processes", || {
            processes::look(&roots.proc, &mut snapshot, &idle, deadline)
        });
        self.time("users", || waiters::users(&mut snapshot));
        waiters::control(&mut snapshot);
        snapshot.taken_ns = now_ns();
        self.read_kernel(&mut snapshot);
        self.time("waiters", || waiters::disks(&roots, &mut snapshot));
        if let Some(Ok(kernel)) = &self.kernel {
            kernel.sleepers(&mut snapshot);
        }
        check_buffers(&mut snapshot, &processes);
        snapshot
    }

    fn devices(&self) -> Vec<Device> {
        let mut ids = devices::ids(&self.roots);
        ids.extend(devices::stray_nodes(&self.roots, &ids));
        ids.sort_unstable();
        ids.retain(|id| self.options.devices.is_empty() || self.options.devices.contains(id));
        ids.into_iter()
            .map(|id| devices::device(&self.roots, id))
            .collect()
    }

    fn open_kernel(&mut self) {
        if self.options.kernel && self.kernel.is_none() {
            let kernel = self.time("symbols and types", Kernel::open);
            self.kernel = Some(kernel);
        }
    }

    fn read_kernel(&mut self, snapshot: &mut Snapshot) {
        let kernel = self.kernel.take();
        match &kernel {
            Some(Ok(_)) if snapshot.host.initial_pid_namespace == Some(false) => snapshot.gaps.push(Gap {
                layer: Layer::Kernel,
                whole: true,
                what: "the driver's structures: their process ids are those of the initial pid namespace, and this is another".to_owned(),
                remedy: "run in the host's pid namespace".to_owned(),
            }),
            Some(Ok(kernel)) => {
                let gaps = self.time("driver's structures", || kernel.fill(snapshot));
                snapshot.gaps.extend(gaps);
            }
            Some(Err(gap)) => snapshot.gaps.push(gap.clone()),
            None => snapshot.gaps.push(Gap {
                layer: Layer::Kernel,
                whole: true,
                what: "the driver's structures: switched off".to_owned(),
                remedy: "leave them on".to_owned(),
            }),
        }
        self.kernel = kernel;
    }

    fn time<T>(&mut self, part: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        let took = started.elapsed();
        self.timings.push(Timing { part, took });
        done
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Milliseconds since the host was booted, as the starts of threads are counted.
fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let parts = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    parts.0.unwrap_or_default() * 1000 + parts.1.unwrap_or_default() / 1_000_000
}

/// Reads the requests of all disks; returns the devices that are live and have none.
fn read_debugfs(roots: &Roots, snapshot: &mut Snapshot) -> HashSet<DeviceId> {
    let mut idle = HashSet::new();
    if let Some(gap) = debugfs::gap(&roots.debug) {
        snapshot.gaps.push(gap);
        return idle;
    }
    for device in &mut snapshot.devices {
        if device.node == Node::File || device.block.is_none() {
            continue;
        }
        let disk = debugfs::disk(&roots.debug, &device.id.disk_name());
        if disk.idle && device.state == Some(DeviceState::Live) {
            idle.insert(device.id);
        }
        for seen in disk.queues {
            match device.queues.iter_mut().find(|queue| queue.id == seen.id) {
                Some(queue) => (queue.tags, queue.requeued) = (seen.tags, seen.requeued),
                None => device.queues.push(seen),
            }
        }
    }
    idle
}

/// Whether the buffers that the servers gave are memory that the driver can use.
fn check_buffers(snapshot: &mut Snapshot, processes: &Processes) {
    for device in &mut snapshot.devices {
        let largest = u64::from(device.max_io_bytes.unwrap_or(4096));
        for tag in device.queues.iter_mut().flat_map(|queue| &mut queue.tags) {
            let Some(buffer) = &mut tag.buffer else {
                continue;
            };
            let pid = tag.armer.as_ref().map(|armer| armer.pid);
            let Some(memory) = pid
                .and_then(|pid| processes.memory.get(&pid))
                .filter(|memory| !memory.is_empty())
            else {
                continue;
            };
            let length = tag
                .request
                .as_ref()
                .and_then(|request| request.bytes)
                .filter(|bytes| *bytes > 0);
            check_buffer(buffer, length.unwrap_or(largest), memory);
        }
    }
}

fn check_buffer(buffer: &mut Buffer, length: u64, memory: &processes::Memory) {
    let end = buffer.address.saturating_add(length);
    let (mut at, mut writable) = (buffer.address, true);
    // The mappings are in the order of their addresses.
    for (from, to, _, write) in memory {
        if *from <= at && at < *to {
            at = *to;
            writable &= *write;
        }
        if at >= end {
            break;
        }
    }
    buffer.mapped = Some(at >= end);
    buffer.writable = Some(at >= end && writable);
}

#[cfg(test)]
mod tests {
    use super::check_buffer;
    use crate::facts::Buffer;

    fn check(address: u64) -> (Option<bool>, Option<bool>) {
        let memory = vec![(0x1000, 0x3000, true, true), (0x3000, 0x4000, true, false)];
        let mut buffer = Buffer {
            address,
            mapped: None,
            writable: None,
        };
        check_buffer(&mut buffer, 0x1000, &memory);
        (buffer.mapped, buffer.writable)
    }

    #[test]
    fn a_buffer_is_usable_when_all_of_it_is_mapped_and_writable() {
        assert_eq!(check(0x1800), (Some(true), Some(true)));
        assert_eq!(check(0x2800), (Some(true), Some(false)));
        assert_eq!(check(0x3800), (Some(false), Some(false)));
        assert_eq!(check(0x9000), (Some(false), Some(false)));
    }
}
