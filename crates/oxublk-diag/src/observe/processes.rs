//! Which processes and threads have to do with a device: one pass over `/proc`, details only of those that matter.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oxublk::DeviceId;

use crate::facts::{Gap, Layer, Mapping, Pid, Server, Snapshot, Task, TaskState, Tid};

use super::files;
use super::guard::guarded;
use super::recorder;
use super::threads::{self, Stat};

/// More are not looked at.
const MAX_PROCESSES: usize = 32_768;
/// More descriptors of one process are not looked at.
const MAX_FDS: usize = 65_536;
/// For a process's list of mappings.
const MAPS_LIMIT: Duration = Duration::from_millis(300);

/// Memory of a process: `(start, end, readable, writable)`.
pub(super) type Memory = Vec<(u64, u64, bool, bool)>;

/// What is kept of the processes besides the snapshot.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// The mappings of servers.
    pub(super) memory: BTreeMap<Pid, Memory>,
}

/// What a process has open that matters.
#[derive(Debug, Default)]
struct Open {
    chars: Vec<(i32, DeviceId)>,
    rings: Vec<i32>,
    recorders: Vec<(i32, DeviceId)>,
}

/// Looks at all processes and fills servers, tasks, rings. Of a server whose devices are all idle its threads' states are enough:
/// on a host with many healthy devices the details would be most of what there is to read.
pub(super) fn look(
    proc: &Path,
    snapshot: &mut Snapshot,
    idle: &HashSet<DeviceId>,
    deadline: Instant,
) -> Processes {
    let mut processes = Processes::default();
    let mut hidden = 0;
    let pids = files::numbers(proc);
    for (count, pid) in pids.iter().enumerate() {
        if count == MAX_PROCESSES || Instant::now() > deadline {
            snapshot.gaps.push(late(&format!(
                "{} of {} processes",
                pids.len() - count,
                pids.len()
            )));
            break;
        }
        let folder = proc.join(pid.to_string());
        let open = match open_files(&folder) {
            Ok(open) => open,
            Err(error) => {
                hidden += u32::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                Open::default()
            }
        };
        let pid = Pid(*pid);
        if !open.chars.is_empty() {
            server(&folder, pid, &open, snapshot, &mut processes);
        }
        let role = match open.chars.as_slice() {
            [] if !claims(snapshot, pid) => Role::Stranger,
            [] => Role::Server,
            chars if chars.iter().all(|(_, id)| idle.contains(id)) => Role::IdleServer,
            _ => Role::Server,
        };
        tasks(&folder, pid, role, snapshot);
    }
    if snapshot
        .devices
        .iter()
        .any(|device| device.servers.is_empty())
    {
        mapped_only(proc, &pids, snapshot, &mut processes, deadline);
    }
    if hidden > 0 {
        snapshot.gaps.push(Gap {
            layer: Layer::Inside,
            whole: !snapshot.host.root,
            what: format!("{hidden} processes of other users: what they have open, their stacks and system calls"),
            remedy: "run as root".to_owned(),
        });
    }
    processes
}

/// A child of a dead server may have nothing open, and keep the device all the same: by a mapping.
fn mapped_only(
    proc: &Path,
    pids: &[u32],
    snapshot: &mut Snapshot,
    processes: &mut Processes,
    deadline: Instant,
) {
    for pid in pids.iter().take(MAX_PROCESSES) {
        if Instant::now() > deadline {
            snapshot.gaps.push(late("mappings of processes"));
            return;
        }
        let (folder, pid) = (proc.join(pid.to_string()), Pid(*pid));
        if processes.memory.contains_key(&pid) {
            continue;
        }
        let path = folder.join("maps");
        // A process that holds the lock of its own memory is no sleeping child.
        let Some(Ok(text)) = guarded(MAPS_LIMIT, move || files::text(&path)) else {
            continue;
        };
        if !maps(&text).1.is_empty() {
            server(&folder, pid, &Open::default(), snapshot, processes);
            tasks(&folder, pid, Role::Server, snapshot);
        }
    }
}

