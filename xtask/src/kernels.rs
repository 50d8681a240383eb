//! Kernels for the guest: Debian's cloud kernels by series, or an image of the user's own.

use crate::apt::Apt;
use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What `uname -r` says; for an image of the user's own without modules, its file name.
    pub(crate) release: String,
    /// The kernel image.
    pub(crate) image: PathBuf,
    /// The directory with its modules, `lib/modules/RELEASE`.
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    /// The version without the distribution's suffix: `7.3.4`.
    pub(crate) fn version(&self) -> &str {
        self.release
            .split_once('+')
            .map_or(self.release.as_str(), |(version, _)| version)
    }

    /// The version's first two numbers: `7.3`.
    pub(crate) fn series(&self) -> String {
        let numbers = numbers(&self.release).unwrap_or_default();
        let series: Vec<String> = numbers.iter().take(2).map(u32::to_string).collect();
        series.join(".")
    }
}

/// How the packages of a kernel are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packaging {
    /// One package, `linux-image`.
    Whole,
    /// `linux-binary` and `linux-modules`, since 6.19.
    Split,
}

/// A kernel that the archive has.
#[derive(Debug)]
struct Candidate {
    release: String,
    packaging: Packaging,
}

const FLAVOUR: &str = "-cloud-amd64";

/// Finds the kernel that the user means: `latest`, a series (`6.12`), a version (`6.12.117`) or an image's path.
pub(crate) fn resolve(wanted: &str, modules: Option<&Path>) -> Result<Kernel> {
    if wanted.contains('/') || Path::new(wanted).is_file() {
        return own_image(Path::new(wanted), modules);
    }
    if modules.is_some() {
        bail!("--modules goes with an image of your own: give --kernel PATH");
    }
    if wanted != "latest" && numbers(wanted).is_none() {
        bail!(
            "--kernel {wanted} is neither a series like 6.12, nor `latest`, nor the path of an image"
        );
    }
    if !cfg!(target_arch = "x86_64") {
        bail!("guests run on x86-64 only so far: there is no kernel to boot here");
    }
    let _lock = paths::lock_cache()?;
    let kernels = paths::cache_dir("kernels")?;
    let candidates: Vec<String> = match Apt::open().and_then(|apt| Ok((candidates(&apt)?, apt))) {
        Ok((candidates, apt)) => {
            for candidate in candidates
                .iter()
                .filter(|candidate| matches(&candidate.release, wanted))
            {
                match obtain(&apt, candidate, &kernels) {
                    Ok(kernel) => return Ok(kernel),
                    // A superseded kernel stays in the lists for a while after its file is gone.
                    Err(error) => {
                        eprintln!("kernel {} cannot be had: {error:#}", candidate.release)
                    }
                }
            }
            candidates
                .into_iter()
                .map(|candidate| candidate.release)
                .collect()
        }
        Err(error) => {
            if let Some(kernel) = newest_cached(&kernels, wanted)? {
                eprintln!("taking kernel {} from the cache: {error:#}", kernel.release);
                return Ok(kernel);
            }
            return Err(error);
        }
    };
    bail!(
        "Debian has no kernel {wanted} with its modules; it has {}",
        series(&candidates)
    )
}

fn own_image(image: &Path, modules: Option<&Path>) -> Result<Kernel> {
    if !image.is_file() {
        bail!("there is no kernel image {}", image.display());
    }
    let modules = modules.map(modules_dir).transpose()?;
    let named = modules.as_deref().unwrap_or(image).file_name();
    let release = named.map_or_else(
        || "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(Kernel {
        release,
        image: image.to_path_buf(),
        modules,
    })
}

/// Accepts `lib/modules/RELEASE` itself and a root directory that has exactly one such directory.
fn modules_dir(dir: &Path) -> Result<PathBuf> {
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
    if dir.join("kernel").is_dir() {
        return Ok(dir);
    }
    for inside in ["lib/modules", "usr/lib/modules", ""] {
        let found: Vec<_> = fs::read_dir(dir.join(inside))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.join("kernel").is_dir())
            .collect();
        if let [only] = found.as_slice() {
            return Ok(only.clone());
        }
    }
    bail!(
        "{} has no lib/modules/RELEASE/kernel (or several): name the one to use",
        dir.display()
    )
}

