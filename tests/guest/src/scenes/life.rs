//! Many devices, one after another and at once, and nothing left of them.

use crate::support::runner::tests;
use crate::support::{Added, LONG, Process, SOON, Scene, note, ok, procfs, run, shell, wait_until};
use anyhow::{Result, ensure};
use oxublk::{Device, Disk};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const SCENE: Scene = Scene {
    name: "life",
    needs: "timeout=480",
    tests: tests![
        thirty_devices_one_after_another_leave_nothing,
        thirty_two_devices_at_once_leave_nothing,
        a_program_that_makes_two_hundred_devices_keeps_nothing,
        dropping_a_device_removes_it,
        the_lowest_free_id_is_given,
        add_prints_the_path_alone,
        add_in_the_foreground_serves_until_it_is_told_to_stop,
        list_shows_what_is_there,
        del_all_deletes_what_oxublk_made,
    ],
};

/// Median and worst.
fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (median, worst) = (ms(times.get(times.len() / 2)), ms(times.last()));
    note(format!(
        "{what}: median {median:.0} ms, worst {worst:.0} ms over {}",
        times.len()
    ));
}

fn thirty_devices_one_after_another_leave_nothing() -> Result<()> {
    let (mut adding, mut deleting) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let started = Instant::now();
        let device = Added::new("mem --size 16M")?;
        adding.push(started.elapsed());
        ensure!(device.id == 0, "id {} although none is in use", device.id);
        // Ready means ready: the first read must not wait for anything else.
        std::fs::File::open(device.block())?;
        let started = Instant::now();
        device.delete()?;
        deleting.push(started.elapsed());
    }
    report("add to ready", adding);
    report("del to gone", deleting);
    Ok(())
}

fn thirty_two_devices_at_once_leave_nothing() -> Result<()> {
    let started = Instant::now();
    let adding: Vec<Process> = (0..32)
        .map(|_| Process::start("oxublk", &["add", "mem", "--size", "16M"]))
        .collect::<Result<_>>()?;
    let mut paths = Vec::new();
    for process in adding {
        paths.push(process.wait(LONG)?.success()?.output.trim().to_owned());
    }
    note(format!(
        "32 devices at once: all ready after {:.0} ms",
        started.elapsed().as_secs_f64() * 1e3
    ));
    paths.sort();
    paths.dedup();
    ensure!(paths.len() == 32, "32 devices have these paths: {paths:?}");
    let listed = ok("oxublk list --json")?.json()?;
    ensure!(
        listed["devices"].as_array().map(Vec::len) == Some(32),
        "{listed}"
    );
    for path in &paths {
        ok(&format!(
            "dd if={path} of=/dev/null bs=4K count=1 iflag=direct"
        ))?;
    }
    // Each by a command of its own, all at the same time.
    let deleting: Vec<Process> = paths
        .iter()
        .map(|path| Process::start("oxublk", &["del", path]))
        .collect::<Result<_>>()?;
    for process in deleting {
        process.wait(LONG)?.success()?;
    }
    ensure!(
        paths.iter().all(|path| !Path::new(path).exists()),
        "nodes are left"
    );
    Ok(())
}

struct Empty;

impl Disk for Empty {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> std::io::Result<()> {
        Ok(())
    }
}

/// This program's threads. On 6.12 the kernel keeps a worker for whoever used io_uring.
fn threads() -> Vec<String> {
    let all = procfs::threads(std::process::id());
    let ours = all.iter().filter(|task| !task.name.starts_with("iou-wrk"));
    ours.map(|task| format!("{} {}", task.tid, task.name))
        .collect()
}

/// File descriptors are counted after every test; here also threads and mappings.
fn a_program_that_makes_two_hundred_devices_keeps_nothing() -> Result<()> {
    let mut times = Vec::new();
    let mut mappings = Vec::new();
    let before = threads();
    for round in 0..200 {
        let started = Instant::now();
        let device = Device::builder(Empty).queues(2).start()?;
        times.push(started.elapsed());
        device.stop()?;
        wait_until("the queues' threads have ended", SOON, || {
            let now = threads();
            let more = now.iter().filter(|task| !before.contains(task));
            let more: Vec<&String> = more.collect();
            more.is_empty()
                .then_some(())
                .ok_or_else(|| format!("{more:?}"))
        })?;
        if round >= 10 {
            mappings.push(std::fs::read_to_string("/proc/self/maps")?.lines().count());
        }
    }
    report("Builder::start to ready, two queues", times);
    ensure!(
        mappings.first() == mappings.last(),
        "mappings after each device: {mappings:?}"
    );
    Ok(())
}

