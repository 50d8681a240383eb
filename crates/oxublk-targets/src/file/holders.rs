//! Who has a file that we cannot have.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oxublk::host::{self, Usage};
use rustix::fs::{major, minor};

/// More of them say no more.
const MAX_NAMED: usize = 3;

/// Who holds the lock of this regular file, in words: `process 7 (qemu-img)`.
pub(super) fn of_lock(file: &File) -> String {
    let Ok(stat) = file.metadata() else {
        return unknown();
    };
    let (dev, ino) = (stat.dev(), stat.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let lock = format!("{:02x}:{:02x}:{ino}", major(dev), minor(dev));
    let pids: Vec<u32> = pids(&locks, &lock).collect();
    // A lock may be nobody's in particular, or of a process that only passed it on.
    let alive = |pid: &u32| Path::new("/proc").join(pid.to_string()).exists();
    if !pids.is_empty() && pids.iter().all(alive) {
        return named(pids);
    }
    named(who_has_open((dev, ino)))
}

/// The processes that `/proc/locks` names for the lock `MAJOR:MINOR:INODE`; -1 is nobody in particular.
fn pids<'a>(locks: &'a str, lock: &'a str) -> impl Iterator<Item = u32> + 'a {
    locks.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        // Those that wait for a lock have an arrow there.
        let kind = fields.next()?;
        let (pid, file) = (fields.nth(2)?, fields.next()?);
        (kind == "FLOCK" && file == lock).then(|| pid.parse().ok())?
    })
}

/// The processes, but for this one, that have the file open.
fn who_has_open((dev, ino): (u64, u64)) -> Vec<u32> {
    let this = std::process::id();
    let has = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|entry| {
            fs::metadata(entry.path()).is_ok_and(|stat| (stat.dev(), stat.ino()) == (dev, ino))
        })
    };
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != this && has(pid)).collect()
}

/// Who uses this block device, in words.
pub(super) fn of_block(path: &Path) -> String {
    let stat = fs::metadata(path).ok();
    let stat = stat.filter(|stat| stat.file_type().is_block_device());
    let holders = stat.and_then(|stat| {
        let number = (major(stat.rdev()), minor(stat.rdev()));
        host::holders_of_block(number).ok()
    });
    let mut words: Vec<String> = Vec::new();
    for holder in holders.into_iter().flatten() {
        let who = holder
            .pid
            .map(|pid| format!("process {pid} ({})", holder.command));
        let word = match (holder.usage, who) {
            (Usage::Mount(place), _) => {
                format!("{} is mounted on {}", holder.disk, place.display())
            }
            (Usage::Device(device), _) => format!("{device} is built on it"),
            (Usage::Swap, _) => "the kernel swaps to it".to_owned(),
            (_, Some(who)) => format!("{who} has it open"),
            (_, None) => continue,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.truncate(MAX_NAMED);
    if words.is_empty() {
        return unknown();
    }
    words.join(", ")
}

fn named(pids: Vec<u32>) -> String {
    let words: Vec<String> = pids
        .iter()
        .take(MAX_NAMED)
        .map(|pid| {
            let command = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let command = String::from_utf8_lossy(command.trim_ascii_end()).into_owned();
            format!("process {pid} ({command})")
        })
        .collect();
    if words.is_empty() {
        return unknown();
    }
    words.join(", ")
}

fn unknown() -> String {
    "who that is cannot be seen".to_owned()
}

#[cfg(test)]
mod tests {
    use super::pids;

    #[test]
    fn the_holder_of_a_lock_is_read_and_who_waits_for_it_is_not() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 41 fd:01:77 0 EOF
1: -> FLOCK  ADVISORY  WRITE 42 fd:01:77 0 EOF
2: POSIX  ADVISORY  READ  43 fd:01:77 128 128
3: FLOCK  ADVISORY  READ  44 fd:01:778 0 EOF
4: FLOCK  ADVISORY  WRITE -1 fd:01:77 0 EOF
garbage
";
        assert_eq!(pids(locks, "fd:01:77").collect::<Vec<_>>(), [41]);
    }
}
