//! Block devices in userspace for Linux, on ublk.

pub mod control;
mod device;
mod disk;
mod error;
pub mod host;
mod id;
mod metrics;
mod operation;
pub mod queue;
mod serve;

pub use oxublk_sys as sys;

pub use control::{Control, DeviceInfo, DeviceState};
pub use device::{Builder, Device, Stopper};
pub use disk::{Disk, Geometry};
pub use error::{Error, ErrorKind, Result};
pub use id::{DeviceId, QueueId, Tag};
pub use metrics::{InFlight, Latency, Metrics, OperationReport, QueueMetrics, QueueReport};
pub use operation::Operation;
pub use oxublk_sys::Features;
pub use serve::serve;
