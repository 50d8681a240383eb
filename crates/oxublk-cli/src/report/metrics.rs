//! What a device did and does, as its server tells.

use oxublk::{Metrics, OperationReport, Station};
use serde::{Deserialize, Serialize};

use crate::state::Description;

/// What a server answers on its socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    /// The device, as in `/run/oxublk/ID.json`.
    pub description: Description,
    /// What it did so far.
    pub metrics: DeviceMetrics,
}

/// What a device did so far, and what it is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMetrics {
    /// All queues together, one entry for each operation.
    pub total: Vec<Operation>,
    /// Each queue.
    pub queues: Vec<Queue>,
    /// How long the server has had the oldest request; null when it has none.
    pub oldest_in_flight_ns: Option<u64>,
    /// Requests that the server has for longer than `--stuck-after` says; null when nobody watches.
    pub stuck_now: Option<u64>,
    /// How many there were so far; null when nobody watches.
    pub stuck_total: Option<u64>,
    /// Requests whose data lay in memory that the client shares with the server.
    #[serde(default)]
    pub shared_requests: u64,
    /// Their bytes.
    #[serde(default)]
    pub shared_bytes: u64,
}

/// A queue in [`DeviceMetrics`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its number.
    pub queue: u16,
    /// What it did, one entry for each operation.
    pub operations: Vec<Operation>,
    /// Requests that the server has.
    pub in_flight: Vec<Request>,
}

/// An operation in [`DeviceMetrics`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `read`, `write`, `flush`, `discard`, `write_zeroes`, `other`.
    pub operation: String,
    /// Requests answered, failed ones included.
    pub requests: u64,
    /// Bytes of requests that did not fail.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// How long they took; null when there were none.
    pub latency: Option<Latency>,
}

/// Latencies in [`Operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests took at most this.
    pub p50_ns: u64,
    /// 99 % took at most this.
    pub p99_ns: u64,
    /// 99.9 % took at most this.
    pub p99_9_ns: u64,
    /// All took at most this.
    pub max_ns: u64,
}

/// A request in [`Queue`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its tag.
    pub tag: u16,
    /// `read`, `write`, `flush`, `discard`, `write_zeroes`, `other`.
    pub operation: String,
    /// Its first sector, in units of 512 bytes.
    #[serde(default)]
    pub sector: u64,
    /// Its length in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// `reaped`, `with_disk`, `answered`; empty when its server is too old to say.
    #[serde(default)]
    pub station: String,
    /// How long the server has had it.
    pub age_ns: u64,
}

impl From<&OperationReport> for Operation {
    fn from(report: &OperationReport) -> Self {
        Self {
            operation: operation_name(report.operation),
            requests: report.requests,
            bytes: report.bytes,
            errors: report.errors,
            latency: report.latency().map(|latency| Latency {
                p50_ns: latency.p50_ns,
                p99_ns: latency.p99_ns,
                p99_9_ns: latency.p99_9_ns,
                max_ns: latency.max_ns,
            }),
        }
    }
}

impl From<&Metrics> for DeviceMetrics {
    fn from(metrics: &Metrics) -> Self {
        let queues = metrics.queues.iter().map(|queue| Queue {
            queue: queue.queue.0,
            operations: queue.operations.iter().map(Operation::from).collect(),
            in_flight: queue
                .in_flight
                .iter()
                .map(|request| Request {
                    tag: request.tag.0,
                    operation: operation_name(request.operation),
                    sector: request.sector,
                    bytes: request.bytes,
                    station: station_name(request.station),
                    age_ns: request.age_ns,
                })
                .collect(),
        });
        Self {
            total: metrics.total().iter().map(Operation::from).collect(),
            queues: queues.collect(),
            oldest_in_flight_ns: metrics
                .oldest()
                .map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            stuck_now: metrics.stuck.map(|stuck| stuck.now),
            stuck_total: metrics.stuck.map(|stuck| stuck.total),
            shared_requests: metrics.shared().requests,
            shared_bytes: metrics.shared().bytes,
        }
    }
}

fn station_name(station: Station) -> String {
    let name = match station {
        Station::Unarmed => "unarmed",
        Station::Armed => "armed",
        Station::Reaped => "reaped",
        Station::WithDisk => "with_disk",
        Station::Answered => "answered",
        Station::Gone => "gone",
    };
    name.to_owned()
}

/// The library's name without blanks.
fn operation_name(operation: oxublk::Operation) -> String {
    operation.name().replace(' ', "_")
}
