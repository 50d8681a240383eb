//! Both looks side by side.

use std::cell::OnceCell;

use oxublk::{DeviceId, DeviceState, QueueId, Tag};

use crate::facts::{
    Command, ControlWait, Device, Pid, Place, Queue, Request, RequestState, Ring, Snapshot,
    TagView, Task, Tid, Waiter,
};
use crate::words::age;

use super::Limits;
use super::doing::does;
use super::late::Late;
use super::serving;

/// `UBLK_F_USER_COPY`.
const USER_COPY: u64 = 1 << 7;

/// Two looks at a host.
pub(super) struct Case<'a> {
    pub(super) before: &'a Snapshot,
    pub(super) now: &'a Snapshot,
    pub(super) limits: Limits,
    /// Between the looks, in milliseconds.
    pub(super) between_ms: u64,
}

/// A device in both looks.
pub(super) struct DeviceCase<'a> {
    pub(super) case: &'a Case<'a>,
    pub(super) now: &'a Device,
    pub(super) before: Option<&'a Device>,
    /// See [`held`](Self::held).
    held: OnceCell<Vec<Held>>,
}

/// A tag whose late request a thread has in its hands: reaped, and no answer written.
#[derive(PartialEq, Eq)]
pub(super) struct Held {
    pub(super) queue: QueueId,
    pub(super) tag: Tag,
    pub(super) thread: Option<Tid>,
}

impl<'a> Case<'a> {
    pub(super) fn new(before: &'a Snapshot, now: &'a Snapshot, limits: Limits) -> Self {
        Self {
            before,
            now,
            limits,
            between_ms: now.taken_ns.saturating_sub(before.taken_ns) / 1_000_000,
        }
    }

    pub(super) fn devices(&'a self) -> impl Iterator<Item = DeviceCase<'a>> {
        self.now.devices.iter().map(|now| DeviceCase {
            case: self,
            now,
            before: self.before.device(now.id),
            held: OnceCell::new(),
        })
    }

    /// The device with this id.
    pub(super) fn device(&'a self, id: DeviceId) -> Option<DeviceCase<'a>> {
        self.devices().find(|device| device.now.id == id)
    }

    pub(super) fn task(&self, tid: Tid) -> Option<&'a Task> {
        self.now.tasks.get(&tid)
    }
}

impl<'a> DeviceCase<'a> {
    /// Whether something holds of the device in both looks.
    pub(super) fn in_both(&self, holds: impl Fn(&Device) -> bool) -> bool {
        holds(self.now) && self.before.is_some_and(holds)
    }

    pub(super) fn is(&self, state: DeviceState) -> bool {
        self.in_both(|device| device.state == Some(state))
    }

    /// Whether the device was granted `UBLK_F_USER_COPY`.
    pub(super) fn user_copy(&self) -> bool {
        self.now.flags.is_some_and(|flags| flags & USER_COPY != 0)
    }

