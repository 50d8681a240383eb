//! The flight recorder on the model: at each call of the disk it tells where every tag is.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::io;
use std::sync::{Arc, Mutex};

use oxublk::queue::{Calls, Ended, Queue, Share};
use oxublk::recorder::Recorded;
use oxublk::sys::op;
use oxublk::{DeviceId, Disk, Operation, QueueId, QueueMetrics, Station};
use oxublk_sim::{ClientRequest, Driver, Setup};
use proptest::prelude::*;

const SECTORS: u64 = 1 << 10;

/// What the recorder said while the disk had a request, and which one that was.
struct Look {
    operation: Operation,
    offset: u64,
    bytes: u64,
    tags: Vec<Recorded>,
}

/// Looks at the recorder in each call, and fails some.
struct Looks {
    metrics: Arc<QueueMetrics>,
    looks: Mutex<Vec<Look>>,
}

impl Looks {
    fn look(&self, operation: Operation, offset: u64, bytes: u64) -> io::Result<()> {
        let mut looks = self.looks.lock().unwrap();
        looks.push(Look {
            operation,
            offset,
            bytes,
            tags: self.metrics.recorded(),
        });
        if looks.len().is_multiple_of(3) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for Looks {
    fn size(&self) -> u64 {
        SECTORS * 512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.look(Operation::Read, offset, buf.len() as u64)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.look(Operation::Write, offset, buf.len() as u64)
    }
    fn flush(&self) -> io::Result<()> {
        self.look(Operation::Flush, 0, 0)
    }
}

fn request() -> impl Strategy<Value = ClientRequest> {
    let ops = prop_oneof![Just(op::READ), Just(op::WRITE), Just(op::FLUSH)];
    (ops, 0..SECTORS - 16, 1..=16u32).prop_map(|(op, sector, sectors)| match op {
        op::FLUSH => ClientRequest::flush(),
        op => ClientRequest::new(op, sector, sectors),
    })
}

/// The tags of a batch are answered in the order in which they were reaped.
fn check(look: &Look, depth: u16) {
    let at = |station| look.tags.iter().filter(move |tag| tag.station == station);
    assert_eq!(look.tags.len(), usize::from(depth), "each can be read");
    let [here]: [&Recorded; 1] = at(Station::WithDisk)
        .collect::<Vec<_>>()
        .try_into()
        .expect("the disk has one request");
    let (sector, bytes) = (look.offset / 512, look.bytes);
    assert_eq!(
        (here.operation, here.sector, here.bytes, here.result),
        (look.operation, sector, bytes, None)
    );
    assert!(here.armed_ns <= here.reaped_ns && here.reaped_ns <= here.handed_ns);
    for tag in at(Station::Reaped) {
        assert_eq!((tag.handed_ns, tag.result), (0, None), "{tag:?}");
    }
    for tag in at(Station::Answered) {
        let result = tag.result.expect("it is answered");
        let whole = i32::try_from(tag.bytes).unwrap();
        assert!(result == whole || result == -libc::ENOSPC, "{tag:?}");
    }
    assert_eq!(at(Station::Unarmed).count(), 0, "all were armed before");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_recorder_tells_where_each_request_is(
        depth in 1..=16u16, seed in any::<u64>(), requests in prop::collection::vec(request(), 1..80),
    ) {
        let setup = Setup { depth, seed, sectors: SECTORS, max_io_bytes: 8 << 10, ..Setup::default() };
        let driver = Driver::new(setup);
        for request in &requests {
            driver.submit(*request).expect("a request that fits");
        }
        let metrics = Arc::new(QueueMetrics::new(QueueId(0), depth));
        let disk = Arc::new(Looks { metrics: Arc::clone(&metrics), looks: Mutex::default() });
        let share = Share { device: DeviceId(0), metrics: Arc::clone(&metrics) };
        let mut queue = Queue::new(&share, driver.ring(), Calls::new(&disk));
        prop_assert!(metrics.recorded().iter().all(|tag| tag.station == Station::Unarmed));
        queue.arm().expect("armed");
        let before = metrics.recorded();
        prop_assert!(before.iter().all(|tag| matches!(tag.station, Station::Armed | Station::Reaped)));
        prop_assert_eq!(queue.serve().expect("served"), Ended::Stopped);
        let looks = disk.looks.lock().unwrap();
        prop_assert_eq!(looks.len(), requests.len());
        looks.iter().for_each(|look| check(look, depth));
        let after = metrics.recorded();
        prop_assert!(after.iter().all(|tag| tag.station == Station::Gone));
        let had: u64 = after.iter().map(|tag| tag.requests).sum();
        prop_assert_eq!(had, requests.len() as u64);
    }
}
