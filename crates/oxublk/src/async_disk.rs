//! What answers requests without blocking: the [`AsyncDisk`] trait.

use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::disk::Geometry;
use crate::ops::{Buffer, Io};

/// A block device's content and behaviour, by methods that wait without holding the queue's thread.
///
/// All requests of a queue are under way at once on its one thread. Operations of [`Io`] go through the queue's own ring, in the
/// same system call as its answers. Any other future can be awaited too: it may be woken by any thread, and by
/// another runtime; what it needs of that runtime (a handle, a client) is the disk's own.
///
/// A method that fails or panics fails that request alone, as with [`Disk`](crate::Disk). Futures need not be `Send`: they never
/// leave the queue's thread. They live in storage of their tag, which is there from the start: a request allocates nothing.
///
/// ```
/// use std::fs::File;
/// use std::io;
/// use oxublk::{AsyncDisk, Buffer, Io};
///
/// struct Image(File);
///
/// impl AsyncDisk for Image {
///     fn size(&self) -> u64 {
///         1 << 30
///     }
///     async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
///         io.read_exact(&self.0, buf, offset).await
///     }
///     async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
///         io.write_all(&self.0, buf, offset).await
///     }
/// }
/// ```
pub trait AsyncDisk: Send + Sync + 'static {
    /// As [`Disk::size`](crate::Disk::size).
    fn size(&self) -> u64;

    /// As [`Disk::geometry`](crate::Disk::geometry).
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }

    /// Whether the disk never looks at a request's data itself, but leaves them to operations: then they need not be copied into the
    /// server's memory at all (zero copy), where the kernel can do that.
    fn is_zero_copy(&self) -> bool {
        false
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn read_at(
        &self,
        io: &Io<'_>,
        buf: &mut Buffer<'_>,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>>;

    /// Stores `buf` at `offset`.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_at(
        &self,
        io: &Io<'_>,
        buf: &Buffer<'_>,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>>;

    /// Stores `buf` at `offset`, on the medium (FUA). Called only for a disk whose geometry has `fua`.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_fua_at(
        &self,
        io: &Io<'_>,
        buf: &Buffer<'_>,
        offset: u64,
    ) -> impl Future<Output = io::Result<()>> {
        async move {
            self.write_at(io, buf, offset).await?;
            self.flush(io).await
        }
    }

    /// Returns when every write answered before is on the medium.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn flush(&self, _io: &Io<'_>) -> impl Future<Output = io::Result<()>> {
        async { Ok(()) }
    }

    /// Says that the range is no longer needed.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn discard(
        &self,
        _io: &Io<'_>,
        _offset: u64,
        _len: u64,
    ) -> impl Future<Output = io::Result<()>> {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Makes the range read as zeroes; with `may_unmap` its space may be given back.
    ///
    /// # Errors
    /// Any error fails this request alone.
    fn write_zeroes(
        &self,
        _io: &Io<'_>,
        _offset: u64,
        _len: u64,
        _may_unmap: bool,
    ) -> impl Future<Output = io::Result<()>> {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// A disk that is shared is a disk.
impl<D: AsyncDisk> AsyncDisk for Arc<D> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn is_zero_copy(&self) -> bool {
        (**self).is_zero_copy()
    }
    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        (**self).read_at(io, buf, offset).await
    }
    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        (**self).write_at(io, buf, offset).await
    }
    async fn write_fua_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        (**self).write_fua_at(io, buf, offset).await
    }
    async fn flush(&self, io: &Io<'_>) -> io::Result<()> {
        (**self).flush(io).await
    }
    async fn discard(&self, io: &Io<'_>, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(io, offset, len).await
    }
    async fn write_zeroes(
        &self,
        io: &Io<'_>,
        offset: u64,
        len: u64,
        may_unmap: bool,
    ) -> io::Result<()> {
        (**self).write_zeroes(io, offset, len, may_unmap).await
    }
}
