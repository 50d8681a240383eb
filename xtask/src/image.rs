//! The initramfs: tools with their libraries, modules, our programs, and what to run.
//!
//! It is joined from archives: tools and modules are kept in the cache, the rest is written for each guest.
//! It is not compressed: unpacking would cost the guest more than the host spends on copying.

use crate::cpio::Archive;
use crate::packages::{self, Tool};
use crate::paths;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the guest's first process reads its orders.
pub(crate) const ORDERS: &str = "etc/oxublk-guest.json";

/// What the guest's first process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The command and its arguments.
    pub(crate) argv: Vec<String>,
    /// Added to the command's environment.
    pub(crate) env: Vec<(String, String)>,
    /// Whether to load the driver first.
    pub(crate) load_ublk: bool,
    /// The command is given up after this long.
    pub(crate) timeout_seconds: u64,
}

/// What goes into one guest.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) modules: Option<&'a Path>,
    pub(crate) programs: &'a [PathBuf],
    pub(crate) with: &'a [PathBuf],
    pub(crate) orders: &'a Orders,
}

/// Writes the whole initramfs to `path`.
pub(crate) fn write(content: &Content<'_>, path: &Path) -> Result<()> {
    let own = path.with_extension("own");
    write_own(content, &own)?;
    let mut tools = tools_archive()?;
    let mut out = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    io::copy(&mut tools, &mut out)?;
    for part in content.modules.into_iter().chain([own.as_path()]) {
        let mut part =
            File::open(part).with_context(|| format!("cannot open {}", part.display()))?;
        io::copy(&mut part, &mut out)?;
    }
    fs::remove_file(own)?;
    Ok(())
}

/// The part that differs between guests.
fn write_own(content: &Content<'_>, path: &Path) -> Result<()> {
    let mut archive = Archive::create(path)?;
    let mut libraries = BTreeSet::new();
    // Through /proc: the file's name may be gone when the program has been built again meanwhile.
    archive.copy("init", Path::new("/proc/self/exe"))?;
    // By number: in ldd, which is a script, /proc/self is the shell.
    libraries.extend(libraries_of(&[PathBuf::from(format!(
        "/proc/{}/exe",
        std::process::id()
    ))])?);
    archive.symlink("usr/bin/xtask", "/init")?;
    for program in content.programs {
        let name = program
            .file_name()
            .context("a program without a name")?
            .to_string_lossy();
        archive.copy(&format!("usr/bin/{name}"), program)?;
    }
    libraries.extend(libraries_of(content.programs)?);
    for library in libraries {
        archive.copy(&name_in_guest(&library), &library)?;
    }
    archive.dir("with")?;
    for path in content.with {
        if path.is_dir() {
            archive.tree("with", path)?;
        } else {
            let name = path
                .file_name()
                .context("--with a path without a name")?
                .to_string_lossy();
            archive.copy(&format!("with/{name}"), path)?;
        }
    }
    archive.file(
        ORDERS,
        0o644,
        serde_json::to_string(content.orders)?.as_bytes(),
    )?;
    archive.finish()
}

/// The part with the tools, from the cache while the system's packages are the same.
fn tools_archive() -> Result<File> {
    let tools: Vec<(Tool, PathBuf)> = packages::guest_tools()
        .map(|tool| {
            let path =
                packages::find(tool.name).with_context(|| format!("{} is missing", tool.name))?;
            Ok((tool, path))
        })
        .collect::<Result<_>>()?;
    let mut hasher = DefaultHasher::new();
    LAYOUT.hash(&mut hasher);
    for (tool, path) in &tools {
        (tool.name, path, fs::metadata(path)?.mtime()).hash(&mut hasher);
    }
    // Changes with every package installed or upgraded: libraries too.
    fs::metadata("/var/lib/dpkg/status")
        .map(|meta| meta.mtime())
        .unwrap_or_default()
        .hash(&mut hasher);
    let _lock = paths::lock_cache()?;
    let dir = paths::cache_dir("tools")?;
    let path = dir.join(format!("{:016x}.cpio", hasher.finish()));
    if !path.exists() {
        // A hundred megabytes each: those of packages that are no longer installed go.
        for entry in fs::read_dir(&dir)?.flatten() {
            fs::remove_file(entry.path())?;
        }
        let part = path.with_extension("part");
        write_tools(&tools, &part)?;
        fs::rename(&part, &path)?;
    }
    // Opened before the lock goes: another run may find newer packages and remove it.
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Changed by hand when `write_tools` puts things elsewhere.
const LAYOUT: u32 = 1;

fn write_tools(tools: &[(Tool, PathBuf)], path: &Path) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for dir in [
        "dev",
        "etc",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "var",
    ] {
        archive.dir(dir)?;
    }
    archive.dir_with_mode("tmp", 0o1777)?;
    archive.dir("home/guest")?;
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
    ] {
        archive.symlink(link, target)?;
    }
    for (name, content) in ETC {
        archive.file(&format!("etc/{name}"), 0o644, content.as_bytes())?;
    }
    if Path::new("/etc/mke2fs.conf").exists() {
        archive.copy("etc/mke2fs.conf", Path::new("/etc/mke2fs.conf"))?;
    }
    let mut present = BTreeSet::new();
    for (tool, file) in tools {
        archive.copy(&name_in_guest(file), file)?;
        present.insert(tool.name.to_owned());
    }
    for module_tool in ["depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod"] {
        archive.symlink(&format!("usr/sbin/{module_tool}"), "../bin/kmod")?;
        present.insert(module_tool.to_owned());
    }
    for applet in applets()? {
        if present.insert(applet.clone()) {
            archive.symlink(&format!("usr/bin/{applet}"), "busybox")?;
        }
    }
    let files: Vec<PathBuf> = tools.iter().map(|(_, file)| file.clone()).collect();
    for library in libraries_of(&files)? {
        archive.copy(&name_in_guest(&library), &library)?;
    }
    archive.finish()
}

/// Small files that tools expect, with an ordinary user beside root.
const ETC: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\nguest:x:1000:1000:guest:/home/guest:/bin/bash\n",
    ),
    ("group", "root:x:0:\ndisk:x:6:\nguest:x:1000:\n"),
    ("hostname", "guest\n"),
    ("hosts", "127.0.0.1 localhost guest\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    ("mtab", ""),
];

fn applets() -> Result<Vec<String>> {
    let busybox = packages::find("busybox").context("busybox is missing")?;
    let output = Command::new(busybox).arg("--list").output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(String::from)
        .collect())
}

/// Directories are links into /usr in the guest, as they are in Debian.
fn name_in_guest(file: &Path) -> String {
    let name = file.to_string_lossy();
    let name = name.trim_start_matches('/');
    if name.starts_with("usr/") {
        name.to_owned()
    } else {
        format!("usr/{name}")
    }
}

/// The shared libraries that programs need, as ldd finds them, by the names under which they are looked for.
fn libraries_of(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeMap::new();
    if programs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let output = Command::new("ldd")
        .args(programs)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let line = line.trim();
        if line.ends_with("not found") {
            bail!("a program for the guest needs a library that is not here: {line}");
        }
        let file = line.split_once(" => ").map_or(line, |(_, file)| file);
        // `libc.so.6 => /lib/… (0x…)` and, for the loader, `/lib64/ld-linux… (0x…)`.
        if let Some((file, _)) = file.split_once(" (0x")
            && file.starts_with('/')
        {
            libraries.insert(name_in_guest(Path::new(file)), PathBuf::from(file));
        }
    }
    Ok(libraries.into_values().collect())
}
