//! Operations of asynchronous disks: done when the seed says, on the real files that they name.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt as _;

use libc::{ECANCELED, EINTR, EIO, ENOENT, EOPNOTSUPP, ETIME};
use oxublk::Tag;
use oxublk::queue::{Completion, Op, OpId, Span};
use rustix::fs::FallocateFlags;

use crate::history::SECTOR;
use crate::memory::Memory;
use crate::state::State;
use crate::violation::Violation;

impl State {
    /// The server asked for an operation.
    pub(crate) fn begin(&mut self, id: OpId, op: Op) {
        let Op::Cancel { operation } = op else {
            self.operations.push((id, op));
            return;
        };
        // Some are too far to be cancelled.
        let found = self
            .operations
            .iter()
            .position(|(id, _)| *id == operation)
            .filter(|_| self.scheduler.coin());
        match found {
            Some(at) => {
                self.operations.swap_remove(at);
                self.post(operation, -ECANCELED);
                self.post(id, 0);
            }
            None => self.post(id, -ENOENT),
        }
    }

    /// Does some of the operations under way.
    pub(crate) fn operate(&mut self, memory: &mut Memory) {
        for _ in 0..self.scheduler.portion(self.operations.len()) {
            let at = self.scheduler.pick(self.operations.len());
            let (id, op) = self.operations.swap_remove(at);
            let result = match self.scheduler.pick(100) {
                luck if luck < usize::from(self.setup.failing_percent) => self.bad_luck(),
                _ => self.perform(&op, memory),
            };
            self.post(id, result);
        }
    }

    fn bad_luck(&mut self) -> i32 {
        if self.scheduler.coin() { -EINTR } else { -EIO }
    }

    fn post(&mut self, id: OpId, result: i32) {
        self.posted.push_back(Completion::Operation(id, result));
    }

    fn perform(&mut self, op: &Op, memory: &mut Memory) -> i32 {
        match *op {
            Op::Read { file, data, offset } => {
                let part = self.part(&data, memory);
                count(open(file).and_then(|file| file.read_at(part, offset)))
            }
            Op::Write {
                file, data, offset, ..
            } => {
                let part = self.part(&data, memory);
                count(open(file).and_then(|file| file.write_at(part, offset)))
            }
            Op::Sync { .. } => 0,
            Op::Allocate {
                file,
                mode,
                offset,
                length,
            } => count(open(file).and_then(|file| allocate(&file, mode, offset, length))),
            Op::Sleep { nanoseconds } => {
                self.clock.advance(nanoseconds.min(1_000_000));
                -ETIME
            }
            _ => -EOPNOTSUPP,
        }
    }

    /// A part of a tag's buffer; often not all that was asked for, but whole sectors, which clients see one by one.
    fn part<'m>(&mut self, span: &Span, memory: &'m mut Memory) -> &'m mut [u8] {
        if !memory.is_held(span.tag) {
            self.broke(Violation::TouchedArmed(span.tag));
        }
        let length = span.length as usize;
        let length = if self.scheduler.coin() {
            length
        } else {
            SECTOR * (1 + self.scheduler.pick(length.div_ceil(SECTOR).max(1)))
        };
        let start = span.start as usize;
        let end = start + length.min(span.length as usize);
        memory
            .buffer(span.tag)
            .get_mut(start..end)
            .unwrap_or_default()
    }

    /// A tag comes to be answered: nothing of it may be under way.
    pub(crate) fn check_idle(&mut self, tag: Tag) {
        let under_way = self.operations.iter().any(|(_, op)| match op {
            Op::Read { data, .. } | Op::Write { data, .. } => data.tag == tag,
            _ => false,
        });
        if under_way {
            self.broke(Violation::AnsweredWhileInUse(tag));
        }
    }
}

/// The file of that number, opened anew: a number is all that an operation has.
fn open(file: RawFd) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{file}"))
}

fn allocate(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<usize> {
    let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
    rustix::fs::fallocate(file, mode, offset, length)?;
    Ok(0)
}

fn count(result: io::Result<usize>) -> i32 {
    match result {
        Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
        Err(error) => -error.raw_os_error().unwrap_or(EIO),
    }
}
