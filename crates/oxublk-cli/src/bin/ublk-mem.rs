//! Serve a disk in memory until Ctrl-C.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program"
)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use oxublk::queue::Blocking;
use oxublk_cli::args::{DeviceOptions, MemCli};
use oxublk_cli::exit::{Exit, Outcome};
use oxublk_cli::logging::Log;
use oxublk_cli::report::Added;
use oxublk_cli::size::Size;
use oxublk_cli::state::{Origin, RunDir};
use oxublk_cli::{server, target, text};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let arguments = MemCli::parse();
    let level = if arguments.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let _log = Log::init(level);
    match run(&arguments) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            eprintln!("ublk-mem: {failure}");
            failure.kind.into()
        }
    }
}

fn run(arguments: &MemCli) -> Outcome<()> {
    let MemCli {
        size,
        queues,
        depth,
        stuck_after_ms,
        ..
    } = *arguments;
    let options = DeviceOptions {
        queues,
        depth,
        stuck_after_ms,
        foreground: true,
        ..DeviceOptions::default()
    };
    let disk = target::mem(size.0, &options)?;
    let serving = server::start(
        &RunDir::from_env(),
        Origin::new("mem"),
        Blocking(disk),
        &options,
    )?;
    let block_path = serving.id().block_path();
    print(&welcome(&serving.added()));
    let done = serving.run(|info, metrics| print(&text::tags(info, metrics)))?;
    print(&format!(
        "\n{} is deleted. It did:\n{}",
        block_path.display(),
        text::metrics(&done)
    ));
    Ok(())
}

/// A reader that has gone away is no reason to end: somebody may use the disk.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

fn welcome(added: &Added) -> String {
    let Added {
        block_path,
        char_path,
        size_bytes,
        queues,
        depth,
        server_pid,
        ..
    } = added;
    format!(
        "Block device:      {block_path}
Character device:  {char_path}
Size:              {size}
Queues:            {queues} of {depth} requests

To use it, as root in another terminal:
  mkfs.ext4 {block_path}
  mount {block_path} /mnt

kill -USR1 {server_pid} shows what each queue and tag is doing.
Ctrl-C stops and deletes the device; its content is lost.
",
        size = Size(*size_bytes).both(),
    )
}
