//! What can be concluded where the driver's structures were not seen.
//!
//! A ring that carries nothing but the commands of one queue tells by its counters how many of its tags are with the server: each
//! armed tag is one submission without a completion. With debugfs, which tags have a request. When the two agree,
//! each of them is known to be with the server, or known not to be.
//!
//! A server of ours tells more: what its flight recorder has is with it.

use crate::facts::{
    Armer, Device, Layer, Place, Queue, Recorded, Request, RequestState, Ring, Snapshot, TagView,
};

/// The snapshot, with the places of tags filled in where they follow.
pub(super) fn places(seen: &Snapshot) -> Snapshot {
    let mut snapshot = seen.clone();
    if seen.sees(Layer::Kernel) {
        return snapshot;
    }
    for device in &mut snapshot.devices {
        recorded(device);
        if let Some((place, armer)) = conclusion(seen, device) {
            for queue in &mut device.queues {
                queue.armers.extend(armer.clone());
                for tag in queue.tags.iter_mut().filter(|tag| tag.place.is_none()) {
                    tag.place = Some(place);
                    tag.armer.clone_from(&armer);
                }
            }
        }
    }
    snapshot
}

/// What a server's own record says of its requests.
fn recorded(device: &mut Device) {
    let Some(recorder) = &device.recorder else {
        return;
    };
    for said in &recorder.requests {
        let Some(queue) = device
            .queues
            .iter_mut()
            .find(|queue| queue.id == said.queue)
        else {
            continue;
        };
        match queue.tags.iter_mut().find(|tag| tag.tag == said.tag) {
            Some(tag) => {
                tag.place = Some(Place::WithServer);
                tag.request = Some(request(said));
            }
            None => queue.tags.push(TagView {
                tag: said.tag,
                place: Some(Place::WithServer),
                flags: None,
                armer: None,
                buffer: None,
                descriptor: None,
                request: Some(request(said)),
            }),
        }
    }
}

fn request(said: &Recorded) -> Request {
    Request {
        operation: said.operation.clone(),
        sector: (said.bytes > 0).then_some(said.sector),
        bytes: Some(said.bytes),
        age_ms: Some(said.age_ms),
        identity: Some(said.number),
        state: RequestState::InFlight,
        waiter: None,
    }
}

fn conclusion(seen: &Snapshot, device: &Device) -> Option<(Place, Option<Armer>)> {
    let [server] = device.servers.as_slice() else {
        return None;
    };
    let [queue] = device.queues.as_slice() else {
        return None;
    };
    let depth = u32::from(device.depth?);
    let ring = seen
        .rings
        .iter()
        .find(|ring| ring.pid == Some(server.pid) && ring.sq_tail >= depth)?;
    let place = place(queue, ring, depth)?;
    let mut threads = seen.threads(server.pid).filter(|task| !task.kernel);
    let in_ring = |fd: u64| ring.fd.and_then(|own| u64::try_from(own).ok()) == Some(fd);
    let waits = seen.threads(server.pid).find(|task| {
        task.syscall.as_ref().is_some_and(|call| {
            call.name.as_deref() == Some("io_uring_enter") && in_ring(call.arguments[0])
        })
    });
    let only = threads.next().filter(|_| threads.next().is_none());
    let armer = waits.or(only).map(|task| Armer {
        tid: task.tid,
        pid: task.pid,
        comm: task.comm.clone(),
        alive: true,
    });
    Some((place, armer))
}

fn place(queue: &Queue, ring: &Ring, depth: u32) -> Option<Place> {
    let busy = u32::try_from(
        queue
            .tags
            .iter()
            .filter(|tag| tag.request.is_some())
            .count(),
    )
    .ok()?;
    let waiting = ring.sq_head.wrapping_sub(ring.cq_tail);
    match depth.checked_sub(waiting)? {
        0 if busy > 0 => Some(Place::Armed),
        with_server if with_server == busy && busy > 0 => Some(Place::WithServer),
        _ => None,
    }
}
