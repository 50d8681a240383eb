//! What a queue's metrics say.

use oxublk::QueueMetrics;

/// One operation's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
}

/// Counters by [`Operation::index`](oxublk::Operation::index), and how many requests are in flight.
pub(crate) fn counters(metrics: &QueueMetrics) -> (Vec<Counted>, usize) {
    let report = metrics.report();
    let counted = report.operations.iter().map(|part| Counted {
        requests: part.requests,
        bytes: part.bytes,
        errors: part.errors,
    });
    (counted.collect(), report.in_flight.len())
}
