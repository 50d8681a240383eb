//! From the command line to a disk.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use oxublk::queue::{Async, Backend, Blocking, Ended, QueueError, Ring, Share};
use oxublk::{Control, DataPath, DeviceId, Geometry};
use oxublk_targets::file::{FileBuilder, OpenError, OpenErrorKind};
use oxublk_targets::{File, Mem, Null};

use crate::args::{self, DeviceOptions, Target, parse_device};
use crate::exit::{Exit, Failure, Outcome};
use crate::state::{FileIo, Origin};

/// A disk of any target.
#[derive(Debug)]
pub enum AnyDisk {
    /// `null`.
    Null(Blocking<Null>),
    /// `null --async`.
    AsyncNull(Async<Null>),
    /// `mem`.
    Mem(Blocking<Mem>),
    /// `file`.
    File(Async<File>),
}

/// What is inside does it.
macro_rules! inside {
    ($any:expr, $disk:ident => $action:expr) => {
        match $any {
            AnyDisk::Null($disk) => $action,
            AnyDisk::AsyncNull($disk) => $action,
            AnyDisk::Mem($disk) => $action,
            AnyDisk::File($disk) => $action,
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

impl AnyDisk {
    /// What it is, for those who look at the device later.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let target = match self {
            Self::Null(_) | Self::AsyncNull(_) => "null",
            Self::Mem(_) => "mem",
            Self::File(Async(file)) => {
                let way = file.way();
                return Origin {
                    target: "file".to_owned(),
                    path: Some(file.path().to_string_lossy().into_owned()),
                    io: Some(FileIo {
                        direct: way.direct,
                        why: way.why.clone(),
                    }),
                    notes: file.notes().to_vec(),
                };
            }
        };
        Origin::new(target)
    }
}

/// Makes the disk that the command line names.
///
/// # Errors
/// A size or an option that no device can have, or that this host cannot give.
pub fn disk(target: &Target) -> Outcome<AnyDisk> {
    Ok(match target {
        Target::Null {
            size,
            asynchronous,
            options,
        } => {
            geometry(options, Geometry::default()).check(size.0)?;
            let null = Null::new(size.0);
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
        Target::Mem { size, options } => {
            geometry(options, Geometry::default()).check(size.0)?;
            AnyDisk::Mem(Blocking(mem(size.0, options)?))
        }
        Target::File {
            path,
            size,
            create,
            direct,
            buffered,
            options,
        } => {
            // Without a driver no file is made.
            drop(Control::open()?);
            not_itself(path, options)?;
            let mut builder = File::builder(path).create(*create);
            if let Some(size) = size {
                builder = builder.size_bytes(size.0);
            }
            if *direct || *buffered {
                builder = builder.direct(*direct);
            }
            AnyDisk::File(Async(with(builder, options).open()?))
        }
    })
}

/// A disk in a file, with the options of every device.
fn with(mut builder: FileBuilder, options: &DeviceOptions) -> FileBuilder {
    if let Some(bytes) = options.logical_block_size {
        builder = builder.logical_block_bytes(bytes);
    }
    if let Some(path) = options.data_path {
        builder = builder.zero_copy(path == args::DataPath::ZeroCopy);
    }
    builder
        .read_only(options.read_only)
        .max_io_bytes(options.max_io)
}

/// A disk that is served from itself would wait for itself.
fn not_itself(path: &Path, options: &DeviceOptions) -> Outcome<()> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let device = parse_device(&real.to_string_lossy()).ok();
    if real.starts_with("/dev") && device.is_some() && device == options.id.map(DeviceId) {
        let message = format!("{} is the very device that is to be made", path.display());
        return Err(
            Failure::new(Exit::Usage, message).with_hint("choose another file, or another --id")
        );
    }
    Ok(())
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let kind = match error.kind() {
            OpenErrorKind::Unusable => Exit::Usage,
            OpenErrorKind::Busy => Exit::Busy,
            OpenErrorKind::NotPermitted => Exit::NoPermission,
            _ => Exit::Failure,
        };
        Self {
            causes: error
                .source()
                .map(ToString::to_string)
                .into_iter()
                .collect(),
            hint: error.hint().map(str::to_owned),
            ..Self::new(kind, error.to_string())
        }
    }
}

/// A disk in memory.
///
/// # Errors
/// As [`disk`].
pub fn mem(size_bytes: u64, options: &DeviceOptions) -> Outcome<Mem> {
    let mem = Mem::builder(size_bytes)
        .logical_block_bytes(logical_block_bytes(options))
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
        logical_block_bytes: logical_block_bytes(options),
        max_io_bytes: options.max_io,
        read_only: options.read_only,
        ..like
    }
}

fn logical_block_bytes(options: &DeviceOptions) -> u32 {
    let default = Geometry::default().logical_block_bytes;
    options.logical_block_size.unwrap_or(default)
}
