//! One thread of `/proc`.

use std::path::Path;

use crate::facts::{Pid, SysCall, Task, TaskState, Tid};

use super::files;

const PF_IO_WORKER: u64 = 0x10;
const PF_KTHREAD: u64 = 0x0020_0000;
/// Deeper stacks are cut.
const MAX_FRAMES: usize = 32;

/// What `stat` says: cheap, and anybody may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) state: TaskState,
    pub(super) parent: Option<Pid>,
    pub(super) kernel: bool,
    pub(super) cpu_ticks: u64,
    pub(super) start_ticks: u64,
}

/// `/proc/PID/stat` or `/proc/PID/task/TID/stat`.
pub(super) fn stat(text: &str) -> Option<Stat> {
    // The name is in brackets and may hold anything, brackets too.
    let (_, rest) = text.split_once('(')?;
    let (comm, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The state is the third field of the file, and the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let flags = number(9)?;
    let parent: u32 = fields.get(1)?.parse().ok()?;
    Some(Stat {
        comm: comm.to_owned(),
        state: TaskState::from_letter(fields.first()?.chars().next()?),
        parent: (parent != 0).then_some(Pid(parent)),
        kernel: flags & (PF_KTHREAD | PF_IO_WORKER) != 0 || comm.starts_with("iou-"),
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        start_ticks: number(22)?,
    })
}

/// A thread with everything that may be read of it.
pub(super) fn task(process: &Path, pid: Pid, tid: Tid, stat: Stat) -> Task {
    let folder = process.join("task").join(tid.to_string());
    let status = files::text(&folder.join("status")).unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.get(name.len()..)?.trim().parse::<u64>().ok()
    };
    let tracer = value("TracerPid:").and_then(|pid| u32::try_from(pid).ok());
    let wchan = files::line(&folder.join("wchan")).filter(|name| !name.is_empty() && name != "0");
    let system_call = files::line(&folder.join("syscall")).and_then(|text| syscall(&text));
    Task {
        tracer: tracer.filter(|pid| *pid != 0).map(Pid),
        wchan,
        stack: stack(&files::text(&folder.join("stack")).unwrap_or_default()),
        syscall: system_call,
        switches: value("voluntary_ctxt_switches:"),
        ..outline(pid, tid, stat)
    }
}

/// A thread with what `stat` says of it.
pub(super) fn outline(pid: Pid, tid: Tid, stat: Stat) -> Task {
    Task {
        tid,
        pid,
        comm: stat.comm,
        state: stat.state,
        tracer: None,
        parent: stat.parent,
        wchan: None,
        stack: Vec::new(),
        syscall: None,
        cpu_ticks: Some(stat.cpu_ticks),
        switches: None,
        start_ticks: Some(stat.start_ticks),
        asleep_ms: None,
        kernel: stat.kernel,
    }
}

/// `[<0>] futex_wait_queue+0x63/0x90` per line: the functions.
pub(super) fn stack(text: &str) -> Vec<String> {
    let function = |line: &str| {
        let function = line.split_once("] ").map_or(line, |(_, function)| function);
        let name = function.split(['+', ' ']).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    text.lines().filter_map(function).take(MAX_FRAMES).collect()
}

/// `426 0x6 0x0 0x1 0x1 0x0 0x8 0x7ffd… 0x7f…`, `running`, or `-1 …` outside of a system call.
pub(super) fn syscall(text: &str) -> Option<SysCall> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    if number < 0 {
        return None;
    }
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        let word = words.next()?;
        *argument = u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()?;
    }
    Some(SysCall {
        number,
        name: syscall_name(number).map(str::to_owned),
        arguments,
        object: None,
    })
}

