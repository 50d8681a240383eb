//! One run of the queue's code on the model, and what must hold after any.

use std::collections::BTreeMap;
use std::sync::Arc;

use oxublk::queue::{Backend as _, Blocking, Ended, QueueError, Share};
use oxublk::sys::op;
use oxublk::{DataPath, DeviceId, Operation, QueueId, QueueMetrics};
use oxublk_sim::{ClientRequest, Driver, Outcome, Report, Setup};

use super::disk::{Call, Manners, MemDisk, call_of};
use super::metrics::{Counted, counters};

/// What is left of a run when the queue has ended and was dropped.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ended: Result<Ended, QueueError>,
    pub(crate) report: Report,
    pub(crate) calls: Vec<Call>,
    pub(crate) counted: Vec<Counted>,
    pub(crate) in_flight: usize,
    /// How many requests had their data in shared memory.
    pub(crate) shared: u64,
}

/// Serves `requests` until the queue ends.
pub(crate) fn run(setup: Setup, manners: Manners, requests: &[ClientRequest]) -> Run {
    run_by(DataPath::Copy, setup, manners, requests)
}

/// The same by another way of the data.
pub(crate) fn run_by(
    path: DataPath,
    setup: Setup,
    manners: Manners,
    requests: &[ClientRequest],
) -> Run {
    let (depth, size, seed) = (setup.depth, setup.sectors * 512, setup.seed);
    let driver = Driver::new(setup);
    for request in requests {
        driver.submit(*request).expect("a request that fits");
    }
    let clock = driver.clock().clone();
    let disk = Arc::new(MemDisk::new(size, seed, manners, clock));
    let metrics = Arc::new(QueueMetrics::new(QueueId(0), depth));
    let share = Share {
        device: DeviceId(0),
        metrics: Arc::clone(&metrics),
    };
    let backend = Blocking(Arc::clone(&disk));
    let (ring, ended) = backend.serve(&share, driver.ring(), path, &mut || ());
    drop(ring);
    let (counted, in_flight) = counters(&metrics);
    Run {
        ended,
        report: driver.report(),
        calls: disk.calls(),
        counted,
        in_flight,
        shared: metrics.report().shared.requests,
    }
}

impl Run {
    /// No rule was broken, and every request came to an end, once.
    pub(crate) fn assert_rules_kept(&self, requests: usize) {
        assert_eq!(self.report.violations, [], "{:?}", self.ended);
        assert_eq!(self.report.unfinished, []);
        let mut ids: Vec<_> = self.report.outcomes.iter().map(|o| o.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), requests, "each finished");
        assert_eq!(self.report.outcomes.len(), requests, "and once");
        let deliveries = self.report.outcomes.iter().map(|o| o.deliveries);
        assert!(deliveries.max().unwrap_or(0) <= 1, "none answered in part");
    }

    /// The requests that the server had in its hands.
    pub(crate) fn delivered(&self) -> Vec<&Outcome> {
        let outcomes = self.report.outcomes.iter();
        outcomes.filter(|outcome| outcome.deliveries > 0).collect()
    }

    /// What the clients saw of requests that were delivered is what the disk did.
    pub(crate) fn assert_clients_saw_what_the_disk_did(&self) {
        let seen = self.delivered().into_iter().filter(|outcome| {
            let known = known(outcome.request.op);
            assert!(known || outcome.result == Err(libc::EOPNOTSUPP));
            known
        });
        let mut seen: Vec<Call> = seen.map(call_of).collect();
        let mut done = self.calls.clone();
        seen.sort();
        done.sort();
        assert_eq!(seen, done);
    }

    /// The metrics are what the disk did, and nothing is left in flight.
    pub(crate) fn assert_metrics_agree(&self) {
        assert_eq!(self.in_flight, 0);
        let mut expected: BTreeMap<usize, Counted> = BTreeMap::new();
        for outcome in self.delivered() {
            let request = outcome.request;
            let counted = expected.entry(index_of(request.op)).or_default();
            counted.requests += 1;
            match outcome.result {
                Ok(()) => counted.bytes += request.bytes() as u64,
                Err(_) => counted.errors += 1,
            }
        }
        for (index, counted) in self.counted.iter().enumerate() {
            let expected = expected.get(&index).copied().unwrap_or_default();
            assert_eq!(*counted, expected, "{:?}", Operation::ALL[index]);
        }
    }
}

fn known(op: u8) -> bool {
    index_of(op) != Operation::Other.index()
}

fn index_of(op: u8) -> usize {
    let operation = match op {
        op::READ => Operation::Read,
        op::WRITE => Operation::Write,
        op::FLUSH => Operation::Flush,
        op::DISCARD => Operation::Discard,
        op::WRITE_ZEROES => Operation::WriteZeroes,
        _ => Operation::Other,
    };
    operation.index()
}
