//! The memory behind [`Mem`](super::Mem), and all `unsafe` of this crate.
//!
//! # Layout
//!
//! One contiguous range of addresses is reserved (`PROT_NONE`: it costs no memory and does not
//! count as committed). It is divided twice:
//!
//! - into **granules** (64 MiB, more for a disk over 1 TiB). A granule's first write makes it
//!   accessible and builds its table of chunks. A host that refuses the memory (strict overcommit,
//!   `RLIMIT_DATA`) fails here, with `ENOMEM` for that write.
//! - into **chunks** of 64 KiB, each with a lock around the set of its pages that hold data. The
//!   pages themselves are the kernel's to give at the first touch and to take back at a discard.
//!
//! # Why this is sound
//!
//! - *No data race.* The bytes of a chunk are read only under its read lock and changed, also by
//!   `madvise`, only under its write lock. A granule becomes accessible before its table is
//!   published by the `OnceLock`, and access goes through the table.
//! - *In bounds.* [`Store::spans`] yields only ranges inside the checked request, each inside one
//!   chunk, and chunks are inside the mapping, whose size is a multiple of the chunk's.
//! - *No aliasing.* A Rust reference to the mapping exists only for a span, under its chunk's lock: a shared one under the read
//!   lock, an exclusive one under the write lock.
//! - *Initialised.* Anonymous memory reads as zeroes before it is written and after `DONTNEED`.
//!
//! A request takes the locks of its chunks in their order, and holds those of at most 1 MiB for one copy.
//!
//! # One copy
//!
//! Data go between a request and the mapping without a buffer between: a [`Sink`] or a [`Source`] copies from and to a span, and
//! with `UBLK_F_USER_COPY` it is the driver that copies, in a system call, while the chunk's lock is held. What a client does
//! meanwhile cannot make that call wait: its pages are pinned.

#![allow(
    unsafe_code,
    reason = "maps memory and copies to and from it; the module says why it is sound"
)]

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::run::{Run, Span};
use oxublk::{Sink, Source};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

/// What one lock protects, and so the unit in which requests are atomic to each other.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// The least that is made accessible at once.
const GRANULE_BYTES: usize = 64 << 20;
/// Each granule may end up as a mapping of its own, of which the kernel allows a process 65,530.
const MAX_GRANULES: usize = 1 << 14;

/// The pages of a chunk that hold data: bit `n` for its page `n`.
type Pages = u32;

/// The locks of a granule's chunks. That it exists says that the granule is accessible.
type Granule = Box<[RwLock<Pages>]>;

pub(super) struct Store {
    base: NonNull<u8>,
    /// A multiple of the chunk.
    mapped_bytes: usize,
    size_bytes: usize,
    page_shift: u32,
    granule_shift: u32,
    granules: Box<[OnceLock<Granule>]>,
    /// Held while a granule is made accessible.
    growth: Mutex<()>,
    held_pages: AtomicU64,
}

// SAFETY: `base` is an address of process-wide memory that only this store uses and unmaps, so the
// store may move between threads.
unsafe impl Send for Store {}
// SAFETY: every access through a shared store to the memory at `base` is under its chunk's lock.
unsafe impl Sync for Store {}

