//! Who waits for a disk, and who waits for a control command.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxublk::DeviceId;

use crate::facts::{Command, ControlWait, Pid, Snapshot, Task, TaskState, Waiter};

use super::Roots;
use super::files;
use super::guard::guarded;

/// For the path that a thread opens.
const PATH_LIMIT: Duration = Duration::from_millis(200);
const MAX_PATH: usize = 4096;

/// Functions of a thread that issued a request itself and waits for it.
const ISSUED: &[&str] = &[
    "submit_bio_wait",
    "bio_await",
    "blkdev_read_iter",
    "blkdev_direct_IO",
    "__blkdev_direct_IO",
    "blkdev_issue_flush",
    "folio_wait_bit_common",
    "folio_wait_bit",
    "folio_wait_writeback",
    "wait_on_page_bit",
    "__wait_on_buffer",
    "iomap_dio_rw",
    "__iomap_dio_rw",
    "bdev_disk_changed",
    "read_part_sector",
    "blk_mq_get_tag",
    "filemap_read",
];
/// Functions of a thread that waits for the lock which opens, closes and the scan for partitions take.
const OPENING: &[&str] = &[
    "bdev_open",
    "blkdev_open",
    "bdev_release",
    "blkdev_get_by_dev",
    "blkdev_put",
];

/// The disks and partitions of the devices, by number.
type Disks = BTreeMap<(u32, u32), (DeviceId, String)>;

/// Finds the threads that wait for a control command of the driver.
pub(super) fn control(snapshot: &mut Snapshot) {
    let waits: Vec<ControlWait> = snapshot
        .tasks
        .values()
        .filter_map(|task| control_wait(snapshot, task))
        .collect();
    snapshot.control_waits = waits;
}

fn control_wait(snapshot: &Snapshot, task: &Task) -> Option<ControlWait> {
    let command = task
        .stack
        .iter()
        .chain(task.wchan.as_ref())
        .find_map(|function| command(function))?;
    // A process that serves one device and no other most likely speaks of that one.
    let mut served = snapshot
        .devices
        .iter()
        .filter(|device| device.servers.iter().any(|server| server.pid == task.pid));
    let device = served
        .next()
        .map(|device| device.id)
        .filter(|_| served.next().is_none());
    Some(ControlWait {
        tid: task.tid,
        pid: task.pid,
        comm: task.comm.clone(),
        command,
        device,
        since_ms: None,
        sleeps_in: task.wchan.clone().or_else(|| task.stack.first().cloned()),
        stack: task.stack.clone(),
    })
}

/// `ublk_ctrl_start_dev.isra.0` and its like.
fn command(function: &str) -> Option<Command> {
    let known = [
        ("ublk_ctrl_start_dev", Command::StartDev),
        ("ublk_wait_dev_ready_and_lock", Command::StartDev),
        ("ublk_ctrl_stop_dev", Command::StopDev),
        ("ublk_ctrl_try_stop_dev", Command::StopDev),
        ("ublk_ctrl_del_dev", Command::DelDev),
        ("ublk_ctrl_add_dev", Command::AddDev),
        ("ublk_ctrl_set_params", Command::SetParams),
        ("ublk_ctrl_get_params", Command::GetParams),
        ("ublk_ctrl_start_recovery", Command::StartUserRecovery),
        ("ublk_ctrl_end_recovery", Command::EndUserRecovery),
        ("ublk_ctrl_quiesce_dev", Command::QuiesceDev),
    ];
    known
        .iter()
        .find(|(name, _)| function.starts_with(name))
        .map(|(_, command)| *command)
        .or_else(|| {
            function
                .starts_with("ublk_ctrl_uring_cmd")
                .then_some(Command::Other)
        })
}

/// Finds the threads that wait for a disk.
pub(super) fn disks(roots: &Roots, snapshot: &mut Snapshot) {
    let disks = disk_numbers(roots, snapshot);
    let mut waiters = Vec::new();
    let tasks: Vec<Task> = snapshot
        .tasks
        .values()
        .filter(|task| task.state == TaskState::Uninterruptible)
        .cloned()
        .collect();
    for task in tasks {
        if let Some(waiter) = waiter(roots, snapshot, &disks, &task) {
            waiters.push(waiter);
        }
    }
    snapshot.waiters = waiters;
}

