//! Where the members that we read are, on the running kernel.
//!
//! What a kernel does not have is `None` where another one does without it; everything else must be there.

use super::btf::{Btf, Field};

/// The structures whose members are looked up.
pub(super) const STRUCTURES: &[&str] = &[
    "blk_mq_tags",
    "fdtable",
    "file",
    "files_struct",
    "gendisk",
    "idr",
    "io_kiocb",
    "io_ring_ctx",
    "io_rings",
    "io_sq_data",
    "io_tctx_node",
    "io_uring_cmd",
    "io_uring_cqe",
    "io_uring_task",
    "io_worker",
    "pid",
    "pid_namespace",
    "request",
    "request_queue",
    "task_struct",
    "ublk_device",
    "ublk_io",
    "ublk_queue",
    "xa_node",
];

/// A structure or a member that this kernel does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing(pub(super) String);

type Result<T> = std::result::Result<T, Missing>;

/// Looks members up.
struct Lookup<'a>(&'a Btf);

impl Lookup<'_> {
    fn need(&self, structure: &str, path: &str) -> Result<Field> {
        self.maybe(structure, path)
            .ok_or_else(|| Missing(format!("{structure}.{path}")))
    }

    fn maybe(&self, structure: &str, path: &str) -> Option<Field> {
        self.0.field(structure, path)
    }

    /// The first of several names.
    fn either(&self, structure: &str, paths: &[&str]) -> Result<Field> {
        paths
            .iter()
            .find_map(|path| self.maybe(structure, path))
            .ok_or_else(|| Missing(format!("{structure}.{}", paths.join(" or "))))
    }

    fn size(&self, structure: &str) -> Result<usize> {
        self.0
            .size_of(structure)
            .ok_or_else(|| Missing(format!("struct {structure}")))
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) xarray: XarrayLayout,
    pub(super) device: DeviceLayout,
    pub(super) request: RequestLayout,
    pub(super) task: TaskLayout,
    pub(super) ring: RingLayout,
}

impl Layout {
    /// Resolves them.
    pub(super) fn new(btf: &Btf) -> Result<Self> {
        let lookup = Lookup(btf);
        Ok(Self {
            xarray: XarrayLayout::new(&lookup)?,
            device: DeviceLayout::new(&lookup)?,
            request: RequestLayout::new(&lookup)?,
            task: TaskLayout::new(&lookup)?,
            ring: RingLayout::new(&lookup)?,
        })
    }
}

/// `struct xarray`, `struct idr`.
#[derive(Debug)]
pub(super) struct XarrayLayout {
    pub(super) idr_head: Field,
    pub(super) shift: Field,
    pub(super) slots: Field,
}

impl XarrayLayout {
    fn new(lookup: &Lookup<'_>) -> Result<Self> {
        Ok(Self {
            idr_head: lookup.need("idr", "idr_rt.xa_head")?,
            shift: lookup.need("xa_node", "shift")?,
            slots: lookup.need("xa_node", "slots")?,
        })
    }
}

/// Where a device keeps its queues.
#[derive(Debug)]
pub(super) enum Queues {
    /// One behind the other, in steps of the second member's value: up to 6.18.
    Block(Field, Field),
    /// Pointers at the end of the device.
    Pointers(Field),
}

/// `struct ublk_device`, `struct ublk_queue`, `struct ublk_io`.
#[derive(Debug)]
pub(super) struct DeviceLayout {
    pub(super) size: usize,
    pub(super) disk: Field,
    pub(super) queues: Queues,
    pub(super) info: Field,
    pub(super) tags: Field,
    pub(super) queues_ready: Field,
    pub(super) queue_size: usize,
    pub(super) q_id: Field,
    /// Up to 6.15 a queue has one server task.
    pub(super) daemon: Option<Field>,
    pub(super) descriptors: Field,
    pub(super) descriptor_size: Option<Field>,
    pub(super) force_abort: Field,
    pub(super) canceling: Field,
    pub(super) fail_io: Option<Field>,
    pub(super) armed: Field,
    pub(super) ios: Field,
    pub(super) io_size: usize,
    pub(super) io_address: Field,
    pub(super) io_flags: Field,
    pub(super) io_command: Field,
    pub(super) io_task: Option<Field>,
}

