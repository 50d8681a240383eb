//! What a run is made of.

use oxublk::Tag;

use crate::event::{After, Event};
use crate::kernel::Kernel;

/// A queue, its driver, and what will happen. Two runs of the same setup, requests and server are
/// the same.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose rules hold. Default: 7.3.
    pub kernel: Kernel,
    /// How many tags the queue has, 1 to 4096. Default 4.
    pub depth: u16,
    /// The size of each tag's buffer, and of the largest read or write. Default 16 KiB.
    pub max_io_bytes: usize,
    /// The disk's size in sectors of 512 bytes. Default 256.
    pub sectors: u64,
    /// Decides everything that the kernel leaves open. Default 0.
    pub seed: u64,
    /// How many of a hundred waiting `enter`s come back with nothing, as a signal makes them;
    /// below 100. Default 10.
    pub spurious_percent: u8,
    /// How many of a hundred operations of asynchronous disks fail, half of them with `EINTR`. Default 0.
    pub failing_percent: u8,
    /// How many of a hundred requests with data have them in memory that client and server share. Default 0.
    pub shared_percent: u8,
    /// When completions are posted. Default: deferred.
    pub delivery: Delivery,
    /// How the tags come back when the device is stopped. Default: as the driver does.
    pub stop_order: StopOrder,
    /// What happens, and when. When everything planned has happened and nothing is left to do,
    /// the device is stopped.
    pub plan: Vec<(After, Event)>,
    /// The fetch of this tag is refused with this errno.
    pub refuse_fetch: Option<(Tag, i32)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kernel: Kernel::V7_3,
            depth: 4,
            max_io_bytes: 16 << 10,
            sectors: 256,
            seed: 0,
            spurious_percent: 10,
            failing_percent: 0,
            shared_percent: 0,
            delivery: Delivery::Deferred,
            stop_order: StopOrder::Drained,
            plan: Vec::new(),
            refuse_fetch: None,
        }
    }
}

/// When the kernel does what it owes the server's thread: copies and completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Only while the thread waits in `enter`: a ring with `DEFER_TASKRUN`.
    Deferred,
    /// In any system call: a ring without.
    AnyCall,
}

/// How the tags come back when the device is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrder {
    /// When every request that had arrived is answered, as the driver does it.
    Drained,
    /// Each as soon as it is idle, while others are still with the server: harder on the server
    /// than the driver is.
    Idle,
}
