//! What a server of ours says of its own requests: its flight recorder.

use oxublk::{QueueId, Station, Tag};
use serde::{Deserialize, Serialize};

use super::Pid;

/// A server's record of a device, at one moment. It can be read when every thread of the server is stuck or stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorder {
    /// The server's process.
    pub pid: Pid,
    /// The requests that the server has in its own eyes. One that is not here was not delivered, not reaped, or its answer
    /// was given to the driver.
    pub requests: Vec<Recorded>,
    /// How many tags changed while they were read: their requests come and go.
    pub moving: u64,
}

/// A request that a server has, in its own eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The queue.
    pub queue: QueueId,
    /// The tag.
    pub tag: Tag,
    /// Where it is: `reaped`, `with_disk`, or `answered` and not submitted.
    pub station: Station,
    /// For how long it has been there, in milliseconds; of an answer that waits for its batch, for how long at most.
    pub since_ms: u64,
    /// Since it was reaped, in milliseconds.
    pub age_ms: u64,
    /// `read`, `write`, `flush`, `discard`, `write zeroes`, `other`.
    pub operation: String,
    /// The first 512-byte sector; 0 of a flush.
    pub sector: u64,
    /// Its length in bytes; 0 of a flush.
    pub bytes: u64,
    /// The how manieth request of its tag it is: tells it from another that has the tag later.
    pub number: u64,
}
