//! What doctor would see of the model's host.

use std::collections::BTreeMap;

use oxublk::sys::op;
use oxublk::{DeviceId, DeviceState, QueueId, Tag};
use oxublk_diag::facts::{
    Armer, Block, Buffer, Command, Completion, ControlWait, Device, Host, IoCommand, Mapping, Node,
    Pid, Place, Queue, Request, RequestState, Ring, Server, Snapshot, Submission, SysCall,
    TagRange, TagView, Task, TaskState, Tid, Waiter,
};
use oxublk_sim::Kernel;
use oxublk_sim::host::{
    ArmerView, Control, Does, Life, PlaceView, QueueView, RequestView, RingView, ThreadView, View,
};

/// The device.
pub(crate) const DEVICE: DeviceId = DeviceId(0);
/// The first of the kernel's threads that execute control commands.
const WORKERS: u32 = 2000;
/// A ring's past is read when a request has been under way for longer.
const OLD_NS: u64 = 200_000_000;

/// The look that a view gives.
pub(crate) fn snapshot(view: &View) -> Snapshot {
    let worth_reading = |ring: &RingView| {
        let unready = !view.controls.is_empty() || view.life == Life::Starting;
        let queue = usize::try_from(ring.number / 2).unwrap();
        unready || ring.overflowed > 0 || is_late(&view.queues[queue])
    };
    let controls: Vec<ControlWait> = (WORKERS..).zip(&view.controls).map(control).collect();
    let mut tasks: BTreeMap<Tid, Task> = view
        .threads
        .iter()
        .map(|thread| (Tid(thread.tid), task(view, thread)))
        .collect();
    for wait in &controls {
        tasks.insert(wait.tid, worker(wait));
    }
    Snapshot {
        taken_ns: view.at_ns,
        host: host(view),
        devices: vec![device(view)],
        tasks,
        rings: view
            .rings
            .iter()
            .map(|ring| self::ring(ring, worth_reading(ring)))
            .collect(),
        control_waits: controls,
        waiters: view
            .waiters
            .iter()
            .map(|waiter| Waiter {
                tid: Tid(waiter.tid),
                pid: Pid(waiter.pid),
                comm: "server".to_owned(),
                device: DEVICE,
                what: "read of /dev/ublkb0".to_owned(),
                issued: Some(true),
                since_ms: None,
            })
            .collect(),
        gaps: Vec::new(),
    }
}

fn is_late(queue: &QueueView) -> bool {
    queue.tags.iter().any(|tag| {
        tag.place == PlaceView::Canceled
            || tag
                .request
                .is_some_and(|request| request.resting || request.age_ns > OLD_NS)
    })
}

fn host(view: &View) -> Host {
    let release = match view.kernel {
        Kernel::V6_12 => "6.12.117+deb13-cloud-amd64",
        Kernel::V6_16 => "6.16.12+deb13-cloud-amd64",
        Kernel::V6_18 => "6.18.15+deb13-cloud-amd64",
        Kernel::V7_2 => "7.2.12+deb13-cloud-amd64",
        Kernel::V7_3 => "7.3.4+deb13-cloud-amd64",
    };
    Host {
        release: release.to_owned(),
        machine: "x86_64".to_owned(),
        driver_loaded: Some(true),
        root: true,
        ..Host::default()
    }
}

fn device(view: &View) -> Device {
    let has_disk = !matches!(view.life, Life::Starting | Life::Dead);
    let all = view.depth * u16::try_from(view.queues.len()).unwrap();
    let armed: u16 = view.queues.iter().map(|queue| queue.armed).sum();
    let in_flight = view.queues.iter().flat_map(|queue| &queue.tags);
    let reads = in_flight.filter(|tag| tag.request.is_some()).count() as u64;
    Device {
        id: DEVICE,
        state: Some(match view.life {
            Life::Starting | Life::Dead => DeviceState::Dead,
            Life::Live => DeviceState::Live,
            Life::Quiesced => DeviceState::Quiesced,
            Life::FailIo => DeviceState::FailIo,
        }),
        flags: Some(0x42),
        queue_count: u16::try_from(view.queues.len()).ok(),
        depth: Some(view.depth),
        max_io_bytes: Some(8192),
        claimed_pid: Some(Pid(1000)),
        node: if has_disk {
            Node::BlockDevice
        } else {
            Node::Missing
        },
        block: has_disk.then_some(Block {
            number: (259, 0),
            size_bytes: 1 << 17,
            reads_in_flight: reads,
            ..Block::default()
        }),
        servers: view.servers.iter().map(|pid| server(view, *pid)).collect(),
        users: Vec::new(),
        queues: view.queues.iter().map(queue).collect(),
        all_armed: Some(armed == all),
        recorder: None,
    }
}

fn server(view: &View, pid: u32) -> Server {
    Server {
        pid: Pid(pid),
        comm: "server".to_owned(),
        fds: vec![4],
        mappings: view
            .mappings
            .iter()
            .map(|offset| Mapping {
                start: 0x7f00_0000 + offset,
                length: 4096,
                offset: *offset,
            })
            .collect(),
        rings: view.rings.iter().map(fd).collect(),
        other_namespaces: Vec::new(),
    }
}

