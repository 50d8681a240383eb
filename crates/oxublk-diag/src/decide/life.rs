//! Servers that are gone.

use oxublk::DeviceState;

use crate::facts::{Armer, Device, Pid, Place, Queue, Server, TagView};
use crate::finding::{Cause, Certainty, Health};

use super::case::DeviceCase;
use super::doing::Doing;
use super::draft::Draft;
use super::late::Late;

/// What the state of a device and of its server says, whether or not a request is late.
pub(super) fn findings(device: &DeviceCase<'_>) -> Vec<Draft> {
    let draft = if device.is(DeviceState::Quiesced) {
        Some(quiesced(device))
    } else if device.is(DeviceState::FailIo) {
        Some(failing(device))
    } else if device.is(DeviceState::Live) {
        half_dead(device)
            .or_else(|| armers_gone(device))
            .or_else(|| stopped(device))
    } else if device.is(DeviceState::Dead) {
        left_over(device).or_else(|| left_open(device))
    } else {
        None
    };
    draft
        .into_iter()
        .map(|draft| draft.device(device.now.id))
        .collect()
}

/// A request of a device that has no server.
pub(super) fn no_server(late: &Late<'_>) -> Option<Draft> {
    let device = late.device;
    if device.is(DeviceState::Quiesced) {
        let says = "waits for a new server: the old one is gone, and the device keeps its requests";
        return Some(late.stuck(Cause::AwaitsRecovery, Certainty::Certain, says));
    }
    let gone = device.in_both(|device| device.servers.is_empty());
    if gone && sees_processes(device) {
        let says = "has no server: no process has the device open";
        return Some(late.stuck(Cause::ServerDead, Certainty::Certain, says));
    }
    let armer = late.armer()?;
    if !armer.alive && !device.is_server(armer.pid) && !device.now.servers.is_empty() {
        let says = format!("was armed by process {}, which is gone", armer.pid);
        let draft = late.stuck(Cause::ServerHalfDead, Certainty::Certain, &says);
        return Some(draft.because_all(device.now.servers.iter().map(keeps)));
    }
    None
}

/// Whether what other processes have open could be seen.
fn sees_processes(device: &DeviceCase<'_>) -> bool {
    device.case.now.sees(crate::facts::Layer::Inside)
}

fn quiesced(device: &DeviceCase<'_>) -> Draft {
    let says = match device.now.servers.first() {
        Some(server) => format!(
            "its server is gone; a new one, {} (pid {}), has it open and is taking over: {}",
            server.comm,
            server.pid,
            progress(device.now)
        ),
        None => "its server is gone: requests wait until a new one recovers the device".to_owned(),
    };
    let draft = Draft::new(
        Cause::AwaitsRecovery,
        Health::Warning,
        Certainty::Certain,
        says,
    );
    draft
        .because("the driver says that the device is quiesced")
        .because_all(device.waiting_lines())
}

fn progress(device: &Device) -> String {
    let armed = device.armed_tags();
    let all = u32::from(device.queue_count.unwrap_or_default())
        * u32::from(device.depth.unwrap_or_default());
    format!("{armed} of {all} tags are armed")
}

fn failing(device: &DeviceCase<'_>) -> Draft {
    let says = "its server is gone: requests fail until a new one recovers the device".to_owned();
    Draft::new(
        Cause::FailsUntilRecovery,
        Health::Warning,
        Certainty::Certain,
        says,
    )
    .because("the driver says that the device fails I/O")
    .because_all(device.waiting_lines())
}

/// The process whose threads armed the tags, when it is gone and others keep `/dev/ublkcN`: in both looks, since a process
/// that just dies loses its threads and files one after another.
fn outlived(device: &DeviceCase<'_>) -> Option<Pid> {
    let pid = outlived_in(device.now)?;
    (device.before.and_then(outlived_in) == Some(pid)).then_some(pid)
}

fn outlived_in(device: &Device) -> Option<Pid> {
    let armers = || device.queues.iter().flat_map(|queue| &queue.armers);
    if device.servers.is_empty() || armers().any(|armer| armer.alive) {
        return None;
    }
    armers()
        .map(|armer| armer.pid)
        .find(|pid| !has_open(device, *pid))
}

/// Whether the process has the device open or mapped.
fn has_open(device: &Device, pid: Pid) -> bool {
    device.servers.iter().any(|server| server.pid == pid)
}

