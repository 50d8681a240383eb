//! The kernel's log.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::facts::{Gap, Layer};

/// So many lines are kept: the newest.
const MAX_LINES: usize = 20;
/// The buffer of a kernel does not hold more records.
const MAX_RECORDS: usize = 1 << 16;

/// The newest lines that speak of ublk, of its disks, or of tasks that hang.
pub(super) fn lines(dev: &Path) -> Result<Vec<String>, Gap> {
    let path = dev.join("kmsg");
    let gap = |error: &std::io::Error| Gap {
        layer: Layer::Log,
        whole: true,
        what: format!("{}: {error}", path.display()),
        remedy: "run as root".to_owned(),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .map_err(|error| gap(&error))?;
    let mut found = std::collections::VecDeque::new();
    let mut record = vec![0; 8192];
    for _ in 0..MAX_RECORDS {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                if let Some(line) = message(&text).filter(|line| concerns(line)) {
                    if found.len() == MAX_LINES {
                        found.pop_front();
                    }
                    found.push_back(line);
                }
            }
            // Overwritten while it was read: go on with the next.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Ok(found.into())
}

/// `6,339,5140900,-;ublk_drv: …\n SUBSYSTEM=…`: `[5.140900] ublk_drv: …`.
fn message(record: &str) -> Option<String> {
    let (head, rest) = record.split_once(';')?;
    let microseconds: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = rest.lines().next()?;
    Some(format!(
        "[{}.{:06}] {text}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    ))
}

fn concerns(line: &str) -> bool {
    [
        "ublk",
        "blocked for more than",
        "is blocked on a mutex likely owned",
    ]
    .iter()
    .any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::{concerns, message};

    #[test]
    fn records_are_lines_with_their_time() {
        let line =
            message("3,700,5140900,-;INFO: task dd:166 blocked for more than 120 seconds.\n X=1\n")
                .unwrap();
        assert_eq!(
            line,
            "[5.140900] INFO: task dd:166 blocked for more than 120 seconds."
        );
        assert!(concerns(&line));
        assert!(!concerns("[1.000000] usb 1-1: new device"));
    }
}