    /// The requests that are late.
    pub(super) fn late(&'a self) -> Vec<Late<'a>> {
        let limit = milliseconds(self.case.limits.slow);
        self.now
            .queues
            .iter()
            .flat_map(|queue| queue.tags.iter().map(move |tag| (queue, tag)))
            .filter_map(|(queue, tag)| self.persistent(queue, tag))
            .filter(|late| late.age_ms >= limit)
            .collect()
    }

    /// The tags whose late requests the server has in its hands. Asked for each late request of a device, and found once.
    pub(super) fn held(&'a self) -> &'a [Held] {
        self.held.get_or_init(|| {
            let late = self.late();
            let held = late.iter().filter(|late| {
                late.place == Some(Place::WithServer)
                    && late.history().untaken_answer().is_none()
                    && !serving::is_posted(late)
            });
            held.map(|late| Held {
                queue: late.queue.id,
                tag: late.tag.tag,
                thread: late.armer().map(|armer| armer.tid),
            })
            .collect()
        })
    }

    /// A request that was there in both looks.
    fn persistent(&'a self, queue: &'a Queue, tag: &'a TagView) -> Option<Late<'a>> {
        let request = tag.request.as_ref().filter(|request| under_way(request))?;
        let before = self.tag_before(queue.id, tag)?;
        let old = before.request.as_ref().filter(|old| under_way(old))?;
        (old.identity == request.identity).then_some(Late {
            device: self,
            queue,
            tag,
            request,
            place: tag.place.filter(|_| tag.place == before.place),
            age_ms: request.age_ms.unwrap_or(self.case.between_ms),
        })
    }

    fn tag_before(&self, queue: QueueId, tag: &TagView) -> Option<&'a TagView> {
        let queues = &self.before?.queues;
        let queue = queues.iter().find(|known| known.id == queue)?;
        queue.tags.iter().find(|known| known.tag == tag.tag)
    }

    /// The rings that have to do with the device: those that its tags wait in, and all of its servers'.
    pub(super) fn rings(&self) -> impl Iterator<Item = &'a Ring> + use<'a> {
        let (id, now) = (self.now.id, self.now);
        self.case.now.rings.iter().filter(move |ring| {
            ring.serves.iter().any(|(device, _)| *device == id)
                || ring
                    .pid
                    .is_some_and(|pid| now.servers.iter().any(|server| server.pid == pid))
        })
    }

    /// The rings that a queue's armed tags wait in.
    pub(super) fn rings_of(&self, queue: QueueId) -> impl Iterator<Item = &'a Ring> + use<'a> {
        let here = (self.now.id, queue);
        self.rings().filter(move |ring| ring.serves.contains(&here))
    }

    /// The same ring in the first look.
    pub(super) fn ring_before(&self, ring: &Ring) -> Option<&'a Ring> {
        self.case
            .before
            .rings
            .iter()
            .find(|old| match ring.address {
                Some(address) => old.address == Some(address),
                None => (old.pid, old.fd) == (ring.pid, ring.fd),
            })
    }

    /// Whether the server has reaped completions of this ring between the looks: its thread comes to it.
    pub(super) fn is_reaped(&self, ring: &Ring) -> bool {
        self.ring_before(ring)
            .is_some_and(|old| old.cq_head != ring.cq_head)
    }

    /// Whether completions were posted to this ring between the looks: the kernel delivers there.
    pub(super) fn is_posted_to(&self, ring: &Ring) -> bool {
        self.ring_before(ring)
            .is_some_and(|old| old.cq_tail != ring.cq_tail)
    }

    /// Submissions that stay unsubmitted.
    pub(super) fn stays_unsubmitted(&self, ring: &Ring) -> bool {
        ring.unsubmitted() > 0
            && self
                .ring_before(ring)
                .is_some_and(|old| old.unsubmitted() > 0 && old.sq_head == ring.sq_head)
    }

    /// Whether a process serves the device.
    pub(super) fn is_server(&self, pid: Pid) -> bool {
        self.now.servers.iter().any(|server| server.pid == pid)
    }

    /// A control command that waits for this device in both looks.
    pub(super) fn control_wait(&self, command: Command) -> Option<&'a ControlWait> {
        self.case.lasting_waits().find(|wait| {
            wait.command == command && wait.device.is_none_or(|device| device == self.now.id)
        })
    }

    /// Threads that wait for the device, the longest first.
    pub(super) fn waiters(&self) -> Vec<&'a Waiter> {
        let id = self.now.id;
        let mut found: Vec<&Waiter> = self
            .case
            .now
            .waiters
            .iter()
            .filter(|waiter| waiter.device == id)
            .collect();
        found.sort_by_key(|waiter| std::cmp::Reverse(waiter.since_ms));
        found
    }

    /// Lines about what the server's threads do, for the evidence.
    pub(super) fn server_lines(&self) -> Vec<String> {
        const MAX: usize = 4;
        let servers = self.now.servers.iter();
        servers
            .flat_map(|server| self.case.now.threads(server.pid))
            .filter(|task| !task.kernel)
            .take(MAX)
            .map(|task| {
                let doing = does(&self.case.doing(task.tid), task);
                format!("thread {} ({}) of the server {doing}", task.tid, task.comm)
            })
            .collect()
    }

    /// Lines about who waits for the device, for the evidence.
    pub(super) fn waiting_lines(&self) -> Vec<String> {
        const MAX: usize = 4;
        let waiters = self.waiters();
        let mut lines: Vec<String> = waiters
            .iter()
            .take(MAX)
            .map(|waiter| waiting(waiter))
            .collect();
        if waiters.len() > MAX {
            lines.push(format!("{} more threads wait for it", waiters.len() - MAX));
        }
        lines
    }
}

impl<'a> Case<'a> {
    /// Control commands that were waiting in both looks.
    pub(super) fn lasting_waits(&'a self) -> impl Iterator<Item = &'a ControlWait> {
        self.now.control_waits.iter().filter(|wait| {
            self.before
                .control_waits
                .iter()
                .any(|old| old.tid == wait.tid && old.command == wait.command)
        })
    }
}

fn under_way(request: &Request) -> bool {
    request.state != RequestState::Complete
}

/// `dd (pid 4895) waits for it in open of /dev/ublkb0, since 15 s; it issued no request itself`.
fn waiting(waiter: &Waiter) -> String {
    let since = waiter
        .since_ms
        .map(|since| format!(", for {}", age(since)))
        .unwrap_or_default();
    let behind = match waiter.issued {
        Some(false) => "; it issued no request itself: it waits behind another's",
        _ => "",
    };
    format!(
        "{} (pid {}) waits in {}{since}{behind}",
        waiter.comm, waiter.pid, waiter.what
    )
}

pub(super) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
