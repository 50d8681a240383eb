//! Which requests can be ended, which cannot, and why: pure functions of what was seen.

use std::time::Duration;

use oxublk::{DeviceId, Features, QueueId, Tag};
use serde::{Deserialize, Serialize};

use crate::facts::{
    Armer, Command, Device, Layer, Pid, Place, Queue, Request, RequestState, Snapshot, TagView,
    Task, TaskState, Tid,
};
use crate::words::{age, bytes};

/// Which requests.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Of which device.
    pub device: DeviceId,
    /// Of this queue only.
    pub queue: Option<QueueId>,
    /// Of this tag only. A request that was chosen so needs not be old.
    pub tag: Option<Tag>,
    /// Older requests that have not moved are stuck.
    pub stuck_after: Duration,
}

/// What is going to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The device.
    pub device: DeviceId,
    /// Requests that will be ended with EIO.
    pub requests: Vec<Chosen>,
    /// Requests that cannot be ended.
    pub cannot: Vec<Cannot>,
    /// What else is to be known before.
    pub notes: Vec<String>,
}

/// A request that will be ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Its queue.
    pub queue: QueueId,
    /// Its tag.
    pub tag: Tag,
    /// What it is, in words: `read of 4 KiB at sector 0, issued 15 s ago`.
    pub what: String,
    /// Tells it from another request that has the tag later.
    pub identity: Option<u64>,
    /// The thread that has it, and will be made to answer.
    pub thread: Armer,
    /// The function of the kernel that the thread sleeps in.
    pub sleeps_in: Option<String>,
    /// Its descriptor of `/dev/ublkcN`.
    pub fd: i32,
    /// The address that goes with the answer.
    pub address: u64,
}

/// A request that cannot be ended, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cannot {
    /// Its queue; none when this is about the whole device.
    pub queue: Option<QueueId>,
    /// Its tag.
    pub tag: Option<Tag>,
    /// What it is, in words.
    pub what: Option<String>,
    /// Why not.
    pub why: String,
    /// What to do instead.
    pub remedy: String,
}

impl Cannot {
    fn whole(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            queue: None,
            tag: None,
            what: None,
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

/// Why not, and what to do instead.
type No = (String, String);

fn no<T>(why: impl Into<String>, remedy: impl Into<String>) -> Result<T, No> {
    Err((why.into(), remedy.into()))
}

/// The plan, from two looks: only a request that was at the same place in both counts.
#[must_use]
pub(super) fn plan(before: &Snapshot, now: &Snapshot, choice: &Choice) -> Plan {
    let mut plan = Plan {
        device: choice.device,
        requests: Vec::new(),
        cannot: Vec::new(),
        notes: Vec::new(),
    };
    let Some(device) = now.device(choice.device) else {
        let gone = Cannot::whole(
            "the device is not there",
            "`oxublk list` shows what there is",
        );
        plan.cannot.push(gone);
        return plan;
    };
    if let Some(gap) = unseen(now) {
        plan.cannot.push(gap);
        return plan;
    }
    for queue in &device.queues {
        if choice.queue.is_some_and(|id| id != queue.id) {
            continue;
        }
        for view in &queue.tags {
            if choice.tag.is_some_and(|tag| tag != view.tag) {
                continue;
            }
            if let Some((request, stays)) = stuck(before, queue, view, choice) {
                let seen = Seen {
                    queue,
                    view,
                    request,
                    stays,
                };
                add(&mut plan, now, device, seen);
            }
        }
    }
    if let (Some(queue), Some(tag)) = (choice.queue, choice.tag)
        && plan.requests.is_empty()
        && plan.cannot.is_empty()
    {
        plan.cannot.push(Cannot {
            queue: Some(queue),
            tag: Some(tag),
            what: None,
            why: "it has no request that stays where it is".to_owned(),
            remedy: format!(
                "`oxublk doctor {} --verbose` shows those that there are",
                device.id
            ),
        });
    }
    plan.notes = notes(now, device, &plan.requests);
    plan
}

/// An old request, in the second look.
struct Seen<'a> {
    queue: &'a Queue,
    view: &'a TagView,
    request: &'a Request,
    /// Whether it was at the same place in the first.
    stays: bool,
}

/// Adds a request to what will be done, or to what cannot be.
fn add(plan: &mut Plan, now: &Snapshot, device: &Device, seen: Seen<'_>) {
    let chosen = if seen.stays {
        chosen(now, device, seen.queue, seen.view, seen.request)
    } else {
        no(
            "it does not stay where it is: it is under way, or the driver sends it again and again",
            format!(
                "`oxublk doctor {0}` and `oxublk trace {0}` show what becomes of it",
                device.id
            ),
        )
    };
    match chosen {
        Ok(chosen) => plan.requests.push(chosen),
        Err((why, remedy)) => plan.cannot.push(Cannot {
            queue: Some(seen.queue.id),
            tag: Some(seen.view.tag),
            what: Some(what(seen.request)),
            why,
            remedy,
        }),
    }
}

/// Without the driver's structures nobody knows which thread has a request.
fn unseen(now: &Snapshot) -> Option<Cannot> {
    let gap = now
        .gaps
        .iter()
        .find(|gap| gap.layer == Layer::Kernel && gap.whole)?;
    let why = format!(
        "which thread has a request is known from the driver's structures only, and they cannot be seen: {}",
        gap.what
    );
    Some(Cannot::whole(why, gap.remedy.clone()))
}

/// The request of a tag, when it is old and was there before, and whether it was at the same place.
fn stuck<'a>(
    before: &Snapshot,
    queue: &Queue,
    view: &'a TagView,
    choice: &Choice,
) -> Option<(&'a Request, bool)> {
    let request = view
        .request
        .as_ref()
        .filter(|request| request.state != RequestState::Complete)?;
    let earlier = find(before, choice.device, queue.id, view.tag)?;
    let same = earlier
        .request
        .as_ref()
        .and_then(|earlier| earlier.identity)
        == request.identity;
    let old = request
        .age_ms
        .is_some_and(|age| u128::from(age) >= choice.stuck_after.as_millis());
    let stays = earlier.place == view.place;
    (same && (old || choice.tag.is_some() && stays)).then_some((request, stays))
}

