//! The kernel's log: what it said during a test, and whether that is an accident.

use super::process::run;

/// What the kernel says when it found itself broken, or a task stuck.
const ACCIDENTS: &[&str] = &[
    "BUG:",
    "Oops",
    "WARNING:",
    "general protection fault",
    "blocked for more than",
];

/// What it says when a processor of its own did not run for long: in an emulated guest that is the
/// host's doing as a rule. It is shown and fails nothing; what is stuck fails the test that waits for it.
const STALLS: &[&str] = &["soft lockup", "workqueue lockup", "detected stall"];

/// All lines that the kernel still has.
pub(crate) fn lines() -> Vec<String> {
    run("dmesg", &[] as &[&str]).map_or_else(
        |error| vec![format!("no dmesg: {error:#}")],
        |log| log.output.lines().map(str::to_owned).collect(),
    )
}

/// The lines of `log` that came after `before`.
pub(crate) fn since<'a>(before: &[String], log: &'a [String]) -> &'a [String] {
    // The kernel drops the oldest lines: what counts is where the last known one is now.
    let known = before
        .last()
        .and_then(|last| log.iter().rposition(|line| line == last));
    known.map_or(log, |known| &log[known + 1..])
}

/// Lines that tell of an accident.
pub(crate) fn accidents(log: &[String]) -> Vec<&String> {
    log.iter()
        .filter(|line| has(line, ACCIDENTS) && !has(line, STALLS))
        .collect()
}

/// Lines that tell of a processor that did not run.
pub(crate) fn stalls(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| has(line, STALLS)).collect()
}

fn has(line: &str, words: &[&str]) -> bool {
    words.iter().any(|word| line.contains(word))
}
