//! `oxublk list`

use oxublk::{Control, DeviceId, ErrorKind, host};
use oxublk_cli::exit::Outcome;
use oxublk_cli::report::{Listed, ListedDevice, Server, block_path};
use oxublk_cli::size::Size;
use oxublk_cli::state::{Found, RunDir};
use oxublk_cli::text::{age, table};

use crate::output::Output;

pub(crate) fn run(run_dir: &RunDir, output: &Output) -> Outcome<()> {
    let mut notes = Vec::new();
    let mut control = match Control::open() {
        Ok(control) => Some(control),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            notes.push(format!("{error}: what only the driver knows is missing"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let ids = host::devices()?;
    let mut devices = Vec::new();
    for &id in &ids {
        devices.extend(look(id, control.as_mut(), run_dir, &mut notes)?);
    }
    note_stale(run_dir, &ids, &mut notes);
    let listed = Listed { devices, notes };
    output.result(&listed, text)?;
    output.notes(&listed.notes);
    Ok(())
}

/// None if the device was deleted meanwhile.
fn look(
    id: DeviceId,
    control: Option<&mut Control>,
    run_dir: &RunDir,
    notes: &mut Vec<String>,
) -> Outcome<Option<ListedDevice>> {
    let info = match control.map(|control| control.info(id)).transpose() {
        Ok(info) => info,
        Err(error) if error.kind() == ErrorKind::NoSuchDevice => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            notes.push(error.to_string());
            None
        }
        Err(error) => return Err(error.into()),
    };
    let found = run_dir.read(id);
    if let Found::Unusable(reason) = &found {
        notes.push(format!("ignored {reason}"));
    }
    let description = found.description();
    let server = Server::of(info.as_ref(), description);
    if server.as_ref().is_none_or(|server| !server.running) {
        notes.push(format!(
            "device {id} has no server; `oxublk del {id}` removes it"
        ));
    }
    Ok(Some(ListedDevice {
        id: id.0,
        block_path: block_path(id),
        state: info.map(|info| info.state.to_string()),
        size_bytes: host::size_bytes(id),
        queues: info.map(|info| info.queues),
        depth: info.map(|info| info.depth),
        server,
        target: description.map(|description| description.target.clone()),
        uptime_seconds: description.map(|description| description.age_seconds()),
    }))
}

/// Says which files describe no device.
fn note_stale(run_dir: &RunDir, ids: &[DeviceId], notes: &mut Vec<String>) {
    match run_dir.ids() {
        Ok(described) => {
            for id in described.into_iter().filter(|id| !ids.contains(id)) {
                if let Found::Gone(_) | Found::Unusable(_) = run_dir.read(id) {
                    let directory = run_dir.path().display();
                    notes.push(format!(
                        "{directory} has files of device {id}, which is gone; \
                         `oxublk del --all` removes them"
                    ));
                }
            }
        }
        Err(failure) => notes.push(failure.to_string()),
    }
}

fn text(listed: &Listed) -> String {
    if listed.devices.is_empty() {
        return "no ublk devices\n".to_owned();
    }
    let head = [
        "ID", "DEVICE", "STATE", "SIZE", "QUEUES", "SERVER", "TARGET", "UPTIME",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(listed.devices.iter().map(row));
    table(&rows)
}

fn row(device: &ListedDevice) -> Vec<String> {
    let unknown = || "-".to_owned();
    let shape = device.queues.zip(device.depth);
    let server = device.server.as_ref().map(|server| match &server.command {
        Some(command) => format!("{} ({command})", server.pid),
        None => format!("{} (gone)", server.pid),
    });
    vec![
        device.id.to_string(),
        device.block_path.clone(),
        device.state.clone().unwrap_or_else(unknown),
        device
            .size_bytes
            .map_or_else(unknown, |size| Size(size).human()),
        shape.map_or_else(unknown, |(queues, depth)| format!("{queues}×{depth}")),
        server.unwrap_or_else(unknown),
        device.target.clone().unwrap_or_else(unknown),
        device.uptime_seconds.map_or_else(unknown, age),
    ]
}
