//! Counters, latencies and requests in flight, per queue.
//!
//! Each queue's thread is the only writer of its cells, so it writes with plain loads and stores
//! that readers see sooner or later: no lock, no allocation, nothing shared between queues. What is
//! in flight is read from the [flight recorder](crate::recorder).

mod batch;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use histogram::{AtomicHistogram, Config, Histogram};

pub(crate) use self::batch::Batch;
use self::batch::Counts;
use crate::bell::Bell;
use crate::id::{DeviceId, QueueId, Tag};
use crate::operation::Operation;
use crate::recorder::{Record, Recorded, Records, Station};

const OPERATIONS: usize = Operation::ALL.len();
/// Buckets of 1/32 of their value (3 %), up to 2^40 ns (18 minutes).
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 40;
/// The parameters of every latency histogram, checked by the compiler.
const LATENCIES: Config = match Config::new(GROUPING_POWER, MAX_VALUE_POWER) {
    Ok(config) => config,
    Err(_) => unreachable!(),
};
const MAX_LATENCY_NS: u64 = (1 << MAX_VALUE_POWER) - 1;

/// What one thread of a queue writes and anybody reads.
#[derive(Debug)]
pub struct QueueMetrics {
    queue: QueueId,
    /// The tags that the thread serves.
    tags: Range<u16>,
    operations: [OperationCells; OPERATIONS],
    /// Requests whose data lay in shared memory, and their bytes.
    shared: [AtomicU64; 2],
    /// Where each tag is.
    records: Records,
    bell: Bell,
}

#[derive(Debug)]
struct OperationCells {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: AtomicHistogram,
}

/// The tags of one of a queue's threads: as many as of any other, or one more.
fn share(depth: u16, threads: u16, thread: u16) -> Range<u16> {
    let bound = |thread: u16| {
        let tags = u32::from(depth) * u32::from(thread) / u32::from(threads.max(1));
        u16::try_from(tags).unwrap_or(depth)
    };
    bound(thread)..bound(thread + 1)
}

/// Adds to a cell whose only writer is this thread.
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

impl QueueMetrics {
    /// Cells for a queue with `depth` tags, whose records nobody else can read.
    #[must_use]
    pub fn new(queue: QueueId, depth: u16) -> Self {
        Self::with_records(queue, 0..depth, Records::private(depth))
    }

    /// Cells for each thread of each queue of a device, whose records others can read. A queue's threads share its tags.
    pub(crate) fn of_device(
        device: DeviceId,
        queues: u16,
        depth: u16,
        threads: u16,
    ) -> Box<[Arc<Self>]> {
        let records = Records::of_device(device, queues, depth).into_iter();
        let shares = || (0..threads).map(move |thread| share(depth, threads, thread));
        (0..queues)
            .zip(records)
            .flat_map(|(queue, records)| {
                let of = move |tags| Self::with_records(QueueId(queue), tags, records.clone());
                shares().map(of).map(Arc::new)
            })
            .collect()
    }

    fn with_records(queue: QueueId, tags: Range<u16>, records: Records) -> Self {
        Self {
            queue,
            tags,
            operations: std::array::from_fn(|_| OperationCells {
                requests: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                errors: AtomicU64::new(0),
                latency: AtomicHistogram::with_config(&LATENCIES),
            }),
            shared: Default::default(),
            records,
            bell: Bell::default(),
        }
    }

    /// Rings when a request has come.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Which queue.
    pub(crate) fn queue(&self) -> QueueId {
        self.queue
    }

    /// The tags that the thread serves.
    pub(crate) fn tags(&self) -> Range<u16> {
        self.tags.clone()
    }

    /// How many tags the queue has.
    #[must_use]
    pub fn depth(&self) -> u16 {
        u16::try_from(self.records.all().len()).unwrap_or(u16::MAX)
    }

    /// Where each tag is, for the queue's thread to write.
    #[inline]
    pub(crate) fn records(&self) -> &[Record] {
        self.records.all()
    }