/// The process that started the device is gone, and others keep `/dev/ublkcN`.
fn half_dead(device: &DeviceCase<'_>) -> Option<Draft> {
    let pid = outlived(device)?;
    let says = format!(
        "its server (pid {pid}) is gone, and the driver was not told, since others keep the device open or mapped: requests are not served"
    );
    Some(
        Draft::new(
            Cause::ServerHalfDead,
            Health::Stuck,
            Certainty::Certain,
            says,
        )
        .because_all(device.now.servers.iter().map(keeps)),
    )
}

/// The same where the driver sees a server's end by its rings (up to 6.14): the device is left over.
fn left_open(device: &DeviceCase<'_>) -> Option<Draft> {
    let pid = outlived(device)?;
    let canceled = |tag: &TagView| tag.place == Some(Place::Canceled);
    let mut tags = device.now.queues.iter().flat_map(|queue| &queue.tags);
    tags.any(canceled).then(|| {
        let says = format!(
            "its server (pid {pid}) is gone: the device is left over, and cannot be deleted for good while others keep it open or mapped"
        );
        Draft::new(
            Cause::ServerHalfDead,
            Health::Warning,
            Certainty::Likely,
            says,
        )
        .because("the driver says that the device is dead")
        .because_all(device.now.servers.iter().map(keeps))
    })
}

fn keeps(server: &Server) -> String {
    let how = match (server.fds.is_empty(), server.mappings.is_empty()) {
        (false, false) => "open and mapped",
        (false, true) => "open",
        _ => "mapped",
    };
    format!("{} (pid {}) has the device {how}", server.comm, server.pid)
}

/// The threads that armed the tags of a queue are gone, and their process lives.
fn armers_gone(device: &DeviceCase<'_>) -> Option<Draft> {
    let before = device.before?;
    let queue = device.now.queues.iter().find(|queue| {
        let old = before.queues.iter().find(|old| old.id == queue.id);
        lost_its_armers(device.now, queue) && old.is_some_and(|old| lost_its_armers(before, old))
    })?;
    let armer = queue.armers.first()?;
    let says = format!(
        "the thread {} ({}) that armed queue {} has ended; its process lives, so that the driver was not told: requests of this queue fail or wait for ever",
        armer.tid, armer.comm, queue.id
    );
    Some(
        Draft::new(Cause::ArmerGone, Health::Stuck, Certainty::Certain, says)
            .queue(queue.id)
            .because(format!(
                "thread {} is not in /proc/{}/task",
                armer.tid, armer.pid
            )),
    )
}

fn lost_its_armers(device: &Device, queue: &Queue) -> bool {
    let lost = |armer: &Armer| !armer.alive && has_open(device, armer.pid);
    !queue.armers.is_empty() && queue.armers.iter().all(lost)
}

/// A server that is stopped; nobody waits for it yet.
fn stopped(device: &DeviceCase<'_>) -> Option<Draft> {
    let mut armers = device.now.queues.iter().flat_map(|queue| &queue.armers);
    let armer = armers.find(|armer| device.case.doing(armer.tid) == Doing::Stopped)?;
    let says = format!(
        "its server's thread {} ({}) is stopped: requests wait until it goes on",
        armer.tid, armer.comm
    );
    Some(
        Draft::new(
            Cause::ServerStopped,
            Health::Warning,
            Certainty::Certain,
            says,
        )
        .first(format!("kill -CONT {}", armer.pid)),
    )
}

/// A device that is stopped, and that nobody has open.
fn left_over(device: &DeviceCase<'_>) -> Option<Draft> {
    let nobody = device.in_both(|device| device.servers.is_empty());
    if !nobody || !sees_processes(device) {
        return None;
    }
    let served = device.now.block.is_some()
        || device
            .now
            .queues
            .iter()
            .flat_map(|queue| &queue.tags)
            .any(|tag| tag.place == Some(Place::Canceled));
    let says = if served {
        "its server is gone: the device is left over"
    } else {
        "the device was added, and no process has it open: whoever made it is gone, or has not come to it yet"
    };
    let certainty = if served {
        Certainty::Certain
    } else {
        Certainty::Possible
    };
    let draft = Draft::new(
        Cause::ServerDead,
        Health::Warning,
        certainty,
        says.to_owned(),
    )
    .because("the driver says that the device is dead; no process has it open or mapped");
    let old = device
        .case
        .now
        .host
        .series()
        .is_some_and(|series| series < (7, 3));
    Some(draft.not_now(old.then(|| {
        "do not start this device again: kernels before 7.3 may crash when a stopped id is started anew; delete it first".to_owned()
    })))
}
