//! Which bytes a read may return.
//!
//! Requests overlap in time as they please. A read may return, in each sector, what any write put
//! there that began before the read ended, unless a later write to the sector was finished before
//! the read began. A write that failed may have happened or not: it may be seen, and hides nothing.

use std::ops::Range;

use oxublk::sys::SECTOR_SIZE;

use crate::client::RequestId;
use crate::rng::mix;

/// [`SECTOR_SIZE`] as the length of a slice.
pub(crate) const SECTOR: usize = 512;
const _: () = assert!(SECTOR as u64 == SECTOR_SIZE);
const WORD: usize = size_of::<u64>();
/// Between the stamps in two neighbouring words of a sector.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What zeroes, and a disk that was never written, read as.
pub(crate) const ZEROES: u64 = 0;

/// Everything that was written.
#[derive(Debug)]
pub(crate) struct History {
    sectors: Vec<Vec<Version>>,
    /// Counts arrivals and ends, so that their order can be compared.
    moment: u64,
}

/// One write to one sector.
#[derive(Debug)]
struct Version {
    writer: Option<RequestId>,
    stamp: u64,
    began: u64,
    /// When it was finished, if it was, and whether it succeeded.
    ended: Option<(u64, bool)>,
}

impl History {
    /// A disk of zeroes.
    pub(crate) fn new(sectors: u64) -> Self {
        let blank = || {
            vec![Version {
                writer: None,
                stamp: ZEROES,
                began: 0,
                ended: Some((0, true)),
            }]
        };
        Self {
            sectors: (0..sectors).map(|_| blank()).collect(),
            moment: 0,
        }
    }

    /// A new moment, later than all before.
    pub(crate) const fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A write arrives; `stamp_of` says what it puts into each sector.
    pub(crate) fn write_began(
        &mut self,
        writer: RequestId,
        range: Range<u64>,
        stamp_of: impl Fn(u64) -> u64,
    ) {
        let began = self.tick();
        for sector in range {
            if let Some(versions) = self.versions(sector) {
                versions.push(Version {
                    writer: Some(writer),
                    stamp: stamp_of(sector),
                    began,
                    ended: None,
                });
            }
        }
    }

    /// A write is finished.
    pub(crate) fn write_ended(&mut self, writer: RequestId, range: Range<u64>, succeeded: bool) {
        let now = self.tick();
        for sector in range {
            let versions = self.versions(sector).into_iter().flatten();
            for version in versions.filter(|version| version.writer == Some(writer)) {
                version.ended = Some((now, succeeded));
            }
        }
    }

    /// The first sector of `data`, read from `sector` on since `began`, that it must not be.
    pub(crate) fn first_wrong(&self, data: &[u8], sector: u64, began: u64) -> Option<u64> {
        data.chunks(SECTOR)
            .zip(sector..)
            .find(|(bytes, sector)| !self.allowed(bytes, *sector, began))
            .map(|(_, sector)| sector)
    }

    fn allowed(&self, bytes: &[u8], sector: u64, began: u64) -> bool {
        let versions = usize::try_from(sector)
            .ok()
            .and_then(|index| self.sectors.get(index));
        let (Some(stamp), Some(versions)) = (stamp_in(bytes), versions) else {
            return false;
        };
        versions.iter().any(|version| {
            version.stamp == stamp && !versions.iter().any(|later| later.hides(version, began))
        })
    }

    fn versions(&mut self, sector: u64) -> Option<&mut Vec<Version>> {
        self.sectors.get_mut(usize::try_from(sector).ok()?)
    }
}

impl Version {
    /// Whether a read that began at `began` cannot see `older` because of this one.
    fn hides(&self, older: &Self, began: u64) -> bool {
        let after = older.ended.is_some_and(|(end, _)| end < self.began);
        after && matches!(self.ended, Some((end, true)) if end < began)
    }
}

/// What `writer` puts into `sector`: never zeroes.
pub(crate) const fn stamp(seed: u64, writer: RequestId, sector: u64) -> u64 {
    mix(mix(seed ^ (writer.0 as u64 + 1)) ^ sector) | 1
}

/// Fills one sector with a stamp.
pub(crate) fn fill_sector(bytes: &mut [u8], stamp: u64) {
    let mut word = stamp;
    for chunk in bytes.chunks_exact_mut(WORD) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = if stamp == ZEROES {
            ZEROES
        } else {
            word.wrapping_add(STEP)
        };
    }
}

/// The stamp that one sector was filled with, if it was one and the whole of it.
fn stamp_in(bytes: &[u8]) -> Option<u64> {
    let stamp = u64::from_le_bytes(*bytes.first_chunk::<WORD>()?);
    let mut expected = [0; SECTOR];
    fill_sector(&mut expected, stamp);
    (bytes == expected).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector_of(stamp: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        fill_sector(&mut bytes, stamp);
        bytes
    }

    fn wrong(history: &History, stamp: u64, began: u64) -> bool {
        history.first_wrong(&sector_of(stamp), 0, began).is_some()
    }

    #[test]
    fn a_read_during_a_write_may_return_old_or_new() {
        let mut history = History::new(1);
        history.write_began(RequestId(0), 0..1, |_| 7);
        let began = history.tick();
        assert!(!wrong(&history, ZEROES, began));
        assert!(!wrong(&history, 7, began));
        assert!(wrong(&history, 9, began), "nobody wrote it");
    }

    #[test]
    fn a_read_after_a_write_returns_the_new() {
        let mut history = History::new(1);
        history.write_began(RequestId(0), 0..1, |_| 7);
        history.write_ended(RequestId(0), 0..1, true);
        let began = history.tick();
        assert!(wrong(&history, ZEROES, began));
        assert!(!wrong(&history, 7, began));
    }

    #[test]
    fn a_failed_write_hides_nothing() {
        let mut history = History::new(1);
        history.write_began(RequestId(0), 0..1, |_| 7);
        history.write_ended(RequestId(0), 0..1, false);
        let began = history.tick();
        assert!(!wrong(&history, ZEROES, began));
        assert!(!wrong(&history, 7, began));
        history.write_began(RequestId(1), 0..1, |_| 9);
        history.write_ended(RequestId(1), 0..1, true);
        let began = history.tick();
        assert!(wrong(&history, 7, began), "a later success hides it");
    }

    #[test]
    fn half_a_sector_of_something_else_is_wrong() {
        let history = History::new(1);
        let mut bytes = [0; SECTOR];
        bytes[SECTOR - 1] = 1;
        assert_eq!(history.first_wrong(&bytes, 0, 1), Some(0));
    }
}