impl DeviceLayout {
    fn new(lookup: &Lookup<'_>) -> Result<Self> {
        let device = |path| lookup.need("ublk_device", path);
        let queue = |path| lookup.need("ublk_queue", path);
        let queues = match lookup.maybe("ublk_device", "__queues") {
            Some(block) => Queues::Block(block, device("queue_size")?),
            None => Queues::Pointers(device("queues")?),
        };
        Ok(Self {
            size: lookup.size("ublk_device")?,
            disk: device("ub_disk")?,
            queues,
            info: device("dev_info")?,
            tags: device("tag_set.tags")?,
            queues_ready: lookup.either("ublk_device", &["nr_queue_ready", "nr_queues_ready"])?,
            queue_size: lookup.size("ublk_queue")?,
            q_id: queue("q_id")?,
            daemon: lookup.maybe("ublk_queue", "ubq_daemon"),
            descriptors: queue("io_cmd_buf")?,
            descriptor_size: lookup.maybe("ublk_queue", "io_desc_size"),
            force_abort: queue("force_abort")?,
            canceling: queue("canceling")?,
            fail_io: lookup.maybe("ublk_queue", "fail_io"),
            armed: queue("nr_io_ready")?,
            ios: queue("ios")?,
            io_size: lookup.size("ublk_io")?,
            io_address: lookup.either("ublk_io", &["addr", "buf"])?,
            io_flags: lookup.need("ublk_io", "flags")?,
            io_command: lookup.need("ublk_io", "cmd")?,
            io_task: lookup.maybe("ublk_io", "task"),
        })
    }
}

/// `struct request` and what leads to it.
#[derive(Debug)]
pub(super) struct RequestLayout {
    pub(super) size: usize,
    pub(super) requests: Field,
    pub(super) tag_count: Field,
    pub(super) tag: Field,
    pub(super) flags: Field,
    pub(super) length: Field,
    pub(super) sector: Field,
    pub(super) state: Field,
    pub(super) start: Field,
    pub(super) list: Field,
    pub(super) disk_queue: Field,
    pub(super) requeue_list: Field,
}

impl RequestLayout {
    fn new(lookup: &Lookup<'_>) -> Result<Self> {
        let request = |path| lookup.need("request", path);
        Ok(Self {
            size: lookup.size("request")?,
            requests: lookup.need("blk_mq_tags", "rqs")?,
            tag_count: lookup.need("blk_mq_tags", "nr_tags")?,
            tag: request("tag")?,
            flags: request("cmd_flags")?,
            length: request("__data_len")?,
            sector: request("__sector")?,
            state: request("state")?,
            start: request("start_time_ns")?,
            list: request("queuelist.next")?,
            disk_queue: lookup.need("gendisk", "queue")?,
            requeue_list: lookup.need("request_queue", "requeue_list")?,
        })
    }
}

/// `struct task_struct` and what leads to it.
#[derive(Debug)]
pub(super) struct TaskLayout {
    pub(super) pids: Field,
    pub(super) pid_tasks: Field,
    pub(super) pid_links: Field,
    pub(super) pid: Field,
    pub(super) tgid: Field,
    pub(super) flags: Field,
    pub(super) exit_state: Field,
    pub(super) comm: Field,
    pub(super) last_ran: Option<Field>,
    pub(super) io_worker: Field,
    pub(super) worker_work: Field,
    pub(super) files: Field,
    pub(super) table: Field,
    pub(super) table_size: Field,
    pub(super) table_files: Field,
    pub(super) file_data: Field,
    pub(super) file_operations: Field,
    pub(super) io_uring: Field,
    pub(super) io_uring_rings: Field,
    pub(super) node_ring: Field,
    pub(super) node_task: Field,
    pub(super) node_list: Field,
}

impl TaskLayout {
    fn new(lookup: &Lookup<'_>) -> Result<Self> {
        let task = |path| lookup.need("task_struct", path);
        Ok(Self {
            pids: lookup.need("pid_namespace", "idr.idr_rt.xa_head")?,
            pid_tasks: lookup.need("pid", "tasks")?,
            pid_links: task("pid_links")?,
            pid: task("pid")?,
            tgid: task("tgid")?,
            flags: task("flags")?,
            exit_state: task("exit_state")?,
            comm: task("comm")?,
            last_ran: lookup.maybe("task_struct", "se.exec_start"),
            io_worker: task("worker_private")?,
            worker_work: lookup.need("io_worker", "cur_work")?,
            files: task("files")?,
            table: lookup.need("files_struct", "fdt")?,
            table_size: lookup.need("fdtable", "max_fds")?,
            table_files: lookup.need("fdtable", "fd")?,
            file_data: lookup.need("file", "private_data")?,
            file_operations: lookup.need("file", "f_op")?,
            io_uring: task("io_uring")?,
            io_uring_rings: lookup.need("io_uring_task", "xa.xa_head")?,
            node_ring: lookup.need("io_tctx_node", "ctx")?,
            node_task: lookup.need("io_tctx_node", "task")?,
            node_list: lookup.need("io_tctx_node", "ctx_node")?,
        })
    }
}