/// Whether a device names this process as its server.
fn claims(snapshot: &Snapshot, pid: Pid) -> bool {
    let mut devices = snapshot.devices.iter();
    devices.any(|device| device.claimed_pid == Some(pid))
}

fn late(what: &str) -> Gap {
    Gap {
        layer: Layer::Procfs,
        whole: false,
        what: format!("{what}: there was no time left"),
        remedy: "look at fewer devices, or give more time".to_owned(),
    }
}

fn open_files(folder: &Path) -> std::io::Result<Open> {
    let mut open = Open::default();
    for (count, entry) in fs::read_dir(folder.join("fd"))?.enumerate() {
        let Ok(entry) = entry else { break };
        if count == MAX_FDS {
            break;
        }
        let (Ok(target), Some(fd)) = (
            fs::read_link(entry.path()),
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok()),
        ) else {
            continue;
        };
        let target = target.to_string_lossy();
        if let Some(id) = char_device(&target) {
            open.chars.push((fd, id));
        } else if target == "anon_inode:[io_uring]" {
            open.rings.push(fd);
        } else if let Some(id) = recorder::device_of(&target) {
            open.recorders.push((fd, id));
        }
    }
    open.rings.sort_unstable();
    Ok(open)
}

/// `/dev/ublkc3`, also when the node was removed since.
fn char_device(target: &str) -> Option<DeviceId> {
    let (_, number) = target.rsplit_once("/ublkc")?;
    let number = number.strip_suffix(" (deleted)").unwrap_or(number);
    Some(DeviceId(number.parse().ok()?))
}

fn server(
    folder: &Path,
    pid: Pid,
    open: &Open,
    snapshot: &mut Snapshot,
    processes: &mut Processes,
) {
    let mut gap = None;
    let path = folder.join("maps");
    let (memory, mappings) = match guarded(MAPS_LIMIT, move || files::text(&path)) {
        Some(text) => maps(&text.unwrap_or_default()),
        None => {
            gap = Some(format!(
                "/proc/{pid}/maps: the process holds the lock of its own memory"
            ));
            (Memory::new(), Vec::new())
        }
    };
    processes.memory.insert(pid, memory);
    let comm = files::line(&folder.join("comm")).unwrap_or_default();
    for device in &mut snapshot.devices {
        let fds: Vec<i32> = open
            .chars
            .iter()
            .filter(|(_, id)| *id == device.id)
            .map(|(fd, _)| *fd)
            .collect();
        let mappings: Vec<Mapping> = mappings
            .iter()
            .filter(|(id, _)| *id == device.id)
            .map(|(_, mapping)| *mapping)
            .collect();
        if fds.is_empty() && mappings.is_empty() {
            continue;
        }
        device.servers.push(Server {
            pid,
            comm: comm.clone(),
            fds,
            mappings,
            rings: open.rings.clone(),
            other_namespaces: other_namespaces(folder),
        });
    }
    records(folder, pid, open, snapshot);
    for fd in &open.rings {
        let text = files::text(&folder.join("fdinfo").join(fd.to_string())).unwrap_or_default();
        if let Some(mut ring) = super::fdinfo::ring(&text) {
            (ring.pid, ring.fd) = (Some(pid), Some(*fd));
            snapshot.rings.push(ring);
        }
    }
    if let Some(what) = gap {
        snapshot.gaps.push(Gap {
            layer: Layer::Inside,
            whole: false,
            what,
            remedy: "none while it lasts; it is a hint in itself".to_owned(),
        });
    }
}

