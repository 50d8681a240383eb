//! From the command line to a disk.

use oxublk::queue::{Async, Backend, Blocking, Ended, QueueError, Ring, Share};
use oxublk::{DataPath, Geometry};
use oxublk_targets::{Mem, Null};

use crate::args::{DeviceOptions, Target};
use crate::exit::{Exit, Failure, Outcome};

/// A disk of any target.
#[derive(Debug)]
pub enum AnyDisk {
    /// `null`.
    Null(Blocking<Null>),
    /// `null --async`.
    AsyncNull(Async<Null>),
    /// `mem`.
    Mem(Blocking<Mem>),
}

/// What is inside does it.
macro_rules! inside {
    ($any:expr, $disk:ident => $action:expr) => {
        match $any {
            AnyDisk::Null($disk) => $action,
            AnyDisk::AsyncNull($disk) => $action,
            AnyDisk::Mem($disk) => $action,
        }
    };
}

impl Backend for AnyDisk {
    fn size(&self) -> u64 {
        inside!(self, disk => Backend::size(disk))
    }

    fn geometry(&self) -> Geometry {
        inside!(self, disk => Backend::geometry(disk))
    }

    fn suits(&self) -> DataPath {
        inside!(self, disk => disk.suits())
    }

    fn serve<R: Ring>(
        &self,
        share: &Share,
        ring: R,
        path: DataPath,
        armed: &mut dyn FnMut(),
    ) -> (R, Result<Ended, QueueError>) {
        inside!(self, disk => disk.serve(share, ring, path, armed))
    }
}

/// Makes the disk that the command line names.
///
/// # Errors
/// A size or an option that no device can have, or that this host cannot give.
pub fn disk(target: &Target) -> Outcome<AnyDisk> {
    let size_bytes = target.size().0;
    let options = target.options();
    geometry(options, Geometry::default()).check(size_bytes)?;
    Ok(match target {
        Target::Null { asynchronous, .. } => {
            let null = Null::new(size_bytes);
            let null = Null {
                geometry: geometry(options, null.geometry),
                ..null
            };
            if *asynchronous {
                AnyDisk::AsyncNull(Async(null))
            } else {
                AnyDisk::Null(Blocking(null))
            }
        }
        Target::Mem { .. } => AnyDisk::Mem(Blocking(mem(size_bytes, options)?)),
    })
}

/// A disk in memory.
///
/// # Errors
/// As [`disk`].
pub fn mem(size_bytes: u64, options: &DeviceOptions) -> Outcome<Mem> {
    let mem = Mem::builder(size_bytes)
        .logical_block_bytes(options.logical_block_size)
        .max_io_bytes(options.max_io)
        .read_only(options.read_only);
    mem.build().map_err(|error| {
        let failure = Failure::io("cannot make a disk in memory", &error);
        match error.kind() {
            std::io::ErrorKind::InvalidInput => Failure {
                kind: Exit::Usage,
                ..failure
            },
            std::io::ErrorKind::OutOfMemory => {
                failure.with_hint("choose a smaller --size, or raise `ulimit -v`")
            }
            _ => failure,
        }
    })
}

fn geometry(options: &DeviceOptions, like: Geometry) -> Geometry {
    Geometry {
        logical_block_bytes: options.logical_block_size,
        max_io_bytes: options.max_io,
        read_only: options.read_only,
        ..like
    }
}
