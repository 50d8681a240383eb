//! The file itself: found or made, opened, and locked.

use std::fs::{self, TryLockError};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, major, minor, open as open_at};
use rustix::io::Errno;

use super::limits::{self, Limits};
use super::{OpenError, OpenErrorKind, holders};

/// What is to be opened, and how.
pub(super) struct Wanted<'p> {
    pub(super) path: &'p Path,
    pub(super) read_only: bool,
    /// Made, if it is not there.
    pub(super) create: bool,
}

/// A file that is ours.
pub(super) struct Opened {
    pub(super) file: fs::File,
    pub(super) is_block: bool,
    pub(super) size_bytes: u64,
    /// What the file system gives space by.
    pub(super) block_bytes: u64,
    pub(super) read_only: bool,
    pub(super) created: bool,
    /// Of the block device: itself, or the one below its file system.
    pub(super) limits: Option<Limits>,
    pub(super) notes: Vec<String>,
}

pub(super) fn open(wanted: &Wanted<'_>) -> Result<Opened, OpenError> {
    let path = wanted.path;
    let (mut read_only, mut notes) = (wanted.read_only, Vec::new());
    // Looked at before it is opened: opening a pipe would wait.
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot_open(path, error)),
    };
    let limits = match &found {
        Some(found) => below(path, found)?,
        None => {
            may_be_made(wanted)?;
            None
        }
    };
    let is_block = found
        .as_ref()
        .is_some_and(|found| found.file_type().is_block_device());
    if is_block && !read_only && limits.is_some_and(|limits| limits.read_only) {
        read_only = true;
        notes.push(format!(
            "{} can only be read: so can the disk",
            path.display()
        ));
    }
    let kind = if is_block {
        OFlags::EXCL
    } else if found.is_none() {
        OFlags::CREATE | OFlags::EXCL
    } else {
        OFlags::empty()
    };
    let file = match try_open(path, read_only, kind) {
        Err(Errno::ROFS) if found.is_some() => {
            read_only = true;
            notes.push(format!(
                "{} is on a file system that can only be read: so can the disk",
                path.display()
            ));
            try_open(path, true, kind)
        }
        tried => tried,
    };
    let file = file.map_err(|errno| why_not(path, errno, is_block, read_only))?;
    if !is_block {
        lock(&file, path, read_only)?;
    }
    let size_bytes = size(&file).map_err(|error| cannot_open(path, error))?;
    let stat = file.metadata().map_err(|error| cannot_open(path, error))?;
    Ok(Opened {
        // Of a new file only now is known what is below.
        limits: limits.or_else(|| below(path, &stat).ok().flatten()),
        is_block,
        size_bytes,
        block_bytes: stat.blksize().clamp(512, 1 << 20),
        read_only,
        created: found.is_none(),
        notes,
        file,
    })
}

/// The limits of the block device; an error for what cannot be a disk.
fn below(path: &Path, found: &fs::Metadata) -> Result<Option<Limits>, OpenError> {
    let kind = found.file_type();
    let number = if kind.is_block_device() {
        found.rdev()
    } else if kind.is_file() {
        found.dev()
    } else {
        let what = if kind.is_dir() {
            "a directory"
        } else {
            "neither a regular file nor a block device"
        };
        let message = format!("{} is {what}", path.display());
        return Err(OpenError::unusable(message).with_hint(
            "give a regular file (`--create --size SIZE` makes one) or a block device",
        ));
    };
    Ok(limits::of((major(number), minor(number))))
}

fn may_be_made(wanted: &Wanted<'_>) -> Result<(), OpenError> {
    let path = wanted.path;
    if !wanted.create {
        return Err(
            OpenError::unusable(format!("there is no {}", path.display()))
                .with_hint("--create with --size SIZE makes a sparse file"),
        );
    }
    if wanted.read_only {
        let message = format!(
            "{} does not exist: an empty file to read is of no use",
            path.display()
        );
        return Err(OpenError::unusable(message).with_hint("leave --read-only or --create out"));
    }
    // A device that is not there must not become a file in memory that fills the host.
    if path.parent() == Some(Path::new("/dev")) {
        return Err(OpenError::unusable(format!(
            "there is no device {}, and no file is made in its place",
            path.display()
        )));
    }
    Ok(())
}

fn try_open(path: &Path, read_only: bool, kind: OFlags) -> Result<fs::File, Errno> {
    let access = if read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let mode = Mode::RUSR | Mode::WUSR;
    open_at(path, access | kind | OFlags::CLOEXEC, mode).map(fs::File::from)
}

fn cannot_open(path: &Path, error: impl Into<io::Error>) -> OpenError {
    OpenError::io(format!("cannot open {}", path.display()), error)
}

fn why_not(path: &Path, errno: Errno, is_block: bool, read_only: bool) -> OpenError {
    match errno {
        Errno::BUSY if is_block => OpenError::new(
            OpenErrorKind::Busy,
            format!("{} is in use: {}", path.display(), holders::of_block(path)),
        )
        .with_hint("unmount or close it first: a block device is served only to one"),
        Errno::ACCESS | Errno::PERM if !read_only => cannot_open(path, errno)
            .with_hint("use an account that may read and write it, or --read-only"),
        _ => cannot_open(path, errno),
    }
}

/// One server that writes, or several that read.
fn lock(file: &fs::File, path: &Path, read_only: bool) -> Result<(), OpenError> {
    let locked = if read_only {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::new(
            OpenErrorKind::Busy,
            format!("{} is locked: {}", path.display(), holders::of_lock(file)),
        )
        .with_hint("another server has it; --read-only goes together with others that only read")),
        Err(TryLockError::Error(error)) => Err(OpenError::io(
            format!("cannot lock {}", path.display()),
            error,
        )),
    }
}

fn size(mut file: &fs::File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(end)
}