/// A tag in a snapshot.
pub(super) fn find(
    snapshot: &Snapshot,
    device: DeviceId,
    queue: QueueId,
    tag: Tag,
) -> Option<&TagView> {
    let queues = &snapshot.device(device)?.queues;
    let queue = queues.iter().find(|known| known.id == queue)?;
    queue.tags.iter().find(|view| view.tag == tag)
}

/// `read of 4 KiB at sector 0, issued 15 s ago`.
pub(super) fn what(request: &Request) -> String {
    let mut text = request.operation.clone();
    if let Some(length) = request.bytes.filter(|length| *length > 0) {
        text.push_str(&format!(" of {}", bytes(length)));
    }
    if let Some(sector) = request.sector {
        text.push_str(&format!(" at sector {sector}"));
    }
    if let Some(issued) = request.age_ms {
        text.push_str(&format!(", issued {} ago", age(issued)));
    }
    text
}

/// The request as it can be ended, or why it cannot.
fn chosen(
    now: &Snapshot,
    device: &Device,
    queue: &Queue,
    view: &TagView,
    request: &Request,
) -> Result<Chosen, No> {
    let Some(thread) = view.armer.clone() else {
        with_server(device.id, view)?;
        return no(
            "its thread is not known",
            format!("`oxublk doctor {}`", device.id),
        );
    };
    let task = reachable(now, &thread)?;
    with_server(device.id, view)?;
    let fd = descriptor(device, thread.pid)?;
    let address = address(device, view)?;
    Ok(Chosen {
        queue: queue.id,
        tag: view.tag,
        what: what(request),
        identity: request.identity,
        sleeps_in: task.wchan.clone(),
        thread,
        fd,
        address,
    })
}

/// A request that came after another of the same thread, of which everything else is known.
pub(super) fn described(
    queue: &Queue,
    view: &TagView,
    request: &Request,
    like: &Chosen,
    device: &Device,
) -> Option<Chosen> {
    Some(Chosen {
        queue: queue.id,
        tag: view.tag,
        what: what(request),
        identity: request.identity,
        address: address(device, view).ok()?,
        ..like.clone()
    })
}

fn with_server(id: DeviceId, view: &TagView) -> Result<(), No> {
    let doctor = format!("`oxublk doctor {id}` says why it is there, and what to do");
    match view.place {
        Some(Place::WithServer) => Ok(()),
        Some(Place::Armed) => no(
            "it was not delivered: the server's thread has not run for it, or the driver gave it back to be sent again; \
             only what was delivered can be answered",
            doctor,
        ),
        Some(Place::NeedsBuffer) => no(
            "the driver waits for a buffer for it, and takes no answer before",
            doctor,
        ),
        Some(Place::Canceled) => no("the driver has taken the tag back: its server went", doctor),
        Some(Place::Unarmed) => no("its tag was never armed", doctor),
        None => no("the driver's structures do not show where it is", doctor),
    }
}

/// The thread, when a system call can be made in it.
fn reachable<'a>(now: &'a Snapshot, thread: &Armer) -> Result<&'a Task, No> {
    let Armer { tid, pid, comm, .. } = thread;
    let end = format!(
        "end the server: `kill -9 {pid}`; the driver fails its requests when its last descriptor is closed"
    );
    if !thread.alive {
        return no(
            format!(
                "the thread that fetched it, {tid} ({comm}), has ended, and no other may answer it"
            ),
            end,
        );
    }
    let Some(task) = now.tasks.get(tid) else {
        return no(
            format!("its thread, {tid} ({comm}), cannot be seen"),
            "run in the host's pid namespace, as root",
        );
    };
    if task.kernel {
        return no(
            format!(
                "thread {tid} ({comm}) is the kernel's own, which polls a ring of the server: nothing can be made to run in it"
            ),
            end,
        );
    }
    stops(task, thread, end)?;
    let maps = format!("/proc/{pid}/maps");
    if now.gaps.iter().any(|gap| gap.what.starts_with(&maps)) {
        return no(
            format!(
                "a thread of process {pid} holds the lock of its memory, so that no other can be made to run in it"
            ),
            "find what that thread waits for, and end that",
        );
    }
    Ok(task)
}

