//! Numbers as people read them, and codes in words.

/// `250 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`.
#[must_use]
pub fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..=9 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `4 KiB`, `1 MiB`, `512 B`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    UNITS
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes} B"),
            |(unit, name)| format!("{} {name}", bytes / unit),
        )
}

/// The name of an operation of the block layer (`enum req_op`; later kernels number those of zones anew).
#[must_use]
pub const fn operation(code: u64) -> Option<&'static str> {
    Some(match code {
        0 => "read",
        1 => "write",
        2 => "flush",
        3 => "discard",
        5 => "secure erase",
        7 => "zone append",
        9 => "write zeroes",
        10 => "zone open",
        11 => "zone close",
        12 => "zone finish",
        13 => "zone finish or reset",
        15 => "zone reset",
        17 => "zone reset all",
        34 | 35 => "report zones",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{age, bytes};

    #[test]
    fn ages_and_sizes_are_short() {
        assert_eq!(
            [250, 2_071, 15_000, 185_000, 7_800_000].map(age),
            ["250 ms", "2.0 s", "15 s", "3 min 5 s", "2 h 10 min"]
        );
        assert_eq!(
            [512, 4096, 1 << 20, 4097].map(bytes),
            ["512 B", "4 KiB", "1 MiB", "4097 B"]
        );
    }
}