/// The names of those that have to do with waiting.
#[cfg(target_arch = "x86_64")]
const SYSCALLS: &[(i64, &str)] = &[
    (0, "read"),
    (1, "write"),
    (2, "open"),
    (4, "stat"),
    (5, "fstat"),
    (7, "poll"),
    (8, "lseek"),
    (16, "ioctl"),
    (17, "pread64"),
    (18, "pwrite64"),
    (19, "readv"),
    (20, "writev"),
    (23, "select"),
    (34, "pause"),
    (35, "nanosleep"),
    (45, "recvfrom"),
    (47, "recvmsg"),
    (56, "clone"),
    (58, "vfork"),
    (61, "wait4"),
    (74, "fsync"),
    (75, "fdatasync"),
    (78, "getdents"),
    (162, "sync"),
    (165, "mount"),
    (166, "umount2"),
    (202, "futex"),
    (217, "getdents64"),
    (219, "restart_syscall"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (257, "openat"),
    (262, "newfstatat"),
    (270, "pselect6"),
    (271, "ppoll"),
    (277, "sync_file_range"),
    (281, "epoll_pwait"),
    (285, "fallocate"),
    (295, "preadv"),
    (296, "pwritev"),
    (306, "syncfs"),
    (327, "preadv2"),
    (328, "pwritev2"),
    (332, "statx"),
    (426, "io_uring_enter"),
    (435, "clone3"),
    (437, "openat2"),
];

/// The names of those that have to do with waiting.
#[cfg(not(target_arch = "x86_64"))]
const SYSCALLS: &[(i64, &str)] = &[
    (22, "epoll_pwait"),
    (29, "ioctl"),
    (39, "umount2"),
    (40, "mount"),
    (47, "fallocate"),
    (56, "openat"),
    (61, "getdents64"),
    (63, "read"),
    (64, "write"),
    (65, "readv"),
    (66, "writev"),
    (67, "pread64"),
    (68, "pwrite64"),
    (69, "preadv"),
    (70, "pwritev"),
    (72, "pselect6"),
    (73, "ppoll"),
    (79, "newfstatat"),
    (81, "sync"),
    (82, "fsync"),
    (83, "fdatasync"),
    (98, "futex"),
    (101, "nanosleep"),
    (115, "clock_nanosleep"),
    (128, "restart_syscall"),
    (207, "recvfrom"),
    (212, "recvmsg"),
    (220, "clone"),
    (260, "wait4"),
    (267, "syncfs"),
    (286, "preadv2"),
    (287, "pwritev2"),
    (291, "statx"),
    (426, "io_uring_enter"),
    (435, "clone3"),
    (437, "openat2"),
];

fn syscall_name(number: i64) -> Option<&'static str> {
    let (_, name) = SYSCALLS.iter().find(|(known, _)| *known == number)?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{stack, stat, syscall};
    use crate::facts::{Pid, TaskState};

    #[test]
    fn stat_of_a_process_with_brackets_in_its_name() {
        let text = "166 (ub) q0) S 1 166 1 0 -1 4194368 98 0 0 0 12 30 0 0 20 0 3 0 512 5001216 1 18446744073709551615 0";
        let stat = stat(text).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state),
            ("ub) q0", TaskState::Sleeping)
        );
        assert_eq!(
            (stat.cpu_ticks, stat.start_ticks, stat.parent),
            (42, 512, Some(Pid(1)))
        );
        assert!(!stat.kernel);
    }

    #[test]
    fn stacks_are_function_names() {
        let text = "[<0>] futex_wait_queue+0x63/0x90\n[<0>] ublk_ctrl_start_dev.isra.0+0x1/0x2 [ublk_drv]\n";
        assert_eq!(
            stack(text),
            ["futex_wait_queue", "ublk_ctrl_start_dev.isra.0"]
        );
    }

    #[test]
    fn system_calls_have_arguments() {
        let call = syscall("426 0x6 0x0 0x1 0x1 0x0 0x8 0x7ffd0 0x7f0").unwrap();
        assert_eq!(
            (call.number, call.arguments[0], call.arguments[3]),
            (426, 6, 1)
        );
        assert_eq!(call.name.as_deref(), Some("io_uring_enter"));
        assert_eq!(syscall("running"), None);
        assert_eq!(syscall("-1 0x0 0x0"), None);
    }

    proptest! {
        #[test]
        fn garbage_is_no_thread(text in ".{0,200}") {
            let _ = (stat(&text), stack(&text), syscall(&text));
        }
    }
}
