//! Looks for requests that the server has had for too long, and says so.
//!
//! It looks at the queues' records, so that the queues do nothing for it. A request that is not there yet when it looks cannot be
//! too old before the whole limit has passed: so it sleeps until the oldest request there is would be. While a device is idle it
//! sleeps until the next request rings its queue's bell: an idle device wakes nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::id::{DeviceId, QueueId, Tag};
use crate::metrics::{QueueMetrics, Stuck, now_ns};
use crate::probes;
use crate::recorder::Recorded;

/// How often it looks whether a stuck request has ended.
const WHILE_STUCK: Duration = Duration::from_millis(500);
/// A limit that is next to nothing shall not keep a processor busy.
const SHORTEST: Duration = Duration::from_millis(10);
/// Until a request that came when the bells were wanted can be seen in its record for certain.
const SETTLING: Duration = Duration::from_millis(20);
/// Of a limit that is for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the watchdog is to look for, and what it has seen.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Duration,
    now: AtomicU64,
    total: AtomicU64,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit: limit.clamp(SHORTEST, LONGEST),
            now: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }

    pub(super) fn stuck(&self) -> Stuck {
        Stuck {
            now: self.now.load(Relaxed),
            total: self.total.load(Relaxed),
        }
    }

    /// Looks until every queue has ended.
    pub(super) fn run(
        &self,
        device: DeviceId,
        queues: &[Arc<QueueMetrics>],
        progress: &Arc<Progress>,
    ) {
        for queue in queues {
            let progress = Arc::clone(progress);
            let stir = move || progress.update(|stand| stand.stirred = true);
            queue.bell().does(Box::new(stir));
        }
        let mut known = Known::new(self.limit);
        let mut pause = self.limit;
        // A wait that ends before its time means that the queues have ended.
        while progress
            .wait_until(Instant::now() + pause, |stand| stand.ended == queues.len())
            .is_none()
        {
            if known.stuck.is_empty() && !is_busy(queues) && sleep_while_idle(queues, progress) {
                pause = self.limit;
                continue;
            }
            let tags = queues.iter().flat_map(|queue| queue.recorded());
            let seen = known.look(tags, now_ns());
            for (request, age_ns) in &seen.began {
                began(device, request, *age_ns);
            }
            for (request, age_ns) in &seen.ended {
                ended(device, request, *age_ns);
            }
            self.now.store(known.stuck.len() as u64, Relaxed);
            self.total.fetch_add(seen.began.len() as u64, Relaxed);
            pause = seen.pause;
        }
        self.now.store(0, Relaxed);
    }
}

fn is_busy(queues: &[Arc<QueueMetrics>]) -> bool {
    let tags = queues.iter().flat_map(|queue| queue.recorded());
    tags.into_iter().any(|tag| tag.station.has_request())
}

/// Sleeps until a request comes to the device, or its queues end. False if one came meanwhile: then it did not sleep.
fn sleep_while_idle(queues: &[Arc<QueueMetrics>], progress: &Progress) -> bool {
    progress.update(|stand| stand.stirred = false);
    for queue in queues {
        queue.bell().want();
    }
    let ended = progress.wait_until(Instant::now() + SETTLING, |stand| {
        stand.ended == queues.len()
    });
    if ended.is_some() {
        return true;
    }
    if is_busy(queues) {
        return false;
    }
    drop(progress.wait(|stand| stand.stirred || stand.ended == queues.len()));
    true
}

fn began(device: DeviceId, request: &Recorded, age_ns: u64) {
    probes::stuck(device, request, age_ns);
    tracing::warn!(
        device = device.0,
        queue = request.queue.0,
        tag = request.tag.0,
        operation = request.operation.name(),
        sector = request.sector,
        bytes = request.bytes,
        station = request.station.name(),
        age_ms = age_ns / 1_000_000,
        "a request takes too long"
    );
}

fn ended(device: DeviceId, request: &Recorded, age_ns: u64) {
    tracing::warn!(
        device = device.0,
        queue = request.queue.0,
        tag = request.tag.0,
        operation = request.operation.name(),
        sector = request.sector,
        bytes = request.bytes,
        age_ms = age_ns / 1_000_000,
        "a request that took too long has ended"
    );
}

/// The requests that are known to be stuck.
#[derive(Debug)]
struct Known {
    limit: Duration,
    stuck: BTreeMap<(QueueId, Tag), Recorded>,
}

/// What is new.
#[derive(Debug, Default)]
struct Seen {
    /// Requests that are stuck, and their ages.
    began: Vec<(Recorded, u64)>,
    /// Requests that are stuck no longer, and how old they would be now.
    ended: Vec<(Recorded, u64)>,
    /// When to look again.
    pause: Duration,
}

