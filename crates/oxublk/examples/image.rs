//! Serves a file as a block device, by operations of the queue's own ring: `cargo run --example image FILE`.
//!
//! The ready-made target `file` of `oxublk add file` does more: locking, direct I/O, discard, the limits of the medium.

use std::fs::File;
use std::io;

use oxublk::{AsyncDisk, Buffer, Geometry, Io};

struct Image {
    file: File,
    size_bytes: u64,
}

impl AsyncDisk for Image {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            volatile_cache: true,
            ..Geometry::default()
        }
    }

    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        io.read_exact(&self.file, buf, offset).await
    }

    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        io.write_all(&self.file, buf, offset).await
    }

    async fn flush(&self, io: &Io<'_>) -> io::Result<()> {
        io.sync_data(&self.file).await
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a file")?;
    let file = File::options().read(true).write(true).open(path)?;
    let size_bytes = file.metadata()?.len() & !511;
    Ok(oxublk::serve_async(Image { file, size_bytes })?)
}
