//! A ring of our own in the server's process, which the stopped thread submits to.
//!
//! The kernel lets a ring live in memory that its maker gives (`IORING_SETUP_NO_MMAP`, and without an array of indices,
//! since 6.6). Three pages: the ring with its completions, the submissions, and arguments of system calls. We write and read
//! them from outside.

use std::time::Duration;

use oxublk::sys;
use oxublk::{QueueId, Tag};

use super::arch;
use super::remote::{Remote, Trouble};

/// As many as fit into one page; the ring has twice as many completions.
pub(super) const ENTRIES: u32 = 64;

const SQE_SIZE: u64 = 64;
const CQE_SIZE: u64 = 16;
const URING_CMD: u8 = 46;
const SETUP_NO_MMAP: u32 = 1 << 14;
const SETUP_NO_SQARRAY: u32 = 1 << 16;
const ENTER_GETEVENTS: u64 = 1;
const ENTER_EXT_ARG: u64 = 8;

const PROT_READ_WRITE: u64 = 3;
/// `MAP_PRIVATE`, `MAP_ANONYMOUS`, `MAP_POPULATE`.
const MAP_FLAGS: u64 = 0x2 | 0x20 | 0x8000;

/// Places in `struct io_uring_params`, in bytes.
mod params {
    pub(super) const SIZE: usize = 120;
    pub(super) const FLAGS: usize = 8;
    pub(super) const SQ_TAIL: usize = 40 + 4;
    pub(super) const SQ_MEMORY: usize = 40 + 32;
    pub(super) const CQ_HEAD: usize = 80;
    pub(super) const CQ_TAIL: usize = 80 + 4;
    pub(super) const CQ_MASK: usize = 80 + 8;
    pub(super) const CQ_ENTRIES: usize = 80 + 20;
    pub(super) const CQ_MEMORY: usize = 80 + 32;
}

/// For a system call that does not wait.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// A ring in another process.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Its descriptor there.
    pub(super) fd: i32,
    memory: u64,
    page: u64,
    sq_tail: u64,
    cq_head: u64,
    cq_tail: u64,
    cq_mask: u32,
    cqes: u64,
    /// Submissions written so far.
    written: u32,
    /// Completions read so far.
    read: u32,
}

/// One completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) queue: QueueId,
    pub(super) tag: Tag,
    pub(super) result: i32,
}

/// What a system call in the thread said, when it failed.
fn refused(what: &str, result: i64) -> Trouble {
    let errno = i32::try_from(-result).unwrap_or_default();
    let why = match what {
        "io_uring_setup" if errno == 1 => {
            "; `kernel.io_uring_disabled`, or a sandbox of the server, forbids new rings"
        }
        "io_uring_setup" if errno == 22 => "; it needs Linux 6.6 or newer",
        "io_uring_setup" if errno == 24 => "; the server has no descriptor left",
        "io_uring_setup" | "mmap" if errno == 12 => {
            "; the server has no memory left, or its limit of locked memory is reached"
        }
        _ => "",
    };
    let errno = std::io::Error::from_raw_os_error(errno);
    Trouble::Other(format!("{what} in the thread failed: {errno}{why}"))
}

fn checked(what: &str, result: i64) -> Result<u64, Trouble> {
    u64::try_from(result).map_err(|_| refused(what, result))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    u64::from(field.map_or(0, u32::from_ne_bytes))
}

impl Ring {
    /// Makes a ring in the process of a stopped thread. Leaves nothing behind when it fails.
    pub(super) fn make(remote: &mut Remote) -> Result<Self, Trouble> {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let arguments = [0, page * 3, PROT_READ_WRITE, MAP_FLAGS, u64::MAX, 0];
        let memory = checked("mmap", remote.call(arch::MMAP, arguments, CALL_LIMIT)?)?;
        let ring = Self::set_up(remote, memory, page);
        if ring.is_err() {
            let arguments = [memory, page * 3, 0, 0, 0, 0];
            let _ = remote.call(arch::MUNMAP, arguments, CALL_LIMIT);
        }
        ring
    }

