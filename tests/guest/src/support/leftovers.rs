//! What a test must not leave behind: devices, processes, files, mounts, file descriptors.

use super::process::{run, send};
use super::procfs::{self, Task};
use super::wait::{SOON, wait_until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;

/// What there is besides the kernel and this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand(BTreeMap<&'static str, Vec<String>>);

impl Stand {
    /// Looks around.
    pub(crate) fn now() -> Self {
        let ublk = |name: &String| name.starts_with("ublkb") || name.starts_with("ublkc");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let processes = others().iter().map(ToString::to_string).collect();
        let descriptors = names("/proc/self/fd")
            .iter()
            .filter_map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .filter(|target| !target.starts_with("/proc/"))
            .collect();
        Self(BTreeMap::from([
            ("/dev", names("/dev").into_iter().filter(ublk).collect()),
            (
                "/sys/block",
                names("/sys/block").into_iter().filter(ublk).collect(),
            ),
            ("/sys/class/ublk-char", names("/sys/class/ublk-char")),
            ("/run/oxublk", names("/run/oxublk")),
            ("/tmp", names("/tmp")),
            ("/mnt", names("/mnt")),
            ("trace instances", names("/sys/kernel/tracing/instances")),
            ("processes", processes),
            ("mounts", mounts.lines().map(str::to_owned).collect()),
            ("descriptors of this process", descriptors),
        ]))
    }

    /// Waits until all is as it was, and else says what is left. The kernel frees some things
    /// shortly after the program that used them got its answer.
    pub(crate) fn same_again(&self) -> anyhow::Result<()> {
        wait_until("nothing is left of the test", SOON, || {
            let left = Self::now().more_than(self);
            left.is_empty()
                .then_some(())
                .ok_or_else(|| format!("left over:\n{}", left.join("\n")))
        })
    }

    fn more_than(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        for (place, things) in &self.0 {
            let mut known = before.0.get(place).cloned().unwrap_or_default();
            for thing in things {
                match known.iter().position(|old| old == thing) {
                    Some(index) => drop(known.swap_remove(index)),
                    None => left.push(format!("  {place}: {thing}")),
                }
            }
        }
        left
    }
}

/// Processes that descend from tests: neither the kernel's, nor the guest's first, nor this one.
fn others() -> Vec<Task> {
    let own = std::process::id();
    let kernel = |task: &Task| task.pid <= 2 || task.parent == 2;
    procfs::processes()
        .into_iter()
        .filter(|task| !kernel(task) && task.pid != own)
        .collect()
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// After a test that left something: makes room for the next one, as far as that is possible.
pub(crate) fn clear() {
    for task in others() {
        let _ = send(task.pid, Signal::KILL);
    }
    for mount in fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
    {
        if let Some(place) = mount.split(' ').nth(1)
            && place.starts_with("/mnt/")
        {
            let _ = run("umount", &["-l", place]);
        }
    }
    for name in names("/sys/class/ublk-char") {
        if let Some(id) = name.strip_prefix("ublkc") {
            let _ = run("oxublk", &["del", "--force", id]);
        }
    }
    for dir in ["/run/oxublk", "/tmp"] {
        for name in names(dir) {
            let path = format!("{dir}/{name}");
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}
