//! Long lines.

/// Breaks a text into lines of at most so many characters, at spaces; further lines are indented.
pub(crate) fn wrap(text: &str, first: &str, indent: &str, width: usize) -> String {
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
    use super::wrap;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(
            wrap("one two three", "  do: ", "      ", 14),
            "  do: one two\n      three\n"
        );
        assert_eq!(wrap("averyverylongword", "", "", 5), "averyverylongword\n");
    }
}
