//! Servers that die, and devices that are taken away from those who use them.

use crate::support::device::{Mounted, block, ended, in_flight};
use crate::support::process::send;
use crate::support::runner::tests;
use crate::support::{
    Added, LONG, Process, SOON, Scene, note, ok, procfs, run, wait_for, wait_until,
};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::path::Path;
use std::time::Instant;

pub(crate) const SCENE: Scene = Scene {
    name: "death",
    needs: "timeout=400",
    tests: tests![
        readers_of_a_killed_server_get_an_error,
        a_killed_server_leaves_a_device_that_can_be_listed_and_deleted,
        a_file_system_of_a_killed_server_can_be_unmounted,
        fio_on_a_killed_server_ends,
        sigterm_under_load_stops_cleanly,
        sigterm_to_a_server_in_the_background_leaves_nothing,
        a_stopped_server_is_named_and_hangs_no_command,
        a_mounted_device_is_not_deleted_unless_forced,
        a_mount_of_another_namespace_is_named_with_its_process,
        a_mounted_device_goes_after_it_was_unmounted,
        an_open_device_is_not_deleted_and_its_holder_is_named,
    ],
};

/// Readers that never come to an end by themselves soon: a null disk has a tebibyte.
fn readers(disk: &str) -> Result<Vec<Process>> {
    (0..4)
        .map(|_| {
            Process::start(
                "dd",
                &[
                    &format!("if={disk}"),
                    "of=/dev/null",
                    "bs=4K",
                    "iflag=direct",
                    "status=none",
                ],
            )
        })
        .collect()
}

/// Waits until the disk has answered so many more reads.
fn under_load(name: &str, requests: u64) -> Result<()> {
    let reads = || {
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap_or_default();
        stat.split_ascii_whitespace()
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(0_u64)
    };
    let before = reads();
    wait_for(
        format!("{requests} reads of {name} were answered"),
        LONG,
        || reads() >= before + requests,
    )
    .map(drop)
}

fn all_failed(readers: Vec<Process>) -> Result<()> {
    for reader in readers {
        let finished = reader.wait(SOON)?;
        // An error, or the end of a disk whose capacity is gone.
        ensure!(finished.status.code().is_some(), "{finished}");
    }
    procfs::nobody_is_stuck()
}

fn disk_is_gone(name: &str) -> Result<()> {
    let path = format!("/sys/block/{name}");
    wait_for(format!("{path} is gone"), SOON, || {
        !Path::new(&path).exists()
    })
    .map(drop)
}

fn readers_of_a_killed_server_get_an_error() -> Result<()> {
    let device = Added::new("null --queues 2")?;
    let readers = readers(&device.block())?;
    under_load(&device.name(), 500)?;
    let killed = Instant::now();
    send(device.server, Signal::KILL)?;
    all_failed(readers)?;
    note(format!(
        "readers of a killed server ended after {:.0} ms",
        killed.elapsed().as_secs_f64() * 1e3
    ));
    disk_is_gone(&device.name())?;
    device.delete()
}

fn a_killed_server_leaves_a_device_that_can_be_listed_and_deleted() -> Result<()> {
    let device = Added::new("mem --size 16M --id 9")?;
    send(device.server, Signal::KILL)?;
    ended(device.server)?;
    disk_is_gone(&device.name())?;
    let list = ok("oxublk list")?;
    ensure!(
        list.output.contains("/dev/ublkb9") && list.output.contains("dead"),
        "{list}"
    );
    let said = format!("{}{}", list.output, list.errors);
    ensure!(
        said.contains("no server") && said.contains("oxublk del 9"),
        "{list}"
    );
    ok("oxublk info 9")?;
    run("oxublk", &["add", "mem", "--size", "16M", "--id", "9"])?.fails(7, &["9"])?;
    device.delete()?;
    let again = Added::new("mem --size 16M --id 9")?;
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=1",
        again.block()
    ))?;
    again.delete()
}

fn a_file_system_of_a_killed_server_can_be_unmounted() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    ok(&format!("mkfs.ext4 -q {}", device.block()))?;
    let mounted = Mounted::new(&device.block(), "/mnt/killed")?;
    std::fs::write(mounted.path().join("before"), vec![1; 1 << 20])?;
    let file = mounted.path().join("after");
    send(device.server, Signal::KILL)?;
    ended(device.server)?;
    // A write that must reach the disk cannot.
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={}", file.display()),
            "bs=1M",
            "count=1",
            "conv=fsync",
        ],
    )?
    .failure()?;
    mounted.unmount()?;
    procfs::nobody_is_stuck()?;
    device.delete()
}

fn fio_on_a_killed_server_ends() -> Result<()> {
    let device = Added::new("mem --size 64M --queues 2")?;
    let filename = format!("--filename={}", device.block());
    let fio = Process::start(
        "fio",
        &[
            "--name=load",
            &filename,
            "--direct=1",
            "--ioengine=io_uring",
            "--rw=randrw",
            "--bs=16k",
            "--iodepth=32",
            "--size=64M",
            "--time_based",
            "--runtime=300",
        ],
    )?;
    under_load(&device.name(), 200)?;
    send(device.server, Signal::KILL)?;
    fio.wait(SOON)?.failure()?;
    procfs::nobody_is_stuck()?;
    disk_is_gone(&device.name())?;
    device.delete()
}

