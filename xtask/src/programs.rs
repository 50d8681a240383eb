//! Builds our programs for the guest and says where cargo put them.

use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The packages whose programs and examples go into the guest unless others are named.
pub(crate) const PACKAGES: &[&str] = &[
    "oxublk-cli",
    "guest-tests",
    "oxublk",
    "oxublk-diag",
    "ublk-faulty",
];

/// The part of cargo's messages that we read.
#[derive(Debug, serde::Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
}

/// Builds packages with this profile of cargo's and returns the paths of their programs and examples.
pub(crate) fn build(packages: &[impl AsRef<str>], profile: &str) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::workspace()).args([
        "build",
        "--bins",
        "--examples",
        "--profile",
        profile,
    ]);
    command.arg("--message-format=json-render-diagnostics");
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    for package in packages {
        command.args(["--package", package.as_ref()]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("our programs do not build: see above");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let programs = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| message.executable)
        .collect();
    Ok(programs)
}
