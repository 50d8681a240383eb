//! The load whose instructions are counted: a fixed number of I/Os through the kernel's own asynchronous I/O
//! (`io_submit`), past the page cache, and nothing else.

use super::plan::{Row, Work};
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

/// The part of each device that is used, so that all do the same work.
pub(super) const AREA_BYTES: usize = 128 << 20;

/// `struct iocb` of linux/aio_abi.h, for little-endian machines.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

const READ: u16 = 0;
const WRITE: u16 = 1;

/// `struct io_event`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

/// What a measurement found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    /// Per I/O; under `-icount shift=0` a nanosecond is an instruction.
    pub(super) ns: f64,
    /// Context switches of the whole system per I/O.
    pub(super) switches: f64,
}

/// A device open for the load, with buffers.
#[derive(Debug)]
pub(super) struct Load<'a> {
    context: u64,
    iocbs: Vec<Iocb>,
    events: Vec<Event>,
    /// Where the next sequential I/O goes, and the state of the random ones.
    position: u64,
    random: u64,
    // Both outlive the context: nothing is in flight when they go.
    _buffers: &'a Buffers,
    _device: OwnedFd,
}

impl<'a> Load<'a> {
    pub(super) fn open(device: &Path, work: &Work, buffers: &'a Buffers) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let device = rustix::fs::open(device, flags, Mode::empty())
            .with_context(|| format!("cannot open {}", device.display()))?;
        if work.depth * work.block_bytes > buffers.bytes {
            bail!("the buffers are too small");
        }
        let mut iocbs = vec![Iocb::default(); work.depth];
        for (number, iocb) in (0u64..).zip(&mut iocbs) {
            iocb.data = number;
            iocb.opcode = if work.write { WRITE } else { READ };
            iocb.fd = u32::try_from(device.as_raw_fd())?;
            iocb.bytes = work.block_bytes as u64;
            iocb.buffer = buffers.first() + number * iocb.bytes;
        }
        Ok(Self {
            context: set_up(work.depth)?,
            iocbs,
            events: vec![Event::default(); work.depth],
            position: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            _buffers: buffers,
            _device: device,
        })
    }

    /// Does so many I/Os and tells what one took.
    pub(super) fn run(&mut self, work: &Work, ios: u64) -> Result<Spent> {
        let switches = switches()?;
        let start = now_ns();
        self.drive(work, ios)?;
        let ns = now_ns() - start;
        let switches = self::switches()? - switches;
        Ok(Spent {
            ns: per(ns, ios),
            switches: per(switches, ios),
        })
    }

    fn drive(&mut self, work: &Work, ios: u64) -> Result<()> {
        let mut idle: Vec<usize> = (0..work.depth).collect();
        let mut pointers = Vec::with_capacity(work.batch);
        let (mut submitted, mut done) = (0, 0);
        while done < ios {
            while submitted < ios && idle.len() >= work.batch {
                pointers.clear();
                for number in idle.drain(idle.len() - work.batch..) {
                    let offset = self.next_offset(work);
                    if let Some(iocb) = self.iocbs.get_mut(number) {
                        iocb.offset = offset;
                        pointers.push(ptr::from_mut(iocb));
                    }
                }
                submit(self.context, &mut pointers)?;
                submitted += pointers.len() as u64;
            }
            // The last of them come alone when their number is no multiple of the batch.
            let least = work.batch.min(work.depth - idle.len());
            for event in wait(self.context, least, &mut self.events)? {
                if usize::try_from(event.result) != Ok(work.block_bytes) {
                    bail!("an I/O ended with {}", event.result);
                }
                idle.push(usize::try_from(event.data)?);
                done += 1;
            }
        }
        Ok(())
    }

    fn next_offset(&mut self, work: &Work) -> u64 {
        let block_bytes = work.block_bytes as u64;
        let blocks = AREA_BYTES as u64 / block_bytes;
        let block = if work.random {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % blocks
        } else {
            self.position = (self.position + 1) % blocks;
            self.position
        };
        block * block_bytes
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        // SAFETY: the context is ours and not used afterwards; the call waits for what is in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// Writes the area once, so that reads find data.
pub(super) fn fill(device: &Path, buffers: &Buffers) -> Result<()> {
    let work = Row::Sw128.work();
    let blocks = AREA_BYTES / work.block_bytes;
    Load::open(device, &work, buffers)?.drive(&work, blocks as u64)
}

/// Memory for the I/Os of any row, touched so that no fault is measured. All devices get the same pages: what an I/O
/// costs depends on how many of them are neighbours.
#[derive(Debug)]
pub(super) struct Buffers {
    start: *mut c_void,
    bytes: usize,
}

const HUGE_PAGE: usize = 2 << 20;

impl Buffers {
    /// The first byte, at a huge page's boundary.
    fn first(&self) -> u64 {
        (self.start as u64).next_multiple_of(HUGE_PAGE as u64)
    }

    /// In single pages, as most programs' buffers are, or in huge ones.
    pub(super) fn new(huge: bool) -> Result<Self> {
        let rows = Row::value_variants().iter().map(|row| row.work());
        let needs = rows.map(|work| work.depth * work.block_bytes);
        // Room to begin at a huge page's boundary.
        let bytes = needs.max().unwrap_or_default().next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE;
        // SAFETY: the kernel chooses a free address; nothing that exists is touched.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, flags) }?;
        let buffers = Self { start, bytes };
        // A huge page halves what the kernel does for 128 KiB.
        let pages = if huge {
            Advice::LinuxHugepage
        } else {
            Advice::LinuxNoHugepage
        };
        for advice in [pages, Advice::LinuxPopulateWrite] {
            // SAFETY: the range was mapped above; nothing else is in it.
            unsafe { madvise(start, bytes, advice) }?;
        }
        Ok(buffers)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the range is ours. No load has it any more, and a load waits for its I/Os when it ends.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

fn set_up(depth: usize) -> Result<u64> {
    let mut context = 0u64;
    // SAFETY: the kernel writes one word, to `context`.
    let result = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) };
    check(result).context("io_setup")?;
    Ok(context)
}

fn submit(context: u64, iocbs: &mut [*mut Iocb]) -> Result<()> {
    let count = iocbs.len();
    // SAFETY: the pointers are to `count` control blocks, whose buffers outlive the load, which waits for them.
    let result = unsafe { libc::syscall(libc::SYS_io_submit, context, count, iocbs.as_mut_ptr()) };
    if check(result).context("io_submit")? != count {
        bail!("io_submit took only some of a batch");
    }
    Ok(())
}

fn wait(context: u64, least: usize, events: &mut [Event]) -> Result<&[Event]> {
    let (most, start) = (events.len(), events.as_mut_ptr());
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: the kernel writes at most `most` events, to `events`.
    let result =
        unsafe { libc::syscall(libc::SYS_io_getevents, context, least, most, start, forever) };
    let count = check(result).context("io_getevents")?;
    events.get(..count).context("too many events")
}

fn check(result: i64) -> Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Context switches since the boot.
pub(super) fn switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let count = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    Ok(count.context("/proc/stat has no ctxt")?.parse()?)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of a few seconds fit a double"
)]
pub(super) fn per(count: u64, ios: u64) -> f64 {
    count as f64 / ios as f64
}
