//! A tag's record as its queue's thread writes it.

use std::sync::atomic::{
    AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use super::Station;
use super::format::{CHANGING, OPERATION_SHIFT, Recorded, SEQUENCE_SHIFT, TagRecord};
use crate::id::{QueueId, Tag};
use crate::queue::Request;

/// A [`TagRecord`] in memory that others read meanwhile. One thread writes it, with plain loads and stores.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Record {
    state: AtomicU64,
    sector: AtomicU64,
    bytes: AtomicU64,
    result: AtomicI64,
    armed_ns: AtomicU64,
    reaped_ns: AtomicU64,
    handed_ns: AtomicU64,
    _reserved: AtomicU64,
}

const _: () = assert!(size_of::<Record>() == size_of::<TagRecord>());

/// One more than the sequence number before.
const NEXT: u64 = 1 << SEQUENCE_SHIFT;
/// One more than the sequence number before, and the station after the one before.
const NEXT_STATION: u64 = NEXT + 1;
/// From answered back to armed.
const AROUND: u64 = NEXT - (Station::Answered as u64 - Station::Armed as u64);
/// Tries of a reader of this process, whose threads go on meanwhile.
const TRIES: usize = 100;

impl Record {
    /// The tag is given to the driver for the first time.
    pub(crate) fn armed(&self, now_ns: u64) {
        self.armed_ns.store(now_ns, Relaxed);
        self.advance(NEXT_STATION);
    }

    /// A request has come.
    #[inline]
    pub(crate) fn reaped(&self, request: &Request, now_ns: u64) {
        let sequence = self.state.load(Relaxed) & !(NEXT - 1);
        self.state
            .store((sequence + NEXT) | u64::from(CHANGING), Relaxed);
        // Whoever sees one of the stores below sees the one above.
        fence(Release);
        self.sector.store(request.sector(), Relaxed);
        self.bytes.store(request.length, Relaxed);
        self.reaped_ns.store(now_ns, Relaxed);
        let operation = (request.operation.index() as u64) << OPERATION_SHIFT;
        let reaped = 2 * NEXT + Station::Reaped as u64;
        self.state.store(sequence + (reaped | operation), Release);
    }

    /// The disk is called.
    #[inline]
    pub(crate) fn handed(&self, now_ns: u64) {
        self.handed_ns.store(now_ns, Relaxed);
        self.advance(NEXT_STATION);
    }

    /// The disk has answered.
    #[inline]
    pub(crate) fn answered(&self, result: i32) {
        self.result.store(i64::from(result), Relaxed);
        self.advance(NEXT_STATION);
    }

    /// The answer is given to the driver, and with it the tag.
    #[inline]
    pub(crate) fn submitted(&self, now_ns: u64) {
        self.armed_ns.store(now_ns, Relaxed);
        self.advance(AROUND);
    }

    /// The driver gave the tag back for good.
    pub(crate) fn gone(&self) {
        self.advance(NEXT + (Station::Gone as u64 - Station::Armed as u64));
    }

    /// The stations follow one another: the state is moved on by one addition.
    #[inline]
    fn advance(&self, by: u64) {
        let state = self.state.load(Relaxed).wrapping_add(by);
        self.state.store(state, Release);
    }

    /// For the probes: by [`Operation::index`](crate::Operation::index).
    pub(crate) fn operation(&self) -> u64 {
        self.state.load(Relaxed) >> OPERATION_SHIFT & 0xff
    }

    pub(crate) fn sector(&self) -> u64 {
        self.sector.load(Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn reaped_ns(&self) -> u64 {
        self.reaped_ns.load(Relaxed)
    }

    pub(crate) fn result(&self) -> i64 {
        self.result.load(Relaxed)
    }

    /// What it says. None when it changes all the time.
    pub(crate) fn read(&self, queue: QueueId, tag: Tag) -> Option<Recorded> {
        (0..TRIES).find_map(|_| {
            let state = self.state.load(Acquire);
            let record = TagRecord {
                state,
                ..self.fields()
            };
            fence(Acquire);
            let same = self.state.load(Relaxed) == state;
            same.then(|| Recorded::decode(&record, queue, tag))
                .flatten()
        })
    }

    fn fields(&self) -> TagRecord {
        TagRecord {
            state: 0,
            sector: self.sector.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            result: self.result.load(Relaxed),
            armed_ns: self.armed_ns.load(Relaxed),
            reaped_ns: self.reaped_ns.load(Relaxed),
            handed_ns: self.handed_ns.load(Relaxed),
            reserved: 0,
        }
    }
}