    fn set_up(remote: &mut Remote, memory: u64, page: u64) -> Result<Self, Trouble> {
        let at = memory + 2 * page;
        let mut bytes = [0; params::SIZE];
        let flags = SETUP_NO_MMAP | SETUP_NO_SQARRAY;
        bytes[params::FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
        bytes[params::SQ_MEMORY..][..8].copy_from_slice(&(memory + page).to_ne_bytes());
        bytes[params::CQ_MEMORY..][..8].copy_from_slice(&memory.to_ne_bytes());
        remote.write(at, &bytes)?;
        let arguments = [u64::from(ENTRIES), at, 0, 0, 0, 0];
        let made = remote.call(arch::IO_URING_SETUP, arguments, CALL_LIMIT)?;
        let fd = checked("io_uring_setup", made)?;
        let fd = i32::try_from(fd).map_err(|_| refused("io_uring_setup", -9))?;
        remote.read(at, &mut bytes)?;
        let mut ring = Self {
            fd,
            memory,
            page,
            sq_tail: memory + number(&bytes, params::SQ_TAIL),
            cq_head: memory + number(&bytes, params::CQ_HEAD),
            cq_tail: memory + number(&bytes, params::CQ_TAIL),
            cq_mask: 0,
            cqes: memory + number(&bytes, params::CQ_ENTRIES),
            written: 0,
            read: 0,
        };
        ring.cq_mask = ring.word(remote, memory + number(&bytes, params::CQ_MASK))?;
        Ok(ring)
    }

    /// Takes the ring away again. Only while nothing is armed in it: the driver takes that for the server's death.
    pub(super) fn unmake(&self, remote: &mut Remote) {
        let fd = u64::from(self.fd.unsigned_abs());
        let _ = remote.call(arch::CLOSE, [fd, 0, 0, 0, 0, 0], CALL_LIMIT);
        let arguments = [self.memory, self.page * 3, 0, 0, 0, 0];
        let _ = remote.call(arch::MUNMAP, arguments, CALL_LIMIT);
    }

    /// Writes a submission that answers a request. There is room for [`ENTRIES`] between two [`enter`](Self::enter).
    pub(super) fn push(
        &mut self,
        remote: &Remote,
        char_fd: i32,
        (queue, tag): (QueueId, Tag),
        result: i32,
        address: u64,
    ) -> Result<(), Trouble> {
        let mut entry = [0; 64];
        entry[0] = URING_CMD;
        entry[4..8].copy_from_slice(&char_fd.to_ne_bytes());
        entry[8..12].copy_from_slice(&sys::io_op::COMMIT_AND_FETCH_REQ.to_ne_bytes());
        let user_data = u64::from(queue.0) << 16 | u64::from(tag.0);
        entry[32..40].copy_from_slice(&user_data.to_ne_bytes());
        entry[48..50].copy_from_slice(&queue.0.to_ne_bytes());
        entry[50..52].copy_from_slice(&tag.0.to_ne_bytes());
        entry[52..56].copy_from_slice(&result.to_ne_bytes());
        entry[56..64].copy_from_slice(&address.to_ne_bytes());
        let slot = u64::from(self.written % ENTRIES);
        remote.write(self.memory + self.page + slot * SQE_SIZE, &entry)?;
        self.written = self.written.wrapping_add(1);
        // The thread is stopped: there is nobody who could see the tail before the entry.
        remote.write(self.sq_tail, &self.written.to_ne_bytes())
    }

    /// Submits what was written, and waits for a completion for so long at most.
    pub(super) fn enter(
        &self,
        remote: &mut Remote,
        submit: u32,
        wait: Duration,
    ) -> Result<(), Trouble> {
        let (extra, time) = (
            self.memory + 2 * self.page,
            self.memory + 2 * self.page + 64,
        );
        let mut arguments = [0; 24];
        arguments[16..].copy_from_slice(&time.to_ne_bytes());
        remote.write(extra, &arguments)?;
        let mut timespec = [0; 16];
        timespec[..8].copy_from_slice(&wait.as_secs().to_ne_bytes());
        timespec[8..].copy_from_slice(&u64::from(wait.subsec_nanos()).to_ne_bytes());
        remote.write(time, &timespec)?;
        let arguments = [
            u64::from(self.fd.unsigned_abs()),
            u64::from(submit),
            u64::from(!wait.is_zero()),
            ENTER_GETEVENTS | ENTER_EXT_ARG,
            extra,
            24,
        ];
        let result = remote.call(arch::IO_URING_ENTER, arguments, wait + CALL_LIMIT)?;
        // Nothing came in time, or a signal came: both are no failure, what was submitted is.
        const NOTHING_CAME: [i64; 2] = [-62, -4];
        if NOTHING_CAME.contains(&result) {
            return Ok(());
        }
        let taken = checked("io_uring_enter", result)?;
        if taken < u64::from(submit) {
            return Err(Trouble::Other(format!(
                "the kernel took {taken} of {submit} answers"
            )));
        }
        Ok(())
    }

    /// Reads the completions that have come.
    pub(super) fn reap(&mut self, remote: &Remote) -> Result<Vec<Completion>, Trouble> {
        let tail = self.word(remote, self.cq_tail)?;
        let mut found = Vec::new();
        while self.read != tail {
            let slot = u64::from(self.read & self.cq_mask);
            let mut entry = [0; 16];
            remote.read(self.cqes + slot * CQE_SIZE, &mut entry)?;
            let [user_data @ .., r0, r1, r2, r3, _, _, _, _] = entry;
            let user_data = u64::from_ne_bytes(user_data);
            let half = |shift: u32| u16::try_from(user_data >> shift & 0xffff).unwrap_or_default();
            found.push(Completion {
                queue: QueueId(half(16)),
                tag: Tag(half(0)),
                result: i32::from_ne_bytes([r0, r1, r2, r3]),
            });
            self.read = self.read.wrapping_add(1);
        }
        remote.write(self.cq_head, &self.read.to_ne_bytes())?;
        Ok(found)
    }

    fn word(&self, remote: &Remote, address: u64) -> Result<u32, Trouble> {
        let mut bytes = [0; 4];
        remote.read(address, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }
}
