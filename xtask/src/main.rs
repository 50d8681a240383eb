//! Guest, demo, benches and other tasks of the oxublk workspace.
//!
//! `cargo xtask guest -- COMMAND` boots a distribution's own kernel under QEMU with an initramfs made of our
//! programs and runs COMMAND in it; `cargo xtask test` and `cargo demo` are built on that.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod abi;
mod apt;
mod bench;
mod cpio;
mod death;
mod demo;
mod demo_scene;
mod guest;
mod image;
mod init;
mod kernels;
mod kvm;
mod modules;
mod packages;
mod paths;
mod peers;
mod programs;
mod qemu;
mod scenes;
mod tally;
mod test;
mod verdicts;
mod wire;
mod workers;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Tasks of the oxublk workspace"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run a command in a guest: a real kernel under QEMU with our programs in PATH
    Guest(guest::Arguments),
    /// Run the tests: here, and on real kernels in guests
    Test(test::Arguments),
    /// Make a memory disk, use it, look at it, remove it
    Demo(demo::Arguments),
    /// The demo's steps, on a machine that has the driver
    #[command(hide = true)]
    DemoScene {
        /// The files to put on the disk
        files: PathBuf,
    },
    /// Compare our devices with the kernel's and another server's
    Bench(bench::Arguments),
    /// The bench's measurements, in the guest
    #[command(hide = true)]
    BenchScene {
        /// What to measure, as JSON
        plan: String,
    },
    /// Run every fault on real kernels and write down what doctor says
    Verdicts(verdicts::Arguments),
    /// Compare our constants with the kernel's header
    Abi,
}

fn main() -> ExitCode {
    // The same program is the guest's first process: the kernel starts it as /init.
    if std::process::id() == 1 {
        return init::main();
    }
    let done = match Arguments::parse().task {
        Task::Guest(arguments) => guest::main(&arguments),
        Task::Test(arguments) => test::main(&arguments),
        Task::Demo(arguments) => demo::main(&arguments),
        Task::DemoScene { files } => demo_scene::run(Path::new("oxublk"), &files),
        Task::Bench(arguments) => bench::main(&arguments),
        Task::BenchScene { plan } => bench::run_in_guest(&plan),
        Task::Verdicts(arguments) => verdicts::main(&arguments),
        Task::Abi => abi::run().map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(guest::SETUP_FAILED)
        }
    }
}
