//! The flight recorder of a server of ours: a memfd that is read through `/proc/PID/fd`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxublk::DeviceId;
use oxublk::recorder::{self, NAME_PREFIX, Recording};

use crate::facts::{Gap, Layer, Pid, Recorded, Recorder};

use super::guard::guarded;
use super::{files, now_ns};

/// Its pages may be swapped out, to a disk that is stuck.
const LIMIT: Duration = Duration::from_millis(300);

/// `/memfd:oxublk-recorder-3 (deleted)`.
pub(super) fn device_of(target: &str) -> Option<DeviceId> {
    let name = target.strip_prefix("/memfd:")?.strip_prefix(NAME_PREFIX)?;
    let number = name.strip_suffix(" (deleted)").unwrap_or(name);
    Some(DeviceId(number.parse().ok()?))
}

/// What the recorder of this device says, which process `pid` has open as `fd`.
pub(super) fn look(folder: &Path, pid: Pid, fd: i32, device: DeviceId) -> Result<Recorder, Gap> {
    let path = folder.join("fd").join(fd.to_string());
    let gap = |why: String| Gap {
        layer: Layer::Recorder,
        whole: false,
        what: format!("the flight recorder of device {device} in process {pid}: {why}"),
        remedy: "use the `oxublk` of the server's version, as root".to_owned(),
    };
    match guarded(LIMIT, move || read(&path, device)) {
        Some(Ok(recording)) => Ok(facts(pid, &recording, now_ns())),
        Some(Err(error)) => Err(gap(error.to_string())),
        None => Err(gap(format!("it could not be read within {LIMIT:?}"))),
    }
}

fn read(path: &PathBuf, device: DeviceId) -> io::Result<Recording> {
    let recording = recorder::read(&File::open(path)?)?;
    if recording.header.device == device.0 {
        return Ok(recording);
    }
    let message = format!("it is that of device {}", recording.header.device);
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

fn facts(pid: Pid, recording: &Recording, now_ns: u64) -> Recorder {
    let ms = |since_ns: u64| now_ns.saturating_sub(since_ns) / 1_000_000;
    let requests = recording.requests().map(|tag| Recorded {
        queue: tag.queue,
        tag: tag.tag,
        station: tag.station,
        since_ms: ms(tag.since_ns()),
        age_ms: ms(tag.reaped_ns),
        operation: tag.operation.name().to_owned(),
        sector: tag.sector,
        bytes: tag.bytes,
        number: tag.requests,
    });
    Recorder {
        pid,
        requests: requests.collect(),
        moving: recording.moving as u64,
    }
}

/// What the server `pid` says of a device in its flight recorder, also when none of its threads runs. None if it has none:
/// it is not one of ours, or may not be looked at.
///
/// # Errors
/// There is one, and it cannot be read.
pub fn recorder(pid: Pid, device: DeviceId) -> Result<Option<Recorder>, Gap> {
    let folder = PathBuf::from("/proc").join(pid.to_string());
    let fds = files::numbers(&folder.join("fd"));
    let found = fds.into_iter().find(|fd| {
        let target = std::fs::read_link(folder.join("fd").join(fd.to_string()));
        target.is_ok_and(|target| device_of(&target.to_string_lossy()) == Some(device))
    });
    let Some(fd) = found.and_then(|fd| i32::try_from(fd).ok()) else {
        return Ok(None);
    };
    look(&folder, pid, fd, device).map(Some)
}

#[cfg(test)]
mod tests {
    use super::{device_of, read, recorder};
    use crate::facts::Pid;
    use oxublk::DeviceId;

    #[test]
    fn recorders_are_found_by_their_name() {
        let found = device_of("/memfd:oxublk-recorder-12 (deleted)");
        assert_eq!(found, Some(DeviceId(12)));
        for other in [
            "/memfd:oxublk-recorder-",
            "/memfd:other (deleted)",
            "/dev/ublkc1",
        ] {
            assert_eq!(device_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_without_one_has_none() {
        assert_eq!(recorder(Pid(std::process::id()), DeviceId(3)), Ok(None));
        assert_eq!(recorder(Pid(u32::MAX), DeviceId(3)), Ok(None));
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 4096]).unwrap();
        let error = read(&file.path().to_owned(), DeviceId(3)).unwrap_err();
        assert!(error.to_string().contains("no flight recorder"), "{error}");
    }
}
