//! What the recorder's file looks like, and how it is read.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use oxublk_sys::{MAX_NR_QUEUES, MAX_QUEUE_DEPTH};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Station;
use crate::id::{DeviceId, QueueId, Tag};
use crate::operation::Operation;

/// The first bytes of the file.
pub const MAGIC: [u8; 8] = *b"oxublkFR";
/// The version of the format that this library writes and reads.
pub const VERSION: u32 = 1;
/// The memfd's name, before the device's id.
pub const NAME_PREFIX: &str = "oxublk-recorder-";
/// `CLOCK_MONOTONIC`.
const CLOCK: u32 = 1;
/// Where the operation and the sequence number are in [`TagRecord::state`].
pub(super) const OPERATION_SHIFT: u32 = 8;
pub(super) const SEQUENCE_SHIFT: u32 = 16;
/// In place of a station: the record is being written for a new request.
pub(super) const CHANGING: u8 = 0xff;
/// A device with more tags is not read: 128 queues of the greatest depth.
const MAX_BYTES: u64 = 32 << 20;

/// The beginning of the file. It does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// The size of this header: where the first record is.
    pub header_bytes: u32,
    /// The size of a record.
    pub record_bytes: u32,
    /// The device's id.
    pub device: u32,
    /// How many queues it has.
    pub queues: u32,
    /// How many tags each has.
    pub depth: u32,
    /// The clock of all times: 1 is `CLOCK_MONOTONIC`.
    pub clock: u32,
    /// The server's process, in its own pid namespace.
    pub pid: u32,
    /// When the server made the record.
    pub began_ns: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// What a server knows of a tag.
///
/// A queue's thread writes the fields of a transition first and [`state`](Self::state) last; when a new request comes
/// it writes a `state` with the station 255 before. The sequence number in it grows with each transition. So a
/// reader that read the same 64 bytes twice, one after the other, has a record that was not being written,
/// or fields that belong to the next station, which it must not believe yet: `handed_ns` from
/// [`Station::WithDisk`] on, `result` from [`Station::Answered`] on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TagRecord {
    /// The station (bits 0 to 7), the request's operation by [`Operation::index`] (bits 8 to 15), and the sequence
    /// number: 1 when the tag is first armed, and 5 more with each request.
    pub state: u64,
    /// The request's first sector, in units of 512 bytes.
    pub sector: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the driver was told: bytes, or a negative errno.
    pub result: i64,
    /// When the tag was armed: by its first fetch, or by the last answer.
    pub armed_ns: u64,
    /// When the request was reaped.
    pub reaped_ns: u64,
    /// The last reading of the clock before the disk was called.
    pub handed_ns: u64,
    /// Zero.
    pub reserved: u64,
}

const HEADER_BYTES: usize = size_of::<Header>();
const RECORD_BYTES: usize = size_of::<TagRecord>();
const _: () = assert!(HEADER_BYTES == 64 && RECORD_BYTES == 64);

impl Header {
    pub(super) fn new(device: DeviceId, queues: u16, depth: u16, began_ns: u64) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            header_bytes: 64,
            record_bytes: 64,
            device: device.0,
            queues: u32::from(queues),
            depth: u32::from(depth),
            clock: CLOCK,
            pid: std::process::id(),
            began_ns,
            reserved: [0; 2],
        }
    }

    /// The size of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        let records = u64::from(self.queues) * u64::from(self.depth);
        HEADER_BYTES as u64 + records.saturating_mul(RECORD_BYTES as u64)
    }

    fn check(&self, file_bytes: u64) -> Result<(), Refused> {
        if self.magic != MAGIC {
            return Err(Refused::NotOurs);
        }
        if self.version != VERSION {
            return Err(Refused::Version(self.version));
        }
        let sizes = (self.header_bytes, self.record_bytes, self.clock);
        let sane = sizes == (64, 64, CLOCK)
            && (1..=u32::from(MAX_NR_QUEUES)).contains(&self.queues)
            && (1..=u32::from(MAX_QUEUE_DEPTH)).contains(&self.depth)
            && self.file_bytes() == file_bytes;
        if sane { Ok(()) } else { Err(Refused::Damaged) }
    }
}

/// Why a file is not a recording that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is something else.
    NotOurs,
    /// It is of this other version.
    Version(u32),
    /// Its header makes no sense.
    Damaged,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => f.write_str("it is no flight recorder of oxublk"),
            Self::Version(version) => write!(
                f,
                "it is a flight recorder of version {version}, and this program reads version {VERSION}"
            ),
            Self::Damaged => f.write_str("the header of this flight recorder makes no sense"),
        }
    }
}

impl std::error::Error for Refused {}