fn dropping_a_device_removes_it() -> Result<()> {
    let device = Device::builder(Empty).start()?;
    let id = device.id().0;
    ensure!(device.block_path().exists());
    drop(device);
    crate::support::device::gone(id)
}

fn the_lowest_free_id_is_given() -> Result<()> {
    let devices = (0..3)
        .map(|_| Added::new("mem --size 1M"))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        devices.iter().map(|device| device.id).eq(0..3),
        "{devices:?}"
    );
    let mut devices = devices.into_iter();
    let (first, second, third) = (devices.next(), devices.next(), devices.next());
    if let Some(second) = second {
        second.delete()?;
    }
    let again = Added::new("mem --size 1M")?;
    ensure!(again.id == 1, "{again:?}");
    let chosen = Added::new("mem --size 1M --id 77")?;
    ensure!(chosen.id == 77);
    for device in [first, third, Some(again), Some(chosen)]
        .into_iter()
        .flatten()
    {
        device.delete()?;
    }
    Ok(())
}

fn add_prints_the_path_alone() -> Result<()> {
    let finished = shell(
        "disk=$(oxublk add mem --size 16M); test -b $disk; dd if=$disk of=/dev/null bs=4K count=1 status=none; \
         oxublk del $disk >&2; echo $disk",
    )?;
    ensure!(finished.output == "/dev/ublkb0\n", "{finished}");
    crate::support::device::gone(0)
}

fn add_in_the_foreground_serves_until_it_is_told_to_stop() -> Result<()> {
    let mut process = Process::start("oxublk", &["add", "mem", "--size", "16M", "--foreground"])?;
    process.wait_line("its path", LONG, |line| {
        (line == "/dev/ublkb0").then_some(())
    })?;
    ok("dd if=/dev/zero of=/dev/ublkb0 bs=4K count=16 oflag=direct")?;
    process.signal(Signal::INT)?;
    let finished = process.wait(LONG)?.success()?;
    ensure!(finished.output.contains("write"), "{finished}");
    crate::support::device::gone(0)?;
    // Deleted by somebody else, it ends too.
    let mut process = Process::start("oxublk", &["add", "mem", "--size", "16M", "--foreground"])?;
    process.wait_line("its path", LONG, |line| {
        (line == "/dev/ublkb0").then_some(())
    })?;
    ok("oxublk del 0")?;
    process.wait(LONG)?.success()?;
    crate::support::device::gone(0)
}

fn list_shows_what_is_there() -> Result<()> {
    ensure!(ok("oxublk list")?.output.contains("no ublk devices"));
    let device = Added::new("mem --size 16M --queues 2 --depth 64 --id 5")?;
    let text = ok("oxublk list")?.output;
    for word in ["/dev/ublkb5", "live", "16 MiB", "2×64", "oxublk", "mem"] {
        ensure!(text.contains(word), "`{word}` expected in:\n{text}");
    }
    let text = ok("oxublk info 5")?.output;
    for word in ["/dev/ublkc5", "16777216", "in use        no"] {
        ensure!(text.contains(word), "`{word}` expected in:\n{text}");
    }
    device.delete()
}

fn del_all_deletes_what_oxublk_made() -> Result<()> {
    let devices = (0..3)
        .map(|_| Added::new("null"))
        .collect::<Result<Vec<_>>>()?;
    // Made by this program, not by oxublk: it stays.
    let other = Device::builder(Empty).start()?;
    run("oxublk", &["del", "--all"])?.success()?;
    for device in devices {
        device.check_gone()?;
    }
    ensure!(
        other.block_path().exists(),
        "a device of another program was deleted"
    );
    Ok(other.stop()?)
}
