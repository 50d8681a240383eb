//! The modules that go into the guest: those that tests use and what they depend on.

use crate::cpio::Archive;
use crate::kernels::Kernel;
use crate::packages;
use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What tests may load. A kernel that lacks one has it built in or does without.
const WANTED: &[&str] = &[
    "ublk_drv",
    "null_blk",
    "loop",
    "brd",
    "nbd",
    "ext4",
    "xfs",
    "btrfs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "zonefs",
    "overlay",
    "dm_mod",
    "dm_crypt",
    "dm_delay",
    "dm_flakey",
    "dm_log_writes",
    "raid0",
    "raid1",
    "kyber_iosched",
    "bfq",
    "mq_deadline",
    "fuse",
    // Asked for by name at run time, so that no dependency leads to them.
    "crc32c_generic",
    "crc32c_intel",
    "crc32c_cryptoapi",
    "libcrc32c",
    "xxhash_generic",
    "blake2b_generic",
    "blake2b",
    "sha256_generic",
    "sha256",
    "configs",
];

/// Files beside the modules that modprobe and depmod read.
const LISTS: &[&str] = &[
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.order",
];

/// Makes the part of the initramfs that holds a kernel's modules, or takes it from the cache.
pub(crate) fn archive(kernel: &Kernel) -> Result<Option<PathBuf>> {
    let Some(modules) = &kernel.modules else {
        return Ok(None);
    };
    let mut hasher = DefaultHasher::new();
    (WANTED, modules, fs::metadata(modules)?.modified()?).hash(&mut hasher);
    let _lock = paths::lock_cache()?;
    let path = paths::cache_dir("modules")?.join(format!(
        "{}-{:016x}.cpio",
        kernel.release,
        hasher.finish()
    ));
    if !path.exists() {
        let part = path.with_extension("part");
        build(kernel, modules, &part)?;
        fs::rename(&part, &path)?;
    }
    Ok(Some(path))
}

fn build(kernel: &Kernel, modules: &Path, path: &Path) -> Result<()> {
    let root = tempfile::tempdir_in(paths::cache())?;
    let release = &kernel.release;
    let own = root.path().join("lib/modules").join(release);
    fs::create_dir_all(&own)?;
    let dependencies = dependencies(release, modules, root.path())?;
    for file in closure(&dependencies) {
        let plain = own.join(without_compression(&file));
        fs::create_dir_all(plain.parent().unwrap_or(&own))?;
        fs::write(&plain, decompress(&modules.join(&file))?)?;
    }
    for list in LISTS {
        if modules.join(list).exists() {
            fs::copy(modules.join(list), own.join(list))?;
        }
    }
    depmod(root.path(), release)?;
    let mut archive = Archive::create(path)?;
    archive.tree(&format!("usr/lib/modules/{release}"), &own)?;
    archive.finish()
}

/// What each module needs, from a run of depmod over all of them: file → files.
fn dependencies(
    release: &str,
    modules: &Path,
    root: &Path,
) -> Result<BTreeMap<String, Vec<String>>> {
    // depmod wants lib/modules/RELEASE and writes beside the modules: give it links to them.
    let all = root.join("all");
    let dir = all.join("lib/modules").join(release);
    fs::create_dir_all(&dir)?;
    for entry in fs::read_dir(modules)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "kernel" || LISTS.iter().any(|list| name == *list) {
            std::os::unix::fs::symlink(entry.path(), dir.join(name))?;
        }
    }
    depmod(&all, release)?;
    let text = fs::read_to_string(dir.join("modules.dep"))?;
    let mut dependencies = BTreeMap::new();
    for line in text.lines() {
        if let Some((file, needs)) = line.split_once(':') {
            dependencies.insert(
                file.to_owned(),
                needs.split_whitespace().map(String::from).collect(),
            );
        }
    }
    if dependencies.is_empty() {
        bail!("depmod found no modules in {}", modules.display());
    }
    Ok(dependencies)
}

/// The files of the modules that we want; depmod lists dependencies of dependencies with each.
fn closure(dependencies: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for (file, needs) in dependencies {
        if WANTED.contains(&module_name(file).as_str()) {
            files.insert(file.clone());
            files.extend(needs.iter().cloned());
        }
    }
    files
}

/// `kernel/drivers/block/ublk_drv.ko.xz` is `ublk_drv`; the kernel reads `-` in a module's name as `_`.
fn module_name(file: &str) -> String {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.split_once('.')
        .map_or(name, |(stem, _)| stem)
        .replace('-', "_")
}

fn without_compression(file: &str) -> &str {
    file.find(".ko")
        .map_or(file, |at| &file[..at + ".ko".len()])
}

/// Decompressed here: one second on the host spares the guest, which emulates each instruction.
fn decompress(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(file)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot decompress {}", file.display());
    }
    Ok(output.stdout)
}

fn depmod(root: &Path, release: &str) -> Result<()> {
    let depmod = packages::find("depmod").context("depmod is missing: install the package kmod")?;
    let output = Command::new(depmod)
        .arg("-b")
        .arg(root)
        .arg(release)
        .output()?;
    if !output.status.success() {
        bail!(
            "depmod failed for {release}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{module_name, without_compression};

    #[test]
    fn a_module_is_named_as_the_kernel_names_it() {
        assert_eq!(
            module_name("kernel/drivers/md/dm-log-writes.ko.xz"),
            "dm_log_writes"
        );
        assert_eq!(
            without_compression("kernel/fs/ext4/ext4.ko.xz"),
            "kernel/fs/ext4/ext4.ko"
        );
        assert_eq!(
            without_compression("kernel/fs/ext4/ext4.ko"),
            "kernel/fs/ext4/ext4.ko"
        );
    }
}
