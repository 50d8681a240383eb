//! File systems on a disk in memory, with their own tools.

use crate::support::data;
use crate::support::device::Mounted;
use crate::support::runner::tests;
use crate::support::{Added, Scene, note, ok, run, run_for, shell, wait_until};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const SCENE: Scene = Scene {
    name: "filesystems",
    needs: "memory=3G timeout=480",
    tests: tests![
        ext4_keeps_a_tree,
        xfs_keeps_a_tree,
        btrfs_keeps_a_tree,
        partitions_are_found_and_hold_file_systems,
    ],
};

/// An ordinary tree of programs, libraries and links.
const TREE: &str = "/usr/sbin";
const MINUTES: Duration = Duration::from_secs(300);

fn ext4_keeps_a_tree() -> Result<()> {
    keeps_a_tree("256M", "mkfs.ext4 -q", &["e2fsck -fn"])
}

fn xfs_keeps_a_tree() -> Result<()> {
    keeps_a_tree("512M", "mkfs.xfs -q", &["xfs_repair -n"])
}

fn btrfs_keeps_a_tree() -> Result<()> {
    keeps_a_tree("512M", "mkfs.btrfs -q", &["btrfs check"])
}

fn keeps_a_tree(size: &str, format: &str, checks: &[&str]) -> Result<()> {
    let started = Instant::now();
    let device = Added::new(&format!("mem --size {size} --queues 2"))?;
    let disk = device.block();
    ok(&format!("{format} {disk}"))?;
    fill_and_compare(&disk, "/mnt/tree")?;
    for check in checks {
        ok(&format!("{check} {disk}"))?;
    }
    device.delete()?;
    note(format!(
        "{format}: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Copies a tree and random files to a fresh file system, and finds them again after it was mounted anew.
fn fill_and_compare(disk: &str, place: &str) -> Result<()> {
    let mounted = Mounted::new(disk, place)?;
    run("cp", &["-a".as_ref(), TREE.as_ref(), mounted.path()])?.success()?;
    let random = mounted.path().join("random");
    let random = random.display();
    data::file("/tmp/large", 16 << 20)?;
    // Two thousand names in one directory, a large file, and one with holes.
    shell(&format!(
        "mkdir {random}; cd {random}; mkdir names; seq 1 2000 | (cd names; xargs touch); \
         mv /tmp/large .; \
         dd if=large of=holes bs=4K seek=3000 count=5 conv=notrunc status=none; sha256sum large holes > sums"
    ))?;
    ok("sync")?;
    mounted.unmount()?;
    let mounted = Mounted::new(disk, place)?;
    // Everything is read from the disk: nothing of it is in the page cache any more.
    let copy = mounted
        .path()
        .join(Path::new(TREE).file_name().unwrap_or_default());
    let arguments = [
        "-r".as_ref(),
        "--no-dereference".as_ref(),
        TREE.as_ref(),
        copy.as_path(),
    ];
    run_for("diff", &arguments, MINUTES)?.success()?;
    let random = mounted.path().join("random");
    let random = random.display();
    shell(&format!(
        "cd {random}; sha256sum --quiet -c sums; test $(ls names | wc -l) = 2000"
    ))?;
    mounted.unmount()
}

fn partitions_are_found_and_hold_file_systems() -> Result<()> {
    let device = Added::new("mem --size 128M")?;
    let disk = device.block();
    shell(&format!(
        "printf 'label: gpt\\n,64M\\n,\\n' | sfdisk -q {disk}"
    ))?;
    for part in 1..=2 {
        let node = format!("{disk}p{part}");
        wait_until(format!("{node} is there"), crate::support::SOON, || {
            Path::new(&node).exists().then_some(()).ok_or(String::new())
        })?;
    }
    let sizes = ok(&format!("blockdev --getsize64 {disk}p1 {disk}p2"))?.output;
    ensure!(sizes.lines().next() == Some("67108864"), "{sizes}");
    for part in 1..=2 {
        let node = format!("{disk}p{part}");
        ok(&format!("mkfs.ext4 -q {node}"))?;
        let mounted = Mounted::new(&node, &format!("/mnt/p{part}"))?;
        std::fs::write(mounted.path().join("name"), &node)?;
        mounted.unmount()?;
        ok(&format!("e2fsck -fn {node}"))?;
    }
    // A file of one partition is not the other's.
    for part in 1..=2 {
        let node = format!("{disk}p{part}");
        let mounted = Mounted::new(&node, &format!("/mnt/p{part}"))?;
        let name = std::fs::read_to_string(mounted.path().join("name"))?;
        ensure!(name == node, "{node} holds the file of {name}");
        mounted.unmount()?;
    }
    device.delete()
}
