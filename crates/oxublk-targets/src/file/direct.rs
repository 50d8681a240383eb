//! Whether a file can be read and written past the page cache (`O_DIRECT`), and what that asks for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, fstatfs, statx};
use rustix::io::Errno;

/// The file systems that lie in memory: tmpfs, ramfs, hugetlbfs.
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
/// The largest block that is tried, and that a device can have.
const LARGEST: u32 = 4096;

/// What direct I/O asks of addresses and of offsets, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) memory: u32,
    pub(super) offset: u32,
}

/// What direct I/O on this file asks for; or why there is none.
pub(super) fn alignment(file: &File, is_block: bool) -> Result<Alignment, String> {
    // A block device's node lies in a file system in memory.
    if !is_block && is_in_memory(file) {
        return Err("it lies in memory".to_owned());
    }
    match statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
            if memory == 0 || offset == 0 {
                return Err("its file system has no direct I/O for it".to_owned());
            }
            Ok(Alignment { memory, offset })
        }
        // The file system does not say: it is tried.
        _ => probe(file),
    }
}

fn is_in_memory(file: &File) -> bool {
    let kind = fstatfs(file).map(|stat| u64::try_from(stat.f_type));
    kind.is_ok_and(|kind| kind.is_ok_and(|kind| IN_MEMORY.contains(&(kind & 0xffff_ffff))))
}

/// From here on the file is read and written past the page cache.
pub(super) fn enable(file: &File) -> Result<(), Errno> {
    fcntl_setfl(file, fcntl_getfl(file)? | OFlags::DIRECT)
}

fn probe(file: &File) -> Result<Alignment, String> {
    let no_direct = |_| "its file system has no direct I/O".to_owned();
    let flags = fcntl_getfl(file).map_err(no_direct)?;
    fcntl_setfl(file, flags | OFlags::DIRECT).map_err(no_direct)?;
    let mut room = vec![0; 2 * LARGEST as usize];
    let start = room.as_ptr().align_offset(LARGEST as usize);
    let mut size = 512;
    while size <= LARGEST {
        let target = room.get_mut(start..start.saturating_add(size as usize));
        if target.is_some_and(|target| file.read_at(target, 0).is_ok()) {
            break;
        }
        size *= 2;
    }
    fcntl_setfl(file, flags).map_err(no_direct)?;
    if size > LARGEST {
        return Err("no direct read of it works".to_owned());
    }
    Ok(Alignment {
        memory: size,
        offset: size,
    })
}
