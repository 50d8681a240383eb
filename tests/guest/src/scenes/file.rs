//! Disks in files and on block devices: data, space, durability, and what goes wrong below.

use crate::support::data;
use crate::support::device::{Mounted, ended};
use crate::support::direct::{Buffer, Direct};
use crate::support::runner::tests;
use crate::support::{Added, Scene, note, ok, run, shell};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

pub(crate) const SCENE: Scene = Scene {
    name: "file",
    needs: "cpus=2 timeout=900",
    tests: tests![
        a_file_on_ext4_is_served_past_the_page_cache_and_verified,
        a_file_on_tmpfs_is_served_through_it_and_verified,
        a_block_device_of_ours_is_served_and_verified,
        a_block_device_of_the_kernel_is_served_and_verified,
        a_file_system_is_there_again_when_the_file_is_served_again,
        discard_makes_the_file_smaller,
        zeroes_keep_the_space_or_give_it_back_as_asked,
        discard_and_zeroes_pass_through_to_a_block_device,
        a_flush_and_a_durable_write_reach_the_device_below,
        relative_paths_odd_sizes_and_options,
        a_block_size_too_small_for_direct_i_o_is_said,
    ],
};

const MIB: u64 = 1 << 20;
pub(super) const TMPFS: &str = "/mnt/tmpfs";

/// A file system in memory.
pub(super) fn tmpfs(size: &str) -> Result<Mounted> {
    fs::create_dir_all(TMPFS)?;
    ok(&format!("mount -t tmpfs -o size={size} tmpfs {TMPFS}"))?;
    Ok(Mounted::already(TMPFS))
}

/// An ext4 on a disk in memory.
pub(super) struct Ext4 {
    mounted: Mounted,
    device: Added,
}

impl Ext4 {
    pub(super) const FILE: &str = "/mnt/ext4/disk.img";

    pub(super) fn new(options: &str) -> Result<Self> {
        let device = Added::new(&format!("mem --size 192M {options}"))?;
        ok(&format!("mkfs.ext4 -q {}", device.block()))?;
        let mounted = Mounted::new(&device.block(), "/mnt/ext4")?;
        Ok(Self { mounted, device })
    }

    pub(super) fn end(self) -> Result<()> {
        fs::remove_file(Self::FILE).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        self.mounted.unmount()?;
        self.device.delete()
    }
}

/// What a file holds on its medium.
fn held(path: &str) -> Result<u64> {
    ok("sync")?;
    Ok(fs::metadata(path)?.blocks() * 512)
}

fn verify(device: &Added, name: &str, smallest: u64) -> Result<()> {
    let options = format!(
        "--ioengine=io_uring --rw=randwrite --bsrange={smallest}-256k --blockalign={smallest} --size=12M --iodepth=32"
    );
    super::fio::verify(device, name, &options).map(drop)
}

fn is_direct(device: &Added) -> Result<bool> {
    let info = device.info()?;
    let io = &info["description"]["io"];
    io["direct"].as_bool().with_context(|| info.to_string())
}

fn a_file_on_ext4_is_served_past_the_page_cache_and_verified() -> Result<()> {
    let below = Ext4::new("")?;
    let device = Added::new(&format!(
        "file {} --size 32M --create --queues 2",
        Ext4::FILE
    ))?;
    ensure!(is_direct(&device)?, "{}", device.info()?);
    let info = device.info()?;
    ensure!(info["description"]["path"] == Ext4::FILE, "{info}");
    ensure!(info["description"]["target"] == "file", "{info}");
    let shown = ok(&format!("oxublk info {}", device.id))?;
    ensure!(shown.output.contains(Ext4::FILE), "{shown}");
    ensure!(device.sys("queue/write_cache")? == "write back");
    verify(&device, "file-ext4", 512)?;
    device.delete()?;
    // The copy path holds the same.
    let device = Added::new(&format!("file {} --data-path copy --queues 2", Ext4::FILE))?;
    verify(&device, "file-ext4-copy", 512)?;
    device.delete()?;
    let device = Added::new(&format!("file {} --buffered", Ext4::FILE))?;
    ensure!(!is_direct(&device)?);
    verify(&device, "file-ext4-buffered", 512)?;
    device.delete()?;
    below.end()
}

