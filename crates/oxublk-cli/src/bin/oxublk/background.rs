//! The server that `oxublk add` starts in the background.
//!
//! Its stdout is one end of a socket, whose other end is the `oxublk add` that waits: the server
//! sends a [`Report`] as one line, and serves only if [`ACCEPTED`] comes back. If the other end
//! is gone, say by Ctrl-C, the device is deleted again.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxublk_cli::args::Target;
use oxublk_cli::exit::{Failure, Outcome};
use oxublk_cli::logging::Log;
use oxublk_cli::report::Added;
use oxublk_cli::server::{self, Serving};
use oxublk_cli::state::RunDir;
use oxublk_cli::target;
use oxublk_cli::text;
use serde::{Deserialize, Serialize};

/// What the waiting command answers to [`Report::Ready`].
pub(crate) const ACCEPTED: u8 = b'+';

/// How long that answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the server tells the waiting command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The device can be used.
    Ready(Added),
    /// There is no device.
    Failed(Failure),
}

/// Serves in the background; ends with the device.
pub(crate) fn serve(target: &Target, run_dir: &RunDir, log: &Log) -> Outcome<()> {
    // A terminal's Ctrl-C and hang-up are not for the server. Fails only for the leader of a
    // process group, which the child of a program is not.
    let _ = rustix::process::setsid();
    // Else `ps` calls it `exe`, after the path that it was started by.
    let _ = rustix::thread::set_name(c"oxublk");
    let mut channel = channel().map_err(|error| {
        Failure::io(
            "cannot report to the command that started this server",
            &error,
        )
    })?;
    let disk = target::disk(target);
    let serving =
        match disk.and_then(|disk| server::start(run_dir, disk.origin(), disk, target.options())) {
            Ok(serving) => serving,
            Err(failure) => {
                // The command tells its user. If it is gone, nobody wants to know.
                let _ = send(&mut channel, &Report::Failed(failure));
                return Ok(());
            }
        };
    if let Err(error) = hand_over(&mut channel, &serving) {
        tracing::warn!(%error, "the command that wanted the device is gone: the device is deleted");
        return serving.abandon();
    }
    drop(channel);
    settle(&serving, run_dir, log);
    // stderr is the log file by now.
    serving
        .run(|info, metrics| eprint!("{}", text::tags(info, metrics)))
        .map(drop)
}

/// The socket, which nothing else shall write to.
fn channel() -> io::Result<UnixStream> {
    let channel = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    channel.set_read_timeout(Some(TIMEOUT))?;
    channel.set_write_timeout(Some(TIMEOUT))?;
    rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    Ok(channel)
}

fn send(channel: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    channel.write_all(&line)
}

/// Returns when the waiting command has taken note of the device.
fn hand_over(channel: &mut UnixStream, serving: &Serving) -> io::Result<()> {
    send(channel, &Report::Ready(serving.added()))?;
    let mut answer = [0];
    channel.read_exact(&mut answer)?;
    if answer == [ACCEPTED] {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Lets go of the terminal and of the working directory.
fn settle(serving: &Serving, run_dir: &RunDir, log: &Log) {
    let path = run_dir.log_path(serving.id());
    if let Err(error) = log.redirect_to(&path) {
        tracing::warn!(%error, path = %path.display(), "there is no log file");
        if let Err(error) = log.silence() {
            tracing::warn!(%error, "the server keeps its terminal");
        }
    }
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "the server stays in its working directory");
    }
}
