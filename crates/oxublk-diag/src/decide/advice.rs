//! What to do for each cause, in the order to do it.

use crate::finding::Cause;

/// The advice that does not depend on the case.
pub(super) fn remedy(cause: Cause) -> &'static [&'static str] {
    let known = ADVICE.iter().find(|(known, _)| *known == cause);
    known.map_or(&[], |(_, lines)| lines)
}

const ADVICE: &[(Cause, &[&str])] = &[
    (
        Cause::NoDriver,
        &["modprobe ublk_drv; a kernel with CONFIG_BLK_DEV_UBLK (6.0 or later)"],
    ),
    (
        Cause::NoIoUring,
        &[
            "sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that allows io_uring",
        ],
    ),
    (Cause::KernelDefect, &["report it with the kernel's log"]),
    (
        Cause::NodeIsFile,
        &["remove the file; check that a disk is a block device before writing to it"],
    ),
    (
        Cause::NotFetched,
        &[
            "send FETCH_REQ for every tag of every queue, with the numbers that ADD_DEV returned: it lowers the number of queues to that of the CPUs",
        ],
    ),
    (
        Cause::FetchAfterStart,
        &[
            "send every FETCH_REQ before START_DEV, from the threads that will serve; send START_DEV from another thread and wait for it there",
        ],
    ),
    (
        Cause::WrongOpcode,
        &[
            "use the ioctl encoding: UBLK_U_IO_FETCH_REQ is 0xc0107520, UBLK_U_IO_COMMIT_AND_FETCH_REQ 0xc0107521",
        ],
    ),
    (
        Cause::WrongPlacement,
        &[
            "put the 16 bytes of ublksrv_io_cmd at byte 48 of the submission, whether it has 64 bytes or 128",
        ],
    ),
    (
        Cause::FetchRefused,
        &["look at the result of each completion, also while arming: a refused fetch arms nothing"],
    ),
    (
        Cause::FetchesSerialised,
        &[
            "send ublk commands without IOSQE_IO_LINK, IOSQE_IO_HARDLINK and IOSQE_IO_DRAIN: a fetch does not complete until a request comes",
        ],
    ),
    (
        Cause::NotSubmitted,
        &[
            "call io_uring_enter with the number of submissions that were written, and look at what it returns",
        ],
    ),
    (
        Cause::SqpollAsleep,
        &[
            "after writing submissions, look at IORING_SQ_NEED_WAKEUP behind a full memory barrier, and call io_uring_enter with IORING_ENTER_SQ_WAKEUP",
        ],
    ),
    (
        Cause::DeferredNotEntered,
        &[
            "let the thread that owns the ring wait in io_uring_enter with IORING_ENTER_GETEVENTS, or make the ring without IORING_SETUP_DEFER_TASKRUN",
        ],
    ),
    (
        Cause::ArmerGone,
        &["keep the thread that sent the fetches for the life of the device; restart the server"],
    ),
    (
        Cause::ArmerUninterruptible,
        &["move work that can block out of the queue's thread"],
    ),
    (
        Cause::OwnDevice,
        &[
            "never read or write the server's own disk, nor a file system on it; PR_SET_IO_FLUSHER and mlockall keep memory reclaim from doing it",
        ],
    ),
    (
        Cause::ServerStopped,
        &["continue it: kill -CONT, or detach the debugger"],
    ),
    (
        Cause::BadBuffer,
        &[
            "give each fetch and commit the address of memory that is mapped, writable, and as large as max_io_buf_bytes",
        ],
    ),
    (
        Cause::NotReaped,
        &[
            "look at what the thread does instead; after each wait reap every completion between the queue's head and tail",
        ],
    ),
    (
        Cause::CqOverflow,
        &[
            "make the completion queue larger than all that can be under way (IORING_SETUP_CQSIZE), and reap in a loop",
        ],
    ),
    (
        Cause::CompletionSwallowed,
        &["send ublk commands without IOSQE_CQE_SKIP_SUCCESS: the completion is the request"],
    ),
    (
        Cause::HandlerLocked,
        &[
            "find who holds the lock: gdb -p PID, `thread apply all bt`; for Go, kill -QUIT prints all stacks",
        ],
    ),
    (
        Cause::HandlerSpins,
        &["profile the thread: perf top -t TID, gdb -p PID"],
    ),
    (
        Cause::HandlerBlocked,
        &[
            "look at what it waits for; give such calls a time limit, and move them out of the queue's thread",
        ],
    ),
    (
        Cause::Forgotten,
        &["answer on every path: an error of the server is an answer with a negative errno"],
    ),
    (Cause::SlowMedium, &["look at what the server stores on"]),
    (
        Cause::AnswerNotSubmitted,
        &["call io_uring_enter after writing answers, with their number"],
    ),
    (
        Cause::ForeignThread,
        &[
            "send a tag's FETCH_REQ and all its answers from one thread: pin it first (in Go, runtime.LockOSThread before the first fetch)",
        ],
    ),
    (
        Cause::AnswerMisdirected,
        &["answer with the queue and tag that the completion was for, with COMMIT_AND_FETCH_REQ"],
    ),
    (
        Cause::AnswerRefused,
        &[
            "look at the result of each completion: a refused answer leaves the request with the server, and can be sent again, right",
        ],
    ),
    (
        Cause::WrongResult,
        &["answer with the number of bytes, all of them, or a negative errno"],
    ),
    (
        Cause::WrongDescriptors,
        &[
            "map each queue's descriptors at queue × round_up(4096 × 24, page size), one every 24 bytes",
        ],
    ),
    (
        Cause::ServerDead,
        &["delete the device: `oxublk del ID`, and make it anew"],
    ),
    (
        Cause::AwaitsRecovery,
        &[
            "start a server that recovers the device (START_USER_RECOVERY, fetch every tag, END_USER_RECOVERY), or delete the device",
        ],
    ),
    (
        Cause::FailsUntilRecovery,
        &["start a server that recovers the device, or delete it"],
    ),
    (
        Cause::ServerHalfDead,
        &[
            "end the processes that keep /dev/ublkcN; open it with O_CLOEXEC, and map it with MADV_DONTFORK",
        ],
    ),
    (
        Cause::ControlStuck,
        &["resolve the request that it waits for"],
    ),
    (
        Cause::DeleteHoldsLock,
        &[
            "resolve the requests of the device that is being deleted: end its server, or rescue its requests",
        ],
    ),
    (
        Cause::HeldOpen,
        &["close what holds the device: unmount, end the processes that are named"],
    ),
    (
        Cause::Unexplained,
        &["look again with `oxublk trace`; as root, with debugfs mounted, more can be seen"],
    ),
];