fn has_zero_copy() -> Result<bool> {
    let features = ok("oxublk features --json")?.json()?;
    let all = features["features"].as_array().context("no features")?;
    Ok(all
        .iter()
        .any(|feature| feature["name"] == "AUTO_BUF_REG" && feature["present"] == true))
}

/// With zero copy, where the kernel has it, the memory of clients is as the device below wants it.
fn limits_are_passed_on(below: &str, device: &Added) -> Result<()> {
    let can = has_zero_copy()?;
    let info = device.info()?;
    let path = &info["description"]["data_path"]["path"];
    ensure!(*path == if can { "zero-copy" } else { "copy" }, "{info}");
    for limit in ["max_segments", "max_segment_size", "dma_alignment"] {
        let file = format!("queue/{limit}");
        let theirs = fs::read_to_string(format!("/sys/block/{below}/{file}"))?;
        let (theirs, ours) = (theirs.trim_end(), device.sys(&file)?);
        note(format!("{path} {limit}: {theirs} below, {ours} above"));
        let fits = if limit == "dma_alignment" {
            // A mask: one that asks for more, as the driver's own does, is right too.
            ours.parse::<u32>()? >= theirs.parse()?
        } else {
            theirs == ours
        };
        ensure!(!can || fits, "{limit}: {theirs}, {ours}");
    }
    Ok(())
}

fn a_file_on_tmpfs_is_served_through_it_and_verified() -> Result<()> {
    let mounted = tmpfs("64M")?;
    let device = Added::new(&format!("file {TMPFS}/disk --size 32M --create --queues 2"))?;
    ensure!(!is_direct(&device)?, "{}", device.info()?);
    verify(&device, "file-tmpfs", 512)?;
    device.delete()?;
    let line = format!("file {TMPFS}/disk --queues 2 --data-path zero-copy");
    if has_zero_copy()? {
        let device = Added::new(&line)?;
        verify(&device, "file-tmpfs-zero-copy", 512)?;
        device.delete()?;
    } else {
        let words: Vec<&str> = line.split(' ').collect();
        run("oxublk", &[&["add"], &words[..]].concat())?.fails(5, &["zero-copy", "6.16"])?;
    }
    mounted.unmount()
}

fn a_block_device_of_ours_is_served_and_verified() -> Result<()> {
    let below = Added::new("mem --size 32M --logical-block-size 4096")?;
    let device = Added::new(&format!("file {} --queues 2", below.block()))?;
    ensure!(is_direct(&device)?, "{}", device.info()?);
    // The blocks below are those of the disk.
    ensure!(device.sys("queue/logical_block_size")? == "4096");
    ensure!(device.sys("size")? == below.sys("size")?);
    verify(&device, "file-ublk", 4096)?;
    device.delete()?;
    below.delete()
}

fn a_block_device_of_the_kernel_is_served_and_verified() -> Result<()> {
    ok("modprobe null_blk nr_devices=1 gb=1 memory_backed=1 discard=1")?;
    let device = Added::new("file /dev/nullb0 --size 32M")?;
    ensure!(is_direct(&device)?, "{}", device.info()?);
    // Unlike ours, it has limits that are not the driver's defaults.
    limits_are_passed_on("nullb0", &device)?;
    verify(&device, "file-null_blk", 512)?;
    device.delete()?;
    ok("modprobe -r null_blk").map(drop)
}

fn a_file_system_is_there_again_when_the_file_is_served_again() -> Result<()> {
    let below = Ext4::new("")?;
    let device = Added::new(&format!("file {} --size 64M --create", Ext4::FILE))?;
    ok(&format!("mkfs.ext4 -q {}", device.block()))?;
    let mounted = Mounted::new(&device.block(), "/mnt/inner")?;
    data::file("/mnt/inner/data", 8 << 20)?;
    mounted.unmount()?;
    device.delete()?;
    // By another way, with other queues.
    let device = Added::new(&format!("file {} --buffered --queues 2", Ext4::FILE))?;
    ok(&format!("e2fsck -fn {}", device.block()))?;
    let mounted = Mounted::new(&device.block(), "/mnt/inner")?;
    let found = fs::read(mounted.path().join("data"))?;
    ensure!(found == data::bytes(8 << 20, 8 << 20), "other data");
    fs::remove_file(mounted.path().join("data"))?;
    // What the file system no longer needs is the file's no more.
    let before = held(Ext4::FILE)?;
    ok("fstrim /mnt/inner")?;
    let after = held(Ext4::FILE)?;
    ensure!(after + 7 * MIB <= before, "{before} held, then {after}");
    mounted.unmount()?;
    device.delete()?;
    below.end()
}

