//! Where things are: the workspace, the build's target directory, our cache.

use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// What downloads and images are kept in: `$OXUBLK_CACHE`, else `guest` in cargo's target directory.
pub(crate) fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("OXUBLK_CACHE") {
        return PathBuf::from(cache);
    }
    target().join("guest")
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Makes a directory of the cache and returns its path.
pub(crate) fn cache_dir(name: &str) -> Result<PathBuf> {
    let dir = cache().join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Makes a directory for one run, removed with the returned value; and removes those of runs that were killed.
pub(crate) fn run_dir() -> Result<TempDir> {
    let runs = cache_dir("runs")?;
    for entry in fs::read_dir(&runs)?.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split_once('-'))
            .map(|(pid, _)| Path::new("/proc").join(pid));
        if owner.is_some_and(|owner| !owner.exists()) {
            // Another run may be removing it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{}-", std::process::id());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&runs)
        .context("cannot make a directory for this run")
}

/// Held while the cache is changed, so that two guests may start at the same time.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _file: File,
}

/// Waits for its turn to change the cache.
pub(crate) fn lock_cache() -> Result<CacheLock> {
    let path = cache_dir("")?.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(CacheLock { _file: file })
}
