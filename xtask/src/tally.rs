//! Counts tests by the summaries that runners print.

use std::ops::Add;

/// So many tests passed, failed and were not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

/// Reads a runner's output as it comes.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    line: Vec<u8>,
    tally: Tally,
    failures: Vec<String>,
    /// What the tests that failed said, line by line.
    words: Vec<String>,
    /// Whether the lines that come are such words.
    tells: bool,
    notes: Vec<String>,
    summaries: u32,
}

/// So many lines of what a run's failed tests said are repeated at the end.
const MAX_WORDS: usize = 60;

impl Watcher {
    /// Takes a piece of the output.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(piece);
            if piece.ends_with(b"\n") {
                self.read_line();
            }
        }
    }

    fn read_line(&mut self) {
        let line = without_colours(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        if let Some(tally) = libtest(&line).or_else(|| nextest(&line)) {
            self.tally = self.tally + tally;
            self.summaries += 1;
        }
        // nextest names each twice, the second time in its summary.
        if let Some(name) = failure(&line).filter(|name| !self.failures.contains(name)) {
            self.failures.push(name);
        }
        if let Some(note) = line.strip_prefix("note: ") {
            self.notes.push(note.trim_end().to_owned());
        }
        self.listen(&line);
    }

    /// libtest tells what failed tests said between `---- NAME ----` and the list of their names.
    fn listen(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with("---- ") {
            self.tells = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.tells = false;
        }
        if self.tells && !line.is_empty() && self.words.len() < MAX_WORDS {
            self.words.push(line.to_owned());
        }
    }

    /// What the failed tests said.
    pub(crate) fn take_words(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words)
    }

    /// What guest-tests noted after its tests.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The sum and the names of those that failed. A run that failed without a failed test (it did not build, or died) counts as one failure, and
    /// so does one that claims success and never summed up.
    pub(crate) fn finish(mut self, success: bool) -> (Tally, Vec<String>) {
        if !self.line.is_empty() {
            self.read_line();
        }
        if self.tally.failed == 0 && (!success || self.summaries == 0) {
            self.tally.failed = 1;
        }
        if self.failures.is_empty() && self.tally.failed > 0 {
            self.failures
                .push("it names no test: see its output above".to_owned());
        }
        (self.tally, self.failures)
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
fn libtest(line: &str) -> Option<Tally> {
    let counts = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?
        .1;
    let count = |what| count(counts, ';', what);
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored").unwrap_or(0),
    })
}

/// `Summary [   0.1s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped`
fn nextest(line: &str) -> Option<Tally> {
    let (run, counts) = line
        .trim()
        .strip_prefix("Summary [")?
        .split_once(']')?
        .1
        .split_once(" run: ")?;
    // `3/5 tests run` after an interruption.
    let run: u64 = run.trim().split(['/', ' ']).next()?.parse().ok()?;
    let passed = count(counts, ',', "passed")?;
    Some(Tally {
        passed,
        failed: run.saturating_sub(passed),
        ignored: count(counts, ',', "skipped").unwrap_or(0),
    })
}

/// The test that a line says has failed: `test NAME ... FAILED`, or nextest's `FAIL [ 0.1s] (1/2) PROGRAM NAME`.
fn failure(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|line| line.strip_suffix("FAILED"))
    {
        let name = name.trim().trim_end_matches("...").trim();
        return Some(name.to_owned());
    }
    let kinds = ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "SIGKILL ["];
    let (_, name) = kinds
        .iter()
        .find_map(|kind| line.strip_prefix(kind))?
        .split_once(']')?;
    let name = name.trim();
    // The count of tests so far, in brackets: not always there.
    let name = name
        .strip_prefix('(')
        .and_then(|name| name.split_once(')'))
        .map_or(name, |(_, name)| name);
    Some(name.trim().to_owned())
}

/// The number before a word, in a list.
fn count(list: &str, separator: char, what: &str) -> Option<u64> {
    list.split(separator).find_map(|item| {
        let mut words = item.split_whitespace();
        let number = words.next()?.parse().ok()?;
        (words.next() == Some(what)).then_some(number)
    })
}

/// The text without the terminal's escape sequences for colours.
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::{Tally, Watcher};

    fn watch(pieces: &[&str], success: bool) -> Tally {
        let mut watcher = Watcher::default();
        for piece in pieces {
            watcher.take(piece.as_bytes());
        }
        watcher.finish(success).0
    }

    #[test]
    fn summaries_of_libtest_are_added_up_across_torn_lines() {
        let pieces = [
            "test a ... ok\ntest result: ok. 3 pas",
            "sed; 0 failed; 1 ignored; 0 measured\n",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured",
        ];
        assert_eq!(
            watch(&pieces, false),
            Tally {
                passed: 4,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn nextest_counts_what_timed_out_as_failed() {
        let line = "\u{1b}[1m     Summary\u{1b}[0m [   0.1s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped\n";
        assert_eq!(
            watch(&[line], false),
            Tally {
                passed: 3,
                failed: 2,
                ignored: 2
            }
        );
        let none = "     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped\n";
        assert_eq!(watch(&[none], true), Tally::default());
    }

    #[test]
    fn what_failed_tests_said_is_kept() {
        let mut watcher = Watcher::default();
        watcher.take(
            b"test life::b ... FAILED\n\nfailures:\n\n---- life::b ----\nit hangs\n\nin D: dd\n\n",
        );
        watcher.take(b"failures:\n    life::b\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\nnote: x\n");
        assert_eq!(
            watcher.take_words(),
            ["---- life::b ----", "it hangs", "in D: dd"]
        );
    }

    #[test]
    fn those_that_failed_are_named_once() {
        let mut watcher = Watcher::default();
        watcher.take(b"test life::a ... ok\ntest life::b   ... FAILED\n");
        watcher.take(b"        FAIL [   0.004s] (3/9) oxublk control::c\n        FAIL [   0.004s] (3/9) oxublk control::c\n");
        watcher.take(b"test result: FAILED. 1 passed; 2 failed; 0 ignored\n");
        let (tally, failures) = watcher.finish(false);
        assert_eq!(failures, ["life::b", "oxublk control::c"]);
        assert_eq!(tally.failed, 2);
    }

    #[test]
    fn a_run_that_died_without_a_summary_is_a_failure() {
        assert_eq!(watch(&["error: could not compile\n"], false).failed, 1);
        assert_eq!(watch(&["nothing was run\n"], true).failed, 1);
        let died = watch(&["test result: ok. 3 passed; 0 failed; 0 ignored\n"], false);
        assert_eq!((died.passed, died.failed), (3, 1));
    }
}
