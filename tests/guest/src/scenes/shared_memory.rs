//! Clients that share memory with the server: their data are right, wherever they lie.

use crate::support::data::bytes;
use crate::support::device::{ended, in_flight};
use crate::support::direct::{Buffer, Direct};
use crate::support::process::{send, shell};
use crate::support::runner::tests;
use crate::support::shared::{Gate, Gated, Image, Pool, direct};
use crate::support::wait::wait_until;
use crate::support::{Added, Process, SOON, Scene, note, procfs, run};
use anyhow::{Context as _, Result, ensure};
use oxublk::{Control, DataPath, Device, ErrorKind, Features, SharedMemory, Slot};
use oxublk_targets::{Mem, Null};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

pub(crate) const SCENE: Scene = Scene {
    name: "shared-memory",
    needs: "cpus=2 timeout=480",
    tests: tests![
        an_old_kernel_refuses_with_a_reason,
        data_are_right_on_every_path,
        the_example_finds_its_data,
        memory_that_is_shared_in_part_takes_the_ordinary_way,
        clients_of_both_kinds_under_load,
        a_zero_copy_disk_uses_the_clients_memory,
        a_disk_in_a_file_uses_the_clients_memory,
        memory_is_shared_and_unshared_under_load,
        sharing_says_for_what_it_waits,
        what_cannot_be_is_refused,
        huge_pages_are_shared,
        a_server_that_is_killed_ends,
    ],
};

const DISK: u64 = 16 << 20;
const POOL: usize = 4 << 20;

/// Places in the pool, and lengths.
const RANGES: [(usize, usize); 7] = [
    (0, 4096),
    (512, 512),
    (3584, 1024),
    (4096, 65536),
    (8704, 12800),
    (1 << 20, 1 << 20),
    (POOL - 4096, 4096),
];

/// Whether this kernel has no shared memory: then the first test is the only one that does something.
fn lacks_it() -> Result<bool> {
    Ok(!Control::open()?.features()?.contains(Features::SHMEM_ZC))
}

fn an_old_kernel_refuses_with_a_reason() -> Result<()> {
    if !lacks_it()? {
        return Ok(());
    }
    let pool = Pool::new(POOL)?;
    let line = format!("add mem --size 16M --shared-memory {}", pool.path());
    let words: Vec<&str> = line.split(' ').collect();
    run("oxublk", &words)?.fails(5, &["SHMEM_ZC", "Linux 7.1"])?;
    let started = Device::builder(Null::new(1 << 20))
        .shared_memory(true)
        .start();
    let error = started.err().context("a device with shared memory")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error:?}");
    Ok(())
}

fn data_are_right_on_every_path() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    for options in [
        "--data-path direct",
        "--data-path copy",
        "--data-path direct --batch-io",
        "--data-path copy --batch-io",
        "--data-path direct --queues 2 --threads-per-queue 2",
        "--data-path direct --logical-block-size 4096",
    ] {
        let pool = Pool::new(POOL)?;
        let line = format!("mem --size 16M --shared-memory {} {options}", pool.path());
        let device = Added::new(&line)?;
        let block = if options.contains("4096") { 4096 } else { 512 };
        let moved = both_ways(&pool, &device.block(), block)?;
        let info = device.info()?;
        ensure!(shared_bytes(&info) == moved, "{options}: {moved}: {info}");
        let memory = &info["description"]["shared_memory"][0];
        ensure!(
            memory["bytes"] == POOL && memory["slot"] == 0 && memory["sealed"] == true,
            "{info}"
        );
        device.delete()?;
    }
    Ok(())
}

