//! A host that has no more memory fails a write, not the server. One test: it limits the process.

use oxublk::Disk;
use oxublk_targets::Mem;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_write_without_memory_fails_alone() {
    let mem = Mem::new(1 << 40).unwrap();
    let offsets = || (0..8u64).map(|block| block << 30);
    let unlimited = getrlimit(Resource::Data);
    setrlimit(
        Resource::Data,
        Rlimit {
            current: Some(256 << 20),
            ..unlimited
        },
    )
    .unwrap();

    let results: Vec<_> = offsets()
        .map(|offset| mem.write_at(&[7; 4096], offset))
        .collect();
    assert!(results[0].is_ok());
    let error = results[7].as_ref().unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NOMEM.raw_os_error())
    );

    // What was written is there, what was not is zero, and discards work.
    for (offset, result) in offsets().zip(&results) {
        let mut block = [0xee; 4096];
        mem.read_at(&mut block, offset).unwrap();
        assert_eq!(block, [if result.is_ok() { 7 } else { 0 }; 4096]);
    }
    mem.discard(0, mem.size()).unwrap();
    assert_eq!(mem.resident_bytes(), 0);

    // And when there is memory again, so is the disk.
    setrlimit(Resource::Data, unlimited).unwrap();
    assert!(offsets().all(|offset| mem.write_at(&[7; 4096], offset).is_ok()));
}
