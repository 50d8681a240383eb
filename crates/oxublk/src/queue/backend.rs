//! What serves a queue: a blocking disk or an asynchronous one, behind one trait.

use std::sync::Arc;

use super::handler::{Calls, Handler};
use super::ring::Ring;
use super::tasks::{Tasks, perform};
use super::{Ended, Queue, QueueError};
use crate::async_disk::AsyncDisk;
use crate::disk::{Disk, Geometry};
use crate::id::DeviceId;
use crate::metrics::QueueMetrics;
use crate::ops::{Desk, Io};
use crate::path::DataPath;

/// What one thread serves: some or all of the tags of a queue.
#[derive(Clone, Debug)]
pub struct Share {
    /// Of this device.
    pub device: DeviceId,
    /// Where is counted what it does; they say of which queue, and which tags.
    pub metrics: Arc<QueueMetrics>,
}

/// A disk of either kind.
pub trait Backend: Send + Sync + 'static {
    /// As the disk says.
    fn size(&self) -> u64;
    /// As the disk says.
    fn geometry(&self) -> Geometry;
    /// The way of the data that suits the disk best.
    fn suits(&self) -> DataPath;
    /// Arms the tags of a share, calls `armed`, and answers until the queue ends. Returns the ring, which must outlive
    /// whatever the kernel still does with its memory.
    fn serve<R: Ring>(
        &self,
        share: &Share,
        ring: R,
        path: DataPath,
        armed: &mut dyn FnMut(),
    ) -> (R, Result<Ended, QueueError>);
}

/// A [`Disk`].
#[derive(Debug)]
pub struct Blocking<D>(pub D);

impl<D: Disk> Backend for Blocking<D> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn suits(&self) -> DataPath {
        if self.0.is_direct() {
            DataPath::Direct
        } else {
            DataPath::Copy
        }
    }

    fn serve<R: Ring>(
        &self,
        share: &Share,
        ring: R,
        path: DataPath,
        armed: &mut dyn FnMut(),
    ) -> (R, Result<Ended, QueueError>) {
        let calls = match path {
            DataPath::Direct => Calls::direct(&self.0),
            _ => Calls::new(&self.0),
        };
        run(Queue::new(share, ring, calls), armed)
    }
}

/// An [`AsyncDisk`].
#[derive(Debug)]
pub struct Async<D>(pub D);

impl<D: AsyncDisk> Backend for Async<D> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn suits(&self) -> DataPath {
        if self.0.is_zero_copy() {
            DataPath::ZeroCopy
        } else {
            DataPath::Copy
        }
    }

    fn serve<R: Ring>(
        &self,
        share: &Share,
        mut ring: R,
        _path: DataPath,
        armed: &mut dyn FnMut(),
    ) -> (R, Result<Ended, QueueError>) {
        let depth = share.metrics.depth();
        let desk = Desk::new(depth);
        let nudge = ring.nudge();
        match nudge {
            Ok(nudge) => desk.wakeups().nudge_by(nudge),
            Err(error) => return (ring, Err(error.into())),
        }
        let io = Io::new(&desk);
        let tasks = Tasks::new(&desk, depth, |request, buffer| {
            perform(&self.0, &io, request, buffer)
        });
        run(Queue::new(share, ring, tasks), armed)
    }
}

fn run<R: Ring, H: Handler<R>>(
    mut queue: Queue<R, H>,
    armed: &mut dyn FnMut(),
) -> (R, Result<Ended, QueueError>) {
    let served = queue.arm().and_then(|()| {
        armed();
        queue.serve()
    });
    (queue.into_ring(), served)
}
