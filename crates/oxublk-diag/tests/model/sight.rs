//! Less than everything: layers that could not be seen, and looks that make no sense.

use oxublk_diag::facts::{Gap, Layer, Place, RequestState, Snapshot, TaskState};
use oxublk_sim::Rng;

/// What could be seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// The driver's structures.
    pub(crate) structures: bool,
    /// What the rings' memory holds of the past.
    pub(crate) past: bool,
    /// The threads.
    pub(crate) tasks: bool,
    /// debugfs: which tags have a request.
    pub(crate) debugfs: bool,
    /// fdinfo, and what else only root sees of processes.
    pub(crate) inside: bool,
}

/// The snapshot without what could not be seen.
pub(crate) fn limit(snapshot: &mut Snapshot, sight: Sight) {
    if !sight.structures {
        without_structures(snapshot);
        gap(snapshot, Layer::Kernel);
    }
    if !sight.past {
        for ring in &mut snapshot.rings {
            ring.submissions.clear();
            ring.completions.clear();
        }
    }
    if !sight.tasks {
        snapshot.tasks.clear();
    }
    if !sight.debugfs && !sight.structures {
        snapshot.devices[0].queues.clear();
        gap(snapshot, Layer::Debugfs);
    }
    if !sight.inside {
        gap(snapshot, Layer::Inside);
        snapshot.devices[0].servers.clear();
        snapshot.control_waits.clear();
        snapshot.waiters.clear();
        for task in snapshot.tasks.values_mut() {
            task.stack.clear();
            task.syscall = None;
            task.wchan = None;
        }
        if !sight.structures {
            snapshot.rings.clear();
        }
    }
}

fn gap(snapshot: &mut Snapshot, layer: Layer) {
    snapshot.gaps.push(Gap {
        layer,
        whole: true,
        what: "not here".to_owned(),
        remedy: "elsewhere".to_owned(),
    });
}

/// What debugfs, fdinfo and procfs show.
fn without_structures(snapshot: &mut Snapshot) {
    let device = &mut snapshot.devices[0];
    device.all_armed = None;
    for queue in &mut device.queues {
        queue.armed = None;
        queue.unarmed.clear();
        queue.armers.clear();
        queue.canceling = None;
        queue.aborting = None;
        queue.tags.retain(|tag| tag.request.is_some());
        for tag in &mut queue.tags {
            tag.place = None;
            tag.armer = None;
            tag.buffer = None;
            if let Some(request) = &mut tag.request {
                request.age_ms = None;
                request.identity = None;
                request.sector = None;
                request.bytes = None;
            }
        }
    }
    if device.block.is_none() {
        device.queues.clear();
    }
    for ring in &mut snapshot.rings {
        ring.address = None;
        ring.setup_flags = None;
        ring.sq_flags = None;
        ring.owner = None;
        ring.submitters.clear();
        ring.serves.clear();
        ring.deferred_work = None;
        ring.submissions.clear();
        ring.completions.retain(|completion| !completion.reaped);
    }
    for wait in &mut snapshot.control_waits {
        wait.since_ms = None;
    }
}

/// A look during which things changed, and pointers were stale.
pub(crate) fn mangle(snapshot: &mut Snapshot, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut odd = |one_in: usize| rng.below(one_in) == 0;
    snapshot.tasks.retain(|_, _| !odd(4));
    snapshot.rings.retain(|_| !odd(4));
    for device in &mut snapshot.devices {
        device.queues.retain(|_| !odd(8));
        for queue in &mut device.queues {
            queue.tags.retain(|_| !odd(4));
            if odd(4) {
                queue.armers.clear();
            }
            for tag in &mut queue.tags {
                if odd(4) {
                    tag.place = [None, Some(Place::Armed), Some(Place::NeedsBuffer)]
                        [usize::from(odd(2)) + usize::from(odd(2))];
                }
                if odd(6) {
                    tag.armer = None;
                }
                if let Some(request) = &mut tag.request {
                    request.age_ms = request.age_ms.filter(|_| !odd(4));
                    request.bytes = request.bytes.filter(|_| !odd(4));
                    if odd(8) {
                        request.age_ms = Some(u64::MAX);
                        request.state = RequestState::Complete;
                    }
                }
            }
        }
    }
    for task in snapshot.tasks.values_mut() {
        if odd(4) {
            task.state = TaskState::Zombie;
        }
        task.cpu_ticks = task.cpu_ticks.filter(|_| !odd(4));
    }
    for ring in &mut snapshot.rings {
        ring.submissions.retain(|_| !odd(4));
        ring.completions.retain(|_| !odd(4));
        for submission in &mut ring.submissions {
            if odd(6) {
                submission.bytes.truncate(3);
            }
        }
        if odd(3) {
            ring.sq_head = ring.sq_head.wrapping_sub(7);
            ring.cq_tail = ring.cq_tail.wrapping_sub(3);
            ring.sq_entries = 0;
        }
    }
    if odd(8) {
        snapshot.taken_ns = 0;
    }
}
