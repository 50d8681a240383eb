//! Disks in files: what is refused, and what goes wrong below while they are served.

use super::file::{Ext4, TMPFS, survives, tmpfs};
use crate::support::device::Mounted;
use crate::support::direct::{Buffer, Direct};
use crate::support::runner::tests;
use crate::support::{Added, Process, SOON, Scene, ok, run, wait_for};
use anyhow::{Result, ensure};
use std::fs;

pub(crate) const SCENE: Scene = Scene {
    name: "file-trouble",
    needs: "cpus=2 timeout=600",
    tests: tests![
        what_cannot_be_served_is_refused_with_a_reason,
        a_file_that_another_server_has_is_refused_and_the_server_named,
        a_block_device_in_use_is_refused_and_its_user_named,
        several_servers_may_read_one_file,
        a_disk_that_can_only_be_read_and_a_file_that_may_not_be_opened,
        a_full_file_system_is_enospc_and_the_server_lives,
        a_file_cut_under_load_is_eio_and_the_server_lives,
        a_killed_server_lets_the_file_go_and_loses_no_answered_write,
    ],
};

fn add(words: &str) -> Result<crate::support::process::Finished> {
    let words: Vec<&str> = words.split(' ').collect();
    run("oxublk", &[&["add", "file"], &words[..]].concat())
}

fn what_cannot_be_served_is_refused_with_a_reason() -> Result<()> {
    let mounted = tmpfs("16M")?;
    ok(&format!("truncate -s 0 {TMPFS}/empty"))?;
    ok(&format!("truncate -s 1M {TMPFS}/file"))?;
    ok(&format!("mkfifo {TMPFS}/pipe"))?;
    for (line, code, words) in [
        ("/mnt/none-such", 2, &["there is no", "--create"] as &[&str]),
        (TMPFS, 2, &["directory"]),
        ("/dev/null", 2, &["neither"]),
        (&format!("{TMPFS}/pipe"), 2, &["neither"]),
        (&format!("{TMPFS}/empty"), 2, &["0 bytes"]),
        (
            &format!("{TMPFS}/file --size 2M"),
            2,
            &["1048576", "--create"],
        ),
        (
            &format!("{TMPFS}/new --create --size 1000"),
            2,
            &["1000", "512"],
        ),
        (&format!("{TMPFS}/file --direct"), 2, &["lies in memory"]),
        ("/dev/ublkb7 --create --size 1M", 2, &["no device"]),
        ("/dev/ublkb7 --id 7", 2, &["very device"]),
    ] {
        add(line)?.fails(code, words)?;
    }
    ensure!(
        !fs::exists(format!("{TMPFS}/new"))?,
        "what was made in vain is removed"
    );
    let device = Added::new("mem --size 1M --id 7")?;
    add("/dev/ublkb7 --id 7")?.fails(2, &["very device"])?;
    device.delete()?;
    mounted.unmount()
}

fn a_file_that_another_server_has_is_refused_and_the_server_named() -> Result<()> {
    let mounted = tmpfs("16M")?;
    let device = Added::new(&format!("file {TMPFS}/disk --size 4M --create"))?;
    let server = format!("process {} (oxublk)", device.server);
    add(&format!("{TMPFS}/disk"))?.fails(3, &["locked", &server])?;
    add(&format!("{TMPFS}/disk --read-only"))?.fails(3, &["locked", &server])?;
    device.delete()?;
    // Another program's lock counts too.
    let line = format!("exec 3<>{TMPFS}/disk; flock 3; exec sleep 1000");
    let holder = Process::start("sh", &["-ec", &line])?;
    let pid = holder.pid();
    wait_for("the lock is taken", SOON, || {
        crate::support::procfs::running(pid).is_some_and(|task| task.name == "sleep")
    })?;
    add(&format!("{TMPFS}/disk"))?.fails(3, &["locked", &format!("process {pid} (sleep)")])?;
    drop(holder);
    mounted.unmount()
}

fn a_block_device_in_use_is_refused_and_its_user_named() -> Result<()> {
    let below = Added::new("mem --size 32M")?;
    let disk = below.block();
    ok(&format!("mkfs.ext4 -q {disk}"))?;
    let mounted = Mounted::new(&disk, "/mnt/below")?;
    add(&disk)?.fails(3, &["in use", "mounted on /mnt/below"])?;
    mounted.unmount()?;
    let device = Added::new(&format!("file {disk}"))?;
    add(&disk)?.fails(
        3,
        &["in use", &format!("process {} (oxublk)", device.server)],
    )?;
    // And the one below is not deleted under the one above.
    below.try_delete(&[])?.fails(3, &["in use"])?;
    device.delete()?;
    below.delete()
}

fn several_servers_may_read_one_file() -> Result<()> {
    let mounted = tmpfs("16M")?;
    ok(&format!("truncate -s 4M {TMPFS}/disk"))?;
    let line = format!("file {TMPFS}/disk --read-only");
    let (one, two) = (Added::new(&line)?, Added::new(&line)?);
    ensure!(
        ok(&format!("blockdev --getro {}", one.block()))?
            .output
            .trim()
            == "1"
    );
    ok(&format!("cmp {} {}", one.block(), two.block()))?;
    add(&format!("{TMPFS}/disk"))?.fails(3, &["locked"])?;
    one.delete()?;
    two.delete()?;
    // On a file system that can only be read so can the disk.
    ok(&format!("mount -o remount,ro {TMPFS}"))?;
    let added = add(&format!("{TMPFS}/disk --id 4"))?.success()?;
    ensure!(added.errors.contains("can only be read"), "{added}");
    ensure!(ok("blockdev --getro /dev/ublkb4")?.output.trim() == "1");
    ok("oxublk del 4")?;
    mounted.unmount()
}

