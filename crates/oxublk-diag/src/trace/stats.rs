//! How long requests took from station to station.

use histogram::Histogram;
use serde::{Deserialize, Serialize};

use super::request::{Followed, Kind};

/// Buckets of 1/32 of their value, up to 2^40 ns (18 minutes).
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 40;
const MAX_NS: u64 = (1 << MAX_VALUE_POWER) - 1;

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// From its issue until the driver's work ran in the server's task.
    ToTask,
    /// From there until the completion was posted: the copy of a write's data is in it.
    ToPosted,
    /// From there until the server answered.
    ToAnswer,
    /// From there until the request ended: the copy of a read's data is in it.
    ToEnd,
    /// From its issue to its end.
    Whole,
}

impl Leg {
    /// All of them, in the order of a request's way.
    pub const ALL: [Self; 5] = [
        Self::ToTask,
        Self::ToPosted,
        Self::ToAnswer,
        Self::ToEnd,
        Self::Whole,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToTask => "issued → handed to the server's task",
            Self::ToPosted => "handed → completion posted",
            Self::ToAnswer => "posted → answered",
            Self::ToEnd => "answered → completed",
            Self::Whole => "issued → completed",
        }
    }
}

/// Latencies so far.
#[derive(Clone, Debug)]
pub struct Stats {
    legs: Vec<Times>,
}

#[derive(Clone, Debug)]
struct Times {
    leg: Leg,
    histogram: Option<Histogram>,
    count: u64,
    max_ns: u64,
}

/// The latencies of one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Which.
    pub leg: Leg,
    /// Of how many requests.
    pub count: u64,
    /// Half of them took at most this, in nanoseconds; at most 3 % too high.
    pub p50_ns: u64,
    /// 99 % took at most this.
    pub p99_ns: u64,
    /// 99.9 % took at most this.
    pub p99_9_ns: u64,
    /// The longest, exactly.
    pub max_ns: u64,
}

impl Default for Stats {
    fn default() -> Self {
        let times = |leg| Times {
            leg,
            // The parameters are good: there is always one.
            histogram: Histogram::new(GROUPING_POWER, MAX_VALUE_POWER).ok(),
            count: 0,
            max_ns: 0,
        };
        Self {
            legs: Leg::ALL.map(times).into(),
        }
    }
}

impl Stats {
    /// Counts a request that ended.
    pub fn add(&mut self, request: &Followed) {
        let times = times(request);
        for (leg, (from, to)) in self.legs.iter_mut().zip(times) {
            if let (Some(from), Some(to)) = (from, to) {
                leg.add(to.saturating_sub(from));
            }
        }
    }

    /// The legs that were seen.
    #[must_use]
    pub fn latencies(&self) -> Vec<Latency> {
        self.legs.iter().filter_map(Times::latency).collect()
    }
}

impl Times {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
        if let Some(histogram) = &mut self.histogram {
            // Cannot be out of range.
            let _ = histogram.increment(ns.min(MAX_NS));
        }
    }

    fn latency(&self) -> Option<Latency> {
        let histogram = self.histogram.as_ref().filter(|_| self.count > 0)?;
        let at = |quantile| {
            Some(
                histogram
                    .quantile_bucket(quantile)
                    .ok()??
                    .end()
                    .min(self.max_ns),
            )
        };
        Some(Latency {
            leg: self.leg,
            count: self.count,
            p50_ns: at(0.5)?,
            p99_ns: at(0.99)?,
            p99_9_ns: at(0.999)?,
            max_ns: self.max_ns,
        })
    }
}

/// When each leg began and ended; the last time where a request went round.
fn times(request: &Followed) -> [(Option<u64>, Option<u64>); 5] {
    let mut issued = (!request.began_before).then_some(request.issued_ns);
    let first = issued;
    let (mut handed, mut posted, mut answered, mut ended) = (None, None, None, None);
    for step in &request.steps {
        let at = Some(step.at_ns);
        match step.kind {
            Kind::Handed { .. } => handed = at,
            Kind::Delivered { .. } | Kind::Posted => posted = at,
            Kind::Answered { .. } => answered = at,
            Kind::IssuedAgain { .. } => (issued, handed, posted, answered) = (at, None, None, None),
            Kind::Completed { .. } => ended = at,
            Kind::GaveBuffer
            | Kind::Refused { .. }
            | Kind::Partly { .. }
            | Kind::Requeued
            | Kind::Vanished => {}
        }
    }
    [
        (issued, handed),
        (handed, posted),
        (posted, answered),
        (answered, ended),
        (first, ended),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::request::{Followed, Kind, Step};
    use super::{Leg, Stats};

    #[test]
    fn each_leg_is_counted_where_both_ends_are_known() {
        let mut stats = Stats::default();
        let steps = [(1500, Kind::Posted), (9000, Kind::Completed { error: 0 })];
        stats.add(&Followed {
            issued_ns: 1000,
            steps: steps.map(|(at_ns, kind)| Step { at_ns, kind }).into(),
            ..Followed::default()
        });
        let latencies = stats.latencies();
        assert_eq!(latencies.len(), 1, "{latencies:?}");
        assert_eq!(
            (latencies[0].leg, latencies[0].max_ns, latencies[0].p50_ns),
            (Leg::Whole, 8000, 8000)
        );
    }
}
