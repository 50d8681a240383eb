//! `/proc/PID/fdinfo/N` of a ring.

use crate::facts::{Completion, Ring};

/// What the text says; none when it is not a ring's, or a ring whose lock is held (the kernel then prints nothing of it).
pub(super) fn ring(text: &str) -> Option<Ring> {
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        number(line.get(name.len()..)?.trim())
    };
    let mut ring = Ring {
        sq_entries: value("SqMask:")?.checked_add(1)?,
        cq_entries: value("CqMask:")?.checked_add(1)?,
        sq_head: value("SqHead:")?,
        sq_tail: value("SqTail:")?,
        cq_head: value("CqHead:")?,
        cq_tail: value("CqTail:")?,
        ..Ring::default()
    };
    let (lines, overflow) = text.split_once("CqOverflowList:").unwrap_or((text, ""));
    ring.overflowed = u32::try_from(
        overflow
            .lines()
            .filter(|line| line.contains("user_data="))
            .count(),
    )
    .unwrap_or(u32::MAX);
    ring.sqpoll = value("SqThread:")
        .filter(|tid| *tid != 0)
        .map(crate::facts::Tid);
    // Those that were not reaped.
    let unreaped = lines.lines().filter_map(|line| {
        let (index, rest) = line.trim().split_once(": user_data:")?;
        let mut words = rest.split(", ");
        let user_data = words.next()?.parse().ok()?;
        let result = words.next()?.strip_prefix("res:")?.parse().ok()?;
        Some((index.parse::<u32>().ok()?, user_data, result))
    });
    for (count, (_, user_data, result)) in (0..).zip(unreaped) {
        ring.completions.push(Completion {
            position: ring.cq_head.wrapping_add(count),
            reaped: false,
            user_data,
            result,
            flags: 0,
        });
    }
    Some(ring)
}

/// `0x7f` or `127`; negative numbers are none.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ring;

    const TEXT: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\nSqMask:\t0x7f\nSqHead:\t128\nSqTail:\t129\n\
        CachedSqHead:\t128\nCqMask:\t0xff\nCqHead:\t3\nCqTail:\t4\nCachedCqTail:\t4\nSQEs:\t1\n\
        \u{20}   0: opcode:URING_CMD, fd:4, flags:0, off:3222304032, addr:0x0, rw_flags:0x0, buf_index:0 user_data:16\n\
        CQEs:\t1\n    3: user_data:16, res:0, flag:0\nSqThread:\t-1\nSqThreadCpu:\t-1\nUserFiles:\t0\nUserBufs:\t0\n\
        PollList:\nCqOverflowList:\n  user_data=7, res=-22, flags=0\n";

    #[test]
    fn heads_tails_and_what_was_not_reaped() {
        let ring = ring(TEXT).unwrap();
        assert_eq!((ring.sq_entries, ring.cq_entries), (128, 256));
        assert_eq!(
            (ring.unsubmitted(), ring.unreaped(), ring.overflowed),
            (1, 1, 1)
        );
        let completion = ring.completions.first().unwrap();
        assert_eq!(
            (completion.user_data, completion.result, completion.position),
            (16, 0, 3)
        );
        assert_eq!((ring.completions.len(), ring.sqpoll), (1, None));
    }

    #[test]
    fn a_ring_whose_lock_is_held_says_nothing() {
        assert_eq!(
            ring("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n"),
            None
        );
    }

    proptest! {
        #[test]
        fn garbage_is_no_ring(text in "(SqMask:|CqMask:|SqHead:|CqTail:|[0-9x:\n\t -]){0,40}") {
            let _ = ring(&text);
        }
    }
}