impl Store {
    pub(super) fn new(size_bytes: u64) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        if !CHUNK_BYTES.is_multiple_of(page_bytes) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let size_bytes = usize::try_from(size_bytes).map_err(|_| too_large())?;
        let mapped_bytes = size_bytes
            .checked_next_multiple_of(CHUNK_BYTES)
            .ok_or_else(too_large)?;
        let base = reserve(mapped_bytes)?;
        let granule_bytes = GRANULE_BYTES.max((mapped_bytes / MAX_GRANULES).next_power_of_two());
        let mut store = Self {
            base,
            mapped_bytes,
            size_bytes,
            page_shift: page_bytes.ilog2(),
            granule_shift: granule_bytes.ilog2(),
            granules: Box::default(),
            growth: Mutex::new(()),
            held_pages: AtomicU64::new(0),
        };
        store.granules = table(mapped_bytes.div_ceil(granule_bytes), OnceLock::new)?;
        Ok(store)
    }

    /// The least that a discard gives back.
    pub(super) fn discard_granularity_bytes(&self) -> u32 {
        1 << self.page_shift
    }

    fn page_bytes(&self) -> usize {
        1 << self.page_shift
    }

    fn granule_bytes(&self) -> usize {
        1 << self.granule_shift
    }

    /// The bytes of the pages that hold data.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_pages.load(Relaxed) << self.page_shift
    }

    /// Gives `to` the bytes from `offset` on, as many as it takes: from where they lie.
    pub(super) fn read(&self, to: &mut Sink<'_>, offset: u64) -> io::Result<()> {
        let mut run = Run::default();
        for span in self.spans(offset, to.remaining() as u64)? {
            match self.chunk(span).map(lock_shared) {
                Some(pages) if *pages & self.pages(span) != 0 => {
                    if run.is_full() {
                        self.give(&mut run, to)?;
                    }
                    run.add(span, pages);
                }
                _ => {
                    self.give(&mut run, to)?;
                    to.put_zeroes(span.len)?;
                }
            }
        }
        self.give(&mut run, to)
    }

    fn give(&self, run: &mut Run<RwLockReadGuard<'_, Pages>>, to: &mut Sink<'_>) -> io::Result<()> {
        let Some(span) = run.span else {
            return Ok(());
        };
        // SAFETY: a run's spans follow one another, each in an accessible granule and inside one chunk, whose lock is held while the
        // slice lives: nobody writes to it.
        let bytes = unsafe { slice::from_raw_parts(self.at(span), span.len) };
        to.put(bytes)?;
        run.let_go();
        Ok(())
    }

    /// Stores from `offset` on what `from` gives, all of it: to where it will lie.
    pub(super) fn write(&self, from: &mut Source<'_>, offset: u64) -> io::Result<()> {
        let mut run = Run::default();
        for span in self.spans(offset, from.remaining() as u64)? {
            let chunk = match self.chunk(span) {
                Some(chunk) => chunk,
                None => self.grow(span)?,
            };
            if run.is_full() {
                self.take(&mut run, from)?;
            }
            let mut pages = lock(chunk);
            let new = self.pages(span) & !*pages;
            if new != 0 {
                self.populate(span)?;
                *pages |= new;
                self.held_pages
                    .fetch_add(u64::from(new.count_ones()), Relaxed);
            }
            run.add(span, pages);
        }
        self.take(&mut run, from)
    }

    fn take(
        &self,
        run: &mut Run<RwLockWriteGuard<'_, Pages>>,
        from: &mut Source<'_>,
    ) -> io::Result<()> {
        let Some(span) = run.span else {
            return Ok(());
        };
        // SAFETY: a run's spans follow one another, each in an accessible granule and inside one chunk, whose lock is held alone
        // while the slice lives: nobody else reads or writes it.
        let bytes = unsafe { slice::from_raw_parts_mut(self.at(span), span.len) };
        from.take(bytes)?;
        run.let_go();
        Ok(())
    }

    /// Makes the range read as zeroes and gives back each page that is wholly in it.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear(offset, len, |span, pages| {
            let page = self.page_bytes();
            let end = span.offset + span.len;
            // Nothing lies behind the end of the disk: its last page is wholly in the range.
            let end = if end == self.size_bytes {
                self.mapped_bytes
            } else {
                end
            };
            let first_page = span.offset.next_multiple_of(page);
            let end_page = end - end % page;
            if end_page <= first_page {
                return self.zero(span, *pages);
            }
            let whole = Span {
                offset: first_page,
                len: end_page - first_page,
            };
            if *pages & self.pages(whole) != 0 && self.release(whole) {
                self.forget(whole, pages);
            }
            // What is left: the ends, or all of it where the kernel kept the pages (`mlock`).
            self.zero(span, *pages);
        })
    }

    /// Makes the range read as zeroes and keeps its memory.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear(offset, len, |span, pages| self.zero(span, *pages))
    }

    /// Calls `clear` for each part of the range that may hold data, under its lock.
    fn clear(&self, offset: u64, len: u64, clear: impl Fn(Span, &mut Pages)) -> io::Result<()> {
        let mut spans = self.spans(offset, len)?;
        while let Some(span) = spans.next() {
            let Some(chunk) = self.chunk(span) else {
                spans.skip_to(self.granule_start(span) + self.granule_bytes());
                continue;
            };
            let mut pages = lock(chunk);
            if *pages & self.pages(span) != 0 {
                clear(span, &mut pages);
            }
        }
        Ok(())
    }

    /// Gets the pages of `span` at once: cheaper than a fault for each, and what fails is a call that
    /// says so. Its chunk is locked by the caller.
    #[cold]
    fn populate(&self, span: Span) -> io::Result<()> {
        let start = span.offset - span.offset % self.page_bytes();
        let pages = Span {
            offset: start,
            len: span.offset + span.len - start,
        };
        let advice = Advice::LinuxPopulateWrite;
        // SAFETY: the pages are in this store's own mapping; the advice changes no content.
        match unsafe { rustix::mm::madvise(self.at(pages).cast(), pages.len, advice) } {
            Err(Errno::NOMEM) => Err(Errno::NOMEM.into()),
            // A kernel before 5.14 does not know the advice, and gives the pages as they are touched.
            _ => Ok(()),
        }
    }

    /// Zeroes the bytes of `span` in the pages that hold data. Its chunk is locked by the caller.
    fn zero(&self, span: Span, pages: Pages) {
        let end = span.offset + span.len;
        let mut offset = span.offset;
        while offset < end {
            let next = (offset + 1).next_multiple_of(self.page_bytes()).min(end);
            let part = Span {
                offset,
                len: next - offset,
            };
            if pages & self.pages(part) != 0 {
                // SAFETY: the part is in an accessible granule, and the caller holds its chunk's
                // lock alone.
                unsafe { ptr::write_bytes(self.at(part), 0, part.len) };
            }
            offset = next;
        }
    }

    /// Gives whole pages back, which makes them zero; false if the kernel refuses. Their chunk is
    /// locked by the caller.
    fn release(&self, whole: Span) -> bool {
        // SAFETY: the pages are in this store's own mapping, and the caller holds their chunk's lock
        // alone; that they become zeroes is a write under that lock.
        unsafe { rustix::mm::madvise(self.at(whole).cast(), whole.len, Advice::LinuxDontNeed) }
            .is_ok()
    }

    /// Notes that pages are no longer held.
    fn forget(&self, whole: Span, pages: &mut Pages) {
        let gone = *pages & self.pages(whole);
        *pages &= !gone;
        self.held_pages
            .fetch_sub(u64::from(gone.count_ones()), Relaxed);
    }

    /// The lock of the chunk that `span` is in, if its granule is accessible.
    fn chunk(&self, span: Span) -> Option<&RwLock<Pages>> {
        let granule = self
            .granules
            .get(span.offset >> self.granule_shift)?
            .get()?;
        granule.get((span.offset - self.granule_start(span)) / CHUNK_BYTES)
    }

    /// Makes the granule that `span` is in accessible.
    #[cold]
    fn grow(&self, span: Span) -> io::Result<&RwLock<Pages>> {
        let start = self.granule_start(span);
        let len = self.granule_bytes().min(self.mapped_bytes - start);
        let growing = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(granule) = self.granules.get(start >> self.granule_shift)
            && granule.get().is_none()
        {
            let chunks = table(len / CHUNK_BYTES, RwLock::default)?;
            let address = self.at(Span { offset: start, len });
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            // SAFETY: the granule is in this store's own mapping, and gains access, loses none.
            unsafe { rustix::mm::mprotect(address.cast(), len, access) }?;
            // Cannot be set already: `growth` is held.
            let _ = granule.set(chunks);
        }
        drop(growing);
        self.chunk(span)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Where the granule that `span` is in starts.
    fn granule_start(&self, span: Span) -> usize {
        span.offset >> self.granule_shift << self.granule_shift
    }

    /// The span's address, from the mapping's own pointer.
    fn at(&self, span: Span) -> *mut u8 {
        self.base.as_ptr().wrapping_add(span.offset)
    }

    /// The pages that `span` touches.
    fn pages(&self, span: Span) -> Pages {
        let start = span.offset % CHUNK_BYTES;
        let first = start >> self.page_shift;
        let last = (start + span.len - 1) >> self.page_shift;
        // At most 16 pages: 4 KiB is the smallest.
        (2 << last) - (1 << first)
    }

    /// Checks the range and cuts it at the chunks.
    fn spans(&self, offset: u64, len: u64) -> io::Result<Spans> {
        let end = offset
            .checked_add(len)
            .and_then(|end| usize::try_from(end).ok())
            .filter(|end| *end <= self.size_bytes);
        match (usize::try_from(offset), end) {
            (Ok(offset), Some(end)) => Ok(Spans { offset, end }),
            _ => Err(self.out_of_range(offset, len)),
        }
    }

    #[cold]
    fn out_of_range(&self, offset: u64, len: u64) -> io::Error {
        let size = self.size_bytes;
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at {offset} are not within the disk's {size} bytes"),
        )
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // An error would leave the addresses reserved; there is no one to tell.
        // SAFETY: the mapping is this store's own, with this size, and nothing points into it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped_bytes) };
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("size_bytes", &self.size_bytes)
            .field("held_bytes", &self.held_bytes())
            .finish_non_exhaustive()
    }
}

