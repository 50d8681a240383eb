//! fio, which checks every block that it wrote.

use crate::support::runner::tests;
use crate::support::{Added, Scene, note, run_for};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(crate) const SCENE: Scene = Scene {
    name: "fio",
    needs: "cpus=4 timeout=480",
    tests: tests![
        random_sizes_on_one_queue_with_libaio,
        random_sizes_on_two_queues_with_io_uring,
        random_sizes_on_four_queues_with_two_jobs,
        sequential_from_the_smallest_block_to_a_mebibyte,
        depth_one_and_a_deep_queue_hold_the_same_data,
    ],
};

const DEADLINE: Duration = Duration::from_secs(240);

/// Runs fio with verification and returns how many bytes it wrote.
pub(super) fn verify(device: &Added, name: &str, options: &str) -> Result<u64> {
    let filename = format!("--filename={}", device.block());
    let line = format!(
        "--name={name} {filename} --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=4711 \
         --group_reporting --output-format=json {options}"
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let finished = run_for("fio", &words, DEADLINE)?.success()?;
    // fio puts notes before its document.
    let start = finished
        .output
        .find('{')
        .with_context(|| finished.to_string())?;
    let document: serde_json::Value =
        serde_json::from_str(&finished.output[start..]).with_context(|| finished.to_string())?;
    let job = &document["jobs"][0];
    ensure!(job["error"] == 0, "{job}");
    let bytes = |direction: &str| job[direction]["io_bytes"].as_u64().unwrap_or(0);
    ensure!(
        bytes("write") > 0 && bytes("read") >= bytes("write"),
        "not all was read back: {job}"
    );
    note(format!(
        "fio {name}: {} MiB verified in {:.1} s",
        bytes("write") >> 20,
        finished.took.as_secs_f64()
    ));
    Ok(bytes("write"))
}

fn random_sizes_on_one_queue_with_libaio() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    verify(
        &device,
        "random-libaio",
        "--ioengine=libaio --rw=randwrite --bsrange=512-256k --blockalign=512 --size=24M --iodepth=32",
    )?;
    device.delete()
}

fn random_sizes_on_two_queues_with_io_uring() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    verify(
        &device,
        "random-io_uring",
        "--ioengine=io_uring --rw=randwrite --bsrange=512-1m --blockalign=512 --size=24M --iodepth=64",
    )?;
    device.delete()
}

fn random_sizes_on_four_queues_with_two_jobs() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 4")?;
    ensure!(
        device.queues == 4,
        "four CPUs, and {} queues",
        device.queues
    );
    // Each job has half of the disk.
    verify(
        &device,
        "random-two-jobs",
        "--ioengine=libaio --rw=randwrite --bssplit=512/20:4k/40:64k/30:1m/10 --blockalign=512 --size=16M --offset_increment=32M --numjobs=2 --iodepth=16",
    )?;
    device.delete()
}

fn sequential_from_the_smallest_block_to_a_mebibyte() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    for (block, size) in [("512", "1M"), ("4k", "8M"), ("1m", "32M")] {
        let name = format!("sequential-{block}");
        verify(
            &device,
            &name,
            &format!("--ioengine=io_uring --rw=write --bs={block} --size={size} --iodepth=16"),
        )?;
    }
    device.delete()
}

fn depth_one_and_a_deep_queue_hold_the_same_data() -> Result<()> {
    let device = Added::new("mem --size 32M --depth 128")?;
    verify(
        &device,
        "depth-1",
        "--ioengine=libaio --rw=randwrite --bs=4k --size=4M --iodepth=1",
    )?;
    verify(
        &device,
        "depth-128",
        "--ioengine=libaio --rw=randwrite --bs=4k --size=16M --iodepth=128",
    )?;
    device.delete()
}