fn waiter(roots: &Roots, snapshot: &mut Snapshot, disks: &Disks, task: &Task) -> Option<Waiter> {
    let (device, what) = match system_call(roots, disks, task) {
        Some(found) => found,
        None => (
            scanned(snapshot, task)?,
            "the scan for partitions".to_owned(),
        ),
    };
    if let Some(call) = snapshot
        .tasks
        .get_mut(&task.tid)
        .and_then(|task| task.syscall.as_mut())
    {
        call.object = Some(what.clone());
    }
    let issued = match (task.is_in(OPENING), task.is_in(ISSUED)) {
        (_, true) => Some(true),
        (true, false) => Some(false),
        (false, false) => None,
    };
    Some(Waiter {
        tid: task.tid,
        pid: task.pid,
        comm: task.comm.clone(),
        device,
        what,
        issued,
        since_ms: None,
    })
}

/// A thread of the kernel that reads a partition table: START_DEV's own worker up to 6.17, a work item later.
fn scanned(snapshot: &Snapshot, task: &Task) -> Option<DeviceId> {
    if !task.is_in(&[
        "bdev_disk_changed",
        "ublk_partition_scan_work",
        "disk_scan_partitions",
    ]) {
        return None;
    }
    let waits = |wait: &&ControlWait| wait.tid == task.tid;
    if let Some(device) = snapshot
        .control_waits
        .iter()
        .find(waits)
        .and_then(|wait| wait.device)
    {
        return Some(device);
    }
    // Nothing names the disk: the only one with a read under way.
    let mut reading = snapshot.devices.iter().filter(|device| {
        device
            .block
            .as_ref()
            .is_some_and(|block| block.reads_in_flight > 0)
    });
    let device = reading.next()?.id;
    reading.next().is_none().then_some(device)
}

fn disk_numbers(roots: &Roots, snapshot: &Snapshot) -> Disks {
    let mut disks = Disks::new();
    for device in &snapshot.devices {
        let name = device.id.disk_name();
        let folder = roots.sys.join("block").join(&name);
        if let Some(block) = &device.block {
            disks.insert(block.number, (device.id, name.clone()));
        }
        let parts = files::names(&folder).unwrap_or_default();
        for part in parts.iter().filter(|part| part.starts_with(&name)) {
            let number = files::line(&folder.join(part).join("dev"));
            if let Some(number) = number.as_deref().and_then(files::device_number) {
                disks.insert(number, (device.id, part.clone()));
            }
        }
    }
    disks
}

/// Which disk a thread's system call is about, and in what words.
fn system_call(roots: &Roots, disks: &Disks, task: &Task) -> Option<(DeviceId, String)> {
    let call = task.syscall.as_ref()?;
    let name = call.name.as_deref()?;
    let process = roots.proc.join(task.pid.to_string());
    let [first, second, ..] = call.arguments;
    match name {
        "open" | "stat" | "umount2" => path_of(roots, disks, &process, first, name),
        "openat" | "openat2" | "newfstatat" | "statx" | "mount" => path_of(
            roots,
            disks,
            &process,
            if name == "mount" { first } else { second },
            name,
        ),
        _ => descriptor_of(disks, &process, i32::try_from(first).ok()?, name),
    }
}

fn descriptor_of(disks: &Disks, process: &Path, fd: i32, name: &str) -> Option<(DeviceId, String)> {
    let target = fs::read_link(process.join("fd").join(fd.to_string())).ok()?;
    if let Some((device, disk)) = named(disks, &target) {
        return Some((device, format!("{name} of /dev/{disk}")));
    }
    // A file: its file system, by the mount that it was opened through. The file itself is not touched.
    let info = files::text(&process.join("fdinfo").join(fd.to_string())).ok()?;
    let mount = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim()
        .to_owned();
    let mounts = files::text(&process.join("mountinfo")).ok()?;
    let (number, place) = mounts
        .lines()
        .find_map(|line| mount_of(line, |id, _| id == mount))?;
    let (device, disk) = disks.get(&number)?;
    Some((*device, format!("{name} of a file on {place} ({disk})")))
}

