//! Discard and write-zeroes: what is read afterwards, and the memory that comes back.

use crate::support::data;
use crate::support::direct::{Buffer, Direct};
use crate::support::runner::tests;
use crate::support::{Added, SOON, Scene, note, ok, procfs, shell, wait_until};
use anyhow::{Context as _, Result, ensure};
use std::time::Instant;

pub(crate) const SCENE: Scene = Scene {
    name: "discard",
    needs: "timeout=240",
    tests: tests![
        discard_reads_as_zeroes_and_gives_memory_back,
        a_punched_hole_reads_as_zeroes_and_gives_memory_back,
        write_zeroes_reads_as_zeroes,
        a_range_in_the_middle_leaves_its_neighbours_alone,
        zeroing_is_exact_to_the_block,
        a_tebibyte_starts_at_once_and_works_at_its_far_end,
    ],
};

const MIB: u64 = 1 << 20;
/// What the server may hold beyond its data: buffers, stacks, libraries.
const SLACK: u64 = 6 * MIB;

/// A disk of 24 MiB full of data. Two tags, so that the buffers of requests are no large part of the server.
fn full() -> Result<(Added, u64)> {
    let device = Added::new("mem --size 24M --depth 2")?;
    let empty = rss(&device)?;
    let disk = Direct::open(&device.block())?;
    let mut buffer = Buffer::new(1 << 20);
    for mib in 0..24 {
        buffer.bytes().copy_from_slice(&data::bytes(1 << 20, mib));
        disk.write(&mut buffer, mib * MIB)?;
    }
    let full = rss(&device)?;
    ensure!(
        full >= empty + 24 * MIB,
        "24 MiB written, and the server grew from {empty} to {full}"
    );
    Ok((device, empty))
}

fn rss(device: &Added) -> Result<u64> {
    procfs::memory(device.server, "VmRSS").context("the server has no memory")
}

fn memory_is_back(device: &Added, empty: u64) -> Result<()> {
    wait_until("the server gave its memory back", SOON, || {
        let now = rss(device).map_err(|error| error.to_string())?;
        (now <= empty + SLACK)
            .then_some(())
            .ok_or_else(|| format!("it held {empty} bytes at the beginning and {now} now"))
    })
}

/// The whole disk, read past the page cache.
fn all_zeroes(device: &Added) -> Result<()> {
    zeroes(device, 0, 24 * MIB)
}

fn zeroes(device: &Added, offset: u64, length: u64) -> Result<()> {
    let found = bytes(device, offset, length)?;
    let wrong = found.iter().position(|byte| *byte != 0);
    ensure!(wrong.is_none(), "byte {wrong:?} after {offset} is not 0");
    Ok(())
}

fn bytes(device: &Added, offset: u64, length: u64) -> Result<Vec<u8>> {
    let disk = Direct::open(&device.block())?;
    let mut buffer = Buffer::new(usize::try_from(length)?);
    disk.read(&mut buffer, offset)?;
    Ok(buffer.bytes().to_vec())
}

fn discard_reads_as_zeroes_and_gives_memory_back() -> Result<()> {
    let (device, empty) = full()?;
    ok(&format!("blkdiscard -f {}", device.block()))?;
    memory_is_back(&device, empty)?;
    all_zeroes(&device)?;
    // Reading what was discarded brings no memory back either.
    memory_is_back(&device, empty)?;
    device.delete()
}

fn a_punched_hole_reads_as_zeroes_and_gives_memory_back() -> Result<()> {
    let (device, empty) = full()?;
    ok(&format!(
        "fallocate --punch-hole --offset 0 --length 24M {}",
        device.block()
    ))?;
    memory_is_back(&device, empty)?;
    all_zeroes(&device)?;
    device.delete()
}

fn write_zeroes_reads_as_zeroes() -> Result<()> {
    let (device, _) = full()?;
    ok(&format!("blkdiscard -f --zeroout {}", device.block()))?;
    all_zeroes(&device)?;
    let info = device.info()?;
    let operations = info["metrics"]["total"].as_array().context("no metrics")?;
    let zeroing = operations
        .iter()
        .find(|operation| operation["operation"] == "write_zeroes");
    let requests = zeroing.and_then(|operation| operation["requests"].as_u64());
    ensure!(requests > Some(0), "zeroes were written as data: {info}");
    device.delete()
}

fn a_range_in_the_middle_leaves_its_neighbours_alone() -> Result<()> {
    let (device, _) = full()?;
    let before = bytes(&device, 0, 24 * MIB)?;
    ok(&format!(
        "blkdiscard -f --offset 8M --length 8M {}",
        device.block()
    ))?;
    zeroes(&device, 8 * MIB, 8 * MIB)?;
    let after = bytes(&device, 0, 24 * MIB)?;
    let same = |from: usize, to: usize| before[from << 20..to << 20] == after[from << 20..to << 20];
    ensure!(
        same(0, 8) && same(16, 24),
        "a discard changed what was not discarded"
    );
    device.delete()
}

fn zeroing_is_exact_to_the_block() -> Result<()> {
    let (device, _) = full()?;
    let before = bytes(&device, 0, MIB)?;
    // From the second block of a page to the last but one of another.
    ok(&format!(
        "blkdiscard -f --zeroout --offset 512 --length 15360 {}",
        device.block()
    ))?;
    zeroes(&device, 512, 15360)?;
    let after = bytes(&device, 0, MIB)?;
    ensure!(
        before[..512] == after[..512],
        "the block before was changed"
    );
    ensure!(
        before[15872..] == after[15872..],
        "a block behind was changed"
    );
    device.delete()
}

fn a_tebibyte_starts_at_once_and_works_at_its_far_end() -> Result<()> {
    let started = Instant::now();
    let device = Added::new("mem --size 1T")?;
    let took = started.elapsed();
    let empty = rss(&device)?;
    ensure!(device.sys("size")? == (1_u64 << 31).to_string());
    ensure!(empty < 64 * MIB, "an empty disk holds {empty} bytes");
    note(format!(
        "mem of 1 TiB: ready after {:.0} ms, {} KiB resident",
        took.as_secs_f64() * 1e3,
        empty >> 10
    ));
    let disk = device.block();
    data::file("/tmp/far", 1 << 20)?;
    shell(&format!(
        "dd if=/tmp/far of={disk} bs=1M seek=1048575 oflag=direct status=none; \
         dd if={disk} bs=1M skip=1048575 iflag=direct status=none | cmp - /tmp/far; rm /tmp/far"
    ))?;
    zeroes(&device, 0, MIB)?;
    zeroes(&device, (1 << 40) - 2 * MIB, MIB)?;
    let used = rss(&device)?;
    ensure!(
        used < empty + 16 * MIB,
        "one MiB was written, and the server grew from {empty} to {used}"
    );
    ok(&format!("blkdiscard -f {disk}"))?;
    zeroes(&device, (1 << 40) - MIB, MIB)?;
    device.delete()
}