    /// What the flight recorder says of each tag. One that changes all the time is left out.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        let first = usize::from(self.tags.start);
        self.tags()
            .zip(self.records().iter().skip(first))
            .filter_map(|(tag, record)| record.read(self.queue, Tag(tag)))
            .collect()
    }

    /// Counts a batch whose answers are handed over now, and empties it. Its requests came at the same time. Returns the mean time
    /// that the disk took for one of them.
    pub(crate) fn settle(&self, batch: &mut Batch, now_ns: u64) -> u64 {
        let latency_ns = now_ns.saturating_sub(batch.reaped_ns).min(MAX_LATENCY_NS);
        let mean_ns = now_ns.saturating_sub(batch.settled_ns) / batch.requests().max(1);
        for (cells, counts) in self.operations.iter().zip(&mut batch.counts) {
            if counts.requests == 0 {
                continue;
            }
            cells.add(counts, latency_ns);
            *counts = Counts::default();
        }
        batch.settled_ns = now_ns;
        mean_ns
    }

    /// A request goes to the disk whose data lie in shared memory.
    #[cold]
    pub(crate) fn count_shared(&self, bytes: u64) {
        bump(&self.shared[0], 1);
        bump(&self.shared[1], bytes);
    }

    /// Counts requests of these tags that came each at a time of its own, and whose answers are handed over now.
    pub(crate) fn settle_late(&self, tags: &[Tag], now_ns: u64) {
        for record in tags
            .iter()
            .filter_map(|tag| self.records().get(tag.index()))
        {
            let operation = usize::try_from(record.operation()).unwrap_or(usize::MAX);
            let Some(cells) = self.operations.get(operation) else {
                continue;
            };
            let latency_ns = now_ns.saturating_sub(record.reaped_ns());
            let failed = record.result() < 0;
            let counts = Counts {
                requests: 1,
                bytes: if failed { 0 } else { record.bytes() },
                errors: u64::from(failed),
            };
            cells.add(&counts, latency_ns.min(MAX_LATENCY_NS));
        }
    }

    /// What the queue did so far, and what it is doing.
    #[must_use]
    pub fn report(&self) -> QueueReport {
        self.report_at(now_ns())
    }

    fn report_at(&self, now_ns: u64) -> QueueReport {
        let in_flight = self.recorded();
        let in_flight = in_flight.iter().filter(|tag| tag.station.has_request());
        QueueReport {
            queue: self.queue,
            operations: Operation::ALL
                .iter()
                .zip(&self.operations)
                .map(|(&operation, cells)| cells.snapshot(operation))
                .collect(),
            shared: Shared {
                requests: self.shared[0].load(Relaxed),
                bytes: self.shared[1].load(Relaxed),
            },
            in_flight: in_flight.map(|tag| InFlight::new(tag, now_ns)).collect(),
        }
    }
}

impl OperationCells {
    /// Requests that took so long each, at most `MAX_LATENCY_NS`.
    fn add(&self, counts: &Counts, latency_ns: u64) {
        bump(&self.requests, counts.requests);
        bump(&self.bytes, counts.bytes);
        bump(&self.errors, counts.errors);
        // Cannot be out of range: the caller bounds it.
        let _ = self.latency.add(latency_ns, counts.requests);
    }

    fn snapshot(&self, operation: Operation) -> OperationReport {
        OperationReport {
            operation,
            requests: self.requests.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            errors: self.errors.load(Relaxed),
            latency: self.latency.load(),
        }
    }
}

/// What a device did so far, and what it is doing: [`Device::metrics`](crate::Device::metrics).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Metrics {
    /// One report a queue.
    pub queues: Vec<QueueReport>,
    /// What the watchdog saw; none without one.
    pub stuck: Option<Stuck>,
}

/// What the watchdog saw: requests that took longer than [`Builder::stuck_after`](crate::Builder::stuck_after) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Stuck {
    /// How many the server has at this moment.
    pub now: u64,
    /// How many there were since the device was made.
    pub total: u64,
}

/// Requests whose data lay in memory that the client shares with the server: [`Device::share`](crate::Device::share).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Shared {
    /// Requests that were given to the disk, failed ones included.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Shared {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// One queue's part of [`Metrics`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct QueueReport {
    /// Which queue.
    pub queue: QueueId,
    /// One report for each [`Operation`], in their order.
    pub operations: Vec<OperationReport>,
    /// Those of its requests whose data lay in shared memory.
    pub shared: Shared,
    /// Requests that the server has: reaped, and their answers not yet given to the driver.
    pub in_flight: Vec<InFlight>,
}