/// A tag's record, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The queue.
    pub queue: QueueId,
    /// The tag.
    pub tag: Tag,
    /// Where it is.
    pub station: Station,
    /// The operation of its request, or of its last one.
    pub operation: Operation,
    /// The first sector of that, in units of 512 bytes.
    pub sector: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the driver was told of it: bytes, or a negative errno. None while it is not answered.
    pub result: Option<i32>,
    /// How many requests the tag has had.
    pub requests: u64,
    /// When the tag was armed.
    pub armed_ns: u64,
    /// When the request was reaped.
    pub reaped_ns: u64,
    /// When it was given to the disk, or shortly before; 0 while it was not.
    pub handed_ns: u64,
}

impl Recorded {
    /// None when the record was being written.
    pub(super) fn decode(record: &TagRecord, queue: QueueId, tag: Tag) -> Option<Self> {
        let [station, operation, ..] = record.state.to_le_bytes();
        let station = Station::of(station)?;
        // An idle tag is at 5 times its requests and 1; one that is gone, at 1 more; one that has reaped the next, at 2.
        let requests = (record.state >> SEQUENCE_SHIFT).saturating_add(2) / 5;
        // What an earlier request left behind is not this one's.
        let handed = requests > 0 && station != Station::Reaped;
        let answered = handed && station != Station::WithDisk;
        let result = i32::try_from(record.result).ok();
        Some(Self {
            queue,
            tag,
            station,
            operation: *Operation::ALL.get(usize::from(operation))?,
            sector: record.sector,
            bytes: record.bytes,
            result: result.filter(|_| answered),
            requests,
            armed_ns: record.armed_ns,
            reaped_ns: record.reaped_ns,
            handed_ns: if handed { record.handed_ns } else { 0 },
        })
    }

    /// Since when it is where it is; for an answer that waits, since when at the earliest.
    #[must_use]
    pub fn since_ns(&self) -> u64 {
        match self.station {
            Station::Unarmed | Station::Armed | Station::Gone => self.armed_ns,
            Station::Reaped => self.reaped_ns,
            Station::WithDisk | Station::Answered => self.handed_ns,
        }
    }
}

/// What a recorder said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Which device, and how large it is.
    pub header: Header,
    /// The tags, in their order, without those that changed while they were read.
    pub tags: Vec<Recorded>,
    /// How many changed while they were read: their requests come and go.
    pub moving: usize,
}

impl Recording {
    /// From the bytes of the file, read twice, one after the other: what is not the same in both is left out.
    ///
    /// # Errors
    /// It is no recording that can be read.
    pub fn new(first: &[u8], second: &[u8]) -> Result<Self, Refused> {
        let (header, before) = split(first)?;
        let (_, after) = split(second)?;
        let depth = usize::try_from(header.depth).map_err(|_| Refused::Damaged)?;
        let mut recording = Self {
            header,
            tags: Vec::new(),
            moving: 0,
        };
        let pairs = before
            .chunks_exact(RECORD_BYTES)
            .zip(after.chunks_exact(RECORD_BYTES));
        for (index, (before, after)) in pairs.enumerate() {
            let place = (u16::try_from(index / depth), u16::try_from(index % depth));
            let (Ok(queue), Ok(tag)) = place else { break };
            let whole = (before == after)
                .then(|| TagRecord::read_from_bytes(after).ok())
                .flatten();
            let recorded =
                whole.and_then(|record| Recorded::decode(&record, QueueId(queue), Tag(tag)));
            match recorded {
                Some(recorded) => recording.tags.push(recorded),
                None => recording.moving += 1,
            }
        }
        Ok(recording)
    }

    /// The tags that have a request in the server's eyes.
    pub fn requests(&self) -> impl Iterator<Item = &Recorded> {
        self.tags.iter().filter(|tag| tag.station.has_request())
    }
}

fn split(bytes: &[u8]) -> Result<(Header, &[u8]), Refused> {
    let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| Refused::NotOurs)?;
    header.check(bytes.len() as u64)?;
    Ok((header, rest))
}

/// Reads a recorder's file: `/proc/PID/fd/N`, whose name begins with [`NAME_PREFIX`]. Nobody is made to wait.
///
/// # Errors
/// It cannot be read; or, as [`io::ErrorKind::InvalidData`] with a [`Refused`], it is no recording.
pub fn read(file: &File) -> io::Result<Recording> {
    let bytes = file.metadata()?.len();
    let invalid = |refused| io::Error::new(io::ErrorKind::InvalidData, refused);
    let length = usize::try_from(bytes.min(MAX_BYTES + 1)).unwrap_or_default();
    if bytes > MAX_BYTES {
        return Err(invalid(Refused::Damaged));
    }
    let (mut first, mut second) = (vec![0; length], vec![0; length]);
    file.read_exact_at(&mut first, 0)?;
    file.read_exact_at(&mut second, 0)?;
    Recording::new(&first, &second).map_err(invalid)
}
