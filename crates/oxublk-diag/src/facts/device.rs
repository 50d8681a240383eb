//! A device, its queues and tags, its server and its users.

use oxublk::{DeviceId, DeviceState, QueueId, Tag};
use serde::{Deserialize, Serialize};

use super::{Pid, Recorder, Tid};

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Where it is in its life, as the driver says.
    pub state: Option<DeviceState>,
    /// What the driver granted: the bits of `ublksrv_ctrl_dev_info.flags`.
    pub flags: Option<u64>,
    /// How many queues it has.
    pub queue_count: Option<u16>,
    /// How many tags each has.
    pub depth: Option<u16>,
    /// The size of the largest request's buffer in bytes.
    pub max_io_bytes: Option<u32>,
    /// The server's process, as the driver says. Up to 6.16 it may be any number.
    pub claimed_pid: Option<Pid>,
    /// What is at `/dev/ublkbN`.
    pub node: Node,
    /// The disk, when there is one.
    pub block: Option<Block>,
    /// The processes that have `/dev/ublkcN` open or mapped.
    pub servers: Vec<Server>,
    /// Who has the disk or a partition of it open, mounted, or built upon.
    pub users: Vec<User>,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// Whether the driver has seen every tag armed; none where that is not known.
    pub all_armed: Option<bool>,
    /// What its server itself says of its requests, when it is one of ours.
    #[serde(default)]
    pub recorder: Option<Recorder>,
}

impl Device {
    /// How many tags of all queues are armed, as far as that is known.
    #[must_use]
    pub fn armed_tags(&self) -> u32 {
        let armed = |queue: &Queue| u32::from(queue.armed.unwrap_or_default());
        self.queues.iter().map(armed).sum()
    }
}

/// What is at `/dev/ublkbN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Nothing.
    #[default]
    Missing,
    /// The disk.
    BlockDevice,
    /// A block device of another number.
    OtherDevice,
    /// Something else: `dd of=/dev/ublkb0` without a device makes a file there.
    File,
}

/// A disk, as `/sys/block` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Major and minor number.
    pub number: (u32, u32),
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Reads that were sent and have not ended. One that waits to be sent again is not counted.
    pub reads_in_flight: u64,
    /// Writes, flushes and discards that were sent and have not ended.
    pub writes_in_flight: u64,
    /// Requests that have ended since the disk was made.
    pub completed: u64,
    /// Requests that have ended with an error, where the kernel counts them.
    pub failed: Option<u64>,
}

/// A process that has `/dev/ublkcN` open or mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The process.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Its descriptors of `/dev/ublkcN`; empty when it only has it mapped.
    pub fds: Vec<i32>,
    /// Its mappings of `/dev/ublkcN`: the descriptors of the queues.
    pub mappings: Vec<Mapping>,
    /// Its descriptors of rings.
    pub rings: Vec<i32>,
    /// Whether it lives in other namespaces than the observer: their names, `pid`, `mnt`, `user`.
    pub other_namespaces: Vec<String>,
}

/// A mapping of `/dev/ublkcN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Where it begins.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The place in the file: queue 0's descriptors are at 0, queue 1's at 98,304 (with descriptors of 24 bytes).
    pub offset: u64,
}

/// Somebody who uses a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The process; none when it is the kernel.
    pub pid: Option<Pid>,
    /// Its name.
    pub comm: String,
    /// What it uses the disk as, in words: `has /dev/ublkb0 open`, `/dev/ublkb0 is mounted on /mnt`.
    pub usage: String,
}

