//! What an errno means for a control command, and what to do: from the driver's source, and from
//! runs on 6.12 to 7.3.

use oxublk_sys::{CtrlOp, ctrl_op};

use crate::error::ErrorKind;

/// An errno in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) kind: ErrorKind,
    pub(super) meaning: &'static str,
    pub(super) hint: Option<&'static str>,
}

const fn explanation(
    kind: ErrorKind,
    meaning: &'static str,
    hint: &'static str,
) -> Option<Explanation> {
    Some(Explanation {
        kind,
        meaning,
        hint: Some(hint),
    })
}

/// What `errno` means for `op`: first what is particular to the command, then what holds for all.
pub(super) fn explain(op: &CtrlOp, errno: i32) -> Explanation {
    particular(op, errno)
        .or_else(|| general(errno))
        .unwrap_or(Explanation {
            kind: ErrorKind::Io,
            meaning: "the driver gives no reason for this errno",
            hint: None,
        })
}

fn particular(op: &CtrlOp, errno: i32) -> Option<Explanation> {
    use ErrorKind as K;
    match (op.nr, errno) {
        (nr, libc::ENODEV | libc::EOPNOTSUPP) if nr == ctrl_op::GET_FEATURES.nr => explanation(
            K::Unsupported,
            "this kernel's ublk driver is older than Linux 6.5",
            "use a newer kernel; oxublk is tested from 6.12 on",
        ),
        (nr, _) if nr == ctrl_op::ADD_DEV.nr => add_dev(errno),
        (nr, _) if nr == ctrl_op::START_DEV.nr => start_dev(errno),
        (nr, libc::EINVAL) if nr == ctrl_op::SET_PARAMS.nr => explanation(
            K::InvalidInput,
            "the driver does not accept these parameters, and has forgotten all that it had",
            "check block sizes (512 to 4096), the maximum I/O size and the discard granularity",
        ),
        (nr, libc::EACCES) if nr == ctrl_op::SET_PARAMS.nr => explanation(
            K::Busy,
            "the device has a disk already, or somebody still holds its last one open",
            "parameters are set before START_DEV; close what holds /dev/ublkbN open",
        ),
        (nr, libc::EINTR) if nr == ctrl_op::DEL_DEV.nr => explanation(
            K::Busy,
            "the device is deleted, but somebody still holds it, so that its id is not free yet",
            "the id becomes free when the last holder closes the device",
        ),
        (nr, libc::EINVAL) if nr == ctrl_op::DEL_DEV_ASYNC.nr => explanation(
            K::Unsupported,
            "the driver does not delete unprivileged devices this way",
            "use DEL_DEV",
        ),
        (nr, libc::EINVAL) if nr == ctrl_op::GET_QUEUE_AFFINITY.nr => explanation(
            K::InvalidInput,
            "the device has no such queue, or the CPU mask is too small for this host",
            "ask for a queue below the device's number of queues",
        ),
        (nr, _) if nr == ctrl_op::REG_BUF.nr || nr == ctrl_op::UNREG_BUF.nr => shared_memory(errno),
        _ => None,
    }
}

/// REG_BUF and UNREG_BUF.
fn shared_memory(errno: i32) -> Option<Explanation> {
    use ErrorKind as K;
    match errno {
        libc::EOPNOTSUPP => explanation(
            K::Unsupported,
            "the device was made without shared memory (SHMEM_ZC), or the kernel is older than Linux 7.1",
            "ask for shared memory when the device is made",
        ),
        libc::EINVAL => explanation(
            K::InvalidInput,
            "the memory is not whole pages up to 4 GiB, or the slot is out of range",
            "check address, length and slot",
        ),
        libc::EFAULT => explanation(
            K::InvalidInput,
            "the driver cannot have the memory's pages: they are not there, or not of a kind that can stay",
            "use a file on tmpfs or hugetlbfs that has all its pages",
        ),
        libc::EEXIST => explanation(
            K::InvalidInput,
            "pages of this memory are registered with the device already",
            "register each memory once",
        ),
        libc::ENOENT => explanation(
            K::InvalidInput,
            "the slot has no memory",
            "give back only what was registered, once",
        ),
        libc::ENOSPC => explanation(
            K::Io,
            "the device has as many memories as it can have",
            "give some back, or make fewer and larger ones",
        ),
        libc::ENOMEM => explanation(
            K::Io,
            "the kernel has no memory for it, or the limit of locked memory is reached",
            "raise `ulimit -l`, or share less",
        ),
        _ => None,
    }
}

fn add_dev(errno: i32) -> Option<Explanation> {
    use ErrorKind as K;
    match errno {
        libc::EEXIST => explanation(
            K::DeviceExists,
            "a device with this id exists",
            "choose another id, or none to get a free one; `oxublk list` shows the devices",
        ),
        libc::EPERM => explanation(
            K::PermissionDenied,
            "making a device needs CAP_SYS_ADMIN in the initial user namespace",
            "run it as root, outside of a rootless container",
        ),
        libc::EACCES => explanation(
            K::PermissionDenied,
            "the limit of unprivileged devices is reached",
            "raise /sys/module/ublk_drv/parameters/ublks_max, or remove devices",
        ),
        libc::EINVAL => explanation(
            K::InvalidInput,
            "the driver does not accept this combination of id, queues, depth and features",
            "the id must be below 1048576; queues and depth from 1 to 4096",
        ),
        libc::EINTR => explanation(
            K::Busy,
            "it waited for the driver's lock, which the deletion of another device holds",
            "find the device that is being deleted: its server holds a request unanswered",
        ),
        _ => None,
    }
}