fn fd(ring: &RingView) -> i32 {
    10 + i32::try_from(ring.number).unwrap()
}

fn armer(view: &ArmerView) -> Armer {
    Armer {
        tid: Tid(view.tid),
        pid: Pid(view.pid),
        comm: "ubq".to_owned(),
        alive: view.alive,
    }
}

fn queue(view: &QueueView) -> Queue {
    let mut unarmed: Vec<TagRange> = Vec::new();
    for tag in view
        .tags
        .iter()
        .filter(|tag| tag.place == PlaceView::Unarmed)
    {
        match unarmed.last_mut() {
            Some(range) if range.last.0 + 1 == tag.tag => range.last = Tag(tag.tag),
            _ => unarmed.push(TagRange {
                first: Tag(tag.tag),
                last: Tag(tag.tag),
            }),
        }
    }
    let resting = |tag: &&oxublk_sim::host::TagView| tag.request.is_some_and(|r| r.resting);
    Queue {
        id: QueueId(view.id),
        cpus: Vec::new(),
        armed: Some(view.armed),
        unarmed,
        armers: view.armers.iter().map(armer).collect(),
        strangers: view.strangers.iter().map(armer).collect(),
        tags: view.tags.iter().filter_map(self::tag).collect(),
        requeued: u32::try_from(view.tags.iter().filter(resting).count()).unwrap(),
        misanswered: Vec::new(),
        well_answered: 0,
        canceling: Some(false),
        aborting: Some(false),
    }
}

/// A tag, if it has something to tell.
fn tag(view: &oxublk_sim::host::TagView) -> Option<TagView> {
    let place = match view.place {
        PlaceView::Unarmed => Place::Unarmed,
        PlaceView::Armed => Place::Armed,
        PlaceView::WithServer => Place::WithServer,
        PlaceView::Canceled => Place::Canceled,
    };
    if view.request.is_none() && matches!(place, Place::Unarmed | Place::Armed) {
        return None;
    }
    Some(TagView {
        tag: Tag(view.tag),
        place: Some(place),
        flags: None,
        armer: view.armer.as_ref().map(armer),
        buffer: Some(Buffer {
            address: view.buffer.address,
            mapped: Some(view.buffer.mapped),
            writable: Some(view.buffer.writable),
        }),
        descriptor: None,
        request: view.request.as_ref().map(request),
    })
}

fn request(view: &RequestView) -> Request {
    let operation = match view.op {
        op::READ => "read",
        op::WRITE => "write",
        _ => "flush",
    };
    Request {
        operation: operation.to_owned(),
        sector: (view.sector != u64::MAX).then_some(view.sector),
        bytes: Some(view.bytes),
        age_ms: Some(view.age_ns / 1_000_000),
        identity: Some(view.id as u64),
        state: if view.resting {
            RequestState::Idle
        } else {
            RequestState::InFlight
        },
        waiter: None,
    }
}

fn ring(view: &RingView, past: bool) -> Ring {
    let setup = [
        (true, 0),
        (view.deferred, Ring::SETUP_DEFER_TASKRUN),
        (view.owned, Ring::SETUP_SINGLE_ISSUER),
        (view.wide, Ring::SETUP_SQE128),
        (view.polled, Ring::SETUP_SQPOLL),
    ];
    let setup = setup.iter().filter(|(has, _)| *has);
    let serves = view.serves.iter().map(|queue| (DEVICE, QueueId(*queue)));
    let mut ring = Ring {
        pid: Some(Pid(1000)),
        fd: Some(fd(view)),
        address: Some(0xffff_8000_0000 + view.number),
        sq_entries: view.entries.0,
        cq_entries: view.entries.1,
        sq_head: view.sq.0,
        sq_tail: view.sq.1,
        cq_head: view.cq.0,
        cq_tail: view.cq.1,
        overflowed: view.overflowed,
        setup_flags: Some(setup.map(|(_, flag)| flag).sum()),
        sq_flags: Some(if view.polled { Ring::SQ_NEED_WAKEUP } else { 0 }),
        sqpoll: view.polled.then_some(Tid(1900)),
        owner: view.owned.then_some(Tid(view.maker)),
        submitters: view.submitters.iter().copied().map(Tid).collect(),
        deferred_work: Some(view.pending),
        serves: serves.collect(),
        ..Ring::default()
    };
    if past {
        ring.submissions = view.submissions.iter().map(submission).collect();
        ring.completions = view
            .completions
            .iter()
            .map(|completion| Completion {
                position: completion.position,
                reaped: completion.reaped,
                user_data: completion.user_data,
                result: completion.result,
                flags: 0,
            })
            .collect();
    }
    ring
}

