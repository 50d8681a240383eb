//! A private apt: reads the archives of other Debian releases without touching the system's own sources.
//!
//! The address of the archive is taken from the system's apt, so a machine with a mirror uses its mirror.

use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Releases whose kernels we look at, with the suites of each.
const SUITES: &[&str] = &[
    "bookworm",
    "bookworm-updates",
    "bookworm-backports",
    "trixie",
    "trixie-updates",
    "trixie-backports",
];
const SECURITY_SUITES: &[&str] = &["bookworm-security", "trixie-security"];
/// The lists are fetched again when they are older than this.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The private apt.
#[derive(Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets it up in the cache, and fetches the lists of packages when they are missing or old.
    pub(crate) fn open() -> Result<Self> {
        let apt = Self {
            dir: paths::cache_dir("apt")?,
        };
        for dir in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.dir.join(dir))?;
        }
        let stamp = apt.dir.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < MAX_AGE));
        if !fresh {
            apt.write_sources()?;
            eprintln!("fetching Debian's lists of kernels");
            if let Err(error) = apt.run("apt-get", &["-q", "update"]) {
                if !stamp.exists() {
                    return Err(error);
                }
                eprintln!("using the old lists: {error:#}");
            } else {
                fs::write(&stamp, "")?;
            }
        }
        Ok(apt)
    }

    fn write_sources(&self) -> Result<()> {
        let (main, security) = sites()?;
        let mut sources = String::new();
        let mut add = |site: &str, suites: &[&str]| {
            for suite in suites {
                sources.push_str(&format!("deb {KEYRING} {site} {suite} main\n"));
            }
        };
        add(&main, SUITES);
        if let Some(security) = security {
            add(&security, SECURITY_SUITES);
        }
        fs::write(self.dir.join("sources.list"), sources)?;
        Ok(())
    }

    /// The names of all packages that match a regular expression of apt-cache.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let text = self.run("apt-cache", &["search", "--names-only", pattern])?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(String::from)
            .collect())
    }

    /// The newest version of a package in all suites.
    pub(crate) fn newest_version(&self, package: &str) -> Result<String> {
        let list = self.run("apt-cache", &["madison", package])?;
        let mut newest: Option<&str> = None;
        for version in list.lines().filter_map(|line| line.split('|').nth(1)) {
            let version = version.trim();
            let newer = match newest {
                None => true,
                Some(newest) => Command::new("dpkg")
                    .args(["--compare-versions", version, "gt", newest])
                    .status()
                    .context("cannot run dpkg")?
                    .success(),
            };
            if newer {
                newest = Some(version);
            }
        }
        let newest = newest.with_context(|| format!("the archive has no package {package}"))?;
        Ok(newest.to_owned())
    }

    /// Downloads a package and extracts it into `dir`.
    pub(crate) fn extract(&self, package: &str, dir: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.dir)?;
        self.run_in(downloads.path(), "apt-get", &["-q", "download", package])?;
        let deb = fs::read_dir(downloads.path())?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .with_context(|| format!("apt-get download {package} left no file"))?;
        let status = Command::new("dpkg-deb")
            .arg("-x")
            .args([&deb, dir])
            .status()?;
        if !status.success() {
            bail!("dpkg-deb cannot extract {package}: {status}");
        }
        Ok(())
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run_in(&self.dir, program, arguments)
    }

    fn run_in(&self, dir: &Path, program: &str, arguments: &[&str]) -> Result<String> {
        let own = self.dir.display();
        let output = Command::new(program)
            .current_dir(dir)
            .env("LC_ALL", "C")
            .args(["-o", &format!("Dir::Etc::sourcelist={own}/sources.list")])
            .args(["-o", "Dir::Etc::sourceparts=/dev/null"])
            .args(["-o", &format!("Dir::State::lists={own}/lists")])
            .args(["-o", &format!("Dir::Cache={own}")])
            .args(["-o", "Acquire::Languages=none"])
            .args([
                "-o",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            ])
            .args(["-o", "APT::Sandbox::User=root"])
            .args(["-o", "APT::Update::Post-Invoke-Success::="])
            .args(arguments)
            .output()
            .with_context(|| {
                format!("cannot run {program}: kernels come from Debian's archive, through apt")
            })?;
        if !output.status.success() {
            bail!(
                "{program} {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
                    .trim()
                    .replace('\n', "; ")
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The keys of Debian's releases, where the package debian-archive-keyring puts them.
const KEYRING: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";

/// The archive and the security archive that the system's own apt uses.
fn sites() -> Result<(String, Option<String>)> {
    if let Ok(site) = std::env::var("OXUBLK_DEBIAN_MIRROR") {
        return Ok((site, None));
    }
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(SITE)"])
        .output()
        .context("cannot run apt-get: kernels come from Debian's archive, through apt")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ending = |end: &str| {
        text.lines()
            .map(|site| site.trim_end_matches('/'))
            .find(|site| site.ends_with(end))
            .map(String::from)
    };
    let Some(main) = ending("/debian") else {
        bail!(
            "the system's apt knows no Debian archive to take kernels from: \
             set OXUBLK_DEBIAN_MIRROR to the address of one, or give --kernel IMAGE --modules DIR"
        );
    };
    Ok((main, ending("/debian-security")))
}
