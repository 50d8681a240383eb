//! `oxublk add`: a server in the background, or here.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, io};

use oxublk::{Control, DeviceId, host};
use oxublk_cli::args::Target;
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_cli::process::Process;
use oxublk_cli::report::{Added, Ended};
use oxublk_cli::server;
use oxublk_cli::state::RunDir;
use oxublk_cli::target;
use oxublk_cli::text;
use oxublk_cli::text::metrics;

use crate::background::{ACCEPTED, Report};
use crate::del;
use crate::output::Output;

/// How long the server may take. It has deadlines of its own, which are shorter.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Serves from this process until SIGINT, SIGTERM, or until the device is deleted.
pub(crate) fn foreground(target: &Target, run_dir: &RunDir, output: &Output) -> Outcome<()> {
    let disk = target::disk(target)?;
    let serving = server::start(run_dir, disk.origin(), disk, target.options())?;
    ready(&serving.added(), output)?;
    let id = serving.id();
    let done = serving.run(|info, metrics| eprint!("{}", text::tags(info, metrics)))?;
    let ended = Ended {
        id: id.0,
        metrics: done,
    };
    output.result(&ended, |ended| {
        format!(
            "{} is deleted. It did:\n{}",
            id.block_path().display(),
            metrics(&ended.metrics)
        )
    })
}

/// The device can be used.
fn ready(added: &Added, output: &Output) -> Outcome<()> {
    output.result(added, |added| format!("{}\n", added.block_path))?;
    output.notes(&added.notes);
    Ok(())
}

/// Starts this program again as the server, and returns when the device can be used.
pub(crate) fn background(run_dir: &RunDir, output: &Output) -> Outcome<()> {
    let before = host::devices().unwrap_or_default();
    let (mut server, channel) = spawn().map_err(|error| {
        Failure::io(
            "cannot start the server: this program cannot run itself",
            &error,
        )
        .with_hint("check that /proc is mounted")
    })?;
    match read_report(&channel) {
        Ok(Some(Report::Ready(added))) => {
            // The server goes on only when it has read this.
            (&channel)
                .write_all(&[ACCEPTED])
                .map_err(|error| Failure::io("the server ended as soon as it was ready", &error))?;
            ready(&added, output)
        }
        Ok(Some(Report::Failed(failure))) => Err(failure),
        Ok(None) => Err(died(&mut server, &before, run_dir)),
        Err(error) => Err(Failure::io(
            format!(
                "the server (process {}) does not report that it is ready",
                server.id()
            ),
            &error,
        )
        .with_hint("`oxublk list` shows whether it made a device")),
    }
}

/// The server, and what its stdout is connected to.
fn spawn() -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(TIMEOUT))?;
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "oxublk".into());
    let server = Command::new("/proc/self/exe")
        .arg0(name)
        .arg("--background-server")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .spawn()?;
    Ok((server, ours))
}

/// None if the server ended without a report.
fn read_report(channel: &UnixStream) -> io::Result<Option<Report>> {
    let mut line = String::new();
    match BufReader::new(channel).read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_str(&line)?)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
    }
}

/// The server has closed its end without a report: it has ended, or is about to.
fn died(server: &mut Child, before: &[DeviceId], run_dir: &RunDir) -> Failure {
    let how = match server.wait() {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("it was killed by signal {signal}"),
            (None, Some(code)) => format!("it ended with exit code {code}"),
            (None, None) => status.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let died = format!("the server died before the device was ready: {how}");
    let unsure = clean_up(server.id(), before, run_dir);
    Failure::new(Exit::Failure, died).with_hint(match unsure.as_slice() {
        [] => "nothing of the device is left; try again".to_owned(),
        ids => {
            let ids = ids
                .iter()
                .map(DeviceId::to_string)
                .collect::<Vec<_>>()
                .join(" ");
            format!("it may have left a device behind: see `oxublk list`, then `oxublk del {ids}`")
        }
    })
}

/// Deletes the device of the server `pid`, which is dead. Returns new devices without a server:
/// they may be its, or just being made by somebody else, which is for people to decide.
fn clean_up(pid: u32, before: &[DeviceId], run_dir: &RunDir) -> Vec<DeviceId> {
    let mut unsure = Vec::new();
    let Ok(mut control) = Control::open() else {
        return unsure;
    };
    let ids = host::devices().unwrap_or_default();
    for id in ids.into_iter().filter(|id| !before.contains(id)) {
        let Ok(info) = control.info(id) else { continue };
        let found = run_dir.read(id);
        let described = found
            .description()
            .map(|description| description.server.pid);
        let served = info
            .server_pid
            .filter(|pid| Process::running(*pid).is_some());
        let its = described == Some(pid) || info.server_pid == Some(pid);
        if its && del::remove(id, run_dir).is_ok() {
            continue;
        }
        if served.is_none() {
            unsure.push(id);
        }
    }
    unsure
}
