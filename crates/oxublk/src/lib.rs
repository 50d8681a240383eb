//! Block devices in userspace for Linux, on ublk.

mod async_disk;
mod bell;
pub mod control;
mod device;
mod disk;
mod error;
pub mod host;
mod id;
mod mapping;
mod metrics;
mod operation;
mod ops;
mod path;
mod probes;
pub mod queue;
pub mod recorder;
mod serve;
mod shared;
mod transfer;

pub use oxublk_sys as sys;

pub use async_disk::AsyncDisk;
pub use control::{Control, DeviceInfo, DeviceState};
pub use device::{Builder, Device, Stopper};
pub use disk::{Disk, Geometry};
pub use error::{Error, ErrorKind, Result};
pub use id::{DeviceId, QueueId, Tag};
pub use metrics::{
    InFlight, Latency, Metrics, OperationReport, QueueMetrics, QueueReport, Shared, Stuck,
};
pub use operation::Operation;
pub use ops::{Buffer, Io};
pub use oxublk_sys::Features;
pub use path::{ChosenPath, DataPath};
pub use recorder::Station;
pub use serve::{serve, serve_async};
pub use shared::{SharedMemory, Slot};
pub use transfer::{Sink, Source};
