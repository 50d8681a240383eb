//! What the block device below can do, as `/sys` says.

use std::fs;
use std::path::Path;

/// A block device's limits: of the file itself, or of the device that its file system is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) logical_block_bytes: u32,
    pub(super) physical_block_bytes: u32,
    pub(super) optimal_io_bytes: u32,
    pub(super) discard_granularity_bytes: u32,
    /// Whether it can discard, and zero, by itself.
    pub(super) discards: bool,
    pub(super) zeroes: bool,
    pub(super) rotational: bool,
    pub(super) read_only: bool,
    pub(super) max_segments: u16,
    pub(super) max_segment_bytes: u32,
}

/// The limits of the block device with this number; none where there is no such device, as below tmpfs, btrfs or NFS.
pub(super) fn of(number: (u32, u32)) -> Option<Limits> {
    of_in(Path::new("/sys/dev/block"), number)
}

pub(super) fn of_in(devices: &Path, (major, minor): (u32, u32)) -> Option<Limits> {
    let device = devices.join(format!("{major}:{minor}"));
    let queue = [device.join("queue"), device.join("../queue")]
        .into_iter()
        .find(|queue| queue.is_dir())?;
    let number =
        |path: &Path| -> Option<u64> { fs::read_to_string(path).ok()?.trim_end().parse().ok() };
    let limit = |name: &str| number(&queue.join(name)).unwrap_or(0);
    let bytes = |name: &str| u32::try_from(limit(name)).unwrap_or(u32::MAX);
    Some(Limits {
        logical_block_bytes: bytes("logical_block_size"),
        physical_block_bytes: bytes("physical_block_size"),
        optimal_io_bytes: bytes("optimal_io_size"),
        discard_granularity_bytes: bytes("discard_granularity"),
        discards: limit("discard_max_bytes") > 0,
        zeroes: limit("write_zeroes_max_bytes") > 0,
        rotational: limit("rotational") > 0,
        read_only: number(&device.join("ro")).unwrap_or(0) > 0,
        max_segments: u16::try_from(limit("max_segments")).unwrap_or(u16::MAX),
        max_segment_bytes: bytes("max_segment_size"),
    })
}
