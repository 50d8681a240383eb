//! Memory that tests share with servers, and disks that are used from there.

use super::data::bytes;
use anyhow::{Context as _, Result, ensure};
use oxublk::{AsyncDisk, Buffer, Disk, Io, SharedMemory};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Condvar, Mutex};

/// Shared memory, as a client has it.
#[derive(Debug, Clone)]
pub(crate) struct Pool(pub(crate) SharedMemory);

impl Pool {
    pub(crate) fn new(length: usize) -> Result<Self> {
        Ok(Self(SharedMemory::create("pool", length as u64)?))
    }

    /// The file by which a server maps it.
    pub(crate) fn path(&self) -> String {
        let number = self.0.as_fd().as_raw_fd();
        format!("/proc/{}/fd/{number}", std::process::id())
    }

    /// Data that a seed makes, written from a range of it.
    pub(crate) fn write(
        &self,
        disk: &File,
        range: Range<usize>,
        offset: u64,
        seed: u64,
    ) -> Result<()> {
        self.0.store(range.start, &bytes(range.len(), seed))?;
        let count = self.0.write_to(disk, range.clone(), offset)?;
        ensure!(count == range.len(), "{count} of {range:?} written");
        Ok(())
    }

    /// What comes when a range of it is read into.
    pub(crate) fn read(&self, disk: &File, range: Range<usize>, offset: u64) -> Result<Vec<u8>> {
        let mut data = vec![0xee; range.len()];
        self.0.store(range.start, &data)?;
        let count = self.0.read_from(disk, range.clone(), offset)?;
        ensure!(count == range.len(), "{count} of {range:?} read");
        self.0.load(range.start, &mut data)?;
        Ok(data)
    }
}

/// A disk without its page cache.
pub(crate) fn direct(path: &str) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    Ok(file.with_context(|| path.to_owned())?.into())
}

/// A disk in a file, which leaves the data to the ring.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    bytes: u64,
}

impl Image {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        let file: File = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC)?.into();
        file.set_len(bytes)?;
        Ok(Self { file, bytes })
    }
}

impl AsyncDisk for Image {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn is_zero_copy(&self) -> bool {
        true
    }

    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        io.read_exact(&self.file, buf, offset).await
    }

    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        io.write_all(&self.file, buf, offset).await
    }
}

/// Open or not.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new((Mutex::new(true), Condvar::new())))
    }
}

impl Gate {
    pub(crate) fn set(&self, open: bool) {
        *self.0.0.lock().unwrap() = open;
        self.0.1.notify_all();
    }
}

/// A disk that answers only while its gate is open.
#[derive(Debug)]
pub(crate) struct Gated(pub(crate) Gate);

impl Disk for Gated {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<()> {
        let (open, changed) = &*self.0.0;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open));
        buf.fill(0);
        Ok(())
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
}
