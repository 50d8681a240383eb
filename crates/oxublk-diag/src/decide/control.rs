//! Control commands that wait, and what must not be done because of them.

use oxublk::DeviceId;

use crate::facts::{Command, ControlWait, User};
use crate::finding::{Cause, Certainty, Health};
use crate::words::age;

use super::case::{Case, DeviceCase, milliseconds};
use super::draft::Draft;

/// What the waits of control commands say.
pub(super) fn findings(case: &Case<'_>) -> Vec<Draft> {
    let waits: Vec<&ControlWait> = case
        .lasting_waits()
        .filter(|wait| is_old(case, wait))
        .collect();
    let mut drafts = Vec::new();
    for wait in &waits {
        drafts.extend(match wait.command {
            // Waiting for tags or for the scan is told with what they wait for.
            Command::StartDev | Command::EndUserRecovery => None,
            Command::DelDev if holds_lock(wait) && others_wait(&waits, wait) => {
                Some(holder(wait, &waits))
            }
            Command::DelDev if !waits_for_requests(wait) && !waits_for_lock(wait) => {
                Some(held_open(case, wait))
            }
            _ if waits_for_lock(wait) && waits.iter().any(|other| holds_lock(other)) => None,
            _ => Some(stuck(wait)),
        });
    }
    drafts
}

fn is_old(case: &Case<'_>, wait: &ControlWait) -> bool {
    wait.since_ms.unwrap_or(case.between_ms) >= milliseconds(case.limits.slow)
}

fn is_in(wait: &ControlWait, functions: &[&str]) -> bool {
    wait.stack
        .iter()
        .chain(&wait.sleeps_in)
        .any(|function| functions.iter().any(|name| function.starts_with(name)))
}

/// Waits for requests that the server has.
fn waits_for_requests(wait: &ControlWait) -> bool {
    is_in(
        wait,
        &[
            "blk_mq_freeze_queue_wait",
            "del_gendisk",
            "__del_gendisk",
            "ublk_stop_dev",
        ],
    )
}

/// The functions of locks are the scheduler's, and left out of stacks: what is seen is who called them. ADD_DEV waits for nothing else.
fn waits_for_lock(wait: &ControlWait) -> bool {
    let innermost = wait.sleeps_in.as_ref().or(wait.stack.first());
    is_in(wait, &["mutex_lock", "__mutex_lock"])
        || wait.command == Command::AddDev
            && innermost.is_some_and(|function| function.starts_with("ublk_"))
}

/// DEL_DEV stops the device first, and holds the driver's global lock meanwhile.
fn holds_lock(wait: &ControlWait) -> bool {
    wait.command == Command::DelDev && waits_for_requests(wait)
}

fn others_wait(waits: &[&ControlWait], holder: &ControlWait) -> bool {
    waits
        .iter()
        .any(|wait| wait.tid != holder.tid && waits_for_lock(wait))
}

fn holder(wait: &ControlWait, waits: &[&ControlWait]) -> Draft {
    let behind: Vec<String> = waits
        .iter()
        .filter(|other| other.tid != wait.tid && waits_for_lock(other))
        .map(|other| {
            format!(
                "{} of {} (pid {})",
                name(other.command),
                other.comm,
                other.pid
            )
        })
        .collect();
    let says = format!(
        "DEL_DEV of {} waits for requests that its server does not answer, and holds the driver's lock: no device of this host can be added or deleted",
        target(wait.device)
    );
    about(wait, Cause::DeleteHoldsLock, Certainty::Certain, says)
        .because_all(behind.iter().map(|who| format!("behind it: {who}")))
}

fn held_open(case: &Case<'_>, wait: &ControlWait) -> Draft {
    let device = wait.device.and_then(|id| case.device(id));
    let holders: Vec<String> = device.iter().flat_map(holders).collect();
    let says = format!(
        "DEL_DEV of {} waits until nobody holds the device: it is deleted, and its number is not free yet",
        target(wait.device)
    );
    let certainty = if holders.is_empty() {
        Certainty::Likely
    } else {
        Certainty::Certain
    };
    about(wait, Cause::HeldOpen, certainty, says).because_all(holders)
}

