//! What cannot be is refused before the driver is asked, with the value and its bounds.

#![allow(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::io;

use oxublk::queue::Blocking;
use oxublk::{Builder, Device, DeviceId, Disk, ErrorKind, Geometry, Stopper};

/// A disk of any shape, which nobody will read.
struct Shape {
    size_bytes: u64,
    geometry: Geometry,
}

impl Disk for Shape {
    fn size(&self) -> u64 {
        self.size_bytes
    }
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
}

fn builder(size_bytes: u64, geometry: Geometry) -> Builder<Blocking<Shape>> {
    Device::builder(Shape {
        size_bytes,
        geometry,
    })
}

fn plain() -> Builder<Blocking<Shape>> {
    builder(1 << 20, Geometry::default())
}

#[track_caller]
fn refused(builder: Builder<Blocking<Shape>>, words: &[&str]) {
    let error = builder.start().expect_err("it cannot be");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
}

#[test]
fn numbers_out_of_bounds() {
    refused(plain().depth(0), &["depth 0", "1 and 4096"]);
    refused(plain().depth(4097), &["depth 4097", "1 and 4096"]);
    refused(plain().queues(0), &["0 queues", "1 and 4096"]);
    refused(plain().id(DeviceId(1_048_576)), &["1048576", "1048575"]);
}

#[test]
fn sizes_that_are_no_disk() {
    refused(builder(0, Geometry::default()), &["size 0"]);
    refused(builder(1000, Geometry::default()), &["1000", "512"]);
    let blocks = Geometry {
        logical_block_bytes: 4096,
        ..Geometry::default()
    };
    refused(builder(4096 + 512, blocks), &["4608", "4096"]);
}

#[test]
fn shapes_that_the_driver_does_not_take() {
    let shapes = [
        (
            Geometry {
                logical_block_bytes: 256,
                ..Geometry::default()
            },
            "logical block size 256",
        ),
        (
            Geometry {
                logical_block_bytes: 8192,
                ..Geometry::default()
            },
            "logical block size 8192",
        ),
        (
            Geometry {
                physical_block_bytes: 511,
                ..Geometry::default()
            },
            "physical block size 511",
        ),
        (
            Geometry {
                optimal_io_bytes: 3000,
                ..Geometry::default()
            },
            "optimal I/O size 3000",
        ),
        (
            Geometry {
                max_io_bytes: 512,
                ..Geometry::default()
            },
            "maximum I/O size 512",
        ),
        (
            Geometry {
                max_io_bytes: 64 << 20,
                ..Geometry::default()
            },
            "maximum I/O size 67108864",
        ),
        (
            Geometry {
                discard: true,
                discard_granularity_bytes: 0,
                ..Geometry::default()
            },
            "discard granularity 0",
        ),
    ];
    for (geometry, words) in shapes {
        refused(builder(1 << 20, geometry), &[words]);
    }
}

#[test]
fn handles_may_go_to_other_threads() {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Device>();
    send_and_sync::<Stopper>();
    send_and_sync::<oxublk::Error>();
}