fn path_of(
    roots: &Roots,
    disks: &Disks,
    process: &Path,
    at: u64,
    name: &str,
) -> Option<(DeviceId, String)> {
    let path = read_path(process.join("mem"), at)?;
    let verb = if name.starts_with("open") {
        "open"
    } else {
        name
    };
    let full = if path.is_absolute() {
        path
    } else {
        fs::read_link(process.join("cwd")).ok()?.join(path)
    };
    if let Some((device, disk)) = named(disks, &full) {
        return Some((device, format!("{verb} of /dev/{disk}")));
    }
    let mounts = files::text(&roots.proc.join(process.file_name()?).join("mountinfo")).ok()?;
    // The longest mount point that the path is under.
    let (number, place) = mounts
        .lines()
        .filter_map(|line| mount_of(line, |_, place| full.starts_with(place)))
        .max_by_key(|(_, place)| place.len())?;
    let (device, disk) = disks.get(&number)?;
    Some((
        *device,
        format!("{verb} of {} on {place} ({disk})", full.display()),
    ))
}

/// `36 35 259:0 / /mnt rw,noatime shared:1 - ext4 /dev/ublkb0 rw`: number and mount point, when they are wanted.
fn mount_of(line: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<((u32, u32), String)> {
    let mut words = line.split(' ');
    let (id, _, number, _, place) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    let place = place.replace("\\040", " ");
    wanted(id, &place).then_some((files::device_number(number)?, place))
}

fn named(disks: &Disks, path: &Path) -> Option<(DeviceId, String)> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    disks
        .values()
        .find(|(_, disk)| disk == name)
        .map(|(device, disk)| (*device, disk.clone()))
}

/// A path in another process. Its memory may be locked by what we examine.
fn read_path(memory: PathBuf, at: u64) -> Option<PathBuf> {
    let bytes = guarded(PATH_LIMIT, move || {
        let file = fs::File::open(memory).ok()?;
        let mut bytes = Vec::new();
        // Up to the end of the page first: the next one may not be mapped.
        let mut at = at;
        while bytes.len() < MAX_PATH && !bytes.contains(&0) {
            let length = usize::try_from(4096 - at % 4096).ok()?;
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, at).ok()?;
            bytes.extend(piece);
            at = at.checked_add(u64::try_from(length).ok()?)?;
        }
        Some(bytes)
    })??;
    let path = bytes.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()))
}

/// Who uses the disks.
pub(super) fn users(snapshot: &mut Snapshot) {
    let disks = snapshot
        .devices
        .iter()
        .filter(|device| device.block.is_some());
    let ids: Vec<DeviceId> = disks.map(|device| device.id).collect();
    let holders = oxublk::host::holders_of(&ids).unwrap_or_default();
    for device in &mut snapshot.devices {
        let own = holders.iter().filter(|holder| holder.uses(device.id));
        device.users = own
            .map(|holder| crate::facts::User {
                pid: holder.pid.map(Pid),
                usage: usage(&holder.disk, &holder.usage),
                comm: holder.command.clone(),
            })
            .collect();
    }
}

fn usage(disk: &str, usage: &oxublk::host::Usage) -> String {
    use oxublk::host::Usage;
    match usage {
        Usage::Open => format!("has /dev/{disk} open"),
        Usage::Mount(place) => format!("/dev/{disk} is mounted on {}", place.display()),
        Usage::Device(name) => format!("{name} is built on /dev/{disk}"),
        Usage::Swap => format!("/dev/{disk} is swap space"),
        _ => format!("uses /dev/{disk}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{command, mount_of};
    use crate::facts::Command;

    #[test]
    fn functions_tell_the_command() {
        assert_eq!(
            command("ublk_ctrl_start_dev.isra.0"),
            Some(Command::StartDev)
        );
        assert_eq!(command("ublk_ctrl_uring_cmd"), Some(Command::Other));
        assert_eq!(command("ublk_ch_uring_cmd"), None);
    }

    #[test]
    fn a_mount_has_a_number_and_a_place() {
        let line = "36 35 259:0 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/ublkb0 rw";
        assert_eq!(
            mount_of(line, |id, _| id == "36"),
            Some(((259, 0), "/mnt/a b".to_owned()))
        );
        assert_eq!(mount_of(line, |id, _| id == "3"), None);
    }
}
