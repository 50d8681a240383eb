//! The disk in a file on the model: real files, on a file system with zeroing and on one without, in whatever order operations end.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]
#![allow(dead_code, reason = "this file uses only some of what the tests share")]

mod common;

use std::fs::File as Plain;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use common::plan::{SECTORS, config, requests, setup};
use oxublk::queue::{Async, Backend as _, Ended, QueueError, Share};
use oxublk::sys::{IoFlags, op};
use oxublk::{DataPath, DeviceId, QueueId, QueueMetrics};
use oxublk_sim::{ClientRequest, Driver, Report, Setup};
use oxublk_targets::File;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

/// A file that is gone after the test: in memory, or where temporary files are.
fn file(in_memory: bool, bytes: u64) -> (Plain, File) {
    let plain = if in_memory {
        Plain::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap())
    } else {
        tempfile::tempfile().unwrap()
    };
    plain.set_len(bytes).unwrap();
    let path = format!("/proc/self/fd/{}", plain.as_raw_fd());
    let disk = File::builder(path).direct(false).open().unwrap();
    (plain, disk)
}

fn run(
    setup: Setup,
    disk: File,
    requests: &[ClientRequest],
) -> (Result<Ended, QueueError>, Report) {
    let metrics = Arc::new(QueueMetrics::new(QueueId(0), setup.depth));
    let share = Share {
        device: DeviceId(0),
        metrics,
    };
    let driver = Driver::new(setup);
    for request in requests {
        driver.submit(*request).expect("a request that fits");
    }
    let (ring, ended) = Async(disk).serve(&share, driver.ring(), DataPath::Copy, &mut || ());
    drop(ring);
    (ended, driver.report())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_read_is_what_was_written_discarded_and_zeroed(
        mut setup in setup(), in_memory: bool, failing_percent in 0..10u8, requests in requests(),
    ) {
        setup.failing_percent = failing_percent;
        let (_plain, disk) = file(in_memory, SECTORS * 512);
        let (ended, report) = run(setup, disk, &requests);
        prop_assert!(matches!(ended, Ok(Ended::Stopped)), "{:?}", ended);
        prop_assert_eq!(&report.violations, &[]);
        prop_assert_eq!(report.outcomes.len(), requests.len());
        if failing_percent == 0 {
            for outcome in &report.outcomes {
                let known = outcome.request.op != op::ZONE_OPEN;
                prop_assert_eq!(outcome.result.is_ok(), known, "{:?}", outcome);
            }
        }
    }
}

fn setup_of(sectors: u64) -> Setup {
    Setup {
        sectors,
        spurious_percent: 0,
        ..Setup::default()
    }
}

#[test]
fn a_file_that_was_cut_fails_the_reads_beyond_its_end_alone() {
    let (plain, disk) = file(true, 64 * 512);
    plain.set_len(32 * 512 + 100).unwrap();
    let reads: Vec<_> = (0..8).map(|n| ClientRequest::read(n * 8, 8)).collect();
    let (_, report) = run(setup_of(64), disk, &reads);
    for outcome in &report.outcomes {
        let expected = if outcome.request.sector < 32 {
            Ok(())
        } else {
            Err(libc::EIO)
        };
        assert_eq!(outcome.result, expected, "{outcome:?}");
    }
}

#[test]
fn a_flush_that_failed_fails_for_ever() {
    let (_plain, disk) = file(true, 64 * 512);
    let setup = Setup {
        failing_percent: 50,
        depth: 1,
        ..setup_of(64)
    };
    let (_, report) = run(setup, disk, &[ClientRequest::flush(); 200]);
    let first = report
        .outcomes
        .iter()
        .position(|flush| flush.result.is_err());
    let first = first.expect("one of two hundred");
    assert!(
        report.outcomes[first..]
            .iter()
            .all(|flush| flush.result == Err(libc::EIO))
    );
}

/// Without unmapping the space is kept; with it, it is given back.
#[test]
fn zeroes_keep_the_space_or_give_it_back_as_asked() {
    use std::os::unix::fs::MetadataExt as _;
    for in_memory in [true, false] {
        for (flags, kept) in [(IoFlags::NOUNMAP, true), (IoFlags::empty(), false)] {
            let (plain, disk) = file(in_memory, 64 * 512);
            let requests: Vec<_> = (0..4).map(|n| ClientRequest::write(n * 16, 16)).collect();
            let (_, report) = run(setup_of(64), disk, &requests);
            assert!(report.outcomes.iter().all(|outcome| outcome.result.is_ok()));
            plain.sync_all().unwrap();
            let path = format!("/proc/self/fd/{}", plain.as_raw_fd());
            let disk = File::builder(path).direct(false).open().unwrap();
            let zero = ClientRequest::new(op::WRITE_ZEROES, 0, 64).with(flags);
            let (_, report) = run(setup_of(64), disk, &[zero]);
            assert_eq!(report.outcomes[0].result, Ok(()));
            plain.sync_all().unwrap();
            let held = plain.metadata().unwrap().blocks();
            assert_eq!(
                held >= 64,
                kept,
                "in memory: {in_memory}, {flags:?}: {held}"
            );
            assert!(kept || held < 32, "in memory: {in_memory}: {held}");
        }
    }
}
