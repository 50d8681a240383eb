//! What was under way before tracing began, from a look of `doctor`'s.

use oxublk::DeviceId;
use serde::{Deserialize, Serialize};

use crate::facts::{Place, RequestState, Snapshot, TagView, Tid};
use crate::finding::Station;

use super::event::{Slot, Thread};
use super::request::Followed;

/// A request that was under way, and who armed its tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The request.
    pub request: Followed,
    /// The thread that armed its tag.
    pub armed_by: Option<Tid>,
}

/// What the driver was asked for: what commands are checked against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// How many queues there are.
    pub queues: Option<u16>,
    /// How many tags each has.
    pub depth: Option<u16>,
    /// The features that were granted.
    pub features: Option<u64>,
}

/// What a device is.
#[must_use]
pub fn expected(snapshot: &Snapshot, id: DeviceId) -> Expected {
    let device = snapshot.device(id);
    Expected {
        queues: device.and_then(|device| device.queue_count),
        depth: device.and_then(|device| device.depth),
        features: device.and_then(|device| device.flags),
    }
}

/// The requests of a device that were issued before `start_ns` and were still under way when the snapshot was taken.
#[must_use]
pub fn seeds(snapshot: &Snapshot, id: DeviceId, start_ns: u64) -> Vec<Seed> {
    let queues = snapshot
        .device(id)
        .map(|device| device.queues.as_slice())
        .unwrap_or_default();
    let tags = queues
        .iter()
        .flat_map(|queue| queue.tags.iter().map(move |view| (queue.id, view)));
    tags.filter_map(|(queue, view)| {
        let slot = Slot {
            queue,
            tag: view.tag,
        };
        seed(snapshot, slot, view, start_ns)
    })
    .collect()
}

fn seed(snapshot: &Snapshot, slot: Slot, view: &TagView, start_ns: u64) -> Option<Seed> {
    let request = view
        .request
        .as_ref()
        .filter(|request| request.state == RequestState::InFlight)?;
    let issued_ns = match request.age_ms {
        Some(age) => snapshot
            .taken_ns
            .saturating_sub(age.saturating_mul(1_000_000)),
        None => start_ns.saturating_sub(1),
    };
    if issued_ns >= start_ns {
        return None;
    }
    let issuer = request.waiter.map(|tid| Thread {
        tid,
        comm: snapshot.tasks.get(&tid).map(|task| task.comm.clone()),
    });
    Some(Seed {
        request: Followed {
            slot: Some(slot),
            operation: request.operation.clone(),
            sector: request.sector,
            bytes: request.bytes,
            issuer,
            issued_ns,
            began_before: true,
            found_at: view.place.map(station),
            holes: false,
            rounds: 0,
            steps: Vec::new(),
        },
        armed_by: view.armer.as_ref().map(|armer| armer.tid),
    })
}

const fn station(place: Place) -> Station {
    match place {
        Place::Armed => Station::HandedToTask,
        Place::WithServer | Place::NeedsBuffer => Station::Posted,
        Place::Unarmed | Place::Canceled => Station::InDriver,
    }
}