fn submission(view: &oxublk_sim::host::SubmissionView) -> Submission {
    let bytes = &view.bytes;
    let number = |at: usize, size: usize| {
        let bytes = bytes[at..at + size].iter().rev();
        bytes.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let short = |at| u16::try_from(number(at, 2)).unwrap();
    let word = |at| u32::try_from(number(at, 4)).unwrap();
    Submission {
        position: view.position,
        taken: view.taken,
        opcode: bytes[0],
        flags: bytes[1],
        fd: word(4).cast_signed(),
        device: Some(DEVICE),
        user_data: number(32, 8),
        command: (bytes[0] == Submission::URING_CMD).then(|| IoCommand {
            op: word(8),
            queue: QueueId(short(48)),
            tag: Tag(short(50)),
            result: word(52).cast_signed(),
            address: number(56, 8),
        }),
        bytes: bytes.clone(),
    }
}

fn control((tid, view): (u32, &oxublk_sim::host::ControlView)) -> ControlWait {
    let (command, stack): (_, &[&str]) = match view.control {
        Control::Start => (
            Command::StartDev,
            &["wait_for_completion_interruptible", "ublk_ctrl_start_dev"],
        ),
        Control::Delete => (
            Command::DelDev,
            &[
                "blk_mq_freeze_queue_wait",
                "del_gendisk",
                "ublk_stop_dev",
                "ublk_ctrl_del_dev",
            ],
        ),
        Control::Add => (
            Command::AddDev,
            &[
                "__mutex_lock",
                "mutex_lock_killable_nested",
                "ublk_ctrl_add_dev",
            ],
        ),
    };
    let stack: Vec<String> = stack.iter().map(ToString::to_string).collect();
    let other = view.control != Control::Start;
    ControlWait {
        tid: Tid(tid),
        pid: Pid(if other { 1700 + tid } else { 1000 }),
        comm: if other { "oxublk" } else { "server" }.to_owned(),
        command,
        device: (view.control != Control::Add).then_some(DEVICE),
        sleeps_in: stack.first().cloned(),
        since_ms: Some(view.since_ns / 1_000_000),
        stack,
    }
}

fn worker(wait: &ControlWait) -> Task {
    Task {
        tid: wait.tid,
        pid: wait.pid,
        comm: format!("iou-wrk-{}", wait.pid),
        state: TaskState::Uninterruptible,
        tracer: None,
        parent: None,
        wchan: wait.sleeps_in.clone(),
        stack: wait.stack.clone(),
        syscall: None,
        cpu_ticks: Some(0),
        switches: Some(1),
        start_ticks: Some(100),
        asleep_ms: wait.since_ms,
        kernel: true,
    }
}

fn task(view: &View, thread: &ThreadView) -> Task {
    use TaskState::{Running, Sleeping, Stopped, Traced, Uninterruptible};
    let futex = match view.kernel {
        Kernel::V6_12 => "futex_wait_queue",
        _ => "futex_do_wait",
    };
    let (state, function, call) = match thread.does {
        Does::WaitsForRing => (Sleeping, "io_cqring_wait", Some((426, "io_uring_enter"))),
        Does::Runs => (Running, "", None),
        Does::Locked => (Sleeping, futex, Some((202, "futex"))),
        Does::Reads => (Sleeping, "anon_pipe_read", Some((0, "read"))),
        Does::Polls => (Sleeping, "ep_poll", Some((232, "epoll_wait"))),
        Does::Pauses => (Sleeping, "__x64_sys_pause", Some((34, "pause"))),
        Does::Naps => (
            Sleeping,
            "hrtimer_nanosleep",
            Some((230, "clock_nanosleep")),
        ),
        Does::Medium => (
            Uninterruptible,
            "folio_wait_bit_common",
            Some((17, "pread64")),
        ),
        Does::Forks => (Uninterruptible, "kernel_clone", Some((58, "vfork"))),
        Does::OwnDisk => (Uninterruptible, "blkdev_read_iter", Some((0, "read"))),
        Does::Stopped => (Stopped, "do_signal_stop", None),
        Does::Traced => (Traced, "ptrace_stop", None),
    };
    let ring = view.rings.iter().find(|ring| ring.maker == thread.tid);
    let first = ring.map(|ring| u64::try_from(fd(ring)).unwrap());
    Task {
        tid: Tid(thread.tid),
        pid: Pid(thread.pid),
        comm: "server".to_owned(),
        state,
        tracer: (state == Traced).then_some(Pid(777)),
        parent: None,
        wchan: (!function.is_empty()).then(|| function.to_owned()),
        stack: if function.is_empty() {
            Vec::new()
        } else {
            vec![function.to_owned()]
        },
        syscall: call.map(|(number, name)| SysCall {
            number,
            name: Some(name.to_owned()),
            arguments: [first.unwrap_or(0), 0, 0, 0, 0, 0],
            object: None,
        }),
        cpu_ticks: Some(thread.cpu_ns / 10_000_000),
        switches: Some(thread.switches),
        start_ticks: Some(100),
        asleep_ms: None,
        kernel: false,
    }
}