/// What is written from the pool is read into an ordinary buffer, and the other way round. Returns how many bytes the pool moved.
fn both_ways(pool: &Pool, block: &str, unit: usize) -> Result<u64> {
    let (shared, ordinary) = (direct(block)?, Direct::open(block)?);
    let fitting = |(start, length): &(usize, usize)| start % unit == 0 && length % unit == 0;
    let mut moved = 0;
    for (number, (start, length)) in (1..).zip(RANGES.into_iter().filter(fitting)) {
        let range = start..start + length;
        let offset = number * (2 << 20) + 4096;
        let mut buffer = Buffer::new(length);
        pool.write(&shared, range.clone(), offset, number)?;
        ordinary.read(&mut buffer, offset)?;
        ensure!(
            buffer.bytes() == bytes(length, number),
            "written from {range:?}"
        );
        let other = bytes(length, number + 100);
        buffer.bytes().copy_from_slice(&other);
        ordinary.write(&mut buffer, offset)?;
        ensure!(
            pool.read(&shared, range.clone(), offset)? == other,
            "read to {range:?}"
        );
        moved += 2 * length as u64;
    }
    // Where nothing was ever written there are zeroes.
    let zeroes = pool.read(&shared, 0..65536, 0)?;
    ensure!(zeroes.iter().all(|byte| *byte == 0), "a hole");
    Ok(moved + 65536)
}

fn shared_bytes(info: &serde_json::Value) -> u64 {
    info["metrics"]["shared_bytes"].as_u64().unwrap_or_default()
}

fn the_example_finds_its_data() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    shell("truncate -s 1M /dev/shm/pool")?;
    let device = Added::new("mem --size 16M --shared-memory /dev/shm/pool")?;
    let done = run("shared_memory_client", &["/dev/shm/pool", &device.block()])?.success()?;
    for word in [
        "all right",
        "/dev/shm/pool, 1 MiB, slot 0",
        "2 MiB, not copied",
    ] {
        ensure!(done.output.contains(word), "{word}: {done}");
    }
    device.delete()?;
    Ok(fs::remove_file("/dev/shm/pool")?)
}

/// The file grew after the server had mapped it: its end is no shared memory of the device.
fn memory_that_is_shared_in_part_takes_the_ordinary_way() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let small = Pool::new(1 << 20)?;
    let device = Added::new(&format!("mem --size 16M --shared-memory {}", small.path()))?;
    let file: File = small.0.as_fd().try_clone_to_owned()?.into();
    file.set_len(2 << 20)?;
    let large = Pool(SharedMemory::map(file)?);
    let disk = direct(&device.block())?;
    let mut expected = 0;
    for (number, (start, inside)) in (1..).zip([
        (0, true),
        ((1 << 20) - 8192, true),
        ((1 << 20) - 4096, false),
        ((1 << 20) - 512, false),
        (1 << 20, false),
    ]) {
        let range = start..start + 8192;
        large.write(&disk, range.clone(), number << 16, number)?;
        let read = large.read(&disk, range, number << 16)?;
        ensure!(read == bytes(8192, number), "{start}");
        expected += if inside { 2 * 8192 } else { 0 };
    }
    let info = device.info()?;
    ensure!(shared_bytes(&info) == expected, "{expected}: {info}");
    drop(disk);
    device.delete()
}

fn clients_of_both_kinds_under_load() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let pools = [Pool::new(POOL)?, Pool::new(POOL)?];
    let (a, b) = (pools[0].path(), pools[1].path());
    let device = Added::new(&format!(
        "mem --size 16M --queues 2 --shared-memory {a} --shared-memory {b}"
    ))?;
    let block = device.block();
    let rounds = 60;
    let moved = thread::scope(|scope| {
        let shared = (0..4).map(|client: usize| {
            let (pool, block) = (&pools[client % 2], &block);
            scope.spawn(move || shared_client(pool, block, client, rounds))
        });
        let ordinary = (4..6).map(|client| {
            let block = &block;
            scope.spawn(move || ordinary_client(block, client, rounds))
        });
        let all: Vec<_> = shared.chain(ordinary).collect();
        let joined = all.into_iter().map(|client| client.join().unwrap());
        joined.sum::<Result<u64>>()
    })?;
    let info = device.info()?;
    ensure!(shared_bytes(&info) == moved, "{moved}: {info}");
    device.delete()
}

/// Writes and reads a part of the disk that is its own, from and to a part of the pool that is its own.
fn shared_client(pool: &Pool, block: &str, client: usize, rounds: usize) -> Result<u64> {
    let disk = direct(block)?;
    let mut moved = 0;
    for round in 0..rounds {
        let length = 512 * (1 + (round * 37 + client) % 128);
        let start = (client / 2) * (POOL / 2) + 512 * (round % 50);
        let offset = ((client << 21) + 512 * (round * 53 % 2000)) as u64;
        let seed = (client * 1000 + round + 1) as u64;
        pool.write(&disk, start..start + length, offset, seed)?;
        let elsewhere = start + (1 << 20);
        let read = pool.read(&disk, elsewhere..elsewhere + length, offset)?;
        ensure!(
            read == bytes(length, seed),
            "client {client}, round {round}"
        );
        moved += 2 * length as u64;
    }
    Ok(moved)
}

