//! The examples of the library libublk, from its package on crates.io.

use super::{cargo, keep, output, run};
use crate::packages;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXAMPLES: &[&str] = &["null", "loop", "ramdisk"];

/// A package without code, for cargo to fetch libublk for: the newest that this toolchain builds.
const FETCHING: &str = r#"[package]
name = "fetching-libublk"
version = "0.0.0"
edition = "2024"
rust-version = "1.95"

[lib]
path = "lib.rs"

[dependencies]
libublk = "0"

[workspace]
"#;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// Builds the examples, with the versions that the package's own lock file names and our profile, unless they are
/// there.
pub(super) fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let kept = |example: &&str| root.join(format!("bin/libublk-{example}"));
    let programs: Vec<PathBuf> = EXAMPLES.iter().map(kept).collect();
    if programs.iter().all(|program| program.exists()) {
        return Ok(programs);
    }
    packages::ensure_libclang()?;
    let package = fetch(root)?;
    eprintln!("building the examples of libublk {}", package.version);
    let source = copy(&package, root)?;
    let target = root.join("libublk-build");
    let mut cargo = cargo();
    cargo
        .args(["build", "--examples", "--release", "--locked", "--quiet"])
        .env("CARGO_PROFILE_RELEASE_LTO", "thin")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .arg("--target-dir")
        .arg(&target)
        .current_dir(source);
    run(&mut cargo)?;
    for (example, program) in EXAMPLES.iter().zip(&programs) {
        keep(&target.join("release/examples").join(example), program)?;
    }
    Ok(programs)
}

fn fetch(root: &Path) -> Result<Package> {
    let dir = root.join("libublk-fetch");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("Cargo.toml"), FETCHING)?;
    fs::write(dir.join("lib.rs"), "")?;
    let metadata = output(
        cargo()
            .args(["metadata", "--format-version=1", "--quiet"])
            .current_dir(&dir),
    )?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo's metadata")?;
    metadata
        .packages
        .into_iter()
        .find(|package| package.name == "libublk")
        .context("cargo did not fetch libublk")
}

/// A copy of the package, made a workspace of its own: it lies inside ours.
fn copy(package: &Package, root: &Path) -> Result<PathBuf> {
    let from = package
        .manifest_path
        .parent()
        .context("a package without a directory")?;
    let to = root.join(format!("libublk-{}", package.version));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    let status = Command::new("cp").arg("-r").args([from, &to]).status()?;
    if !status.success() {
        bail!("cannot copy {}: {status}", from.display());
    }
    let manifest = to.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
    Ok(to)
}
