//! From the command line to a disk.

use std::sync::Arc;

use oxublk::{Disk, Geometry};
use oxublk_targets::{Mem, Null};

use crate::args::{DeviceOptions, Target};
use crate::exit::{Exit, Failure, Outcome};

/// Makes the disk that the command line names.
///
/// # Errors
/// A size or an option that no device can have, or that this host cannot give.
pub fn disk(target: &Target) -> Outcome<Arc<dyn Disk>> {
    let size_bytes = target.size().0;
    let options = target.options();
    geometry(options, Geometry::default()).check(size_bytes)?;
    Ok(match target {
        Target::Null { .. } => {
            let null = Null::new(size_bytes);
            Arc::new(Null {
                geometry: geometry(options, null.geometry),
                ..null
            })
        }
        Target::Mem { .. } => Arc::new(mem(size_bytes, options)?),
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
