//! What kernels are known for, where ublk is concerned.

/// Something that a range of kernels does.
struct Defect {
    /// The first series that does it.
    from: (u32, u32),
    /// The first that does it no longer; none when the newest that was tried does.
    to: Option<(u32, u32)>,
    says: &'static str,
}

/// Seen on 6.12, 6.16, 6.17, 6.18, 7.2 and 7.3.
const DEFECTS: &[Defect] = &[
    Defect {
        from: (6, 0),
        to: Some((6, 18)),
        says: "killing a server that sent START_DEV itself and does not answer the scan for partitions makes the hang permanent",
    },
    Defect {
        from: (6, 0),
        to: Some((7, 3)),
        says: "starting a device anew that was stopped, or whose server died before it was started, may crash the kernel: delete it first",
    },
    Defect {
        from: (6, 12),
        to: Some((6, 13)),
        says: "of a server with a polled ring (SQPOLL) that is killed under load a request may stay that nothing ends: end its clients first",
    },
    Defect {
        from: (6, 16),
        to: Some((6, 19)),
        says: "UPDATE_SIZE of a device that is not started crashes the kernel",
    },
    Defect {
        from: (6, 16),
        to: None,
        says: "QUIESCE_DEV succeeds and does nothing while the server holds all tags: send it again",
    },
    Defect {
        from: (7, 3),
        to: None,
        says: "a write that is answered with fewer bytes than it has counts as a whole one: data is lost",
    },
];

/// What a series is known for.
pub(super) fn of(series: (u32, u32)) -> impl Iterator<Item = &'static str> {
    let concerns =
        move |defect: &&Defect| defect.from <= series && defect.to.is_none_or(|to| series < to);
    DEFECTS.iter().filter(concerns).map(|defect| defect.says)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn each_series_has_its_own() {
        let has = |series, words: &str| of(series).any(|says| says.contains(words));
        assert!(has((6, 12), "hang permanent") && !has((7, 3), "hang permanent"));
        assert!(has((6, 17), "UPDATE_SIZE") && !has((6, 12), "UPDATE_SIZE"));
        assert!(has((7, 3), "data is lost") && !has((7, 2), "data is lost"));
    }
}
