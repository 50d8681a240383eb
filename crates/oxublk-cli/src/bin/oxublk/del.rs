//! `oxublk del`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use oxublk::{Control, DeviceId, ErrorKind, host};
use oxublk_cli::args::DelArgs;
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_cli::process::Process;
use oxublk_cli::report::{Deleted, DeletedDevice, HeldBy, Server, block_path};
use oxublk_cli::state::{Found, RunDir};

use crate::output::{Output, complain};

/// How long a server may take to end when its device is gone.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn run(arguments: &DelArgs, run_dir: &RunDir, output: &Output) -> Outcome<Exit> {
    let mut control = Control::open()?;
    let mut ids = if arguments.all {
        all(run_dir, output)?
    } else {
        arguments.devices.clone()
    };
    ids.sort_unstable();
    ids.dedup();
    let mut exit = Exit::Success;
    let mut deleted = Deleted::default();
    for id in ids {
        let mut device = untouched(id);
        let mut deletion = Deletion {
            id,
            control: &mut control,
            run_dir,
            device: &mut device,
        };
        match deletion.run(arguments.force, output) {
            Ok(()) => {
                device.deleted = true;
                output.progress(&format!("deleted {}", block_path(id)))?;
            }
            Err(failure) => {
                complain(&failure);
                if exit == Exit::Success {
                    exit = failure.kind;
                }
                device.error = Some(failure);
            }
        }
        output.notes(&device.notes);
        deleted.devices.push(device);
    }
    if output.json {
        output.result(&deleted, |_| String::new())?;
    }
    Ok(exit)
}

/// Deletes a device whose server is dead, without a word.
pub(crate) fn remove(id: DeviceId, run_dir: &RunDir) -> Outcome<()> {
    let silent = Output { json: true };
    let (mut control, mut device) = (Control::open()?, untouched(id));
    Deletion {
        id,
        control: &mut control,
        run_dir,
        device: &mut device,
    }
    .run(true, &silent)
}

fn untouched(id: DeviceId) -> DeletedDevice {
    DeletedDevice {
        id: id.0,
        deleted: false,
        holders: vec![],
        error: None,
        notes: vec![],
    }
}

/// The devices that oxublk made. Removes what describes devices that are gone.
fn all(run_dir: &RunDir, output: &Output) -> Outcome<Vec<DeviceId>> {
    let described = run_dir.ids()?;
    let there = host::devices()?;
    let mut ours = Vec::new();
    for id in described {
        match run_dir.read(id) {
            Found::Running(_) | Found::Ended(_) if there.contains(&id) => ours.push(id),
            Found::Gone(_) | Found::Unusable(_) if !there.contains(&id) => {
                if run_dir.remove(id, false) {
                    output.progress(&format!("removed the files of device {id}, which is gone"))?;
                }
            }
            Found::Unusable(reason) => {
                output.notes(&[format!(
                    "device {id} is left alone, as it may not be ours: {reason}"
                )]);
            }
            // Being made or deleted by its server, or a log that was kept.
            Found::Running(_) | Found::Ended(_) | Found::Gone(_) | Found::Nothing => {}
        }
    }
    Ok(ours)
}

/// The deletion of one device.
struct Deletion<'a> {
    id: DeviceId,
    control: &'a mut Control,
    run_dir: &'a RunDir,
    device: &'a mut DeletedDevice,
}

