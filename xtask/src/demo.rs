//! `cargo demo`: a disk made, used, looked at and removed; here where the driver is, else in a guest.

use crate::demo_scene;
use crate::guest::{self, Job};
use crate::image::Orders;
use crate::qemu::{Accelerator, Machine};
use crate::{kernels, packages, paths, programs};
use anyhow::{Context as _, Result};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Shows a memory disk with a file system on it, with this repository's own files
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel of the guest, as for `guest`
    #[arg(long, default_value = "latest")]
    kernel: String,
    /// Use a guest even where this machine has the driver
    #[arg(long)]
    guest: bool,
    /// Cargo's profile for our programs
    #[arg(long, default_value = "release")]
    profile: String,
}

/// Runs the task.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let here = !arguments.guest && driver_is_here();
    if !here {
        packages::ensure()?;
    }
    let programs = programs::build(&["oxublk-cli"], &arguments.profile)?;
    let files = paths::run_dir()?;
    copy_sources(files.path())?;
    if here {
        let oxublk = programs
            .iter()
            .find(|program| program.ends_with("oxublk"))
            .context("the package oxublk-cli builds no program oxublk")?;
        println!("This machine has the ublk driver: the demo runs here.");
        return demo_scene::run(oxublk, files.path());
    }
    let kernel = kernels::resolve(&arguments.kernel, None)?;
    println!(
        "No ublk driver to use here: booting Linux {} in a guest.",
        kernel.version()
    );
    let job = Job {
        kernel,
        programs,
        with: vec![files.path().to_path_buf()],
        orders: Orders {
            argv: ["xtask", "demo-scene", "/with"].map(str::to_owned).to_vec(),
            env: guest::passed_on(),
            load_ublk: true,
            timeout_seconds: 300,
        },
        machine: Machine {
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: "2G".to_owned(),
            append: String::new(),
            quiet: false,
        },
    };
    let report = guest::run(&job, &mut guest::print)?;
    println!("With the guest's boot: {:.1} s.", report.took.as_secs_f64());
    Ok(report.code())
}

/// Whether a disk can be made on this machine: as root, with the driver or its module.
fn driver_is_here() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let control = Path::new("/dev/ublk-control");
    let load = || {
        Command::new("modprobe")
            .args(["-q", "ublk_drv"])
            .stderr(Stdio::null())
            .status()
    };
    control.exists() || (load().is_ok_and(|status| status.success()) && control.exists())
}

/// Copies the repository's files: those that git tracks, or all but the build's.
fn copy_sources(to: &Path) -> Result<()> {
    let root = paths::workspace();
    for file in tracked(&root).unwrap_or_else(|| walk(&root)) {
        let (from, copy) = (root.join(&file), to.join(&file));
        // A file may be tracked and removed at the moment.
        if from.is_file() {
            if let Some(dir) = copy.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::copy(&from, &copy).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

fn tracked(root: &Path) -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let names = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let files: Vec<PathBuf> = names
        .map(|name| PathBuf::from(OsStr::from_bytes(name)))
        .collect();
    (output.status.success() && !files.is_empty()).then_some(files)
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && name != "target" && name != ".git" => dirs.push(path),
                Ok(kind) if kind.is_file() => {
                    files.extend(path.strip_prefix(root).map(Path::to_path_buf))
                }
                _ => {}
            }
        }
    }
    files
}
