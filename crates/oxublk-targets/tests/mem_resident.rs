//! What a memory disk really costs, as the kernel counts it. One test: it is about the whole process.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use oxublk::Disk;
use oxublk_targets::Mem;

const MIB: u64 = 1 << 20;

/// The resident memory of this process.
fn resident_mib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
fn memory_is_held_for_data_alone() {
    let start = resident_mib();
    let held = || resident_mib().saturating_sub(start);

    let mem = Mem::new(16 << 40).unwrap();
    assert!(held() < 4, "16 TiB start in {} MiB", held());

    let mut block = vec![1; 4096];
    for tib in 0..16 {
        mem.read_at(&mut block, (tib << 40) + 512).unwrap();
        assert!(block.iter().all(|byte| *byte == 0));
        mem.write_at(&block, tib << 40).unwrap();
    }
    assert!(held() < 16, "16 blocks over 16 TiB hold {} MiB", held());
    let page = u64::from(mem.geometry().discard_granularity_bytes);
    assert_eq!(mem.resident_bytes(), 16 * page);

    let data = vec![7; 1 << 20];
    let written_from = held();
    for mib in 0..64 {
        mem.write_at(&data, (1 << 40) + mib * MIB).unwrap();
    }
    assert!(
        held() >= written_from + 60,
        "64 MiB of data hold {} MiB",
        held()
    );

    // Most of it goes by a discard, the rest by zeroes that may unmap; the disk is swept whole.
    mem.discard((1 << 40) + 32 * MIB, (15 << 40) - 32 * MIB)
        .unwrap();
    assert!(
        held() < written_from + 36,
        "after discard {} MiB are held",
        held()
    );
    mem.write_zeroes(0, 16 << 40, true).unwrap();
    assert!(
        held() < written_from + 4,
        "after write_zeroes {} MiB are held",
        held()
    );
    assert_eq!(mem.resident_bytes(), 0);

    drop(mem);
    assert!(held() < 4, "after the end {} MiB are held", held());
}