/// Writes data to the first MiBs of a disk.
fn fill(device: &Added, mib: u64) -> Result<()> {
    let (disk, mut buffer) = (Direct::open(&device.block())?, Buffer::new(1 << 20));
    for at in 0..mib {
        buffer.bytes().copy_from_slice(&data::bytes(1 << 20, at));
        disk.write(&mut buffer, at * MIB)?;
    }
    Ok(())
}

fn all_zeroes(device: &Added, mib: u64) -> Result<()> {
    let (disk, mut buffer) = (Direct::open(&device.block())?, Buffer::new(1 << 20));
    for at in 0..mib {
        disk.read(&mut buffer, at * MIB)?;
        ensure!(
            buffer.bytes().iter().all(|byte| *byte == 0),
            "MiB {at} is not zeroes"
        );
    }
    Ok(())
}

/// The same on the two kinds of file systems: one knows zeroing, the other does not.
fn on_both(test: impl Fn(&str) -> Result<()>) -> Result<()> {
    let below = Ext4::new("")?;
    test(Ext4::FILE).context("on ext4")?;
    below.end()?;
    let mounted = tmpfs("64M")?;
    test(&format!("{TMPFS}/disk")).context("on tmpfs")?;
    mounted.unmount()
}

fn discard_makes_the_file_smaller() -> Result<()> {
    on_both(|file| {
        let device = Added::new(&format!("file {file} --size 24M --create"))?;
        fill(&device, 16)?;
        let full = held(file)?;
        ensure!(full >= 16 * MIB, "{full}");
        ok(&format!(
            "blkdiscard -f --offset 4M --length 8M {}",
            device.block()
        ))?;
        let less = held(file)?;
        ensure!(less + 8 * MIB <= full, "{full} held, then {less}");
        ok(&format!("blkdiscard -f {}", device.block()))?;
        let empty = held(file)?;
        ensure!(empty <= MIB, "all discarded, and {empty} held");
        all_zeroes(&device, 24)?;
        ensure!(fs::metadata(file)?.len() == 24 * MIB, "the size stays");
        device.delete()
    })
}

fn zeroes_keep_the_space_or_give_it_back_as_asked() -> Result<()> {
    on_both(|file| {
        let device = Added::new(&format!("file {file} --size 8M --create"))?;
        fill(&device, 8)?;
        let full = held(file)?;
        ok(&format!("blkdiscard -f --zeroout {}", device.block()))?;
        all_zeroes(&device, 8)?;
        let kept = held(file)?;
        ensure!(kept >= 8 * MIB, "{full} held, then {kept}");
        fill(&device, 8)?;
        ok(&format!(
            "fallocate --punch-hole --offset 0 --length 8M {}",
            device.block()
        ))?;
        all_zeroes(&device, 8)?;
        let given_back = held(file)?;
        ensure!(given_back <= MIB, "{full} held, then {given_back}");
        ensure!(count(&device, "write_zeroes")? > 0, "{}", device.info()?);
        device.delete()
    })
}

fn discard_and_zeroes_pass_through_to_a_block_device() -> Result<()> {
    let below = Added::new("mem --size 8M")?;
    let device = Added::new(&format!("file {}", below.block()))?;
    for command in ["blkdiscard -f", "blkdiscard -f --zeroout"] {
        fill(&device, 8)?;
        ok(&format!("{command} {}", device.block()))?;
        all_zeroes(&device, 8)?;
    }
    ensure!(count(&below, "write_zeroes")? > 0, "{}", below.info()?);
    device.delete()?;
    below.delete()
}

