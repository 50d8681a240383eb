//! What the queue's own code costs a request: for counting instructions.
//!
//! Reads of 4 KiB go through [`Queue`] to a disk that does nothing, on a ring that does nothing
//! but complete them in batches. All that remains is our code:
//!
//! ```text
//! cargo build --release -p oxublk-sim --example hot_path
//! valgrind --tool=callgrind --callgrind-out-file=callgrind.out \
//!     target/release/examples/hot_path 1000000 32
//! callgrind_annotate callgrind.out | head -40
//! ```
//!
//! The instructions that valgrind collected, divided by the number of requests, are the cost of
//! one; this ring's own share, and starting the process, are in it. The arguments are how many
//! requests there are and how many come at once. A third, `clock`, reads the clock as a real
//! ring does, once or twice a batch (anything else does not). With `async` as the fourth the disk is an asynchronous one, with `operations` one
//! that asks the ring for each read.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use oxublk::queue::{
    Async, Backend as _, Blocking, Carrier, Completion, Ended, Held, Memory, Op, OpId, Ring, Share,
};
use oxublk::sys::{IO_RES_ABORT, IO_RES_OK, IoDesc, op};
use oxublk::{AsyncDisk, Buffer, DataPath, DeviceId, Disk, Io, QueueId, QueueMetrics, Tag};

const DEPTH: u16 = 128;
const IO_BYTES: usize = 4096;
/// What an operation of that length returns.
const IO_RESULT: i32 = 4096;

/// Answers without looking.
struct Null;

impl Disk for Null {
    fn size(&self) -> u64 {
        1 << 40
    }
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncDisk for Null {
    fn size(&self) -> u64 {
        1 << 40
    }
    async fn read_at(&self, _io: &Io<'_>, _buf: &mut Buffer<'_>, _offset: u64) -> io::Result<()> {
        Ok(())
    }
    async fn write_at(&self, _io: &Io<'_>, _buf: &Buffer<'_>, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Asks the ring for each read.
struct Reads(File);

impl AsyncDisk for Reads {
    fn size(&self) -> u64 {
        1 << 40
    }
    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        io.read_exact(&self.0, buf, offset).await
    }
    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        io.write_all(&self.0, buf, offset).await
    }
}

/// Completes armed tags round and round, a batch with each waiting call.
struct Batches {
    buffers: Vec<u8>,
    /// Reads that have not been completed.
    left: u64,
    batch: u16,
    /// How many of the current batch have not been taken.
    ready: u16,
    next: u16,
    result: i32,
    /// Operations that end with the next call.
    operations: Vec<OpId>,
    began: Option<Instant>,
}

impl Ring for Batches {
    fn fetch(&mut self, _tag: Tag) -> io::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _tag: Tag, _result: i32) -> io::Result<()> {
        Ok(())
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        if !wait || !self.operations.is_empty() {
            return Ok(());
        }
        let batch = u16::try_from(self.left).unwrap_or(u16::MAX).min(self.batch);
        self.left -= u64::from(batch);
        self.ready = batch;
        if batch == 0 {
            self.ready = DEPTH;
            self.result = IO_RES_ABORT;
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if let Some(id) = self.operations.pop() {
            return Some(Completion::Operation(id, IO_RESULT));
        }
        self.ready = self.ready.checked_sub(1)?;
        let tag = Tag(self.next);
        self.next = (self.next + 1) % DEPTH;
        Some(Completion::Tag(tag, self.result))
    }

    fn descriptor(&self, held: &Held) -> IoDesc {
        IoDesc {
            op_flags: u32::from(op::READ),
            nr_sectors: 8,
            start_sector: u64::from(held.tag().0) * 8,
            addr: 0,
        }
    }

    fn buffer(&mut self, held: &Held) -> &mut [u8] {
        let start = held.tag().index() * IO_BYTES;
        self.buffers
            .get_mut(start..start + IO_BYTES)
            .unwrap_or_default()
    }

    fn carrier(&mut self, held: &Held) -> Carrier<'_> {
        Carrier::Memory(self.buffer(held))
    }

    fn memory(&mut self, held: &Held) -> io::Result<Memory> {
        let buffer = self.buffer(held);
        let length = buffer.len();
        Ok(Memory::Mapped {
            start: NonNull::from(buffer).cast(),
            length,
        })
    }

    fn operate(&mut self, id: OpId, _op: &Op) -> io::Result<()> {
        self.operations.push(id);
        Ok(())
    }

    fn nudge(&mut self) -> io::Result<Box<dyn Fn() + Send + Sync>> {
        Ok(Box::new(|| ()))
    }

    fn now_ns(&self) -> u64 {
        let elapsed = self.began.map_or(0, |began| began.elapsed().as_nanos());
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

/// Serves so many reads, so many at once, to a disk of this kind.
pub(crate) fn serve(
    requests: u64,
    batch: u16,
    reads_clock: bool,
    kind: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let ring = Batches {
        buffers: vec![0; usize::from(DEPTH) * IO_BYTES],
        left: requests,
        batch: batch.clamp(1, DEPTH),
        ready: 0,
        next: 0,
        result: IO_RES_OK,
        operations: Vec::with_capacity(usize::from(DEPTH)),
        began: reads_clock.then(Instant::now),
    };
    let metrics = Arc::new(QueueMetrics::new(QueueId(0), DEPTH));
    let share = Share {
        device: DeviceId(0),
        metrics,
    };
    let path = DataPath::Copy;
    let (_, ended) = match kind {
        "async" => Async(Null).serve(&share, ring, path, &mut || ()),
        "operations" => {
            let disk = Async(Reads(File::open("/dev/null")?));
            disk.serve(&share, ring, path, &mut || ())
        }
        _ => Blocking(Null).serve(&share, ring, path, &mut || ()),
    };
    match ended {
        Ok(Ended::Stopped) => Ok(()),
        other => Err(format!("the queue ended with {other:?}").into()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests = arguments.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let batch: u16 = arguments.next().map_or(Ok(32), |n| n.parse())?;
    let reads_clock = arguments.next().is_some_and(|argument| argument == "clock");
    let kind = arguments.next().unwrap_or_default();
    serve(requests, batch, reads_clock, &kind)
}
