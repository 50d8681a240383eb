//! Which requests are chosen, and what is said of the others.

use std::time::Duration;

use oxublk::{DeviceId, Features, QueueId, Tag};

use super::{Choice, Plan, plan};
use crate::facts::{
    Armer, Buffer, Command, ControlWait, Device, Gap, Layer, Node, Pid, Place, Queue, Request,
    RequestState, Server, Snapshot, TagView, Task, TaskState, Tid,
};

const CHOICE: Choice = Choice {
    device: DeviceId(0),
    queue: None,
    tag: None,
    stuck_after: Duration::from_secs(5),
};

fn request(age_ms: u64) -> Request {
    Request {
        operation: "read".to_owned(),
        sector: Some(8),
        bytes: Some(4096),
        age_ms: Some(age_ms),
        identity: Some(7),
        state: RequestState::InFlight,
        waiter: None,
    }
}

fn view(tag: u16, age_ms: u64) -> TagView {
    TagView {
        tag: Tag(tag),
        place: Some(Place::WithServer),
        flags: None,
        armer: Some(Armer {
            tid: Tid(171),
            pid: Pid(166),
            comm: "queue0".to_owned(),
            alive: true,
        }),
        buffer: Some(Buffer {
            address: 0x1000,
            mapped: None,
            writable: None,
        }),
        descriptor: None,
        request: Some(request(age_ms)),
    }
}

fn task() -> Task {
    Task {
        tid: Tid(171),
        pid: Pid(166),
        comm: "queue0".to_owned(),
        state: TaskState::Sleeping,
        tracer: None,
        parent: None,
        wchan: Some("futex_wait_queue".to_owned()),
        stack: Vec::new(),
        syscall: None,
        cpu_ticks: None,
        switches: None,
        start_ticks: None,
        asleep_ms: None,
        kernel: false,
    }
}

/// A device with one request, tag 3's, twelve seconds old.
fn snapshot() -> Snapshot {
    let queue = Queue {
        id: QueueId(0),
        cpus: Vec::new(),
        armed: None,
        unarmed: Vec::new(),
        armers: Vec::new(),
        strangers: Vec::new(),
        tags: vec![view(3, 12_000)],
        requeued: 0,
        misanswered: Vec::new(),
        well_answered: 0,
        canceling: None,
        aborting: None,
    };
    let device = Device {
        id: DeviceId(0),
        state: None,
        flags: Some(0),
        queue_count: Some(1),
        depth: Some(16),
        max_io_bytes: None,
        claimed_pid: None,
        node: Node::BlockDevice,
        block: None,
        servers: vec![Server {
            pid: Pid(166),
            comm: "server".to_owned(),
            fds: vec![5],
            mappings: Vec::new(),
            rings: Vec::new(),
            other_namespaces: Vec::new(),
        }],
        users: Vec::new(),
        queues: vec![queue],
        all_armed: Some(true),
        recorder: None,
    };
    Snapshot {
        devices: vec![device],
        tasks: [(Tid(171), task())].into(),
        ..Snapshot::default()
    }
}

fn changed(change: impl Fn(&mut Snapshot)) -> Plan {
    let mut now = snapshot();
    change(&mut now);
    plan(&now.clone(), &now, &CHOICE)
}

fn tag(snapshot: &mut Snapshot) -> &mut TagView {
    &mut snapshot.devices[0].queues[0].tags[0]
}

/// Nothing is done, and these words say why.
fn cannot(change: impl Fn(&mut Snapshot), words: &str) {
    let plan = changed(change);
    assert_eq!(plan.requests, [], "{words}");
    let why: Vec<&str> = plan
        .cannot
        .iter()
        .map(|cannot| cannot.why.as_str())
        .collect();
    assert!(why.len() == 1 && why[0].contains(words), "{words}: {why:?}");
    assert!(!plan.cannot[0].remedy.is_empty());
}

#[test]
fn a_stuck_request_is_chosen_with_what_it_takes() {
    let plan = changed(|_| {});
    assert_eq!(plan.cannot, []);
    assert_eq!(plan.requests.len(), 1);
    let request = &plan.requests[0];
    assert_eq!((request.queue, request.tag), (QueueId(0), Tag(3)));
    assert_eq!((request.fd, request.address), (5, 0x1000));
    assert_eq!(request.what, "read of 4 KiB at sector 8, issued 12 s ago");
    assert_eq!(request.sleeps_in.as_deref(), Some("futex_wait_queue"));
}

