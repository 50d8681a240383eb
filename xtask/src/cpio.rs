//! Writes the archive that the kernel unpacks as its first root: cpio, format "newc".
//!
//! Archives may be joined end to end, which is how cached parts and fresh ones make one image.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// An archive being written.
#[derive(Debug)]
pub(crate) struct Archive {
    out: BufWriter<File>,
    inode: u32,
    dirs: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

impl Archive {
    /// Starts an archive.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, file),
            inode: 0,
            dirs: BTreeSet::new(),
        })
    }

    /// Adds a directory, and those above it.
    pub(crate) fn dir(&mut self, name: &str) -> Result<()> {
        self.dir_with_mode(name, 0o755)
    }

    /// Adds a directory with its permissions.
    pub(crate) fn dir_with_mode(&mut self, name: &str, mode: u32) -> Result<()> {
        if name.is_empty() || self.dirs.contains(name) {
            return Ok(());
        }
        self.parents(name)?;
        self.dirs.insert(name.to_owned());
        self.entry(name, DIRECTORY | mode, &[])
    }

    /// Adds a file with its content.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(name)?;
        self.entry(name, REGULAR | (mode & 0o7777), content)
    }

    /// Adds a copy of a file of the host.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode();
        self.file(name, mode, &content)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.parents(name)?;
        self.entry(name, SYMLINK | 0o777, target.as_bytes())
    }

    /// Adds all that a directory of the host contains; links stay links.
    pub(crate) fn tree(&mut self, name: &str, from: &Path) -> Result<()> {
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.dir(name)?;
        for entry in entries {
            let entry = entry?;
            let inside = format!("{name}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&inside, &entry.path())?;
            } else if kind.is_symlink() {
                self.symlink(&inside, &fs::read_link(entry.path())?.to_string_lossy())?;
            } else if kind.is_file() {
                self.copy(&inside, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(())
    }

    fn parents(&mut self, name: &str) -> Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.dir(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an initramfs (4 GiB and more)"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        // Fields: inode, mode, uid, gid, links, mtime, size, device ×2, node ×2, name size, checksum (unused).
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        write!(self.out, "{name}\0")?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        self.out
            .write_all(&[0; 3][..written.next_multiple_of(4) - written])?;
        Ok(())
    }
}
