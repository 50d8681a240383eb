#![doc = include_str!("README.md")]

use std::io;

use oxublk::{AsyncDisk, Buffer, Disk, Geometry, Io};

use crate::Target;

#[cfg(test)]
mod tests;

pub(crate) const TARGET: Target = Target {
    name: "null",
    summary: "answers every request at once and keeps nothing: measures everything but the disk",
};

/// The smallest page.
const PAGE_BYTES: usize = 4096;

/// A disk that answers every request at once and keeps nothing; the [module](self) says more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Null {
    /// The size that the device reports.
    pub size_bytes: u64,
    /// The block sizes and abilities that the device reports.
    pub geometry: Geometry,
}

impl Null {
    /// A null disk of `size_bytes`, with discard and write-zeroes.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            geometry: Geometry {
                discard: true,
                write_zeroes: true,
                ..Geometry::default()
            },
        }
    }
}

impl AsyncDisk for Null {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    async fn read_at(&self, _io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        Disk::read_at(self, buf.bytes_mut()?, offset)
    }

    async fn write_at(&self, _io: &Io<'_>, _buf: &Buffer<'_>, _offset: u64) -> io::Result<()> {
        Ok(())
    }

    async fn discard(&self, _io: &Io<'_>, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    async fn write_zeroes(
        &self,
        _io: &Io<'_>,
        _offset: u64,
        _len: u64,
        _may_unmap: bool,
    ) -> io::Result<()> {
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl Disk for Null {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    /// Writes one byte of each page and leaves the rest as it is. From a page that was never written,
    /// which is the kernel's shared page of zeroes, Linux 6.12 copies the slow way.
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<()> {
        for page in buf.chunks_mut(PAGE_BYTES) {
            if let Some(byte) = page.first_mut() {
                *byte = 0;
            }
        }
        Ok(())
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> io::Result<()> {
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }
}
