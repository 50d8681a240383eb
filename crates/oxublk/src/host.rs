//! What this host says about ublk devices without asking the driver: which there are, and who
//! uses their disks.
//!
//! Everything is read from `/sys` and `/proc`. A disk itself is never opened, so that nothing
//! here waits for a server that does not answer.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};

use crate::error::{Error, Result};
use crate::id::DeviceId;

/// No single file of `/proc` that is read here is larger, on a sane host.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The devices of this host, whoever made them, in the order of their ids. Empty when the driver
/// is not loaded.
///
/// # Errors
/// `/sys` cannot be read.
pub fn devices() -> Result<Vec<DeviceId>> {
    devices_in(Path::new(oxublk_sys::CHAR_CLASS_PATH))
}

fn devices_in(class: &Path) -> Result<Vec<DeviceId>> {
    let entries = match fs::read_dir(class) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("cannot read {}", class.display()), error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<DeviceId> = names
        .filter_map(|name| Some(DeviceId(name.strip_prefix("ublkc")?.parse().ok()?)))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The size of a device's disk in bytes, as the kernel has it now; none while there is no disk.
#[must_use]
pub fn size_bytes(id: DeviceId) -> Option<u64> {
    let sectors = fs::read_to_string(Path::new("/sys/block").join(id.disk_name()).join("size"));
    sectors
        .ok()?
        .trim_end()
        .parse::<u64>()
        .ok()?
        .checked_mul(oxublk_sys::SECTOR_SIZE)
}

/// Somebody who uses a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Holder {
    /// The process; none when it is the kernel.
    pub pid: Option<u32>,
    /// The name of its program, or of the part of the kernel.
    pub command: String,
    /// The disk or partition that it uses: `ublkb0`, `ublkb0p1`.
    pub disk: String,
    /// What it is used as.
    pub usage: Usage,
}

impl Holder {
    /// Whether it uses the disk of this device, or a partition of it.
    #[must_use]
    pub fn uses(&self, id: DeviceId) -> bool {
        let rest = self.disk.strip_prefix(&id.disk_name());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
    }
}

/// What somebody uses a disk as.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Usage {
    /// It is open.
    Open,
    /// It is mounted here.
    Mount(PathBuf),
    /// Another block device is built on it: `dm-0`, `md127`, `loop3`.
    Device(String),
    /// The kernel swaps to it.
    Swap,
}

/// Who uses the disk of device `id`: open files, mounts (also in other namespaces), swap, and
/// block devices built on it. Empty while there is no disk.
///
/// What this process may not look into is missing: only root sees the open files of everybody.
///
/// # Errors
/// `/proc` cannot be read.
pub fn holders(id: DeviceId) -> Result<Vec<Holder>> {
    holders_of(&[id])
}

/// The same for several devices, in one pass over the host's processes.
///
/// # Errors
/// `/proc` cannot be read.
pub fn holders_of(ids: &[DeviceId]) -> Result<Vec<Holder>> {
    let of = |id: &DeviceId| Disks::of(Path::new("/sys/block"), &id.disk_name()).0;
    Disks(ids.iter().flat_map(of).collect()).holders()
}

/// The same for any block device, by its major and minor number.
///
/// # Errors
/// `/proc` cannot be read.
pub fn holders_of_block((major, minor): (u32, u32)) -> Result<Vec<Holder>> {
    let sys = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    match (sys.parent(), sys.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Disks::of(parent, name).holders(),
        _ => Ok(Vec::new()),
    }
}

/// A disk and its partitions.
struct Disks(Vec<Disk>);

struct Disk {
    name: String,
    /// Major and minor number.
    number: (u32, u32),
    sys: PathBuf,
}

