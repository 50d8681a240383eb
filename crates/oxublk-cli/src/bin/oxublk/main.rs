//! Make, list and remove block devices that are served in userspace.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program"
)]

mod add;
mod background;
mod del;
mod doctor;
mod features;
mod help;
mod info;
mod list;
mod output;
mod rescue;
mod trace;

use std::process::ExitCode;

use clap::Parser;
use oxublk_cli::args::{Cli, Command};
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_cli::logging::Log;
use oxublk_cli::state::RunDir;
use tracing::level_filters::LevelFilter;

use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let log = Log::init(LevelFilter::WARN);
    let output = Output { json: cli.json };
    let exit = run(cli, &output, &log).unwrap_or_else(|failure| {
        output.failure(&failure);
        failure.kind
    });
    exit.into()
}

/// Help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    // There is nobody left to tell if this fails.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Success.into();
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        Output { json: true }.failure_document(&Failure::new(Exit::Usage, message));
    }
    Exit::Usage.into()
}

fn run(cli: Cli, output: &Output, log: &Log) -> Outcome<Exit> {
    let run_dir = RunDir::from_env();
    match cli.command {
        Command::Add { target } if cli.background_server => {
            background::serve(&target, &run_dir, log)?
        }
        Command::Add { target } if target.options().foreground => {
            add::foreground(&target, &run_dir, output)?;
        }
        Command::Add { .. } => add::background(&run_dir, output)?,
        Command::List => list::run(&run_dir, output)?,
        Command::Info { device } => info::run(device, &run_dir, output)?,
        Command::Del(arguments) => return del::run(&arguments, &run_dir, output),
        Command::Doctor(arguments) => return doctor::run(&arguments, output),
        Command::Rescue(arguments) => return rescue::run(&arguments, output),
        Command::Trace(arguments) => return trace::run(&arguments, output),
        Command::Features => features::run(output)?,
        Command::Completions { shell } => help::completions(shell, output)?,
        Command::Man { dir } => help::man(dir.as_deref(), output)?,
    }
    Ok(Exit::Success)
}