impl Deletion<'_> {
    fn run(&mut self, force: bool, output: &Output) -> Outcome<()> {
        let id = self.id;
        let found = self.run_dir.read(id);
        let info = match self.control.info(id) {
            Ok(info) => info,
            Err(error) => {
                if error.kind() == ErrorKind::NoSuchDevice {
                    self.forget(&found);
                }
                return Err(error.into());
            }
        };
        let server = Server::of(Some(&info), found.description());
        let node = node_inode(id);
        self.device.holders = host::holders(id)?.iter().map(HeldBy::from).collect();
        if !force {
            self.refuse_if_held()?;
        }
        output.progress(&format!("stopping {}", block_path(id)))?;
        gone_is_fine(self.control.stop(id))
            .map_err(|failure| blame(failure, server.as_ref(), id))?;
        let mut held = !self.device.holders.is_empty();
        // The server may have deleted its device by now, and another may have the id.
        if node.is_some() && node_inode(id) == node {
            held |= !self.delete(&found)?;
        }
        if held {
            self.note_held(found.server());
            return Ok(());
        }
        self.wait_server(found.server())
    }

    fn refuse_if_held(&self) -> Outcome<()> {
        let holders = &self.device.holders;
        if holders.is_empty() {
            return Ok(());
        }
        let holders: Vec<String> = holders.iter().map(HeldBy::to_string).collect();
        let message = format!("device {} is in use: {}", self.id, holders.join(", "));
        Err(Failure::new(Exit::Busy, message).with_hint(
            "unmount or close it first; --force deletes it all the same, and loses what is not \
             on the disk yet",
        ))
    }

    /// DEL_DEV. What a server that is dead wrote down goes before, while nobody else can have
    /// the id. False if somebody still holds the device, so that its id is not free.
    fn delete(&mut self, found: &Found) -> Outcome<bool> {
        if found.server().is_none() {
            self.run_dir.remove(self.id, false);
        }
        // Whoever has the disk open keeps its id, and may do so for long.
        let deleted = if self.device.holders.is_empty() {
            self.control.delete(self.id)
        } else {
            match self.control.delete_async(self.id) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    self.control.delete(self.id)
                }
                deleted => deleted,
            }
        };
        let failed = match deleted {
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Busy) => {
                // The driver has deleted it, and waits for the last holder.
                return Ok(false);
            }
            deleted => gone_is_fine(deleted),
        };
        if failed.is_err()
            && let Some(description) = found.description()
        {
            self.run_dir.write(description)?;
        }
        failed.map(|()| true)
    }

    fn note_held(&mut self, server: Option<Process>) {
        let id = self.id;
        if self.control.info(id).is_err() || node_inode(id).is_some() {
            return;
        }
        let server = match server.filter(Process::is_alive) {
            Some(server) => format!("; the server, process {}, has not ended yet", server.pid),
            None => String::new(),
        };
        let note = format!("id {id} becomes free when nobody has the device open{server}");
        self.device.notes.push(note);
    }

    /// Our server ends with its device.
    fn wait_server(&mut self, server: Option<Process>) -> Outcome<()> {
        let Some(server) = server else { return Ok(()) };
        let ended = server.wait_end(SERVER_TIMEOUT).map_err(|error| {
            Failure::io(
                format!("cannot wait for the server, process {}", server.pid),
                &error,
            )
        })?;
        if ended {
            // It has cleaned up, unless it was killed meanwhile.
            self.forget(&self.run_dir.read(self.id));
        } else {
            let pid = server.pid;
            self.device
                .notes
                .push(format!("the server, process {pid}, has not ended yet"));
        }
        Ok(())
    }

    /// Removes the files of a device that is gone.
    fn forget(&mut self, found: &Found) {
        if let Found::Gone(_) | Found::Unusable(_) = found {
            if !self.run_dir.remove(self.id, false) {
                return;
            }
            let directory = self.run_dir.path().display();
            let note = format!("removed the files of device {} in {directory}", self.id);
            self.device.notes.push(note);
        }
    }
}

/// Which device has the id now.
fn node_inode(id: DeviceId) -> Option<u64> {
    fs::metadata(id.char_path()).ok().map(|node| node.ino())
}

fn gone_is_fine(result: oxublk::Result<()>) -> Outcome<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NoSuchDevice => Ok(()),
        result => Ok(result?),
    }
}

/// The driver waits for the server: names it.
fn blame(failure: Failure, server: Option<&Server>, id: DeviceId) -> Failure {
    match server {
        Some(Server {
            pid,
            command: Some(command),
            ..
        }) => failure.with_hint(format!(
            "if the server, process {pid} ({command}), does not go on, end it with `kill -9 {pid}` \
             and run `oxublk del {id}` again"
        )),
        _ => failure,
    }
}
