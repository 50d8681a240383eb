//! From a path and options to a disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{FallocateFlags, fallocate};

use super::opening::{Opened, Wanted};
use super::shape::{Choice, Shape};
use super::{File, OpenError, opening};

/// Options of a disk in a file.
#[derive(Clone, Debug)]
#[must_use]
pub struct FileBuilder {
    path: PathBuf,
    size_bytes: Option<u64>,
    create: bool,
    read_only: bool,
    direct: Option<bool>,
    logical_block_bytes: Option<u32>,
    max_io_bytes: u32,
    zero_copy: Option<bool>,
}

impl FileBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            size_bytes: None,
            create: false,
            read_only: false,
            direct: None,
            logical_block_bytes: None,
            max_io_bytes: 1 << 20,
            zero_copy: None,
        }
    }

    /// The disk's size. Without it the file's, rounded down to whole blocks. More than the file has only with
    /// [`create`](Self::create).
    pub fn size_bytes(mut self, bytes: u64) -> Self {
        self.size_bytes = Some(bytes);
        self
    }

    /// Makes a sparse file where there is none, and a longer one where it is too short for the size asked for.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The file is opened for reading only, and the kernel refuses writes.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Past the page cache, or through it. Without this, past it wherever that can be.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = Some(direct);
        self
    }

    /// The unit of addressing: 512, 1024, 2048 or 4096 bytes. By default the smallest that the file can be served with.
    pub fn logical_block_bytes(mut self, bytes: u32) -> Self {
        self.logical_block_bytes = Some(bytes);
        self
    }

    /// The largest request; 1 MiB by default.
    pub fn max_io_bytes(mut self, bytes: u32) -> Self {
        self.max_io_bytes = bytes;
        self
    }

    /// Whether the data shall stay with the driver where the kernel can do that. By default with direct I/O.
    pub fn zero_copy(mut self, zero_copy: bool) -> Self {
        self.zero_copy = Some(zero_copy);
        self
    }

    /// Opens and locks the file, and finds out what it can do.
    ///
    /// # Errors
    /// There is no such file, it is none that can be served, somebody else has it, it may not be opened, or what was asked
    /// for does not fit it. A file that was made is removed again.
    pub fn open(self) -> Result<File, OpenError> {
        let wanted = Wanted {
            path: &self.path,
            read_only: self.read_only,
            create: self.create && self.size_bytes.is_some(),
        };
        if self.create && self.size_bytes.is_none() {
            return Err(OpenError::unusable("a file that is made needs a size")
                .with_hint("give --size with --create"));
        }
        let opened = opening::open(&wanted)?;
        let (created, path) = (opened.created, self.path.clone());
        let made = self.make(opened);
        if made.is_err() && created {
            // Only what was made a moment ago, and is not of use. What failed first is what counts.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    fn make(self, opened: Opened) -> Result<File, OpenError> {
        let mut notes = opened.notes.clone();
        let choice = Choice::of(&opened, self.direct, self.logical_block_bytes)?;
        notes.extend(choice.note.clone());
        let logical = choice.logical_block_bytes;
        let size_bytes = self.size(&opened, logical, &mut notes)?;
        let zero_copy = self.zero_copy.unwrap_or(choice.way.direct);
        let can_punch = !opened.is_block && !opened.read_only && can_punch(&opened);
        let shape = Shape {
            opened: &opened,
            choice: &choice,
            max_io_bytes: self.max_io_bytes,
            can_punch,
            zero_copy,
        };
        let geometry = shape.geometry();
        geometry
            .check(size_bytes)
            .map_err(|error| OpenError::unusable(error.to_string()))?;
        self.make_longer(&opened, size_bytes)?;
        if choice.way.direct {
            super::direct::enable(&opened.file).map_err(|errno| {
                OpenError::io(
                    cannot("read and write past the page cache", &self.path),
                    errno,
                )
            })?;
        }
        Ok(File {
            path: self.absolute_path(),
            file: opened.file,
            is_block: opened.is_block,
            size_bytes,
            geometry,
            way: choice.way,
            zero_copy,
            notes,
            cannot_zero: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            said_short: AtomicBool::new(false),
        })
    }

    fn absolute_path(&self) -> PathBuf {
        std::fs::canonicalize(&self.path)
            .or_else(|_| std::path::absolute(&self.path))
            .unwrap_or_else(|_| self.path.clone())
    }

    /// The disk's size.
    fn size(
        &self,
        opened: &Opened,
        logical: u32,
        notes: &mut Vec<String>,
    ) -> Result<u64, OpenError> {
        let (has, path) = (opened.size_bytes, self.path.display());
        match self.size_bytes {
            Some(size) if size > has && opened.is_block => Err(OpenError::unusable(format!(
                "{path} is a block device of {has} bytes, and {size} were asked for"
            ))),
            Some(size) if size > has && !self.create => Err(OpenError::unusable(format!(
                "{path} has {has} bytes, and {size} were asked for"
            ))
            .with_hint("--create makes it longer")),
            Some(size) if size > has && opened.read_only => Err(OpenError::unusable(format!(
                "{path} has {has} bytes: what is read only is not made longer"
            ))),
            Some(size) => Ok(size),
            None => {
                let size = has - has % u64::from(logical).max(1);
                if size == 0 {
                    let message =
                        format!("{path} has {has} bytes: less than one block of {logical}");
                    return Err(OpenError::unusable(message)
                        .with_hint("--size SIZE --create makes it longer"));
                }
                if size < has {
                    notes.push(format!(
                        "the last {} bytes of {path} are not on the disk: they are less than a block of {logical}",
                        has - size
                    ));
                }
                Ok(size)
            }
        }
    }

    fn make_longer(&self, opened: &Opened, size_bytes: u64) -> Result<(), OpenError> {
        if size_bytes <= opened.size_bytes {
            return Ok(());
        }
        opened.file.set_len(size_bytes).map_err(|error| {
            OpenError::io(
                cannot(&format!("make a file of {size_bytes} bytes of"), &self.path),
                error,
            )
        })
    }
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

/// Whether the file system gives space back: asked behind the file's end, where nothing is.
fn can_punch(opened: &Opened) -> bool {
    let behind = opened.size_bytes.next_multiple_of(opened.block_bytes);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&opened.file, flags, behind, opened.block_bytes).is_ok()
}
