//! Operations of disks as entries of the ring.

use io_uring::types::{Fd, FsyncFlags, Timespec};
use io_uring::{opcode, squeue};
use rustix::io::Errno;

use super::OPERATION;
use super::data::{Data, Place};
use crate::ops::{Op, Span};

/// The times of timers that are not submitted yet: the kernel reads them then.
#[derive(Debug)]
pub(super) struct Timers {
    times: Box<[Timespec]>,
    next: usize,
}

impl Timers {
    /// As many as the ring has entries, so that none is used again before it was submitted.
    pub(super) fn new(entries: u32) -> Self {
        let count = entries.next_power_of_two() as usize;
        Self {
            times: vec![Timespec::new(); count].into(),
            next: 0,
        }
    }

    fn keep(&mut self, nanoseconds: u64) -> Option<*const Timespec> {
        self.next = (self.next + 1) % self.times.len().max(1);
        let place = self.times.get_mut(self.next)?;
        let below = u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
        *place = Timespec::new().sec(nanoseconds / 1_000_000_000).nsec(below);
        Some(place)
    }
}

/// The entry of an operation.
pub(super) fn entry(op: &Op, data: &Data, timers: &mut Timers) -> Result<squeue::Entry, Errno> {
    let place = |span: &Span| data.place(span).ok_or(Errno::FAULT);
    Ok(match *op {
        Op::Read {
            file,
            data: span,
            offset,
        } => read(Fd(file), place(&span)?, span.length, offset),
        Op::Write {
            file,
            data: span,
            offset,
            durable,
        } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            write(Fd(file), place(&span)?, span.length, offset, flags)
        }
        Op::Sync { file, data_only } => {
            let flags = if data_only {
                FsyncFlags::DATASYNC
            } else {
                FsyncFlags::empty()
            };
            opcode::Fsync::new(Fd(file)).flags(flags).build()
        }
        Op::Allocate {
            file,
            mode,
            offset,
            length,
        } => opcode::Fallocate::new(Fd(file), length)
            .offset(offset)
            .mode(mode)
            .build(),
        Op::Send { file, data: span } => match place(&span)? {
            Place::At(start) => opcode::Send::new(Fd(file), start.as_ptr(), span.length).build(),
            Place::Registered(..) => return Err(Errno::OPNOTSUPP),
        },
        Op::Receive { file, data: span } => match place(&span)? {
            Place::At(start) => opcode::Recv::new(Fd(file), start.as_ptr(), span.length).build(),
            Place::Registered(..) => return Err(Errno::OPNOTSUPP),
        },
        Op::Poll { file, events } => opcode::PollAdd::new(Fd(file), events).build(),
        Op::Sleep { nanoseconds } => {
            let time = timers.keep(nanoseconds).ok_or(Errno::NOMEM)?;
            opcode::Timeout::new(time).build()
        }
        Op::Cancel { operation } => {
            opcode::AsyncCancel::new(OPERATION | u64::from(operation.0)).build()
        }
    })
}

fn read(file: Fd, place: Place, length: u32, offset: u64) -> squeue::Entry {
    match place {
        Place::At(start) => opcode::Read::new(file, start.as_ptr(), length)
            .offset(offset)
            .build(),
        // Of a registered buffer the address is the place in it.
        Place::Registered(slot, first) => {
            opcode::ReadFixed::new(file, first as usize as *mut u8, length, slot)
                .offset(offset)
                .build()
        }
    }
}

fn write(file: Fd, place: Place, length: u32, offset: u64, flags: i32) -> squeue::Entry {
    match place {
        Place::At(start) => opcode::Write::new(file, start.as_ptr(), length)
            .offset(offset)
            .rw_flags(flags)
            .build(),
        Place::Registered(slot, first) => {
            opcode::WriteFixed::new(file, first as usize as *const u8, length, slot)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
    }
}
