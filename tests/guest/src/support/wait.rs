//! Waiting for what must happen, with a deadline and a diagnosis.

use anyhow::{Result, bail};
use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that ends by itself in an emulated guest on a loaded host.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// For what a client must see soon: an error after the death of a server, a command's answer.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Waits until `condition` holds, and returns how long that took.
pub(crate) fn wait_for(
    what: impl Display,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<Duration> {
    let started = Instant::now();
    wait_until(what, deadline, || {
        condition().then_some(()).ok_or(String::new())
    })?;
    Ok(started.elapsed())
}

/// Looks until `probe` has a value; after the deadline the error says why the last look had none.
pub(crate) fn wait_until<T>(
    what: impl Display,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        let last = Instant::now() >= end;
        match probe() {
            Ok(value) => return Ok(value),
            Err(why) if last && why.is_empty() => {
                bail!("waited {deadline:?} in vain until {what}")
            }
            Err(why) if last => bail!("waited {deadline:?} in vain until {what}: {why}"),
            Err(_) => {}
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE);
    }
}
