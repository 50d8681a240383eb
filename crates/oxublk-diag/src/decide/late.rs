//! A request that is late.

use crate::facts::{Armer, IoCommand, Place, Queue, Request, Ring, TagView, Task};
use crate::finding::{Cause, Certainty, Health};
use crate::words::age;

use super::case::{DeviceCase, milliseconds};
use super::doing::Doing;
use super::draft::Draft;
use super::history::History;

/// A request that was there in both looks, for longer than is healthy.
pub(super) struct Late<'a> {
    pub(super) device: &'a DeviceCase<'a>,
    pub(super) queue: &'a Queue,
    pub(super) tag: &'a TagView,
    pub(super) request: &'a Request,
    /// Where the driver has it; none unless it is the same in both looks.
    pub(super) place: Option<Place>,
    pub(super) age_ms: u64,
}

impl<'a> Late<'a> {
    /// A finding about this request.
    pub(super) fn draft(
        &self,
        cause: Cause,
        health: Health,
        certainty: Certainty,
        says: &str,
    ) -> Draft {
        let scan = if self.is_scan() {
            "; the reader is the scan for partitions that START_DEV begins"
        } else {
            ""
        };
        Draft::new(
            cause,
            health,
            certainty,
            format!("{}, {says}{scan}", self.name()),
        )
        .device(self.device.now.id)
        .queue(self.queue.id)
        .tag(self.tag.tag, self.age_ms)
        .because_all(self.device.waiting_lines())
        .because_all(self.recorded())
        .not_now(super::control::not_now(self.device))
    }

    /// A finding of something that will not resolve itself.
    pub(super) fn stuck(&self, cause: Cause, certainty: Certainty, says: &str) -> Draft {
        self.draft(cause, Health::Stuck, certainty, says)
    }

    /// A finding of something that might still resolve itself: it is stuck when it has taken too long.
    pub(super) fn slow(&self, cause: Cause, certainty: Certainty, says: &str) -> Draft {
        let stuck = self.age_ms >= milliseconds(self.device.case.limits.stuck);
        let health = if stuck {
            Health::Stuck
        } else {
            Health::Warning
        };
        self.draft(cause, health, certainty, says)
    }

    /// `queue 0 tag 16: read of 4096 bytes at sector 0, 15 s old`.
    fn name(&self) -> String {
        let length = self
            .request
            .bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| format!(" of {bytes} bytes"))
            .unwrap_or_default();
        let sector = self
            .request
            .sector
            .map(|sector| format!(" at sector {sector}"))
            .unwrap_or_default();
        let old = match self.request.age_ms {
            Some(age_ms) => format!("{} old", age(age_ms)),
            None => "of unknown age".to_owned(),
        };
        format!(
            "queue {} tag {}: {}{length}{sector}, {old}",
            self.queue.id, self.tag.tag, self.request.operation
        )
    }

    /// What the server itself says of it.
    fn recorded(&self) -> Option<String> {
        let recorder = self.device.now.recorder.as_ref()?;
        let said = recorder
            .requests
            .iter()
            .find(|said| (said.queue, said.tag) == (self.queue.id, self.tag.tag))?;
        Some(format!(
            "the server's own record: {}, for {}",
            said.station,
            age(said.since_ms)
        ))
    }

    /// Whether it belongs to the scan for partitions of a device that is being started.
    fn is_scan(&self) -> bool {
        self.request.operation == "read"
            && self
                .device
                .waiters()
                .iter()
                .any(|waiter| waiter.what.contains("scan for partitions"))
    }

    /// Whether the server has it, or was asked for a buffer for it.
    pub(super) const fn is_with_server(&self) -> bool {
        matches!(self.place, Some(Place::WithServer | Place::NeedsBuffer))
    }

    /// The thread that armed the tag.
    pub(super) fn armer(&self) -> Option<&'a Armer> {
        self.tag.armer.as_ref()
    }

    /// What that thread does.
    pub(super) fn doing(&self) -> Doing {
        match self.armer() {
            Some(armer) if !armer.alive => Doing::Gone,
            // Its process was looked at, and it was not there.
            Some(armer) if self.task().is_none() && self.sees_threads(armer) => Doing::Gone,
            Some(armer) => self.device.case.doing(armer.tid),
            None => Doing::Unknown,
        }
    }

    /// How sure it is that the thread's process lives, and has not gone with it.
    pub(super) fn outlived(&self) -> Certainty {
        match self.armer() {
            Some(armer) if self.device.is_server(armer.pid) => Certainty::Certain,
            _ => Certainty::Likely,
        }
    }

    fn sees_threads(&self, armer: &Armer) -> bool {
        self.device.case.now.threads(armer.pid).next().is_some()
    }

    /// Whether that thread waits for completions of a ring.
    pub(super) fn waits_for_ring(&self) -> bool {
        self.doing() == Doing::WaitsForRing
    }

    /// That thread's state in the second look.
    pub(super) fn task(&self) -> Option<&'a Task> {
        self.device.case.task(self.armer()?.tid)
    }

    /// The ring that this queue's armed tags wait in, or, when none is armed, the one that they were armed through.
    pub(super) fn ring(&self) -> Option<&'a Ring> {
        let serving = self.device.rings_of(self.queue.id).next();
        serving
            .or_else(|| self.history().last().map(|(ring, _)| ring))
            .or_else(|| self.ring_of_armer())
    }

    /// The only ring that the thread submits to.
    fn ring_of_armer(&self) -> Option<&'a Ring> {
        let tid = self.armer()?.tid;
        let mut used = self
            .device
            .rings()
            .filter(|ring| ring.owner == Some(tid) || ring.submitters.contains(&tid));
        used.next().filter(|_| used.next().is_none())
    }

    /// The newest answer that the kernel took between the looks and did not refuse. The request is there in both: it came
    /// back.
    pub(super) fn answered_between(&self) -> Option<IoCommand> {
        self.history().accepted(|ring, submission| {
            self.device.ring_before(ring).is_some_and(|before| {
                let written = submission.position.wrapping_sub(before.sq_head);
                written < ring.sq_head.wrapping_sub(before.sq_head)
            })
        })
    }

    /// Whether the server has another request of this queue in its hands, reaped and without an answer written: what
    /// is behind it waits for it.
    pub(super) fn is_behind_another(&self) -> bool {
        let thread = self.armer().map(|armer| armer.tid);
        self.device.held().iter().any(|other| {
            other.queue == self.queue.id && other.tag != self.tag.tag && other.thread == thread
        })
    }

    /// What the rings' memory says of this tag.
    pub(super) fn history(&self) -> History<'a> {
        History::of(self.device, self.queue.id, self.tag.tag)
    }
}
