//! Prints what can be seen of this host's ublk devices, as JSON: what `doctor` decides from.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program"
)]

use oxublk_diag::observe::{Observer, Options};

fn main() -> Result<(), serde_json::Error> {
    let mut observer = Observer::new(Options::default());
    let snapshot = observer.look();
    println!("{}", serde_json::to_string_pretty(&snapshot)?);
    for timing in observer.timings() {
        eprintln!("{}: {:?}", timing.part, timing.took);
    }
    Ok(())
}