impl Known {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            stuck: BTreeMap::new(),
        }
    }

    fn look(&mut self, tags: impl Iterator<Item = Recorded>, now_ns: u64) -> Seen {
        let limit_ns = u64::try_from(self.limit.as_nanos()).unwrap_or(u64::MAX);
        let mut seen = Seen {
            pause: self.limit,
            ..Seen::default()
        };
        let mut before = std::mem::take(&mut self.stuck);
        for request in tags.filter(|tag| tag.station.has_request()) {
            let place = (request.queue, request.tag);
            let age_ns = now_ns.saturating_sub(request.reaped_ns);
            let same = before
                .get(&place)
                .is_some_and(|known| known.requests == request.requests);
            if same {
                before.remove(&place);
            } else if age_ns >= limit_ns {
                seen.began.push((request, age_ns));
            } else {
                let left = Duration::from_nanos(limit_ns - age_ns);
                seen.pause = seen.pause.min(left);
                continue;
            }
            self.stuck.insert(place, request);
        }
        seen.ended = before
            .into_values()
            .map(|request| (request, now_ns.saturating_sub(request.reaped_ns)))
            .collect();
        if !self.stuck.is_empty() {
            seen.pause = seen.pause.min(WHILE_STUCK);
        }
        seen.pause = seen.pause.max(SHORTEST);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Operation, Station};

    const SECOND: u64 = 1_000_000_000;

    fn request(tag: u16, requests: u64, reaped_ns: u64) -> Recorded {
        Recorded {
            queue: QueueId(0),
            tag: Tag(tag),
            station: Station::WithDisk,
            operation: Operation::Read,
            sector: 8,
            bytes: 4096,
            result: None,
            requests,
            armed_ns: 0,
            reaped_ns,
            handed_ns: reaped_ns,
        }
    }

    fn tags(found: &[(Recorded, u64)]) -> Vec<u16> {
        found.iter().map(|(request, _)| request.tag.0).collect()
    }

    #[test]
    fn a_request_is_told_once_when_it_is_late_and_once_when_it_ends() {
        let mut known = Known::new(Duration::from_secs(5));
        let early = known.look([request(1, 1, 0)].into_iter(), 2 * SECOND);
        assert_eq!((early.began.len(), early.ended.len()), (0, 0));
        assert_eq!(
            early.pause,
            Duration::from_secs(3),
            "until it would be late"
        );
        let late = known.look([request(1, 1, 0)].into_iter(), 5 * SECOND);
        assert_eq!((tags(&late.began), late.pause), (vec![1], WHILE_STUCK));
        let still = known.look([request(1, 1, 0)].into_iter(), 6 * SECOND);
        assert_eq!((still.began.len(), still.ended.len()), (0, 0));
        let ended = known.look(std::iter::empty(), 9 * SECOND);
        assert_eq!(ended.ended, [(request(1, 1, 0), 9 * SECOND)]);
        assert!(known.stuck.is_empty());
        assert_eq!(ended.pause, Duration::from_secs(5), "nothing is in flight");
    }

    #[test]
    fn while_a_device_is_idle_it_sleeps_until_a_request_rings() {
        let progress = Arc::new(Progress::default());
        let queues = [Arc::new(QueueMetrics::new(QueueId(0), 2))];
        let stir = Arc::clone(&progress);
        queues[0]
            .bell()
            .does(Box::new(move || stir.update(|stand| stand.stirred = true)));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| sleep_while_idle(&queues, &progress));
            while !sleeper.is_finished() {
                queues[0].bell().touch();
                std::thread::yield_now();
            }
            assert!(sleeper.join().expect("no panic"));
        });
    }

    #[test]
    fn the_next_request_of_a_tag_is_another() {
        let mut known = Known::new(Duration::from_secs(1));
        known.look([request(3, 7, 0)].into_iter(), 2 * SECOND);
        let next = known.look([request(3, 8, 2 * SECOND)].into_iter(), 4 * SECOND);
        assert_eq!((tags(&next.began), tags(&next.ended)), (vec![3], vec![3]));
    }

    #[test]
    fn a_tag_that_has_no_request_is_never_late() {
        let mut known = Known::new(Duration::from_secs(1));
        let idle = Recorded {
            station: Station::Armed,
            ..request(0, 1, 0)
        };
        let seen = known.look([idle].into_iter(), 100 * SECOND);
        assert!(seen.began.is_empty() && known.stuck.is_empty());
    }
}