fn start_dev(errno: i32) -> Option<Explanation> {
    use ErrorKind as K;
    match errno {
        libc::EINVAL => explanation(
            K::InvalidInput,
            "the driver has no parameters for the device, or the process given is not the one \
             that opened /dev/ublkcN, or the block layer refused a limit",
            "see the kernel's log (dmesg) for a limit that was refused",
        ),
        libc::EEXIST => explanation(
            K::Busy,
            "the device is started already, or the last disk of this id is still open",
            "close what holds /dev/ublkbN open, or use another id",
        ),
        libc::EBUSY => explanation(
            K::Busy,
            "the device was stopped while this server had it open",
            "delete the device and add it again",
        ),
        libc::EINTR => explanation(
            K::Busy,
            "it was interrupted while it waited for all tags to be fetched",
            "every queue must fetch all its tags before the start",
        ),
        _ => None,
    }
}

fn general(errno: i32) -> Option<Explanation> {
    use ErrorKind as K;
    match errno {
        libc::ENODEV => explanation(
            K::NoSuchDevice,
            "there is no such device",
            "`oxublk list` shows the devices",
        ),
        libc::EPERM => explanation(
            K::PermissionDenied,
            "it needs CAP_SYS_ADMIN in the initial user namespace",
            "run it as root, outside of a rootless container",
        ),
        libc::EACCES => explanation(
            K::PermissionDenied,
            "the device's character node does not allow it",
            "check the permissions of /dev/ublkcN",
        ),
        libc::ENOENT => explanation(
            K::NoSuchDevice,
            "the device's character node is not in /dev",
            "in a container, make /dev/ublkcN visible; on a host, check that devtmpfs is mounted",
        ),
        libc::EOPNOTSUPP => explanation(
            K::Unsupported,
            "this kernel's driver does not know the command",
            "use a newer kernel",
        ),
        libc::EINVAL => explanation(
            K::InvalidInput,
            "the driver refuses an argument of the command",
            "`oxublk features` shows what this kernel's driver can do",
        ),
        libc::EINTR => explanation(
            K::Busy,
            "it was interrupted while the driver waited",
            "try again",
        ),
        libc::ENOMEM => explanation(
            K::Io,
            "the kernel has no memory for it",
            "use fewer or shallower queues",
        ),
        _ => None,
    }
}

/// What the driver may be waiting for when a command does not come back.
pub(super) fn waits_for(op: &CtrlOp) -> (&'static str, &'static str) {
    let stop = (
        "requests that the server has not answered",
        "the server must answer them; if it cannot, end it",
    );
    match op.nr {
        nr if nr == ctrl_op::ADD_DEV.nr => (
            "its own lock, which the deletion of another device holds",
            "find the device that is being deleted: its server holds a request unanswered",
        ),
        nr if nr == ctrl_op::START_DEV.nr => (
            "every tag of every queue to be fetched, or (before 6.18) the partition scan's reads \
             to be answered",
            "check that the disk answers reads",
        ),
        nr if [
            ctrl_op::STOP_DEV.nr,
            ctrl_op::DEL_DEV_ASYNC.nr,
            ctrl_op::REG_BUF.nr,
            ctrl_op::UNREG_BUF.nr,
        ]
        .contains(&nr) =>
        {
            stop
        }
        nr if nr == ctrl_op::DEL_DEV.nr => (
            "the last holder of the device: its server, or whoever has the block device open or \
             mounted",
            "unmount and close the block device; end the server",
        ),
        _ => (
            "the device's lock, which a command that waits holds",
            stop.1,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_own_meaning_comes_first() {
        assert_eq!(
            explain(&ctrl_op::ADD_DEV, libc::EEXIST).kind,
            ErrorKind::DeviceExists
        );
        assert_eq!(
            explain(&ctrl_op::START_DEV, libc::EEXIST).kind,
            ErrorKind::Busy
        );
        assert_eq!(
            explain(&ctrl_op::GET_FEATURES, libc::ENODEV).kind,
            ErrorKind::Unsupported
        );
        assert_eq!(
            explain(&ctrl_op::STOP_DEV, libc::ENODEV).kind,
            ErrorKind::NoSuchDevice
        );
    }

    #[test]
    fn shared_memory_has_meanings_of_its_own() {
        for (op, errno, kind) in [
            (ctrl_op::REG_BUF, libc::EOPNOTSUPP, ErrorKind::Unsupported),
            (ctrl_op::REG_BUF, libc::EEXIST, ErrorKind::InvalidInput),
            (ctrl_op::UNREG_BUF, libc::ENOENT, ErrorKind::InvalidInput),
            (ctrl_op::UNREG_BUF, libc::ENODEV, ErrorKind::NoSuchDevice),
        ] {
            assert_eq!(explain(&op, errno).kind, kind, "{} {errno}", op.name);
        }
    }

    #[test]
    fn an_errno_that_nobody_foresaw_is_said_to_be_so() {
        assert_eq!(explain(&ctrl_op::ADD_DEV, libc::EXDEV).kind, ErrorKind::Io);
    }
}
