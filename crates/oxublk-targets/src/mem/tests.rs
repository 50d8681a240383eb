use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{io, thread};

use oxublk::Disk;
use proptest::prelude::*;

use super::Mem;
use super::store::CHUNK_BYTES;

const SECTOR: u64 = 512;
const CHUNK: u64 = CHUNK_BYTES as u64;

fn read(mem: &Mem, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    mem.read_at(&mut buf, offset).unwrap();
    buf
}

#[test]
fn a_new_disk_reads_as_zeroes_and_holds_nothing() {
    let mem = Mem::new(10 * CHUNK).unwrap();
    assert_eq!(read(&mem, CHUNK - 512, 4096), [0; 4096]);
    assert_eq!(mem.resident_bytes(), 0);
}

#[test]
fn geometry_is_one_that_the_driver_takes() {
    let mem = Mem::builder(1 << 20)
        .logical_block_bytes(4096)
        .max_io_bytes(128 << 10)
        .read_only(true)
        .build()
        .unwrap();
    let geometry = mem.geometry();
    assert!(geometry.check(mem.size()).is_ok());
    assert_eq!(
        (geometry.logical_block_bytes, geometry.max_io_bytes),
        (4096, 128 << 10)
    );
    assert!(geometry.read_only && geometry.discard && geometry.write_zeroes);
    assert!(!geometry.volatile_cache && !geometry.fua);
}