fn ordinary_client(block: &str, client: usize, rounds: usize) -> Result<u64> {
    let disk = Direct::open(block)?;
    for round in 0..rounds {
        let length = 512 * (1 + (round * 37 + client) % 128);
        let offset = ((client << 21) + 512 * (round * 53 % 2000)) as u64;
        let data = bytes(length, (client * 1000 + round) as u64);
        let mut buffer = Buffer::new(length);
        buffer.bytes().copy_from_slice(&data);
        disk.write(&mut buffer, offset)?;
        buffer.bytes().fill(0);
        disk.read(&mut buffer, offset)?;
        ensure!(buffer.bytes() == data, "client {client}, round {round}");
    }
    Ok(0)
}

fn a_zero_copy_disk_uses_the_clients_memory() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    for path in [DataPath::ZeroCopy, DataPath::Copy] {
        for batch in [false, true] {
            let pool = Pool::new(POOL)?;
            let device = Device::builder_async(Image::new(DISK)?)
                .data_path(path)
                .batch_io(batch)
                .share(pool.0.clone())
                .start()?;
            let block = device.block_path().display().to_string();
            let moved = both_ways(&pool, &block, 512)?;
            let shared = device.metrics().shared();
            ensure!(shared.bytes == moved, "{path}: {moved}: {shared:?}");
            device.stop()?;
        }
    }
    Ok(())
}

fn a_disk_in_a_file_uses_the_clients_memory() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    shell("truncate -s 16M /dev/shm/disk")?;
    for options in ["--data-path zero-copy", "--data-path copy"] {
        let pool = Pool::new(POOL)?;
        let line = format!(
            "file /dev/shm/disk --shared-memory {} {options}",
            pool.path()
        );
        let device = Added::new(&line)?;
        let moved = both_ways(&pool, &device.block(), 512)?;
        let info = device.info()?;
        ensure!(shared_bytes(&info) == moved, "{options}: {moved}: {info}");
        device.delete()?;
    }
    Ok(fs::remove_file("/dev/shm/disk")?)
}

fn memory_is_shared_and_unshared_under_load() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let device = Device::builder(Mem::new(DISK)?)
        .queues(2)
        .shared_memory(true)
        .start()?;
    let block = device.block_path().display().to_string();
    let (pool, other) = (Pool::new(POOL)?, Pool::new(1 << 20)?);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !stop.load(SeqCst) {
                shared_client(&pool, &block, 0, 5)?;
                rounds.fetch_add(1, SeqCst);
            }
            anyhow::Ok(())
        });
        let changed = (0..4).try_for_each(|_| change(&device, &pool, &other, &rounds));
        stop.store(true, SeqCst);
        client.join().unwrap().and(changed)
    })?;
    Ok(device.stop()?)
}

/// Shares two memories, which requests come to use, and takes them back, after which none does.
fn change(device: &Device, pool: &Pool, other: &Pool, rounds: &AtomicU64) -> Result<()> {
    let first = device.share(&other.0)?;
    let second = device.share(&pool.0)?;
    ensure!((first, second) == (Slot(0), Slot(1)), "{first} {second}");
    let before = device.metrics().shared();
    pass(rounds)?;
    let during = device.metrics().shared();
    ensure!(during.requests > before.requests, "{before:?} {during:?}");
    device.unshare(second)?;
    device.unshare(first)?;
    ensure!(device.shared().is_empty(), "{:?}", device.shared());
    let after = device.metrics().shared();
    pass(rounds)?;
    let later = device.metrics().shared();
    ensure!(later == after, "{after:?} {later:?}");
    Ok(())
}

/// Until a client has gone its whole way once more.
fn pass(rounds: &AtomicU64) -> Result<()> {
    let now = rounds.load(SeqCst);
    wait_until("a client goes on", SOON, || {
        let count = rounds.load(SeqCst);
        (count > now + 1).then_some(()).ok_or(count.to_string())
    })
}

