//! How the programs are linked.

#![allow(
    clippy::print_stdout,
    reason = "a build script tells cargo by its output"
)]

fn main() {
    // The kernel finds the counters of a static probe's listeners by their place in the file. Where two segments share a page of
    // the file it counts in the wrong one, and nobody ever sees a probe fire. Linkers that do not know the option ignore it.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,separate-loadable-segments");
    println!("cargo::rerun-if-changed=build.rs");
}
