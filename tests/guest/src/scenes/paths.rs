//! The ways of the data: each with every size of request, with several queues, and with a server that is killed.

use super::fio::verify;
use super::idle::{an_idle_device_holds_little_memory, an_idle_device_wakes_nobody};
use super::queues::blocks_know_themselves;
use crate::support::bridge::Bridge;
use crate::support::device::ended;
use crate::support::faulty::{load, old_kernel};
use crate::support::process::send;
use crate::support::runner::tests;
use crate::support::{Added, SOON, Scene, procfs, run};
use anyhow::{Result, ensure};
use oxublk::Device;
use rustix::process::Signal;

pub(crate) const SCENE: Scene = Scene {
    name: "paths",
    needs: "cpus=2 timeout=600",
    tests: tests![
        copy_holds_its_data,
        direct_holds_its_data,
        copy_in_batches_holds_its_data,
        direct_in_batches_holds_its_data,
        two_threads_a_queue_hold_their_data,
        a_server_that_is_killed_ends_on_every_path,
        an_asynchronous_disk_answers_from_another_thread,
        what_cannot_be_is_refused,
        an_idle_device_wakes_nobody,
        an_idle_device_holds_little_memory,
    ],
};

const COPY: &str = "--data-path copy";
const DIRECT: &str = "--data-path direct";
/// Since 7.0, and since 6.16.
const BATCH: &str = "--batch-io";
const THREADS: &str = "--threads-per-queue 2";

fn copy_holds_its_data() -> Result<()> {
    holds_its_data(COPY, COPY)
}

fn direct_holds_its_data() -> Result<()> {
    holds_its_data(DIRECT, DIRECT)
}

fn copy_in_batches_holds_its_data() -> Result<()> {
    on_new_kernels(&format!("{COPY} {BATCH}"), COPY)
}

fn direct_in_batches_holds_its_data() -> Result<()> {
    on_new_kernels(&format!("{DIRECT} {BATCH}"), DIRECT)
}

fn two_threads_a_queue_hold_their_data() -> Result<()> {
    on_new_kernels(&format!("{COPY} {THREADS}"), COPY)?;
    on_new_kernels(&format!("{DIRECT} {THREADS}"), DIRECT)
}

/// What an old kernel does not have, it refuses with a reason.
fn on_new_kernels(options: &str, path: &str) -> Result<()> {
    if old_kernel()? {
        return refused(&format!("mem --size 16M {options}"), 5, "Linux");
    }
    holds_its_data(options, path)
}

fn holds_its_data(options: &str, path: &str) -> Result<()> {
    blocks_know_themselves(2, 512, options)?;
    blocks_know_themselves(2, 4096, options)?;
    let device = Added::new(&format!("mem --size 64M --queues 2 {options}"))?;
    let name = options.replace("--", "").replace(' ', "-");
    verify(
        &device,
        &name,
        "--ioengine=io_uring --rw=randwrite --bsrange=512-1m --blockalign=512 --size=16M --iodepth=32",
    )?;
    let info = device.info()?;
    let used = info["description"]["data_path"]["path"].as_str();
    ensure!(used == path.split(' ').nth(1), "{options}: {info}");
    device.delete()
}

fn a_server_that_is_killed_ends_on_every_path() -> Result<()> {
    let mut all = vec![
        format!("mem --size 16M {COPY}"),
        format!("mem --size 16M {DIRECT}"),
        "null --async".to_owned(),
    ];
    if !old_kernel()? {
        all.extend([
            format!("mem --size 16M {COPY} {BATCH}"),
            format!("mem --size 16M {DIRECT} {BATCH}"),
            format!("mem --size 16M {THREADS}"),
            format!("null --async {BATCH}"),
        ]);
    }
    for line in all {
        let device = Added::new(&line)?;
        let client = load(&device.block(), "--iodepth=32")?;
        crate::support::device::in_flight(device.id)?;
        send(device.server, Signal::KILL)?;
        ended(device.server)?;
        client.wait(SOON)?;
        procfs::nobody_is_stuck()?;
        device.try_delete(&[])?.success()?;
        device.check_gone()?;
    }
    Ok(())
}

fn an_asynchronous_disk_answers_from_another_thread() -> Result<()> {
    let device = Device::builder_async(Bridge::default()).start()?;
    let block = device.block_path();
    let (from, to) = (format!("if={}", block.display()), "of=/tmp/bridge");
    let line = [&from, to, "bs=64k", "count=64", "iflag=direct"];
    run("dd", &line)?.success()?;
    let data = std::fs::read("/tmp/bridge")?;
    ensure!(data.len() == 4 << 20, "{} bytes", data.len());
    for (word, offset) in data.chunks_exact(8).zip((0u64..).step_by(8)) {
        ensure!(word == offset.to_le_bytes(), "at {offset}: {word:?}");
    }
    std::fs::remove_file("/tmp/bridge")?;
    Ok(device.stop()?)
}

fn what_cannot_be_is_refused() -> Result<()> {
    refused("mem --size 16M --data-path zero-copy", 2, "zero-copy")?;
    refused("null --data-path direct", 2, "direct")?;
    refused(
        "mem --size 16M --depth 4 --threads-per-queue 5",
        2,
        "threads",
    )?;
    refused(
        &format!("mem --size 16M {BATCH} {THREADS}"),
        2,
        "one thread",
    )
}

fn refused(line: &str, code: i32, word: &str) -> Result<()> {
    let words: Vec<&str> = std::iter::once("add").chain(line.split(' ')).collect();
    run("oxublk", &words)?.fails(code, &[word])?;
    Ok(())
}