/// All kernels in the archive that have their modules, newest first.
fn candidates(apt: &Apt) -> Result<Vec<Candidate>> {
    let names: BTreeSet<String> = apt
        .names(&format!("^linux-(image|binary|modules)-[0-9].*{FLAVOUR}$"))?
        .into_iter()
        .collect();
    let mut candidates: Vec<Candidate> = names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| numbers(release).is_some_and(|numbers| numbers.len() == 3))
        .filter_map(|release| {
            let has = |part: &str| names.contains(&format!("linux-{part}-{release}"));
            let packaging = match (has("binary"), has("modules")) {
                (true, true) => Packaging::Split,
                // Its modules are no longer in the archive: without them there is no ublk.
                (true, false) => return None,
                (false, _) => Packaging::Whole,
            };
            Some(Candidate {
                release: release.to_owned(),
                packaging,
            })
        })
        .collect();
    candidates.sort_by_key(|candidate| {
        std::cmp::Reverse((numbers(&candidate.release), candidate.release.clone()))
    });
    Ok(candidates)
}

/// Takes a kernel from the cache, or downloads it.
fn obtain(apt: &Apt, candidate: &Candidate, kernels: &Path) -> Result<Kernel> {
    let dir = kernels.join(&candidate.release);
    if let Some(kernel) = cached(&dir, &candidate.release) {
        return Ok(kernel);
    }
    eprintln!("downloading kernel {}", candidate.release);
    let part = tempfile::tempdir_in(kernels)?;
    let packages: &[&str] = match candidate.packaging {
        Packaging::Whole => &["image"],
        Packaging::Split => &["binary", "modules"],
    };
    for package in packages {
        apt.extract(
            &format!("linux-{package}-{}", candidate.release),
            part.path(),
        )?;
    }
    // Complete only under its final name: an interrupted download leaves nothing that looks like a kernel.
    fs::rename(part.keep(), &dir)?;
    cached(&dir, &candidate.release).with_context(|| {
        format!(
            "the packages of {} lack the image or the modules",
            candidate.release
        )
    })
}

fn cached(dir: &Path, release: &str) -> Option<Kernel> {
    let first = |paths: [String; 2]| {
        paths
            .into_iter()
            .map(|path| dir.join(path))
            .find(|path| path.exists())
    };
    let image = first([
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ])?;
    let modules = first([
        format!("usr/lib/modules/{release}"),
        format!("lib/modules/{release}"),
    ])?;
    Some(Kernel {
        release: release.to_owned(),
        image,
        modules: Some(modules),
    })
}

fn newest_cached(kernels: &Path, wanted: &str) -> Result<Option<Kernel>> {
    let mut releases: Vec<String> = fs::read_dir(kernels)?
        .filter_map(|entry| {
            entry
                .ok()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
        })
        .filter(|release| numbers(release).is_some() && matches(release, wanted))
        .collect();
    releases.sort_by_key(|release| numbers(release));
    Ok(releases
        .iter()
        .rev()
        .find_map(|release| cached(&kernels.join(release), release)))
}

fn matches(release: &str, wanted: &str) -> bool {
    match (numbers(release), numbers(wanted)) {
        (Some(release), Some(wanted)) => release.starts_with(&wanted),
        _ => wanted == "latest",
    }
}

/// The numbers that a version starts with: `7.3.4+deb13-cloud-amd64` is 7, 3, 4.
pub(crate) fn numbers(version: &str) -> Option<Vec<u32>> {
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    version[..end]
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

fn series(releases: &[String]) -> String {
    let series: BTreeSet<Vec<u32>> = releases
        .iter()
        .filter_map(|release| numbers(release).map(|numbers| numbers.into_iter().take(2).collect()))
        .collect();
    let names: Vec<String> = series
        .iter()
        .map(|numbers| {
            numbers
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(".")
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{matches, numbers};

    #[test]
    fn a_series_names_its_versions_and_no_other() {
        assert!(matches("6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(matches("6.12.117+deb12-cloud-amd64", "6.12.117"));
        assert!(matches("6.12.117+deb12-cloud-amd64", "latest"));
        assert!(!matches("6.1.117+deb12-cloud-amd64", "6.12"));
        assert!(!matches("6.12.117+deb12-cloud-amd64", "6.1"));
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(numbers("6.12.117+deb12") > numbers("6.12.95+deb12"));
        assert_eq!(numbers("cloud-amd64"), None);
    }
}