#[test]
fn what_moves_or_is_young_is_left_alone() {
    let now = snapshot();
    let mut before = snapshot();
    tag(&mut before).request.as_mut().unwrap().identity = Some(8);
    assert_eq!(plan(&before, &now, &CHOICE).requests, []);
    let mut before = snapshot();
    tag(&mut before).place = Some(Place::Armed);
    let moves = plan(&before, &now, &CHOICE);
    assert_eq!(moves.requests, []);
    assert!(moves.cannot[0].why.contains("does not stay"));
    let young = |snapshot: &mut Snapshot| tag(snapshot).request = Some(request(900));
    assert_eq!(changed(young).requests, []);
    assert_eq!(changed(young).cannot, []);
}

#[test]
fn a_tag_that_was_named_needs_not_be_old() {
    let mut now = snapshot();
    tag(&mut now).request = Some(request(900));
    let named = |tag| Choice {
        queue: Some(QueueId(0)),
        tag: Some(Tag(tag)),
        ..CHOICE
    };
    assert_eq!(plan(&now, &now, &named(3)).requests.len(), 1);
    let none = plan(&now, &now, &named(4));
    assert_eq!(none.requests, []);
    assert!(none.cannot[0].why.contains("no request"));
}

#[test]
fn a_thread_that_cannot_be_reached_is_told() {
    let task = |snapshot: &mut Snapshot| snapshot.tasks[&Tid(171)].clone();
    let put = |snapshot: &mut Snapshot, task: Task| drop(snapshot.tasks.insert(task.tid, task));
    for (state, words) in [
        (TaskState::Stopped, "stopped by a signal"),
        (TaskState::Uninterruptible, "sleeps uninterruptibly"),
        (TaskState::Zombie, "has ended"),
        (TaskState::Traced, "has stopped thread 171"),
    ] {
        cannot(
            |snapshot| {
                let task = task(snapshot);
                put(snapshot, Task { state, ..task });
            },
            words,
        );
    }
    cannot(
        |snapshot| {
            let task = task(snapshot);
            let tracer = Some(Pid(9));
            put(snapshot, Task { tracer, ..task });
        },
        "process 9 traces",
    );
    cannot(
        |snapshot| {
            let task = task(snapshot);
            put(
                snapshot,
                Task {
                    kernel: true,
                    ..task
                },
            );
        },
        "the kernel's own",
    );
    cannot(|snapshot| snapshot.tasks.clear(), "cannot be seen");
    cannot(
        |snapshot| tag(snapshot).armer.as_mut().unwrap().alive = false,
        "has ended",
    );
}

#[test]
fn what_is_not_with_the_server_or_lacks_something_is_told() {
    for (place, words) in [
        (Some(Place::Armed), "was not delivered"),
        (Some(Place::NeedsBuffer), "waits for a buffer"),
        (Some(Place::Canceled), "taken the tag back"),
        (None, "do not show"),
    ] {
        cannot(|snapshot| tag(snapshot).place = place, words);
    }
    cannot(
        |snapshot| snapshot.devices[0].servers[0].fds.clear(),
        "registered",
    );
    cannot(|snapshot| tag(snapshot).buffer = None, "address");
    for (flag, words) in [
        (Features::BATCH_IO, "in batches"),
        (Features::AUTO_BUF_REG, "registered with the server's ring"),
    ] {
        cannot(
            |snapshot| snapshot.devices[0].flags = Some(flag.bits()),
            words,
        );
    }
    let user_copy =
        changed(|snapshot| snapshot.devices[0].flags = Some(Features::USER_COPY.bits()));
    assert_eq!(user_copy.requests[0].address, 0);
}

#[test]
fn without_the_drivers_structures_nothing_is_done() {
    cannot(
        |snapshot| {
            snapshot.gaps.push(Gap {
                layer: Layer::Kernel,
                whole: true,
                what: "/proc/kcore: permission denied".to_owned(),
                remedy: "run as root".to_owned(),
            });
        },
        "/proc/kcore: permission denied",
    );
    cannot(|snapshot| snapshot.devices.clear(), "not there");
}

#[test]
fn a_server_that_waits_for_its_own_start_must_not_be_killed_before() {
    let plan = changed(|snapshot| {
        snapshot.control_waits.push(ControlWait {
            tid: Tid(180),
            pid: Pid(166),
            comm: "iou-wrk-166".to_owned(),
            command: Command::StartDev,
            device: Some(DeviceId(0)),
            sleeps_in: None,
            since_ms: None,
            stack: Vec::new(),
        });
    });
    assert!(
        plan.notes[0].contains("do not end process 166"),
        "{:?}",
        plan.notes
    );
}