/// What the server itself says of its requests.
fn records(folder: &Path, pid: Pid, open: &Open, snapshot: &mut Snapshot) {
    for (fd, id) in &open.recorders {
        let Some(device) = snapshot.devices.iter_mut().find(|device| device.id == *id) else {
            continue;
        };
        match recorder::look(folder, pid, *fd, *id) {
            Ok(said) => device.recorder = Some(said),
            Err(gap) => snapshot.gaps.push(gap),
        }
    }
}

fn other_namespaces(folder: &Path) -> Vec<String> {
    let of = |folder: &Path, name: &str| fs::read_link(folder.join("ns").join(name)).ok();
    let own = PathBuf::from("/proc/self");
    ["pid", "mnt", "user"]
        .iter()
        .filter(|name| of(folder, name).is_some_and(|theirs| Some(theirs) != of(&own, name)))
        .map(|name| (*name).to_owned())
        .collect()
}

/// The mappings of a process, and those of ublk devices among them.
fn maps(text: &str) -> (Memory, Vec<(DeviceId, Mapping)>) {
    let (mut memory, mut devices) = (Memory::new(), Vec::new());
    for line in text.lines() {
        // `7f0e8a000000-7f0e8a018000 r--s 00018000 00:05 312   /dev/ublkc0`
        let mut words = line.split_whitespace();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (Some(range), Some(rights), Some(offset)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some((Some(start), Some(end))) = range
            .split_once('-')
            .map(|(start, end)| (hex(start), hex(end)))
        else {
            continue;
        };
        memory.push((start, end, rights.starts_with('r'), rights.contains('w')));
        let path = line
            .rfind(" /")
            .and_then(|at| line.get(at + 1..))
            .unwrap_or_default();
        if let (Some(id), Some(offset)) = (char_device(path), hex(offset)) {
            let length = end.saturating_sub(start);
            devices.push((
                id,
                Mapping {
                    start,
                    length,
                    offset,
                },
            ));
        }
    }
    (memory, devices)
}

/// What a process has to do with devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    /// All of its devices are idle.
    IdleServer,
    Stranger,
}

/// The threads of a server, and any thread that sleeps where signals do not wake it.
fn tasks(folder: &Path, pid: Pid, role: Role, snapshot: &mut Snapshot) {
    let threads = files::numbers(&folder.join("task"));
    for tid in threads {
        let text = files::text(&folder.join("task").join(tid.to_string()).join("stat"));
        let Some(stat) = text.ok().and_then(|text| threads::stat(&text)) else {
            continue;
        };
        let task: Task = if role == Role::Server || matters(&stat) {
            threads::task(folder, pid, Tid(tid), stat)
        } else if role == Role::IdleServer {
            threads::outline(pid, Tid(tid), stat)
        } else {
            continue;
        };
        snapshot.tasks.insert(task.tid, task);
    }
}

fn matters(stat: &Stat) -> bool {
    // io-wq workers sleep interruptibly in START_DEV and DEL_DEV.
    stat.state == TaskState::Uninterruptible || stat.comm.starts_with("iou-wrk")
}

#[cfg(test)]
mod tests {
    use super::{char_device, maps};
    use oxublk::DeviceId;

    #[test]
    fn mappings_of_devices_are_found_with_their_offset() {
        let text = "7f0e8a000000-7f0e8a018000 r--s 00018000 00:05 312                        /dev/ublkc0\n\
            7f0e8b000000-7f0e8b001000 rw-p 00000000 00:00 0 \n";
        let (memory, devices) = maps(text);
        assert_eq!(memory[1], (0x7f0e_8b00_0000, 0x7f0e_8b00_1000, true, true));
        assert_eq!((devices.len(), devices[0].0), (1, DeviceId(0)));
        assert_eq!(
            (devices[0].1.offset, devices[0].1.length),
            (0x18000, 0x18000)
        );
    }

    #[test]
    fn nodes_that_were_removed_are_known_too() {
        assert_eq!(char_device("/dev/ublkc12 (deleted)"), Some(DeviceId(12)));
        assert_eq!(char_device("/dev/ublkb1"), None);
    }
}