/// How many requests of an operation the server has had.
fn count(device: &Added, operation: &str) -> Result<u64> {
    let info = device.info()?;
    let all = info["metrics"]["total"].as_array().context("no metrics")?;
    let found = all.iter().find(|part| part["operation"] == operation);
    Ok(found
        .and_then(|part| part["requests"].as_u64())
        .unwrap_or(0))
}

/// One disk in a file on the other: what arrives below was not kept back above.
fn a_flush_and_a_durable_write_reach_the_device_below() -> Result<()> {
    let mounted = tmpfs("64M")?;
    let below = Added::new(&format!("file {TMPFS}/disk --size 16M --create"))?;
    let device = Added::new(&format!("file {}", below.block()))?;
    ensure!(device.sys("queue/fua")? == "1");
    let before = count(&below, "flush")?;
    let disk = device.block();
    shell(&format!(
        "for i in 1 2 3; do dd if=/dev/zero of={disk} bs=4K count=1 conv=fsync status=none; done"
    ))?;
    let (above, reached) = (count(&device, "flush")?, count(&below, "flush")? - before);
    ensure!(above >= 3 && reached >= 3, "{above} above, {reached} below");
    // A write with O_DSYNC is one with FUA: no flush above, and the write is durable below.
    let writes = count(&below, "write")?;
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=4K count=5 oflag=direct,dsync status=none"
    ))?;
    ensure!(count(&below, "write")? >= writes + 5);
    device.delete()?;
    below.delete()?;
    mounted.unmount()
}

fn relative_paths_odd_sizes_and_options() -> Result<()> {
    let mounted = tmpfs("64M")?;
    shell(&format!(
        "cd {TMPFS}; truncate -s 1000000 odd; oxublk add file odd --id 5 2> said; cat said >&2"
    ))
    .and_then(|finished| {
        ensure!(finished.errors.contains("64 bytes"), "{finished}");
        Ok(())
    })?;
    let size = ok("blockdev --getsize64 /dev/ublkb5")?;
    ensure!(size.output.trim() == "999936", "{size}");
    let info = ok("oxublk info 5 --json")?.json()?;
    ensure!(
        info["description"]["path"] == format!("{TMPFS}/odd"),
        "{info}"
    );
    ok("oxublk del 5")?;
    ensure!(
        fs::metadata(format!("{TMPFS}/odd"))?.len() == 1_000_000,
        "the file stays as it is"
    );
    // A part of a file, and a file made longer.
    let device = Added::new(&format!("file {TMPFS}/odd --size 512K"))?;
    ensure!(device.sys("size")? == "1024");
    device.delete()?;
    let device = Added::new(&format!("file {TMPFS}/odd --size 2M --create"))?;
    ensure!(device.sys("size")? == "4096");
    device.delete()?;
    mounted.unmount()
}

fn a_block_size_too_small_for_direct_i_o_is_said() -> Result<()> {
    let below = Ext4::new("--logical-block-size 4096")?;
    let line = format!("add file {} --size 16M --create", Ext4::FILE);
    let device = Added::new(line.trim_start_matches("add "))?;
    ensure!(device.sys("queue/logical_block_size")? == "4096");
    ensure!(is_direct(&device)?);
    device.delete()?;
    let words: Vec<&str> = line.split(' ').collect();
    let small = ["--logical-block-size", "512", "--id", "6"];
    let added = run("oxublk", &[&words, &small[..]].concat())?.success()?;
    ensure!(
        added.errors.contains("note:") && added.errors.contains("4096"),
        "{added}"
    );
    ok("oxublk del 6")?;
    run("oxublk", &[&words, &small[..], &["--direct"]].concat())?
        .fails(2, &["4096", "--buffered"])?;
    below.end()
}

/// A server that is killed loses nothing that was answered.
pub(super) fn survives(server: u32, file: &str, disk: &str) -> Result<()> {
    data::file("/tmp/answered", 4 << 20)?;
    ok(&format!(
        "dd if=/tmp/answered of={disk} bs=64K oflag=direct status=none"
    ))?;
    crate::support::process::send(server, rustix::process::Signal::KILL)?;
    ended(server)?;
    ok(&format!("cmp --bytes={} {file} /tmp/answered", 4 << 20))?;
    ok("rm /tmp/answered").map(drop)
}
