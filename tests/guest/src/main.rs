//! Tests that need a real kernel, run in a guest by `cargo xtask test --tier 2`.
//!
//! `guest-tests --list-scenes` names the scenes, one guest each; `guest-tests --scene NAME [FILTER]` runs one
//! there. The tests use the programs as anybody would, with other people's tools; disks that misbehave are
//! served by this program with the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of tests: a surprise ends the test"
)]
#![forbid(unsafe_code)]

mod scenes;
mod support;

use std::process::ExitCode;
use support::{runner, special};

const USAGE: &str = "usage: guest-tests --list-scenes | --scene NAME [FILTER]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--list-scenes"] => {
            for scene in scenes::SCENES {
                println!("{}", format!("{} {}", scene.name, scene.needs).trim_end());
            }
            ExitCode::SUCCESS
        }
        ["--scene", name] => run(name, None),
        ["--scene", name, filter] => run(name, Some(filter)),
        ["--serve", ..] => special::serve(&arguments[1..]),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, filter: Option<&str>) -> ExitCode {
    // Tests make, stop and delete block devices: never on a host that has other work.
    if !std::path::Path::new("/etc/oxublk-guest.json").exists() {
        eprintln!("guest-tests: scenes run in a guest only: cargo xtask test --tier 2");
        return ExitCode::from(2);
    }
    match scenes::SCENES.iter().find(|scene| scene.name == name) {
        Some(scene) => runner::run_scene(scene, filter),
        None => {
            eprintln!("guest-tests: there is no scene {name}; {USAGE}");
            ExitCode::from(2)
        }
    }
}