/// A thread that waits for a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The thread; its [`Task`](super::Task) is in the snapshot too.
    pub tid: Tid,
    /// Its process.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// For which device.
    pub device: DeviceId,
    /// What it waits in, in words: `open of /dev/ublkb0`, `read of /dev/ublkb0`, `write on /mnt (ublkb0p1)`.
    pub what: String,
    /// Whether it issued a request itself, or waits behind somebody else's (a lock that an open takes, for example).
    /// None where that is not known.
    pub issued: Option<bool>,
    /// For how long, in milliseconds.
    pub since_ms: Option<u64>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Which.
    pub id: QueueId,
    /// The CPUs whose requests it gets.
    pub cpus: Vec<u32>,
    /// How many of its tags were armed at least once since the device was opened by this server.
    pub armed: Option<u16>,
    /// Tags that were never armed, in ranges.
    pub unarmed: Vec<TagRange>,
    /// The threads that armed its tags, each once; up to 6.15 the driver has one for each queue.
    pub armers: Vec<Armer>,
    /// Other threads that fetched some of its tags, where the driver serves the queue through one thread (up to 6.15).
    #[serde(default)]
    pub strangers: Vec<Armer>,
    /// Tags with something to tell: with a request, or not simply armed and waiting.
    pub tags: Vec<TagView>,
    /// Requests that rest on the list of those to be sent again: the driver gave them back to the block layer.
    pub requeued: u32,
    /// Tags without a request whose last answer was not what had been asked for: fewer or more bytes.
    pub misanswered: Vec<Misanswer>,
    /// Tags without a request, other than the first, whose last answer was what had been asked for.
    pub well_answered: u16,
    /// Whether the driver holds new requests back or fails them, since the server goes or is gone (`canceling`).
    pub canceling: Option<bool>,
    /// Whether it fails all requests (`force_abort`, `fail_io`).
    pub aborting: Option<bool>,
}

/// An answer with another number of bytes than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misanswer {
    /// The tag.
    pub tag: Tag,
    /// `read` or `write`.
    pub operation: String,
    /// What was asked for, by the descriptor that the driver wrote. Nobody asks for 0: that is what is left of a request of which
    /// all but less than a sector was answered.
    pub asked_bytes: u64,
    /// What the server answered.
    pub result: i32,
}

/// Neighbouring tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRange {
    /// The first.
    pub first: Tag,
    /// The last.
    pub last: Tag,
}

/// The thread that armed a tag: only it can be handed requests and answer them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armer {
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Whether it lives: the driver keeps the structure of one that ended.
    pub alive: bool,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagView {
    /// Which.
    pub tag: Tag,
    /// Where the driver has it; none without the driver's structures.
    pub place: Option<Place>,
    /// The driver's flags of the tag, as they are.
    pub flags: Option<u32>,
    /// Who armed it.
    pub armer: Option<Armer>,
    /// The buffer that the server gave, and whether it can be used.
    pub buffer: Option<Buffer>,
    /// The descriptor that the driver wrote for the server.
    pub descriptor: Option<Descriptor>,
    /// The request that has it.
    pub request: Option<Request>,
}

/// Where the driver has a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Never armed.
    Unarmed,
    /// Armed: a fetch or commit of the server waits in the driver. With a request in flight: handed to the
    /// server's task, which has not run for it.
    Armed,
    /// With the server: the completion was posted, and no answer was accepted.
    WithServer,
    /// With the server, which was asked for a buffer (`NEED_GET_DATA`).
    NeedsBuffer,
    /// Taken back: its server went.
    Canceled,
}

/// The buffer that a server gave for a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Its address in the server.
    pub address: u64,
    /// Whether the server has that memory mapped, over the length of the request, or of the largest one.
    pub mapped: Option<bool>,
    /// Whether it may write there: the driver copies the data of writes there.
    pub writable: Option<bool>,
}

/// The descriptor that the driver wrote for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The operation and its flags.
    pub op_flags: u32,
    /// Length in 512-byte sectors.
    pub sectors: u32,
    /// The first sector.
    pub start_sector: u64,
    /// The address.
    pub address: u64,
}

/// A request of the block layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `read`, `write`, `flush`, `discard`, `write zeroes`, or the kernel's own name of another.
    pub operation: String,
    /// The first 512-byte sector.
    pub sector: Option<u64>,
    /// Its length in bytes.
    pub bytes: Option<u64>,
    /// Since it was issued, in milliseconds.
    pub age_ms: Option<u64>,
    /// Tells it from another request that has the tag later.
    pub identity: Option<u64>,
    /// What the block layer thinks of it.
    pub state: RequestState,
    /// The thread that waits for it, where that is known.
    pub waiter: Option<Tid>,
}

/// What the block layer thinks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Not sent, or given back to be sent again.
    Idle,
    /// Sent to the driver.
    InFlight,
    /// Ended.
    Complete,
}
