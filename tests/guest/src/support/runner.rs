//! Scenes and tests, and how they are run: one by one, each searched for leftovers afterwards.

use super::leftovers::{self, Stand};
use super::{kernel_log, procfs};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::{Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A test: its name says what must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    name: &'static str,
    run: fn() -> anyhow::Result<()>,
    /// Words of the kernel's complaints that this test provokes: they are the kernel's own defects.
    forgives: &'static [&'static str],
    /// Whether it leaves something that nothing removes but a reboot: the last test of its scene.
    hopeless: bool,
}

impl Test {
    pub(crate) const fn new(name: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self {
            name,
            run,
            forgives: &[],
            hopeless: false,
        }
    }

    pub(crate) const fn forgives(self, words: &'static [&'static str]) -> Self {
        Self {
            forgives: words,
            ..self
        }
    }

    pub(crate) const fn hopeless(self) -> Self {
        Self {
            hopeless: true,
            ..self
        }
    }
}

/// Tests that are run in one guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// What it asks of the guest, in xtask's words: `cpus=4 timeout=300`.
    pub(crate) needs: &'static str,
    pub(crate) tests: &'static [Test],
}

/// Functions as tests of the same names.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        &[$($crate::support::Test::new(stringify!($test), $test)),*]
    };
}
pub(crate) use tests;

/// So many of the kernel's last lines are shown with a failure.
const LAST_LINES: usize = 30;

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A measurement, shown after the tests.
pub(crate) fn note(text: impl Display) {
    let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    notes.push(text.to_string());
}

/// Runs a scene's tests, or those whose name contains `filter`.
pub(crate) fn run_scene(scene: &Scene, filter: Option<&str>) -> ExitCode {
    let mut arguments = Arguments::from_iter(["guest-tests", "--test-threads=1"]);
    arguments.filter = filter.map(str::to_owned);
    let name = scene.name;
    let trials = scene.tests.iter().map(|test| {
        let test = *test;
        Trial::test(format!("{name}::{}", test.name), move || run_test(&test))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    for note in NOTES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("note: {note}");
    }
    conclusion.exit_code()
}

fn run_test(test: &Test) -> Result<(), Failed> {
    let (before, log) = (Stand::now(), kernel_log::lines());
    let started = Instant::now();
    let mut why = String::new();
    match catch_unwind(AssertUnwindSafe(test.run)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let _ = writeln!(why, "{error:#}");
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let _ = writeln!(why, "panicked: {}", text.unwrap_or("?"));
        }
    }
    // Who is stuck is seen now, not after the waits for leftovers.
    let stuck = procfs::uninterruptible();
    if !test.hopeless
        && let Err(error) = before.same_again()
    {
        let _ = writeln!(why, "{error:#}");
        leftovers::clear();
    }
    let now = kernel_log::lines();
    let new = kernel_log::since(&log, &now);
    let forgiven =
        |line: &String| test.hopeless || test.forgives.iter().any(|word| line.contains(word));
    for accident in kernel_log::accidents(new)
        .into_iter()
        .filter(|line| !forgiven(line))
    {
        let _ = writeln!(why, "the kernel says: {accident}");
    }
    for stall in kernel_log::stalls(new) {
        note(format!("{}: the guest was held up: {stall}", test.name));
    }
    note(format!(
        "{} took {:.1} s",
        test.name,
        started.elapsed().as_secs_f64()
    ));
    if why.is_empty() {
        return Ok(());
    }
    for task in stuck {
        let _ = writeln!(why, "in uninterruptible sleep: {task}");
    }
    let _ = writeln!(why, "--- the kernel's log during the test");
    for line in new.iter().skip(new.len().saturating_sub(LAST_LINES)) {
        let _ = writeln!(why, "{line}");
    }
    Err(Failed::from(why))
}
