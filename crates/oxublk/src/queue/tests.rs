//! How a queue batches its answers, on a ring that only counts them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use oxublk_sys::IoDesc;

use super::{Calls, Carrier, Completion, Ended, Held, Memory, Op, OpId, Queue, Ring, Share};
use crate::disk::Disk;
use crate::id::{DeviceId, QueueId, Tag};
use crate::metrics::QueueMetrics;

const DEPTH: u16 = 8;
const MICROSECOND: u64 = 1_000;

/// A driver that delivers a request on every tag, `rounds` times, and takes its time to copy.
struct Driver {
    clock: Arc<AtomicU64>,
    copying_ns: u64,
    rounds: u32,
    completions: Vec<Completion>,
    written: usize,
    /// Answers handed over by each `enter`.
    batches: Vec<usize>,
    buffer: [u8; 512],
}

impl Ring for Driver {
    fn fetch(&mut self, _tag: Tag) -> io::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _tag: Tag, _result: i32) -> io::Result<()> {
        self.written += 1;
        Ok(())
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        self.clock
            .fetch_add(self.copying_ns * self.written as u64, Relaxed);
        if self.written > 0 {
            self.batches.push(std::mem::take(&mut self.written));
        }
        if wait {
            let result = if self.rounds > 0 {
                oxublk_sys::IO_RES_OK
            } else {
                oxublk_sys::IO_RES_ABORT
            };
            self.rounds = self.rounds.saturating_sub(1);
            self.completions = (0..DEPTH)
                .map(|tag| Completion::Tag(Tag(tag), result))
                .collect();
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        self.enter(true)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop()
    }

    fn descriptor(&self, _held: &Held) -> IoDesc {
        IoDesc {
            op_flags: u32::from(oxublk_sys::op::READ),
            nr_sectors: 1,
            start_sector: 0,
            addr: 0,
        }
    }

    fn buffer(&mut self, _held: &Held) -> &mut [u8] {
        &mut self.buffer
    }

    fn carrier(&mut self, _held: &Held) -> Carrier<'_> {
        Carrier::Memory(&mut self.buffer)
    }

    fn memory(&mut self, _held: &Held) -> io::Result<Memory> {
        Ok(Memory::Registered)
    }

    fn operate(&mut self, _id: OpId, _op: &Op) -> io::Result<()> {
        Ok(())
    }

    fn nudge(&mut self) -> io::Result<Box<dyn Fn() + Send + Sync>> {
        Ok(Box::new(|| ()))
    }

    fn now_ns(&self) -> u64 {
        self.clock.load(Relaxed)
    }
}

/// A disk whose first requests take long.
struct WarmsUp {
    clock: Arc<AtomicU64>,
    slow: AtomicU64,
}

impl Disk for WarmsUp {
    fn size(&self) -> u64 {
        4096
    }

    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        let is_slow = self
            .slow
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok();
        let takes_ns = if is_slow { 100 } else { 1 } * MICROSECOND;
        self.clock.fetch_add(takes_ns, Relaxed);
        Ok(())
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_is_fast_again_has_its_answers_handed_over_together_however_long_the_driver_copies() {
    let clock = Arc::new(AtomicU64::new(0));
    let driver = Driver {
        clock: Arc::clone(&clock),
        copying_ns: 50 * MICROSECOND,
        rounds: 4,
        completions: Vec::new(),
        written: 0,
        batches: Vec::new(),
        buffer: [0; 512],
    };
    let disk = WarmsUp {
        clock,
        slow: AtomicU64::new(u64::from(DEPTH) + 3),
    };
    let metrics = Arc::new(QueueMetrics::new(QueueId(0), DEPTH));
    let share = Share {
        device: DeviceId(0),
        metrics,
    };
    let mut queue = Queue::new(&share, driver, Calls::new(&disk));
    queue.arm().expect("armed");
    assert_eq!(queue.serve().expect("served"), Ended::Stopped);
    let batches = queue.into_ring().batches;
    assert_eq!(batches.first(), Some(&8), "the slowness shows afterwards");
    assert!(
        batches.contains(&1),
        "one by one while it is slow: {batches:?}"
    );
    assert_eq!(batches.last(), Some(&8), "together again: {batches:?}");
}
