//! Reads and writes past the page cache, and threads that stay on a CPU.

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::thread::CpuSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

/// The unit of memory that any disk takes for direct I/O.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Memory for direct I/O.
pub(crate) struct Buffer {
    pages: Vec<Page>,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        Self {
            pages: vec![Page::new_zeroed(); length.div_ceil(4096)],
            length,
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_slice().as_mut_bytes()[..self.length]
    }
}

/// A disk, opened with `O_DIRECT`.
#[derive(Debug)]
pub(crate) struct Direct(File);

impl Direct {
    pub(crate) fn open(path: &str) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        Ok(Self(
            file.with_context(|| format!("cannot open {path}"))?.into(),
        ))
    }

    pub(crate) fn read(&self, buffer: &mut Buffer, offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buffer.bytes(), offset)
    }

    pub(crate) fn write(&self, buffer: &mut Buffer, offset: u64) -> std::io::Result<()> {
        self.0.write_all_at(buffer.bytes(), offset)
    }
}

/// Keeps the calling thread on one CPU.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot stay on {cpu}"))
}

/// How many CPUs there are, whichever of them the calling thread may use.
pub(crate) fn cpus() -> Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let last = text.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| text.clone())? + 1)
}
