#![doc = include_str!("README.md")]

use std::io;

use oxublk::{Disk, Geometry, Sink, Source};

use crate::Target;

mod run;
mod store;
#[cfg(test)]
mod tests;

pub(crate) const TARGET: Target = Target {
    name: "mem",
    summary: "sparse memory: fast, and gone when the server ends",
};

/// A disk in memory; the [module](self) says more.
#[derive(Debug)]
pub struct Mem {
    store: store::Store,
    size_bytes: u64,
    geometry: Geometry,
}

impl Mem {
    /// A disk of `size_bytes` zeroes, which hold no memory.
    ///
    /// # Errors
    /// As [`MemBuilder::build`].
    pub fn new(size_bytes: u64) -> io::Result<Self> {
        Self::builder(size_bytes).build()
    }

    /// A disk of `size_bytes`, with options.
    pub fn builder(size_bytes: u64) -> MemBuilder {
        MemBuilder {
            size_bytes,
            geometry: Geometry::default(),
        }
    }

    /// The memory that the data holds: pages written and not discarded since. Pages that the
    /// kernel has swapped out count too.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.store.held_bytes()
    }
}

/// Options of a memory disk.
#[derive(Clone, Debug)]
#[must_use]
pub struct MemBuilder {
    size_bytes: u64,
    geometry: Geometry,
}

impl MemBuilder {
    /// The unit of addressing: 512 (the default), 1024, 2048 or 4096 bytes.
    pub fn logical_block_bytes(mut self, bytes: u32) -> Self {
        self.geometry.logical_block_bytes = bytes;
        self
    }

    /// The largest request; 1 MiB by default.
    pub fn max_io_bytes(mut self, bytes: u32) -> Self {
        self.geometry.max_io_bytes = bytes;
        self
    }

    /// The kernel refuses writes. [`Mem`] itself does not: fill the disk, then serve it.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.geometry.read_only = read_only;
        self
    }

    /// Makes the disk.
    ///
    /// # Errors
    /// `InvalidInput` for a size or a geometry that no device can have, `ENOMEM` if the process may
    /// not reserve that many addresses (`ulimit -v`).
    pub fn build(self) -> io::Result<Mem> {
        let Self {
            size_bytes,
            mut geometry,
        } = self;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        geometry.check(size_bytes).map_err(invalid)?;
        let store = store::Store::new(size_bytes)?;
        geometry.discard = true;
        geometry.discard_granularity_bytes = store.discard_granularity_bytes();
        geometry.write_zeroes = true;
        Ok(Mem {
            store,
            size_bytes,
            geometry,
        })
    }
}

impl Disk for Mem {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.store.read(&mut Sink::of(buf), offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.store.write(&mut Source::of(buf), offset)
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn read_to(&self, to: &mut Sink<'_>, offset: u64) -> io::Result<()> {
        self.store.read(to, offset)
    }

    fn write_from(&self, from: &mut Source<'_>, offset: u64) -> io::Result<()> {
        self.store.write(from, offset)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.store.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap {
            self.store.discard(offset, len)
        } else {
            self.store.write_zeroes(offset, len)
        }
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }
}