/// The spans of a request, in order.
struct Spans {
    offset: usize,
    end: usize,
}

impl Spans {
    fn skip_to(&mut self, offset: usize) {
        self.offset = offset.min(self.end);
    }
}

impl Iterator for Spans {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let left = self.end - self.offset;
        if left == 0 {
            return None;
        }
        let span = Span {
            offset: self.offset,
            len: left.min(CHUNK_BYTES - self.offset % CHUNK_BYTES),
        };
        self.offset += span.len;
        Some(span)
    }
}

/// Reserves addresses without memory behind them.
fn reserve(len: usize) -> io::Result<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the address, so no mapping that exists is replaced.
    let base =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
    // A huge page would hold 2 MiB for one block, and be built again around what was discarded. A
    // kernel without huge pages refuses the advice, and does not need it.
    // SAFETY: the range was mapped above; this advice changes no content.
    let _ = unsafe { rustix::mm::madvise(base, len, Advice::LinuxNoHugepage) };
    // A copy of the process, which the library makes to send some control commands, needs no copy of
    // the disk: to make one would take time, and double each page that is written meanwhile.
    // SAFETY: the range was mapped above; this advice changes no content.
    unsafe { rustix::mm::madvise(base, len, Advice::LinuxDontFork) }?;
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// A table of `len` empty entries, or `ENOMEM`.
fn table<T>(len: usize, empty: impl FnMut() -> T) -> io::Result<Box<[T]>> {
    let mut entries = Vec::new();
    entries
        .try_reserve_exact(len)
        .map_err(|_| io::Error::from(Errno::NOMEM))?;
    entries.resize_with(len, empty);
    Ok(entries.into_boxed_slice())
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a memory disk cannot be larger than the address space",
    )
}

// A lock's holder does not panic while its pages are inconsistent: a poisoned lock is a sound one.

fn lock(chunk: &RwLock<Pages>) -> RwLockWriteGuard<'_, Pages> {
    chunk.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock_shared(chunk: &RwLock<Pages>) -> RwLockReadGuard<'_, Pages> {
    chunk.read().unwrap_or_else(PoisonError::into_inner)
}