/// One operation's counters and latencies.
#[derive(Clone, Debug)]
pub struct OperationReport {
    /// Which operation.
    pub operation: Operation,
    /// Requests answered, failed ones included.
    pub requests: u64,
    /// Bytes read, written, discarded or zeroed by requests that did not fail.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// From reaping a request to handing its answer over, in ns.
    latency: Histogram,
}

/// A request that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct InFlight {
    /// Its tag.
    pub tag: Tag,
    /// What it asks.
    pub operation: Operation,
    /// Its first sector, in units of 512 bytes.
    pub sector: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it is.
    pub station: Station,
    /// Since it was reaped, in ns.
    pub age_ns: u64,
}

impl InFlight {
    fn new(recorded: &Recorded, now_ns: u64) -> Self {
        Self {
            tag: recorded.tag,
            operation: recorded.operation,
            sector: recorded.sector,
            bytes: recorded.bytes,
            station: recorded.station,
            age_ns: now_ns.saturating_sub(recorded.reaped_ns),
        }
    }
}

/// Latencies in ns: from reaping a request to handing its answer to the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Latency {
    /// Half of the requests took at most this.
    pub p50_ns: u64,
    /// 90 % took at most this.
    pub p90_ns: u64,
    /// 99 % took at most this.
    pub p99_ns: u64,
    /// 99.9 % took at most this.
    pub p99_9_ns: u64,
    /// 99.99 % took at most this.
    pub p99_99_ns: u64,
    /// All took at most this.
    pub max_ns: u64,
}

impl Latency {
    /// None when nothing was measured.
    fn of(histogram: &Histogram) -> Option<Self> {
        let at = |quantile| Some(histogram.quantile_bucket(quantile).ok()??.end());
        Some(Self {
            p50_ns: at(0.5)?,
            p90_ns: at(0.9)?,
            p99_ns: at(0.99)?,
            p99_9_ns: at(0.999)?,
            p99_99_ns: at(0.9999)?,
            max_ns: at(1.0)?,
        })
    }
}

impl QueueReport {
    /// Of another thread of the same queue.
    fn merge(&mut self, other: Self) {
        merge(&mut self.operations, &other.operations);
        self.shared.add(other.shared);
        self.in_flight.extend(other.in_flight);
    }
}

fn merge(sums: &mut [OperationReport], parts: &[OperationReport]) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        sum.merge(part);
    }
}

impl OperationReport {
    /// How long this operation's requests took; none when there were none.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        Latency::of(&self.latency)
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        if let Ok(sum) = self.latency.wrapping_add(&other.latency) {
            self.latency = sum;
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for OperationReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("OperationReport", 5)?;
        fields.serialize_field("operation", &self.operation)?;
        fields.serialize_field("requests", &self.requests)?;
        fields.serialize_field("bytes", &self.bytes)?;
        fields.serialize_field("errors", &self.errors)?;
        fields.serialize_field("latency", &self.latency())?;
        fields.end()
    }
}

impl Metrics {
    /// Of the threads of a device, queue after queue.
    pub(crate) fn snapshot(threads: &[Arc<QueueMetrics>], stuck: Option<Stuck>) -> Self {
        let now_ns = now_ns();
        let mut queues: Vec<QueueReport> = Vec::new();
        for report in threads.iter().map(|thread| thread.report_at(now_ns)) {
            match queues.last_mut().filter(|last| last.queue == report.queue) {
                Some(queue) => queue.merge(report),
                None => queues.push(report),
            }
        }
        Self { queues, stuck }
    }

    /// All queues together, one report an operation.
    #[must_use]
    pub fn total(&self) -> Vec<OperationReport> {
        let mut reports = self.queues.iter().map(|queue| &queue.operations);
        let Some(mut total) = reports.next().cloned() else {
            return Vec::new();
        };
        for report in reports {
            merge(&mut total, report);
        }
        total
    }

    /// Requests of all queues whose data lay in shared memory.
    #[must_use]
    pub fn shared(&self) -> Shared {
        let mut all = Shared::default();
        self.queues.iter().for_each(|queue| all.add(queue.shared));
        all
    }

    /// How many requests the server has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queues.iter().map(|queue| queue.in_flight.len()).sum()
    }

    /// How long it has had the oldest of them.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        let ages = self
            .queues
            .iter()
            .flat_map(|queue| &queue.in_flight)
            .map(|r| r.age_ns);
        ages.max().map(Duration::from_nanos)
    }
}

