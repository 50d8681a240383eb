//! The servers that ours is compared with, built on this machine.

use crate::{packages, paths};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Builds rublk with the versions that its own lock file names, unless it is there; returns its program.
pub(crate) fn rublk() -> Result<PathBuf> {
    let root = paths::target().join("bench");
    let program = root.join("bin/rublk");
    if program.exists() {
        return Ok(program);
    }
    packages::ensure_libclang()?;
    eprintln!("building rublk");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["install", "rublk", "--locked", "--quiet", "--root"])
        .arg(&root)
        .arg("--target-dir")
        .arg(root.join("build"))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!(
            "rublk does not build: see above; without it: --devices with those of the kernel and ours"
        );
    }
    Ok(program)
}
