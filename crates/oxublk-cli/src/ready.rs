//! When a disk can be used: the kernel has it with the right size, and its node is in `/dev`.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use oxublk::{DeviceId, host};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FileType, major, minor};
use rustix::io::Errno;

use crate::exit::{Exit, Failure, Outcome};

/// How long the node may take to appear. The kernel makes it before START_DEV returns; udev may
/// replace it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until `/dev/ublkbN` is a disk of `size_bytes`.
///
/// # Errors
/// It is not after a few seconds; says what is missing.
pub fn wait(id: DeviceId, size_bytes: u64) -> Outcome<()> {
    let end = Instant::now() + TIMEOUT;
    let watched = watch_dev();
    loop {
        let Err(missing) = check(id, size_bytes) else {
            return Ok(());
        };
        let left = end.saturating_duration_since(Instant::now());
        let waited = match &watched {
            Ok(watch) if !left.is_zero() => wait_for_change(watch, left),
            _ => Ok(()),
        };
        if let Err(error) = waited {
            return Err(Failure::io("cannot watch /dev", &error));
        }
        if left.is_zero() || watched.is_err() {
            return Err(Failure::new(Exit::Failure, missing)
                .with_hint("check that /dev is the host's devtmpfs, not a copy in a container"));
        }
    }
}

fn check(id: DeviceId, size_bytes: u64) -> Result<(), String> {
    let node = id.block_path();
    let display = node.display();
    match host::size_bytes(id) {
        Some(size) if size == size_bytes => {}
        Some(size) => {
            return Err(format!(
                "the kernel gives {display} {size} bytes instead of {size_bytes}"
            ));
        }
        None => return Err(format!("the kernel has no disk {}", id.disk_name())),
    }
    let found =
        rustix::fs::stat(&node).map_err(|error| format!("there is no {display}: {error}"))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::BlockDevice {
        return Err(format!("{display} is not a block device"));
    }
    let number = format!("{}:{}", major(found.st_rdev), minor(found.st_rdev));
    match fs::read_to_string(format!("/sys/block/{}/dev", id.disk_name())) {
        Ok(wanted) if wanted.trim_end() == number => Ok(()),
        _ => Err(format!("{display} ({number}) is not the node of this disk")),
    }
}

fn watch_dev() -> io::Result<rustix::fd::OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB;
    inotify::add_watch(&watch, "/dev", events)?;
    Ok(watch)
}

/// Returns when something changed in `/dev`, or the time is over.
fn wait_for_change(watch: &rustix::fd::OwnedFd, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], timeout.as_ref()) {
        Err(Errno::INTR) | Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    // What changed does not matter: `check` looks at everything.
    let mut events = [0_u8; 4096];
    match rustix::io::read(watch, &mut events) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let missing = check(DeviceId(1_048_575), 512).unwrap_err();
        assert_eq!(missing, "the kernel has no disk ublkb1048575");
    }
}