/// `CLOCK_MONOTONIC` in ns: the clock of the kernel's block layer, so that times can be compared.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts at boot and is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Request;

    fn flush() -> Request {
        Request::new(&oxublk_sys::IoDesc {
            op_flags: u32::from(oxublk_sys::op::FLUSH),
            ..Default::default()
        })
    }

    #[test]
    fn a_batch_is_counted_by_operation_with_one_latency() {
        let metrics = QueueMetrics::new(QueueId(0), 4);
        let mut batch = Batch::default();
        batch.reaped_at(1_000);
        batch.add(Operation::Read, 4096, false);
        batch.add(Operation::Read, 512, false);
        batch.add(Operation::Write, 512, true);
        assert_eq!(metrics.settle(&mut batch, 4_000), 1_000, "mean of three");
        assert_eq!(batch.requests(), 0);
        let report = metrics.report_at(5_000);
        let read = &report.operations[Operation::Read.index()];
        assert_eq!((read.requests, read.bytes, read.errors), (2, 4608, 0));
        let write = &report.operations[Operation::Write.index()];
        assert_eq!((write.requests, write.bytes, write.errors), (1, 0, 1));
        let p50 = read.latency().expect("measured").p50_ns;
        assert!((3_000..3_100).contains(&p50), "{p50}");
    }

    #[test]
    fn requests_in_flight_have_an_age() {
        let metrics = Arc::new(QueueMetrics::new(QueueId(3), 4));
        let record = &metrics.records()[2];
        record.reaped(&flush(), now_ns() - 5_000_000);
        let snapshot = Metrics::snapshot(std::slice::from_ref(&metrics), None);
        assert_eq!(snapshot.in_flight(), 1);
        assert!(snapshot.oldest().expect("one") >= Duration::from_millis(5));
        let request = snapshot.queues[0].in_flight[0];
        assert_eq!((request.tag, request.operation), (Tag(2), Operation::Flush));
        assert_eq!(request.station, Station::Reaped);
        record.handed(now_ns());
        record.answered(0);
        record.submitted(now_ns());
        let metrics = std::slice::from_ref(&metrics);
        assert_eq!(Metrics::snapshot(metrics, None).in_flight(), 0);
    }

    #[test]
    fn the_threads_of_a_queue_share_its_tags_and_are_reported_as_one() {
        let shares: Vec<_> = (0..3).map(|thread| share(128, 3, thread)).collect();
        assert_eq!(shares, [0..42, 42..85, 85..128]);
        let threads = QueueMetrics::of_device(DeviceId(701), 2, 4, 2);
        assert_eq!(threads.len(), 4);
        threads[1].records()[3].reaped(&flush(), now_ns());
        let report = Metrics::snapshot(&threads, None);
        let queues: Vec<_> = report.queues.iter().map(|queue| queue.queue.0).collect();
        assert_eq!(queues, [0, 1]);
        let in_flight: Vec<_> = report.queues[0].in_flight.iter().collect();
        assert_eq!(in_flight.len(), 1);
        assert_eq!(in_flight[0].tag, Tag(3));
    }

    #[test]
    fn requests_from_shared_memory_are_counted_besides() {
        let queues = [QueueId(0), QueueId(1)].map(|id| Arc::new(QueueMetrics::new(id, 1)));
        queues[0].count_shared(512);
        queues.iter().for_each(|queue| queue.count_shared(4096));
        let (requests, bytes) = (3, 8704);
        let shared = Metrics::snapshot(&queues, None).shared();
        assert_eq!(shared, Shared { requests, bytes });
    }

    #[test]
    fn queues_add_up() {
        let queues = [QueueId(0), QueueId(1)].map(|id| Arc::new(QueueMetrics::new(id, 1)));
        for queue in &queues {
            let mut batch = Batch::default();
            batch.reaped_at(0);
            batch.add(Operation::Discard, 1 << 30, false);
            queue.settle(&mut batch, u64::MAX);
        }
        let total = Metrics::snapshot(&queues, None).total();
        let discard = &total[Operation::Discard.index()];
        assert_eq!((discard.requests, discard.bytes), (2, 2 << 30));
        assert!(
            discard.latency().is_some(),
            "an absurd latency is bounded, not lost"
        );
    }
}
