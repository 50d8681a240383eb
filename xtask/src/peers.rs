//! The servers that ours is compared with, built on this machine.

mod libublk;
mod selftest;

use crate::{packages, paths};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a peer brings into the guest.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Installed on this machine: they go into PATH, with their libraries.
    pub(crate) programs: Vec<PathBuf>,
    /// For /with.
    pub(crate) with: Vec<PathBuf>,
}

/// Builds rublk with the versions that its own lock file names, unless it is there.
pub(crate) fn rublk() -> Result<Files> {
    let program = root().join("bin/rublk");
    if !program.exists() {
        packages::ensure_libclang()?;
        eprintln!("building rublk");
        let mut cargo = cargo();
        cargo.args(["install", "rublk", "--locked", "--quiet", "--root"]);
        cargo.arg(root());
        cargo.arg("--target-dir").arg(root().join("build"));
        run(&mut cargo).context("rublk does not build")?;
    }
    Ok(Files {
        with: vec![program],
        ..Files::default()
    })
}

/// The examples of libublk.
pub(crate) fn libublk() -> Result<Files> {
    Ok(Files {
        with: libublk::build(&root()).context("libublk's examples do not build")?,
        ..Files::default()
    })
}

/// The server of the kernel's selftests.
pub(crate) fn selftest() -> Result<Files> {
    Ok(Files {
        with: vec![selftest::build(&root()).context("kublk does not build")?],
        ..Files::default()
    })
}

/// nbdkit with its memory plugin, and the program that connects the kernel's NBD client to it.
pub(crate) fn nbd() -> Result<Files> {
    packages::ensure_nbd()?;
    let program =
        |name| packages::find(name).with_context(|| format!("{name} is missing after all"));
    let server = program("nbdkit")?;
    let plugins = output(Command::new(&server).arg("--dump-config"))?
        .lines()
        .find_map(|line| line.strip_prefix("plugindir=").map(PathBuf::from))
        .context("nbdkit names no directory of plugins")?;
    Ok(Files {
        programs: vec![server, program("nbd-client")?],
        with: vec![plugins.join("nbdkit-memory-plugin.so")],
    })
}

/// Where peers are built.
fn root() -> PathBuf {
    paths::target().join("bench")
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Of our own package: they would say where ours is.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    cargo
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", name.display()))?;
    if !status.success() {
        bail!("{}: {status}", name.display());
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{}: {}: {why}", name.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Puts a program under its final name when it is complete.
fn keep(program: &Path, kept: &Path) -> Result<()> {
    let part = kept.with_extension("part");
    if let Some(dir) = kept.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::copy(program, &part).with_context(|| format!("there is no {}", program.display()))?;
    std::fs::rename(&part, kept)?;
    Ok(())
}