/// Whether the thread can be made to stop where it is.
fn stops(task: &Task, thread: &Armer, end: String) -> Result<(), No> {
    let Armer { tid, pid, comm, .. } = thread;
    match task.state {
        TaskState::Stopped => {
            return no(
                format!(
                    "process {pid} ({comm}) is stopped by a signal: it may answer when it goes on"
                ),
                format!("`kill -CONT {pid}`; or, if it shall not go on, `kill -9 {pid}`"),
            );
        }
        TaskState::Uninterruptible => {
            let function = task.wchan.as_deref().unwrap_or("the kernel");
            return no(
                format!(
                    "thread {tid} ({comm}) sleeps uninterruptibly in {function}: nothing reaches it"
                ),
                "find what it waits for, and end that",
            );
        }
        TaskState::Zombie | TaskState::Dead => {
            return no(format!("thread {tid} ({comm}) has ended"), end);
        }
        TaskState::Traced => {
            let tracer = task.tracer.map_or_else(
                || "a debugger".to_owned(),
                |tracer| format!("process {tracer}"),
            );
            return no(
                format!("{tracer} has stopped thread {tid} ({comm}), and only one may do so"),
                "let the debugger detach",
            );
        }
        _ => {}
    }
    if let Some(tracer) = task.tracer {
        return no(
            format!("process {tracer} traces thread {tid} ({comm}), and only one may do so"),
            "let it detach",
        );
    }
    Ok(())
}

fn descriptor(device: &Device, pid: Pid) -> Result<i32, No> {
    let server = device.servers.iter().find(|server| server.pid == pid);
    match server.and_then(|server| server.fds.first()) {
        Some(fd) => Ok(*fd),
        None => no(
            format!(
                "process {pid} has no descriptor of {}: it is registered with its ring only, and a second one cannot be opened",
                device.id.char_path().display()
            ),
            format!("end the server: `kill -9 {pid}`"),
        ),
    }
}

/// The address that the driver wants with an answer.
fn address(device: &Device, view: &TagView) -> Result<u64, No> {
    let flags = Features::from_bits_truncate(device.flags.unwrap_or_default());
    let restart = "end the server with `kill -9`".to_owned();
    if flags.contains(Features::BATCH_IO) {
        return no(
            "the device takes answers in batches, which this version cannot make",
            restart,
        );
    }
    if flags.contains(Features::AUTO_BUF_REG) {
        return no(
            "its pages are registered with the server's ring, and it ends only when that ring lets them go",
            restart,
        );
    }
    if flags.intersects(Features::USER_COPY | Features::SUPPORT_ZERO_COPY) {
        return Ok(0);
    }
    let buffer = view.buffer.map(|buffer| buffer.address);
    let described = view.descriptor.map(|descriptor| descriptor.address);
    match buffer.or(described).filter(|address| *address != 0) {
        Some(address) => Ok(address),
        None => no(
            "the address of its buffer, which goes with an answer, is not known",
            restart,
        ),
    }
}

fn notes(now: &Snapshot, device: &Device, requests: &[Chosen]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut pids: Vec<Pid> = requests.iter().map(|request| request.thread.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        let starts = |wait: &&crate::facts::ControlWait| {
            wait.pid == pid && wait.command == Command::StartDev
        };
        if now.control_waits.iter().any(|wait| starts(&wait)) {
            notes.push(format!(
                "do not end process {pid} before: its own START_DEV waits for such a request, its end would wait for START_DEV, \
                 and the request would wait for its end. Afterwards it can be ended."
            ));
        }
    }
    let flags = Features::from_bits_truncate(device.flags.unwrap_or_default());
    if flags.contains(Features::SUPPORT_ZERO_COPY) && !requests.is_empty() {
        notes.push(
            "the device works without copies: a request whose pages are registered ends only when the server lets them go, or ends"
                .to_owned(),
        );
    }
    notes
}

/// The requests that a thread has been given, whatever their age: with their place in the snapshot.
pub(super) fn held_by(
    now: &Snapshot,
    id: DeviceId,
    tid: Tid,
) -> impl Iterator<Item = (QueueId, &TagView, &Request)> {
    let queues = now.device(id).map(|device| device.queues.as_slice());
    queues
        .unwrap_or_default()
        .iter()
        .flat_map(|queue| queue.tags.iter().map(move |view| (queue.id, view)))
        .filter(move |(_, view)| view.armer.as_ref().is_some_and(|armer| armer.tid == tid))
        .filter_map(|(queue, view)| {
            let request = view.request.as_ref()?;
            (request.state == RequestState::InFlight).then_some((queue, view, request))
        })
}

#[cfg(test)]
mod tests;
