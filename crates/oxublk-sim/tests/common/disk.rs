//! A disk in memory that fails, panics and dawdles as a seed says, and remembers every call.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard};

use oxublk::sys::{IoFlags, op};
use oxublk::{Disk, Sink, Source};
use oxublk_sim::{Clock, Rng};

/// How many of a hundred requests go wrong, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) fails: usize,
    pub(crate) panics: usize,
    pub(crate) slow: usize,
}

/// One call, and what the client is to see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) op: u8,
    pub(crate) fua: bool,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) result: Result<(), i32>,
}

#[derive(Debug)]
pub(crate) struct MemDisk {
    inner: Mutex<Inner>,
    manners: Manners,
    clock: Clock,
    size: u64,
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    calls: Vec<Call>,
    rng: Rng,
}

/// Errnos that a disk returns, and what a client sees of them.
const ERRNOS: [(i32, i32); 6] = [
    (libc::ENOSPC, libc::ENOSPC),
    (libc::ENODATA, libc::ENODATA),
    (libc::ETIMEDOUT, libc::ETIMEDOUT),
    (libc::EPERM, libc::EIO),
    (libc::ENOENT, libc::EIO),
    (libc::EIO, libc::EIO),
];

impl MemDisk {
    pub(crate) fn new(size: u64, seed: u64, manners: Manners, clock: Clock) -> Self {
        Self {
            inner: Mutex::new(Inner {
                bytes: vec![0; usize::try_from(size).expect("a small disk")],
                calls: Vec::new(),
                rng: Rng::new(!seed),
            }),
            manners,
            clock,
            size,
        }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("it panics only when unlocked")
    }

    /// Does `action` with what is asked for, or part of it and then fails.
    fn call(
        &self,
        (op, fua): (u8, bool),
        (offset, length): (u64, u64),
        action: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        self.clock.advance(300);
        let mut inner = self.lock();
        if inner.rng.below(100) < self.manners.slow {
            self.clock.advance(30_000 + inner.rng.next() % 200_000);
        }
        let luck = inner.rng.below(100);
        let (fails, panics) = (self.manners.fails, self.manners.panics);
        let (errno, seen) = ERRNOS[inner.rng.below(ERRNOS.len())];
        let result = match luck {
            luck if luck < fails => Err(seen),
            luck if luck < fails + panics => Err(libc::EIO),
            _ => Ok(()),
        };
        // Half of what fails was done nevertheless.
        if result.is_ok() || inner.rng.below(2) == 0 {
            let start = usize::try_from(offset).expect("a small disk");
            let end = start + usize::try_from(length).expect("a small request");
            action(&mut inner.bytes[start..end]);
        }
        inner.calls.push(Call {
            op,
            fua,
            offset,
            length,
            result,
        });
        drop(inner);
        match (result, luck < fails) {
            (Ok(()), _) => Ok(()),
            (Err(_), true) => Err(io::Error::from_raw_os_error(errno)),
            // As a panic, without its message on stderr.
            (Err(_), false) => resume_unwind(Box::new("the disk panics here")),
        }
    }
}

impl Disk for MemDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = (offset, buf.len() as u64);
        self.call((op::READ, false), range, |bytes| buf.copy_from_slice(bytes))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = (offset, buf.len() as u64);
        self.call((op::WRITE, false), range, |bytes| {
            bytes.copy_from_slice(buf);
        })
    }
    fn write_fua_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = (offset, buf.len() as u64);
        self.call((op::WRITE, true), range, |bytes| bytes.copy_from_slice(buf))
    }
    fn is_direct(&self) -> bool {
        true
    }
    fn read_to(&self, to: &mut Sink<'_>, offset: u64) -> io::Result<()> {
        let range = (offset, to.remaining() as u64);
        let mut put = Ok(());
        // In pieces, as disks with holes do.
        self.call((op::READ, false), range, |bytes| {
            put = bytes.chunks(700).try_for_each(|piece| to.put(piece));
        })?;
        put
    }
    fn write_from(&self, from: &mut Source<'_>, offset: u64) -> io::Result<()> {
        let range = (offset, from.remaining() as u64);
        let mut taken = Ok(());
        self.call((op::WRITE, false), range, |bytes| {
            taken = bytes.chunks_mut(700).try_for_each(|piece| from.take(piece));
        })?;
        taken
    }
    fn flush(&self) -> io::Result<()> {
        self.call((op::FLUSH, false), (0, 0), |_| ())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call((op::DISCARD, false), (offset, len), |bytes| bytes.fill(0))
    }
    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> io::Result<()> {
        self.call((op::WRITE_ZEROES, false), (offset, len), |bytes| {
            bytes.fill(0);
        })
    }
}

/// The call that a client's request makes, if the server knows its operation.
pub(crate) fn call_of(outcome: &oxublk_sim::Outcome) -> Call {
    let request = &outcome.request;
    let flush = request.op == op::FLUSH;
    Call {
        op: request.op,
        fua: request.op == op::WRITE && request.flags.contains(IoFlags::FUA),
        offset: if flush { 0 } else { request.sector * 512 },
        length: u64::from(request.sectors) * 512,
        result: outcome.result,
    }
}