/// Who holds a device.
fn holders(device: &DeviceCase<'_>) -> Vec<String> {
    let user = |user: &User| match user.pid {
        Some(pid) => format!("{} (pid {pid}) {}", user.comm, user.usage),
        None => user.usage.clone(),
    };
    let servers = device.now.servers.iter().map(|server| {
        format!(
            "{} (pid {}) has its character device",
            server.comm, server.pid
        )
    });
    device.now.users.iter().map(user).chain(servers).collect()
}

fn stuck(wait: &ControlWait) -> Draft {
    let what = if waits_for_requests(wait) {
        "for requests that the server has and does not answer"
    } else if waits_for_lock(wait) {
        "for a lock of the device, which another command or the scan for partitions holds"
    } else {
        "in the driver"
    };
    let says = format!(
        "{} of {} waits {what}",
        name(wait.command),
        target(wait.device)
    );
    about(wait, Cause::ControlStuck, Certainty::Likely, says)
}

fn about(wait: &ControlWait, cause: Cause, certainty: Certainty, says: String) -> Draft {
    let since = wait
        .since_ms
        .map(|since| format!(", for {}", age(since)))
        .unwrap_or_default();
    let sleeps = wait.sleeps_in.as_deref().unwrap_or("?");
    let draft = Draft::new(cause, Health::Stuck, certainty, says).because(format!(
        "thread {} ({}) of process {} executes it, and sleeps in {sleeps}{since}",
        wait.tid, wait.comm, wait.pid
    ));
    match wait.device {
        Some(device) => draft.device(device),
        None => draft,
    }
}

fn target(device: Option<DeviceId>) -> String {
    device.map_or_else(
        || "a device".to_owned(),
        |id| format!("/dev/{}", id.disk_name()),
    )
}

const fn name(command: Command) -> &'static str {
    match command {
        Command::AddDev => "ADD_DEV",
        Command::StartDev => "START_DEV",
        Command::StopDev => "STOP_DEV",
        Command::DelDev => "DEL_DEV",
        Command::SetParams => "SET_PARAMS",
        Command::GetParams => "GET_PARAMS",
        Command::StartUserRecovery => "START_USER_RECOVERY",
        Command::EndUserRecovery => "END_USER_RECOVERY",
        Command::QuiesceDev => "QUIESCE_DEV",
        Command::Other => "a control command",
    }
}

/// What must not be done while a request of this device hangs.
pub(super) fn not_now(device: &DeviceCase<'_>) -> Vec<String> {
    let id = device.now.id;
    let mut lines = Vec::new();
    let scans_inside = device
        .case
        .now
        .host
        .series()
        .is_some_and(|series| series < (6, 18));
    let own = device.case.lasting_waits().find(|wait| {
        device.is_server(wait.pid)
            && match wait.command {
                Command::StartDev => scans_inside,
                Command::StopDev | Command::DelDev => waits_for_requests(wait),
                _ => false,
            }
    });
    if let Some(wait) = own {
        lines.push(format!(
            "do not kill the server (pid {}): it sent {} itself, its end would wait for that command, the command for this request, and the request for the server's end; only a reboot resolves that. `oxublk rescue {id}` first",
            wait.pid,
            name(wait.command)
        ));
    }
    let opens_wait = device
        .waiters()
        .iter()
        .any(|waiter| waiter.issued == Some(false));
    if opens_wait {
        lines.push(format!(
            "do not open /dev/{} (dd, blkid, lsblk -f, mount): it would wait too, and no signal ends that",
            id.disk_name()
        ));
    }
    if device
        .case
        .now
        .host
        .series()
        .is_some_and(|series| series < (7, 0))
        && !device.now.servers.is_empty()
    {
        lines.push("do not send STOP_DEV or DEL_DEV from a process that must live on: they wait for this request, and cannot be interrupted".to_owned());
    }
    lines
}
