//! Bytes into and out of words that others read and write meanwhile.
//!
//! Another process, or another queue with a request on the same bytes, may write at any time. So every access is an atomic one of
//! a whole word: what is torn is torn between words, and the compiler cannot be surprised. On the hardware these are
//! ordinary loads and stores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// Fills `to` with the bytes from `at` on; false when the words end before.
pub(super) fn load(words: &[AtomicU64], at: usize, to: &mut [u8]) -> bool {
    if !fits(words, at, to.len()) {
        return false;
    }
    let (head, rest) = to.split_at_mut(head(at, to.len()));
    let first = (at + head.len()) / WORD;
    load_piece(words, at, head);
    let (whole, tail) = rest.as_chunks_mut::<WORD>();
    let end = first + whole.len();
    let places = words.get(first..end).unwrap_or_default();
    for (bytes, word) in whole.iter_mut().zip(places) {
        *bytes = word.load(Relaxed).to_ne_bytes();
    }
    load_piece(words, end * WORD, tail);
    true
}

/// Stores `from` from byte `at` on; false when the words end before.
pub(super) fn store(words: &[AtomicU64], at: usize, from: &[u8]) -> bool {
    if !fits(words, at, from.len()) {
        return false;
    }
    let (head, rest) = from.split_at(head(at, from.len()));
    let first = (at + head.len()) / WORD;
    store_piece(words, at, head);
    let (whole, tail) = rest.as_chunks::<WORD>();
    let end = first + whole.len();
    let places = words.get(first..end).unwrap_or_default();
    for (bytes, word) in whole.iter().zip(places) {
        word.store(u64::from_ne_bytes(*bytes), Relaxed);
    }
    store_piece(words, end * WORD, tail);
    true
}

fn fits(words: &[AtomicU64], at: usize, length: usize) -> bool {
    at.checked_add(length)
        .is_some_and(|end| end <= words.len() * WORD)
}

/// How many bytes come before the first whole word.
fn head(at: usize, length: usize) -> usize {
    (at.next_multiple_of(WORD) - at).min(length)
}

/// A piece that lies in one word. Requests are made of whole sectors: only an odd disk has such.
fn load_piece(words: &[AtomicU64], at: usize, to: &mut [u8]) {
    let Some(word) = words.get(at / WORD).filter(|_| !to.is_empty()) else {
        return;
    };
    let bytes = word.load(Relaxed).to_ne_bytes();
    for (to, byte) in to.iter_mut().zip(bytes.iter().skip(at % WORD)) {
        *to = *byte;
    }
}

fn store_piece(words: &[AtomicU64], at: usize, from: &[u8]) {
    let Some(word) = words.get(at / WORD).filter(|_| !from.is_empty()) else {
        return;
    };
    let with = |old: u64| {
        let mut bytes = old.to_ne_bytes();
        for (byte, from) in bytes.iter_mut().skip(at % WORD).zip(from) {
            *byte = *from;
        }
        Some(u64::from_ne_bytes(bytes))
    };
    // Cannot fail: there is always a new value.
    let _ = word.fetch_update(Relaxed, Relaxed, with);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    fn bytes(words: &[AtomicU64]) -> Vec<u8> {
        let words = words.iter();
        words
            .flat_map(|word| word.load(Relaxed).to_ne_bytes())
            .collect()
    }

    /// Every place and length in a few words.
    #[test]
    fn every_byte_goes_where_it_belongs_and_no_other() {
        const ALL: usize = 5 * WORD;
        for at in 0..=ALL {
            for length in 0..=ALL - at {
                let words = words(5);
                let data: Vec<u8> = (1..=u8::try_from(length).expect("few")).collect();
                assert!(store(&words, at, &data));
                let mut expected = vec![0xff; ALL];
                expected[at..at + length].copy_from_slice(&data);
                assert_eq!(bytes(&words), expected, "{length} at {at}");
                let mut back = vec![0; length];
                assert!(load(&words, at, &mut back));
                assert_eq!(back, data, "{length} at {at}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let words = words(2);
        assert!(!store(&words, 9, &[0; 8]));
        assert!(!store(&words, usize::MAX, &[0; 8]));
        assert!(!load(&words, 17, &mut []));
        assert_eq!(bytes(&words), [0xff; 16]);
    }
}
