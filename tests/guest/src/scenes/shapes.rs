//! Disks of unusual shape: large requests, shallow and deep queues, block sizes, one block, read-only.

use crate::support::data;
use crate::support::device::Mounted;
use crate::support::direct::{Buffer, Direct};
use crate::support::runner::tests;
use crate::support::trace::Trace;
use crate::support::{Added, Scene, note, ok, run, shell};
use anyhow::{Context as _, Result, ensure};
use std::fs;

pub(crate) const SCENE: Scene = Scene {
    name: "shapes",
    needs: "timeout=240",
    tests: tests![
        eight_mebibytes_in_one_call_are_split_and_put_together,
        depth_1_and_depth_4096_serve,
        a_largest_request_of_4_kib_serves,
        a_largest_request_of_32_mib_serves,
        a_read_only_disk_refuses_writes,
        blocks_of_4096_bytes_refuse_512_and_hold_a_file_system,
        a_disk_may_have_one_block,
        a_disk_need_not_end_on_a_page,
        null_takes_everything,
    ],
};

/// Writes data with one size of call, reads it with that and with another, and compares.
fn survives(device: &Added, call: &str, bytes: usize) -> Result<()> {
    let disk = device.block();
    data::file("/tmp/data", bytes)?;
    ok(&format!("dd if=/tmp/data of={disk} bs={call} oflag=direct"))?;
    ok(&format!("dd if={disk} of=/tmp/back bs={call} iflag=direct"))?;
    ok(&format!("cmp --bytes={bytes} /tmp/back /tmp/data"))?;
    ok("rm /tmp/back /tmp/data")?;
    let (disk, mut buffer) = (Direct::open(&disk)?, Buffer::new(64 << 10));
    for (index, part) in data::bytes(bytes, bytes as u64)
        .chunks(64 << 10)
        .enumerate()
    {
        let offset = index as u64 * (64 << 10);
        disk.read(&mut buffer, offset)?;
        ensure!(buffer.bytes() == part, "other data at byte {offset}");
    }
    Ok(())
}

fn largest_request(trace: &Trace, device: &Added) -> Result<u64> {
    let number = device.sys("dev")?.replace(':', ",");
    let events = trace.events(&number)?;
    let sectors = events.iter().map(|event| event.sectors).max();
    Ok(sectors.context("no request was recorded")? * 512)
}

fn eight_mebibytes_in_one_call_are_split_and_put_together() -> Result<()> {
    let trace = Trace::start("split")?;
    let device = Added::new("mem --size 16M")?;
    survives(&device, "8M", 16 << 20)?;
    let largest = largest_request(&trace, &device)?;
    ensure!(
        largest <= 1 << 20,
        "a request of {largest} bytes, the limit is 1 MiB"
    );
    device.delete()
}

fn depth_1_and_depth_4096_serve() -> Result<()> {
    for depth in [1, 4096] {
        let device = Added::new(&format!("mem --size 4M --depth {depth}"))?;
        ensure!(
            device.sys("mq/0/nr_tags")? == depth.to_string(),
            "{:?}",
            device.sys("mq/0/nr_tags")
        );
        survives(&device, "256K", 4 << 20)?;
        device.delete()?;
    }
    Ok(())
}

fn a_largest_request_of_4_kib_serves() -> Result<()> {
    let trace = Trace::start("small")?;
    let device = Added::new("mem --size 4M --max-io 4K")?;
    ensure!(device.sys("queue/max_hw_sectors_kb")? == "4");
    survives(&device, "1M", 4 << 20)?;
    let largest = largest_request(&trace, &device)?;
    ensure!(largest == 4096, "{largest}");
    device.delete()
}

fn a_largest_request_of_32_mib_serves() -> Result<()> {
    let trace = Trace::start("large")?;
    let device = Added::new("mem --size 32M --max-io 32M --depth 4")?;
    ensure!(device.sys("queue/max_hw_sectors_kb")? == "32768");
    fs::write(
        format!("/sys/block/{}/queue/max_sectors_kb", device.name()),
        "32768",
    )?;
    survives(&device, "32M", 32 << 20)?;
    let largest = largest_request(&trace, &device)?;
    note(format!(
        "max-io 32M: the largest request had {} KiB",
        largest >> 10
    ));
    ensure!((1 << 20..=32 << 20).contains(&largest), "{largest}");
    device.delete()
}

fn a_read_only_disk_refuses_writes() -> Result<()> {
    let device = Added::new("mem --size 16M --read-only")?;
    let disk = device.block();
    ensure!(ok(&format!("blockdev --getro {disk}"))?.output.trim() == "1");
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={disk}"),
            "bs=4K",
            "count=1",
            "oflag=direct",
        ],
    )?
    .fails(1, &["dd:"])?;
    run("blkdiscard", &["-f", &disk])?.failure()?;
    ok(&format!("dd if={disk} of=/tmp/read bs=1M count=16"))?;
    ok("cmp --bytes=16777216 /tmp/read /dev/zero")?;
    fs::remove_file("/tmp/read")?;
    device.delete()
}

fn blocks_of_4096_bytes_refuse_512_and_hold_a_file_system() -> Result<()> {
    let device = Added::new("mem --size 64M --logical-block-size 4096")?;
    let disk = device.block();
    ensure!(ok(&format!("blockdev --getss {disk}"))?.output.trim() == "4096");
    for way in ["iflag=direct", "oflag=direct"] {
        let (from, to) = if way.starts_with('i') {
            (disk.as_str(), "/dev/null")
        } else {
            ("/dev/zero", disk.as_str())
        };
        run(
            "dd",
            &[
                &format!("if={from}"),
                &format!("of={to}"),
                "bs=512",
                "count=1",
                way,
            ],
        )?
        .fails(1, &["Invalid argument"])?;
    }
    ok(&format!("mkfs.ext4 -q {disk}"))?;
    let mounted = Mounted::new(&disk, "/mnt/4096")?;
    fs::write(mounted.path().join("file"), "content")?;
    mounted.unmount()?;
    ok(&format!("e2fsck -fn {disk}"))?;
    device.delete()
}

fn a_disk_may_have_one_block() -> Result<()> {
    let device = Added::new("mem --size 512")?;
    let disk = device.block();
    ensure!(ok(&format!("blockdev --getsize64 {disk}"))?.output.trim() == "512");
    data::file("/tmp/block", 512)?;
    shell(&format!(
        "dd if=/tmp/block of={disk} oflag=direct status=none; dd if={disk} iflag=direct status=none | cmp - /tmp/block; \
         rm /tmp/block"
    ))?;
    device.delete()
}

fn a_disk_need_not_end_on_a_page() -> Result<()> {
    // 2049 blocks: the last is alone on its page.
    let device = Added::new("mem --size 1049088")?;
    let disk = device.block();
    data::file("/tmp/data", 2049 * 512)?;
    shell(&format!(
        "dd if=/tmp/data of={disk} bs=512 conv=fsync status=none; echo 3 > /proc/sys/vm/drop_caches; \
         cmp {disk} /tmp/data; rm /tmp/data; blkdiscard -f {disk}; cmp --bytes=1049088 {disk} /dev/zero"
    ))?;
    device.delete()
}

fn null_takes_everything() -> Result<()> {
    let device = Added::new("null --queues 2")?;
    let disk = device.block();
    ensure!(device.sys("size")? == (1_u64 << 31).to_string());
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=1M count=64 seek=1000000 oflag=direct"
    ))?;
    ok(&format!(
        "dd if={disk} of=/dev/null bs=1M count=64 iflag=direct"
    ))?;
    ok(&format!("blkdiscard -f {disk}"))?;
    device.delete()
}