#[test]
fn a_size_or_geometry_that_cannot_be_is_an_error() {
    for builder in [
        Mem::builder(0),
        Mem::builder(513),
        Mem::builder(4096 + 512).logical_block_bytes(4096),
        Mem::builder(4096).logical_block_bytes(100),
        Mem::builder(4096).max_io_bytes(100),
        Mem::builder(u64::MAX - 511),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    // More than the processor can address.
    assert_eq!(
        Mem::new(1 << 62).unwrap_err().kind(),
        io::ErrorKind::OutOfMemory
    );
}

#[test]
fn a_request_outside_the_disk_is_an_error() {
    let size = 2 * CHUNK + 512;
    let mem = Mem::new(size).unwrap();
    for (offset, len) in [
        (size, 512),
        (size - 512, 1024),
        (u64::MAX - 511, 512),
        (u64::MAX, 512),
    ] {
        let buf = vec![0; usize::try_from(len).unwrap()];
        for result in [
            mem.read_at(&mut buf.clone(), offset),
            mem.write_at(&buf, offset),
            mem.discard(offset, len),
            mem.write_zeroes(offset, len, false),
            mem.write_zeroes(offset, len, true),
        ] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
    assert!(mem.discard(0, u64::MAX).is_err());
    assert!(mem.read_at(&mut [], size).is_ok());
}

#[test]
fn discard_gives_back_whole_pages_and_zeroes_the_rest() {
    let mem = Mem::new(4 * CHUNK).unwrap();
    let page = u64::from(mem.geometry().discard_granularity_bytes);
    mem.write_at(&[1; 4 * CHUNK_BYTES], 0).unwrap();
    assert_eq!(mem.resident_bytes(), 4 * CHUNK);
    // From within a page of the first chunk to within a page of the third.
    let (start, end) = (CHUNK - page - 512, 2 * CHUNK + page + 512);
    mem.discard(start, end - start).unwrap();
    assert_eq!(mem.resident_bytes(), 4 * CHUNK - (CHUNK + 2 * page));
    let bytes = read(&mem, 0, 4 * CHUNK_BYTES);
    for (at, byte) in (0..).zip(bytes) {
        assert_eq!(byte, u8::from(!(start..end).contains(&at)), "at {at}");
    }
}

#[test]
fn discard_within_a_page_keeps_the_page() {
    let mem = Mem::new(CHUNK).unwrap();
    mem.write_at(&[1; 4096], 0).unwrap();
    let held = mem.resident_bytes();
    mem.discard(512, 1024).unwrap();
    assert_eq!(mem.resident_bytes(), held);
    assert_eq!(
        read(&mem, 0, 2048),
        [[1; 512], [0; 512], [0; 512], [1; 512]].concat()
    );
}

#[test]
fn discard_of_all_gives_back_all_of_a_disk_of_odd_size() {
    let size = 3 * CHUNK + 512;
    let mem = Mem::new(size).unwrap();
    mem.write_at(&[1; 1024], size - 1024).unwrap();
    mem.write_at(&[1; 512], 0).unwrap();
    mem.discard(0, size).unwrap();
    assert_eq!(mem.resident_bytes(), 0);
    assert_eq!(read(&mem, size - 1024, 1024), [0; 1024]);
}

#[test]
fn write_zeroes_keeps_memory_unless_it_may_unmap() {
    let mem = Mem::new(4 * CHUNK).unwrap();
    mem.write_at(&[1; CHUNK_BYTES], CHUNK).unwrap();
    mem.write_zeroes(0, 4 * CHUNK, false).unwrap();
    assert_eq!(
        mem.resident_bytes(),
        CHUNK,
        "holes stay holes, data stays allocated"
    );
    assert_eq!(read(&mem, CHUNK, CHUNK_BYTES), [0; CHUNK_BYTES]);
    mem.write_zeroes(0, 4 * CHUNK, true).unwrap();
    assert_eq!(mem.resident_bytes(), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Read,
    Write(u8),
    Discard,
    WriteZeroes { may_unmap: bool },
}

fn ops(sectors: u64) -> impl Strategy<Value = Vec<(Op, u64, u64)>> {
    let op = prop_oneof![
        Just(Op::Read),
        (1..=u8::MAX).prop_map(Op::Write),
        (1..=u8::MAX).prop_map(Op::Write),
        Just(Op::Discard),
        any::<bool>().prop_map(|may_unmap| Op::WriteZeroes { may_unmap }),
    ];
    let range = (0..sectors, prop_oneof![1..=16u64, 1..=sectors])
        .prop_map(move |(at, len)| (at, len.min(sectors - at)));
    prop::collection::vec((op, range).prop_map(|(op, (at, len))| (op, at, len)), 1..40)
}

/// Bytes that tell where they were written.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| seed.wrapping_add(u8::try_from(i / 512 % 251).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_an_array_of_bytes(
        (sectors, ops) in (1..500u64).prop_flat_map(|sectors| (Just(sectors), ops(sectors)))
    ) {
        let mem = Mem::new(sectors * SECTOR).unwrap();
        let mut model = vec![0; usize::try_from(sectors * SECTOR).unwrap()];
        for (op, at, len) in ops {
            let (offset, bytes) = (at * SECTOR, len * SECTOR);
            let start = usize::try_from(offset).unwrap();
            let part = &mut model[start..][..usize::try_from(bytes).unwrap()];
            match op {
                Op::Read => prop_assert!(read(&mem, offset, part.len()) == part),
                Op::Write(seed) => {
                    part.copy_from_slice(&pattern(seed, part.len()));
                    mem.write_at(part, offset).unwrap();
                }
                Op::Discard => {
                    part.fill(0);
                    mem.discard(offset, bytes).unwrap();
                }
                Op::WriteZeroes { may_unmap } => {
                    part.fill(0);
                    mem.write_zeroes(offset, bytes, may_unmap).unwrap();
                }
            }
            prop_assert!(mem.resident_bytes() <= sectors.next_multiple_of(128) * SECTOR);
        }
        prop_assert!(read(&mem, 0, model.len()) == model);
        mem.discard(0, sectors * SECTOR).unwrap();
        prop_assert_eq!(mem.resident_bytes(), 0);
    }
}

/// Requests to the same block from several threads: each read of a block that lies in one chunk
/// returns one writer's block or zeroes, never a mix.
#[test]
fn overlapping_requests_are_atomic_within_a_chunk() {
    const BLOCK: usize = 16 << 10;
    let mem = Mem::new(3 * CHUNK).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (mem, done) = (&mem, &done);
        let changers: Vec<_> = (1..=3u8)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..20_000u64 {
                        let offset = round % 4 * BLOCK as u64;
                        mem.write_at(&[writer; BLOCK], offset).unwrap();
                        match round % 64 {
                            7 => mem.discard(offset, BLOCK as u64).unwrap(),
                            31 => mem.write_zeroes(offset, BLOCK as u64, false).unwrap(),
                            // Over the border of a chunk, away from the blocks that are read.
                            _ => mem.write_at(&[writer; BLOCK], 2 * CHUNK - 512).unwrap(),
                        }
                    }
                })
            })
            .collect();
        for block in 0..2u64 {
            scope.spawn(move || {
                let mut buf = [0xee; BLOCK];
                while !done.load(Relaxed) {
                    for offset in [block, block + 2].map(|block| block * BLOCK as u64) {
                        mem.read_at(&mut buf, offset).unwrap();
                        let first = buf[0];
                        assert!(first <= 3, "{first} was never written");
                        assert!(
                            buf.iter().all(|byte| *byte == first),
                            "a torn block at {offset}"
                        );
                    }
                }
            });
        }
        let results: Vec<_> = changers.into_iter().map(|changer| changer.join()).collect();
        // Before a failure is raised, or the readers would go on for ever.
        done.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    mem.discard(0, 3 * CHUNK).unwrap();
    assert_eq!(mem.resident_bytes(), 0);
}