fn sigterm_under_load_stops_cleanly() -> Result<()> {
    let mut server = Process::start("oxublk", &["add", "null", "--queues", "2", "--foreground"])?;
    server.wait_line("its path", LONG, |line| {
        (line == "/dev/ublkb0").then_some(())
    })?;
    let readers = readers(&block(0))?;
    under_load("ublkb0", 500)?;
    server.signal(Signal::TERM)?;
    let finished = server.wait(SOON);
    all_failed(readers)?;
    // Readers have let the disk go by now, whatever the server said of them.
    finished?.success()?;
    Ok(())
}

fn sigterm_to_a_server_in_the_background_leaves_nothing() -> Result<()> {
    let device = Added::new("mem --size 16M")?;
    send(device.server, Signal::TERM)?;
    ended(device.server)?;
    device.check_gone()
}

/// The driver waits for the server's answers without regard to signals or deadlines; our commands do not.
fn a_stopped_server_is_named_and_hangs_no_command() -> Result<()> {
    let device = Added::new("null")?;
    send(device.server, Signal::STOP)?;
    let reader = readers(&device.block())?;
    in_flight(device.id)?;
    let deletion = Instant::now();
    let server = format!("process {}", device.server);
    device
        .try_delete(&["--force"])?
        .fails(1, &["STOP_DEV of device 0", "did not end within", &server])?;
    note(format!(
        "`oxublk del` gave a stopped server up after {:.1} s",
        deletion.elapsed().as_secs_f64()
    ));
    let info = run("oxublk", &["info", "0"])?.success()?;
    ensure!(info.errors.contains("GET_PARAMS of device 0"), "{info}");
    Added::new("mem --size 16M --id 1")?.delete()?;
    send(device.server, Signal::KILL)?;
    all_failed(reader)?;
    disk_is_gone(&device.name())?;
    device.delete()
}

fn a_mounted_device_is_not_deleted_unless_forced() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    ok(&format!("mkfs.ext4 -q {}", device.block()))?;
    let mounted = Mounted::new(&device.block(), "/mnt/mounted")?;
    device
        .try_delete(&[])?
        .fails(3, &["in use", "mounted on /mnt/mounted", "--force"])?;
    std::fs::write(mounted.path().join("still"), "there")?;
    device.try_delete(&["--force"])?.success()?;
    disk_is_gone(&device.name())?;
    mounted.unmount()?;
    procfs::nobody_is_stuck()?;
    let char_class = format!("/sys/class/ublk-char/ublkc{}", device.id);
    wait_for("the device is gone", SOON, || {
        !Path::new(&char_class).exists()
    })?;
    ended(device.server)?;
    device.check_gone()?;
    Added::new("mem --size 16M --id 0")?.delete()
}

fn a_mount_of_another_namespace_is_named_with_its_process() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    let disk = device.block();
    ok(&format!("mkfs.ext4 -q {disk}"))?;
    std::fs::create_dir("/mnt/theirs")?;
    let line = format!("mount {disk} /mnt/theirs; exec sleep 1000");
    let holder = Process::start("unshare", &["--mount", "sh", "-ec", &line])?;
    let pid = holder.pid();
    wait_for("it is mounted there", SOON, || {
        procfs::running(pid).is_some_and(|task| task.name == "sleep")
    })?;
    let mounted = "mounted on /mnt/theirs";
    device
        .try_delete(&[])?
        .fails(3, &["in use", mounted, &format!("process {pid} (sleep)")])?;
    drop(holder);
    wait_until("its namespace is gone", SOON, || {
        let holders = device.info().map_err(|error| error.to_string())?["holders"].take();
        (holders == serde_json::json!([]))
            .then_some(())
            .ok_or(holders.to_string())
    })?;
    std::fs::remove_dir("/mnt/theirs")?;
    device.delete()
}

fn a_mounted_device_goes_after_it_was_unmounted() -> Result<()> {
    let device = Added::new("mem --size 64M")?;
    ok(&format!("mkfs.ext4 -q {}", device.block()))?;
    let mounted = Mounted::new(&device.block(), "/mnt/busy")?;
    device.try_delete(&[])?.fails(3, &["/mnt/busy"])?;
    mounted.unmount()?;
    device.delete()
}

fn an_open_device_is_not_deleted_and_its_holder_is_named() -> Result<()> {
    let device = Added::new("mem --size 16M")?;
    let line = format!("exec sleep 1000 < {}", device.block());
    let holder = Process::start("sh", &["-c", &line])?;
    let pid = holder.pid();
    wait_for("the disk is open", SOON, || {
        procfs::running(pid).is_some_and(|task| task.name == "sleep")
    })?;
    device
        .try_delete(&[])?
        .fails(3, &["in use", &format!("process {pid} (sleep)")])?;
    drop(holder);
    device.delete()
}
