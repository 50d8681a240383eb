//! Which requests are told of and counted.

use std::ops::RangeInclusive;
use std::time::Duration;

use oxublk::{QueueId, Tag};

use super::request::Followed;

/// Conditions that a request must all meet.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// It took longer.
    pub slower_than: Option<Duration>,
    /// It is one of these operations; any, when empty.
    pub operations: Vec<String>,
    /// It touches one of these sectors.
    pub sectors: Option<RangeInclusive<u64>>,
    /// It is of this queue.
    pub queue: Option<QueueId>,
    /// It has this tag.
    pub tag: Option<Tag>,
}

impl Filter {
    /// Whether a request meets them, at a time when it has not ended or when it has.
    #[must_use]
    pub fn takes(&self, request: &Followed, now_ns: u64) -> bool {
        let took_ns = request
            .took_ns()
            .unwrap_or_else(|| now_ns.saturating_sub(request.issued_ns));
        self.slower_than
            .is_none_or(|limit| u128::from(took_ns) > limit.as_nanos())
            && (self.operations.is_empty() || self.operations.contains(&request.operation))
            && self
                .sectors
                .as_ref()
                .is_none_or(|wanted| touches(request, wanted))
            && self
                .queue
                .is_none_or(|queue| request.slot.is_some_and(|slot| slot.queue == queue))
            && self
                .tag
                .is_none_or(|tag| request.slot.is_some_and(|slot| slot.tag == tag))
    }
}

fn touches(request: &Followed, wanted: &RangeInclusive<u64>) -> bool {
    let Some(first) = request.sector else {
        return false;
    };
    let sectors = request.bytes.unwrap_or(512).div_ceil(512).max(1);
    let last = first.saturating_add(sectors - 1);
    first <= *wanted.end() && last >= *wanted.start()
}

#[cfg(test)]
mod tests {
    use super::super::request::Followed;
    use super::Filter;

    #[test]
    fn a_range_of_sectors_takes_what_touches_it() {
        let request = Followed {
            sector: Some(8),
            bytes: Some(4096),
            operation: "read".to_owned(),
            ..Followed::default()
        };
        let takes = |range| {
            Filter {
                sectors: Some(range),
                ..Filter::default()
            }
            .takes(&request, 0)
        };
        assert!(takes(0..=8) && takes(15..=15) && takes(9..=10));
        assert!(!takes(0..=7) && !takes(16..=99));
        let writes = Filter {
            operations: vec!["write".to_owned()],
            ..Filter::default()
        };
        assert!(!writes.takes(&request, 0));
    }
}
