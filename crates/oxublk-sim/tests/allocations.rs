//! The hot path allocates nothing: as many allocations for many requests as for few.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[allow(dead_code, reason = "its own main is not called here")]
#[path = "../examples/hot_path.rs"]
mod hot_path;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counting;

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(requests: u64, batch: u16, kind: &str) -> u64 {
    let before = ALLOCATIONS.load(Relaxed);
    hot_path::serve(requests, batch, false, kind).expect("served");
    ALLOCATIONS.load(Relaxed) - before
}

/// One test, so that no other allocates meanwhile.
#[test]
fn a_request_allocates_nothing() {
    for kind in ["blocking", "async", "operations"] {
        for batch in [1, 32, 128] {
            let few = allocations(1_000, batch, kind);
            let many = allocations(50_000, batch, kind);
            assert_eq!(few, many, "{kind}, {batch} at once");
        }
    }
}