/// Where task work of `IORING_SETUP_DEFER_TASKRUN` waits.
#[derive(Debug)]
pub(super) enum DeferredWork {
    /// A list: its first entry.
    List(Field),
    /// A queue, which is empty when its tail is its own stub: 7.3.
    Queue(Field, Field),
}

/// Where a request of io_uring has its thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum KiocbTask {
    /// Up to 6.12.
    Itself(Field),
    /// Later: in what io_uring keeps of the thread.
    InContext(Field, Field),
}

impl KiocbTask {
    fn new(lookup: &Lookup<'_>) -> Option<Self> {
        let itself = lookup.maybe("io_kiocb", "task").map(Self::Itself);
        itself.or_else(|| {
            let context = lookup.maybe("io_kiocb", "tctx")?;
            Some(Self::InContext(
                context,
                lookup.maybe("io_uring_task", "task")?,
            ))
        })
    }
}

/// `struct io_ring_ctx` and what belongs to it.
#[derive(Debug)]
pub(super) struct RingLayout {
    pub(super) size: usize,
    pub(super) flags: Field,
    pub(super) owner: Field,
    pub(super) rings: Field,
    pub(super) sq_array: Field,
    pub(super) sq_entries: Field,
    pub(super) cq_entries: Field,
    pub(super) sqes: Field,
    pub(super) tasks: Field,
    pub(super) deferred: DeferredWork,
    pub(super) overflow: Field,
    pub(super) polled: Field,
    pub(super) poll_thread: Field,
    pub(super) rings_size: usize,
    pub(super) sq_head: Field,
    pub(super) sq_tail: Field,
    pub(super) cq_head: Field,
    pub(super) cq_tail: Field,
    pub(super) sq_flags: Field,
    pub(super) sq_dropped: Field,
    pub(super) cq_overflow: Field,
    pub(super) cqes: Field,
    pub(super) cqe_size: usize,
    pub(super) kiocb_ring: Field,
    pub(super) kiocb_command: Field,
    pub(super) kiocb_work: Field,
    /// The thread that submitted the request.
    pub(super) kiocb_task: Option<KiocbTask>,
    pub(super) command_sqe: Field,
    pub(super) command_op: Field,
}

impl RingLayout {
    fn new(lookup: &Lookup<'_>) -> Result<Self> {
        let ring = |path| lookup.need("io_ring_ctx", path);
        let rings = |path| lookup.need("io_rings", path);
        let deferred = match lookup.maybe("io_ring_ctx", "work_list.stub") {
            Some(stub) => DeferredWork::Queue(ring("work_list.tail")?, stub),
            None => DeferredWork::List(ring("work_llist.first")?),
        };
        Ok(Self {
            size: lookup.size("io_ring_ctx")?,
            flags: ring("flags")?,
            owner: ring("submitter_task")?,
            rings: ring("rings")?,
            sq_array: ring("sq_array")?,
            sq_entries: ring("sq_entries")?,
            cq_entries: ring("cq_entries")?,
            sqes: ring("sq_sqes")?,
            tasks: ring("tctx_list")?,
            deferred,
            overflow: ring("cq_overflow_list")?,
            polled: ring("sq_data")?,
            poll_thread: lookup.need("io_sq_data", "thread")?,
            rings_size: lookup.size("io_rings")?,
            sq_head: rings("sq.head")?,
            sq_tail: rings("sq.tail")?,
            cq_head: rings("cq.head")?,
            cq_tail: rings("cq.tail")?,
            sq_flags: rings("sq_flags")?,
            sq_dropped: rings("sq_dropped")?,
            cq_overflow: rings("cq_overflow")?,
            cqes: rings("cqes")?,
            cqe_size: lookup.size("io_uring_cqe")?,
            kiocb_ring: lookup.need("io_kiocb", "ctx")?,
            kiocb_command: lookup.need("io_kiocb", "cmd")?,
            kiocb_work: lookup.need("io_kiocb", "work")?,
            kiocb_task: KiocbTask::new(lookup),
            command_sqe: lookup.need("io_uring_cmd", "sqe")?,
            command_op: lookup.need("io_uring_cmd", "cmd_op")?,
        })
    }
}