impl Disks {
    fn of(sys_block: &Path, name: &str) -> Self {
        let sys = sys_block.join(name);
        let partitions = fs::read_dir(&sys)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name());
        let partitions = partitions.filter_map(|name| name.into_string().ok());
        let partitions = partitions.filter(|part| part.starts_with(name));
        let paths = partitions.map(|part| (part.clone(), sys.join(part)));
        let mut disks: Vec<Disk> = std::iter::once((name.to_owned(), sys.clone()))
            .chain(paths)
            .filter_map(|(name, sys)| {
                let number = parse_number(fs::read_to_string(sys.join("dev")).ok()?.trim_end())?;
                Some(Disk { name, number, sys })
            })
            .collect();
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Self(disks)
    }

    fn holders(&self) -> Result<Vec<Holder>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let proc = Path::new("/proc");
        let mut holders = self.stacked(Path::new("/sys/block"));
        holders.extend(self.swaps(&read(&proc.join("swaps")).unwrap_or_default()));
        self.scan_processes(proc, &mut holders)?;
        Ok(holders)
    }

    fn by_number(&self, number: (u32, u32)) -> Option<&Disk> {
        self.0.iter().find(|disk| disk.number == number)
    }

    /// By the path of its node, whatever it is called.
    fn by_path(&self, path: &Path) -> Option<&Disk> {
        // The attributes that are at hand: a file on a dead network mount must not stop us.
        let flags = AtFlags::STATX_DONT_SYNC;
        let found = rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE).ok()?;
        let is_disk = FileType::from_raw_mode(found.stx_mode.into()) == FileType::BlockDevice;
        is_disk.then(|| self.by_number((found.stx_rdev_major, found.stx_rdev_minor)))?
    }

    fn by_name(&self, path: &Path) -> Option<&Disk> {
        let name = path.strip_prefix("/dev").ok()?;
        self.0.iter().find(|disk| name == Path::new(&disk.name))
    }

    /// Device mapper, md and bcache name themselves below the disk; loop devices do not.
    fn stacked(&self, sys_block: &Path) -> Vec<Holder> {
        let mut holders = Vec::new();
        for disk in &self.0 {
            for device in names_in(&disk.sys.join("holders")) {
                let label = fs::read_to_string(sys_block.join(&device).join("dm/name"));
                let command = label.map_or_else(|_| device.clone(), |name| name.trim_end().into());
                let usage = Usage::Device(device);
                holders.push(Holder {
                    pid: None,
                    command,
                    disk: disk.name.clone(),
                    usage,
                });
            }
        }
        for device in names_in(sys_block)
            .into_iter()
            .filter(|name| name.starts_with("loop"))
        {
            let file = fs::read_to_string(sys_block.join(&device).join("loop/backing_file"));
            let disk = file
                .ok()
                .and_then(|file| self.by_name(Path::new(file.trim_end())));
            if let Some(disk) = disk {
                let (command, usage) = ("loop".to_owned(), Usage::Device(device));
                holders.push(Holder {
                    pid: None,
                    command,
                    disk: disk.name.clone(),
                    usage,
                });
            }
        }
        holders
    }

    fn swaps(&self, swaps: &[u8]) -> Vec<Holder> {
        let paths = swaps.split(|&byte| byte == b'\n').skip(1);
        let paths = paths.filter_map(|line| line.split(u8::is_ascii_whitespace).next());
        paths
            .filter_map(|path| {
                let path = unescape(path);
                let disk = self.by_name(&path).or_else(|| self.by_path(&path))?;
                let command = "swap".to_owned();
                Some(Holder {
                    pid: None,
                    command,
                    disk: disk.name.clone(),
                    usage: Usage::Swap,
                })
            })
            .collect()
    }

    /// Open files of every process, and mounts of every mount namespace once.
    fn scan_processes(&self, proc: &Path, holders: &mut Vec<Holder>) -> Result<()> {
        let entries = fs::read_dir(proc)
            .map_err(|error| Error::io(format!("cannot read {}", proc.display()), error))?;
        let mut namespaces = HashSet::new();
        let own = fs::read_link(proc.join("self/ns/mnt")).ok();
        if let Some(own) = &own {
            namespaces.insert(own.clone());
            let mounts = read(&proc.join("self/mountinfo")).unwrap_or_default();
            holders.extend(self.mounts(&mounts, None, "mount"));
        }
        for entry in entries.flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid else { continue };
            // A process that ends meanwhile holds nothing.
            let process = entry.path();
            let command = || {
                let name = fs::read(process.join("comm")).unwrap_or_default();
                String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
            };
            for disk in self.open_in(&process.join("fd")) {
                let usage = Usage::Open;
                holders.push(Holder {
                    pid: Some(pid),
                    command: command(),
                    disk,
                    usage,
                });
            }
            let namespace = fs::read_link(process.join("ns/mnt"));
            if namespace.is_ok_and(|namespace| namespaces.insert(namespace)) {
                let mounts = read(&process.join("mountinfo")).unwrap_or_default();
                holders.extend(self.mounts(&mounts, Some(pid), &command()));
            }
        }
        Ok(())
    }

    /// The disks that are open in a process, each once.
    fn open_in(&self, fds: &Path) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        for fd in fs::read_dir(fds).into_iter().flatten().flatten() {
            if let Some(disk) = self.by_path(&fd.path())
                && !open.contains(&disk.name)
            {
                open.push(disk.name.clone());
            }
        }
        open
    }

    /// Lines of `mountinfo`: `36 35 98:0 /root /mnt/point options tags… - type source options`.
    fn mounts(&self, mountinfo: &[u8], pid: Option<u32>, command: &str) -> Vec<Holder> {
        let lines = mountinfo.split(|&byte| byte == b'\n');
        lines
            .filter_map(|line| {
                let mut fields = line.split(|&byte| byte == b' ');
                let number = parse_number(std::str::from_utf8(fields.nth(2)?).ok()?)?;
                let mount_point = unescape(fields.nth(1)?);
                let source = fields
                    .skip_while(|&field| field != b"-")
                    .nth(2)
                    .map(unescape);
                // btrfs and others mount under a number of their own.
                let by_source = || self.by_name(source.as_deref()?);
                let disk = self.by_number(number).or_else(by_source)?.name.clone();
                let command = command.to_owned();
                Some(Holder {
                    pid,
                    command,
                    disk,
                    usage: Usage::Mount(mount_point),
                })
            })
            .collect()
    }
}

