//! `kublk`, the server of the kernel's selftests, from the source that Debian packs.
//!
//! It is built here for each user and is no part of ours.

use super::{keep, output, run};
use crate::apt::Apt;
use crate::kernels::numbers;
use crate::paths;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the server's source is in the kernel's.
const SOURCE: &str = "tools/testing/selftests/ublk";

/// Builds it against the newest headers and a newer liburing than the system may have, unless it is there.
pub(super) fn build(root: &Path) -> Result<PathBuf> {
    let program = root.join("bin/kublk");
    if program.exists() {
        return Ok(program);
    }
    let _lock = paths::lock_cache()?;
    let apt = Apt::open()?;
    let source = newest_source(&apt)?;
    eprintln!("building kublk from {source}");
    let dir = tempfile::tempdir_in(paths::cache())?;
    let headers = format!("linux-libc-dev={}", apt.newest_version("linux-libc-dev")?);
    let liburing = format!("liburing-dev={}", apt.newest_version("liburing-dev")?);
    for package in [&source, &headers, &liburing] {
        apt.extract(package, dir.path())?;
    }
    run(Command::new("tar")
        .arg("-xJf")
        .arg(dir.path().join(format!("usr/src/{source}.tar.xz")))
        .arg("-C")
        .arg(dir.path())
        .args(["--strip-components=1", "--wildcards"])
        .arg(format!("*/{SOURCE}/*.[ch]")))?;
    let built = dir.path().join("kublk");
    compile(dir.path(), &built)?;
    keep(&built, &program)?;
    Ok(program)
}

/// The package with the newest kernel's source: `linux-source-7.3`.
fn newest_source(apt: &Apt) -> Result<String> {
    let version = |name: &str| name.strip_prefix("linux-source-").and_then(numbers);
    apt.names("^linux-source-[0-9.]+$")?
        .into_iter()
        .max_by_key(|name| version(name))
        .context("the archive has no source of a kernel")
}

/// As its own Makefile does, with liburing inside.
fn compile(dir: &Path, program: &Path) -> Result<()> {
    let machine = output(Command::new("cc").arg("-print-multiarch"))?;
    let machine = machine.trim();
    let include = dir.join("usr/include");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(dir.join(SOURCE))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        // Another program of the same directory.
        .filter(|path| !path.ends_with("metadata_size.c"))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    run(Command::new("cc")
        .args(["-O3", "-D_GNU_SOURCE=", "-w", "-isystem"])
        .arg(&include)
        .arg("-isystem")
        .arg(include.join(machine))
        .arg("-o")
        .arg(program)
        .args(sources)
        .arg(dir.join("usr/lib").join(machine).join("liburing.a"))
        .args(["-lpthread", "-lm"]))
}