/// Memory cannot be shared while a request is under way: after the deadline that is said, and nothing is stuck for it.
fn sharing_says_for_what_it_waits() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let gate = Gate::default();
    let device = Device::builder(Gated(gate.clone()))
        .shared_memory(true)
        .deadline(Duration::from_secs(8))
        .start()?;
    let (pool, block) = (Pool::new(1 << 20)?, device.block_path());
    gate.set(false);
    let reader = Process::start(
        "dd",
        &[
            &format!("if={}", block.display()),
            "of=/dev/null",
            "bs=4k",
            "count=1",
            "iflag=direct",
        ],
    )?;
    in_flight(device.id().0)?;
    let shared = device.share(&pool.0);
    gate.set(true);
    let error = shared
        .err()
        .context("shared while a request is under way")?;
    ensure!(error.kind() == ErrorKind::TimedOut, "{error:?}");
    let words = "requests that the server has not answered";
    ensure!(error.to_string().contains(words), "{error:?}");
    reader.wait(SOON)?.success()?;
    Ok(device.stop()?)
}

fn what_cannot_be_is_refused() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let pool = Pool::new(1 << 20)?;
    let without = Device::builder(Null::new(1 << 20)).start()?;
    let error = without.share(&pool.0).err().context("shared")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error:?}");
    without.stop()?;
    let device = Device::builder(Null::new(1 << 20))
        .share(pool.0.clone())
        .start()?;
    let error = device.share(&pool.0).err().context("shared twice")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error:?}");
    let error = device.unshare(Slot(7)).err().context("unshared")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error:?}");
    device.unshare(Slot(0))?;
    ensure!(device.share(&pool.0)? == Slot(0), "its slot is free again");
    device.stop()?;
    let words = ["add", "mem", "--size=16M", "--shared-memory=/nowhere"];
    run("oxublk", &words)?.fails(1, &["/nowhere", "truncate"])?;
    let words = ["add", "mem", "--size=16M", "--shared-memory=/dev/null"];
    run("oxublk", &words)?.fails(2, &["/dev/null"])?;
    Ok(())
}

fn huge_pages_are_shared() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    if !fs::exists("/sys/kernel/mm/hugepages")? {
        note("this kernel has no huge pages");
        return Ok(());
    }
    shell(
        "echo 4 > /proc/sys/vm/nr_hugepages && mkdir -p /run/huge && mount -t hugetlbfs none /run/huge \
         && truncate -s 4M /run/huge/pool",
    )?;
    let file = File::options()
        .read(true)
        .write(true)
        .open("/run/huge/pool")?;
    let pool = Pool(SharedMemory::map(file)?);
    let device = Added::new("mem --size 16M --shared-memory /run/huge/pool")?;
    let moved = both_ways(&pool, &device.block(), 512)?;
    let info = device.info()?;
    ensure!(shared_bytes(&info) == moved, "{moved}: {info}");
    device.delete()?;
    drop(pool);
    shell(
        "rm /run/huge/pool && umount /run/huge && rmdir /run/huge && echo 0 > /proc/sys/vm/nr_hugepages",
    )?;
    Ok(())
}

fn a_server_that_is_killed_ends() -> Result<()> {
    if lacks_it()? {
        return Ok(());
    }
    let pool = Pool::new(POOL)?;
    let device = Added::new(&format!("mem --size 16M --shared-memory {}", pool.path()))?;
    let (block, rounds) = (device.block(), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            loop {
                shared_client(&pool, &block, 1, 1)?;
                rounds.fetch_add(1, SeqCst);
            }
            #[expect(unreachable_code, reason = "says the type of the error")]
            anyhow::Ok(())
        });
        pass(&rounds)?;
        send(device.server, Signal::KILL)?;
        let error = client.join().unwrap().err().context("it goes on")?;
        ensure!(
            error.downcast_ref::<std::io::Error>().is_some(),
            "{error:?}"
        );
        anyhow::Ok(())
    })?;
    ended(device.server)?;
    procfs::nobody_is_stuck()?;
    device.try_delete(&[])?.success()?;
    device.check_gone()
}