fn a_disk_that_can_only_be_read_and_a_file_that_may_not_be_opened() -> Result<()> {
    let below = Added::new("mem --size 4M --read-only")?;
    let added = add(&format!("{} --id 4", below.block()))?.success()?;
    ensure!(added.errors.contains("can only be read"), "{added}");
    ok("oxublk del 4")?;
    below.delete()?;
    // Root without its right to open anything, and somebody else's file.
    let mounted = tmpfs("16M")?;
    ok(&format!("truncate -s 1M {TMPFS}/theirs"))?;
    ok(&format!("chown 1000 {TMPFS}/theirs"))?;
    ok(&format!("chmod 600 {TMPFS}/theirs"))?;
    let path = format!("{TMPFS}/theirs");
    let words = [
        "--inh-caps=-all",
        "--bounding-set=-dac_override,-dac_read_search",
        "oxublk",
        "add",
        "file",
        &path,
    ];
    run("setpriv", &words)?.fails(6, &["cannot open", "Permission denied", "--read-only"])?;
    mounted.unmount()
}

fn a_full_file_system_is_enospc_and_the_server_lives() -> Result<()> {
    let mounted = tmpfs("8M")?;
    let device = Added::new(&format!("file {TMPFS}/disk --size 64M --create"))?;
    let disk = device.block();
    let words = [
        "if=/dev/zero",
        &format!("of={disk}"),
        "bs=1M",
        "oflag=direct",
    ];
    run("dd", &words)?.fails(1, &["No space left on device"])?;
    ok(&format!("dd if={disk} of=/dev/null bs=1M iflag=direct"))?;
    ok(&format!("blkdiscard -f {disk}"))?;
    ok(&format!(
        "dd if=/dev/zero of={disk} bs=1M count=4 seek=40 oflag=direct"
    ))?;
    device.delete()?;
    mounted.unmount()
}

fn a_file_cut_under_load_is_eio_and_the_server_lives() -> Result<()> {
    for (direct, make) in [(true, "ext4"), (false, "tmpfs")] {
        let (ext4, mounted) = if direct {
            (Some(Ext4::new("")?), None)
        } else {
            (None, Some(tmpfs("64M")?))
        };
        let file = if direct {
            Ext4::FILE.to_owned()
        } else {
            format!("{TMPFS}/disk")
        };
        let device = Added::new(&format!("file {file} --size 32M --create --queues 2"))?;
        cut(&device, &file).map_err(|error| error.context(make))?;
        device.delete()?;
        ext4.map_or(Ok(()), Ext4::end)?;
        mounted.map_or(Ok(()), Mounted::unmount)?;
    }
    Ok(())
}

fn cut(device: &Added, file: &str) -> Result<()> {
    let filename = format!("--filename={}", device.block());
    let load = Process::start(
        "fio",
        &[
            "--name=load",
            &filename,
            "--direct=1",
            "--ioengine=io_uring",
            "--rw=randread",
            "--bs=16k",
            "--iodepth=16",
            "--size=32M",
            "--time_based",
            "--runtime=300",
        ],
    )?;
    let reads = || {
        let stat = device.sys("stat").unwrap_or_default();
        let count = stat.split_ascii_whitespace().next();
        count.and_then(|count| count.parse().ok()).unwrap_or(0_u64)
    };
    wait_for("reads are answered", SOON, || reads() > 200)?;
    // In the middle of a block, and of the first read below.
    ok(&format!("truncate -s 1000000 {file}"))?;
    load.wait(SOON)?.failure()?;
    let (disk, mut buffer) = (Direct::open(&device.block())?, Buffer::new(16 << 10));
    for offset in [999_424, 1 << 20, 31 << 20] {
        let read = disk.read(&mut buffer, offset);
        let errno = read.err().and_then(|error| error.raw_os_error());
        ensure!(errno == Some(5), "{offset}: {errno:?}");
    }
    disk.read(&mut buffer, 0)?;
    let log = fs::read_to_string(format!("/run/oxublk/{}.log", device.id))?;
    let said = log.matches("shorter than the disk").count();
    ensure!(said == 1 && log.contains(file), "{log}");
    // A write makes it long enough again, up to there.
    buffer.bytes().fill(7);
    disk.write(&mut buffer, 31 << 20)?;
    disk.read(&mut buffer, 16 << 20)?;
    ensure!(buffer.bytes().iter().all(|byte| *byte == 0));
    Ok(())
}

fn a_killed_server_lets_the_file_go_and_loses_no_answered_write() -> Result<()> {
    let below = Ext4::new("")?;
    let device = Added::new(&format!("file {} --size 16M --create", Ext4::FILE))?;
    survives(device.server, Ext4::FILE, &device.block())?;
    device.delete()?;
    let device = Added::new(&format!("file {}", Ext4::FILE))?;
    // The file may go; the disk stays until its server ends.
    fs::remove_file(Ext4::FILE)?;
    ok(&format!(
        "dd if={} of=/dev/null bs=1M iflag=direct status=none",
        device.block()
    ))?;
    device.delete()?;
    below.end()
}