/// `MAJOR:MINOR`
fn parse_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// The kernel writes blanks and backslashes in paths as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, tail) = match octal {
            Some(escaped) if byte == b'\\' => (escaped, tail.get(3..).unwrap_or_default()),
            _ => (byte, tail),
        };
        path.push(byte);
        rest = tail;
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `/sys/block` with disk `ublkb3` (259:4), its partition (259:5), and others.
    fn sys_block() -> PathBuf {
        let root = std::env::temp_dir().join(format!("oxublk-host-{}", std::process::id()));
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("ublkb3/dev", "259:4\n");
        write("ublkb3/queue/nr_requests", "128\n");
        write("ublkb3/ublkb3p1/dev", "259:5\n");
        write("ublkb3/ublkb3p1/holders/dm-0/x", "");
        write("dm-0/dm/name", "vg-root\n");
        write("loop0/loop/backing_file", "/dev/ublkb3\n");
        write("loop1/loop/backing_file", "/dev/ublkb30\n");
        write("ublkb30/dev", "259:40\n");
        root
    }

    fn disks() -> Disks {
        let disk = |name: &str, minor| Disk {
            name: name.to_owned(),
            number: (259, minor),
            sys: PathBuf::new(),
        };
        Disks(vec![disk("ublkb3", 4), disk("ublkb3p1", 5)])
    }

    #[test]
    fn disks_partitions_and_what_is_built_on_them() {
        let root = sys_block();
        let disks = Disks::of(&root, "ublkb3");
        let found: Vec<_> = disks
            .0
            .iter()
            .map(|disk| (disk.name.as_str(), disk.number))
            .collect();
        assert_eq!(found, [("ublkb3", (259, 4)), ("ublkb3p1", (259, 5))]);
        let stacked: Vec<_> = disks
            .stacked(&root)
            .into_iter()
            .map(|h| (h.disk, h.command, h.usage))
            .collect();
        let device = |name: &str| Usage::Device(name.to_owned());
        let expected = [
            ("ublkb3p1".to_owned(), "vg-root".to_owned(), device("dm-0")),
            ("ublkb3".to_owned(), "loop".to_owned(), device("loop0")),
        ];
        assert_eq!(stacked, expected);
        assert!(
            Disks::of(&root, "ublkb4").0.is_empty(),
            "no disk, no holders"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let mountinfo = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            36 22 259:5 / /mnt/a\\040b rw,noatime shared:9 master:1 - ext4 /dev/ublkb3p1 rw\n\
            37 22 0:44 /sub /btr rw - btrfs /dev/ublkb3 rw\n\
            38 22 0:45 / /other rw - btrfs /dev/ublkb30 rw\n\
            garbage\n";
        let holders = disks().mounts(mountinfo, Some(7), "nspawn");
        let found: Vec<_> = holders
            .iter()
            .map(|h| (h.disk.as_str(), &h.usage))
            .collect();
        let mount = |path: &str| Usage::Mount(path.into());
        assert_eq!(
            found,
            [("ublkb3p1", &mount("/mnt/a b")), ("ublkb3", &mount("/btr"))]
        );
        assert_eq!(
            (holders[0].pid, holders[0].command.as_str()),
            (Some(7), "nspawn")
        );
    }

    #[test]
    fn swaps_are_found_by_name() {
        let swaps = b"Filename\tType\tSize\tUsed\tPriority\n\
            /dev/sda2   partition\t1\t0\t-2\n/dev/ublkb3p1   partition\t1\t0\t-3\n";
        let holders = disks().swaps(swaps);
        assert_eq!(holders.len(), 1);
        assert_eq!(
            (holders[0].disk.as_str(), &holders[0].usage),
            ("ublkb3p1", &Usage::Swap)
        );
    }

    #[test]
    fn escapes_of_the_kernel() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(b"/a\\04"), Path::new("/a\\04"));
        assert_eq!(unescape(b"/a\\"), Path::new("/a\\"));
        assert_eq!(unescape(b""), Path::new(""));
    }

    #[test]
    fn devices_are_listed_in_order() {
        let class = std::env::temp_dir().join(format!("oxublk-class-{}", std::process::id()));
        fs::create_dir_all(&class).unwrap();
        for name in ["ublkc10", "ublkc2", "ublkcx", "power"] {
            symlink("/nonexistent", class.join(name)).unwrap();
        }
        assert_eq!(devices_in(&class).unwrap(), [DeviceId(2), DeviceId(10)]);
        fs::remove_dir_all(&class).unwrap();
        assert!(devices_in(&class).unwrap().is_empty());
    }

    #[test]
    fn this_host_can_be_scanned() {
        let mut holders = Vec::new();
        disks()
            .scan_processes(Path::new("/proc"), &mut holders)
            .unwrap();
        assert!(super::holders(DeviceId(1_048_575)).unwrap().is_empty());
    }
}
