//! Numbers as people read them.

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

/// Breaks a text into lines of at most so many characters, at spaces; further lines are indented.
pub(super) fn wrap(text: &str, first: &str, indent: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push_str(line.trim_end());
            lines.push('\n');
            indent.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::{age, bytes, wrap};

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

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(
            wrap("one two three", "  do: ", "      ", 14),
            "  do: one two\n      three\n"
        );
        assert_eq!(wrap("averyverylongword", "", "", 5), "averyverylongword\n");
    }
}
