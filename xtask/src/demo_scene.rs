//! What `cargo demo` does on a machine that has the driver, be it this one or a guest.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Runs the scene: every step, then the total.
pub(crate) fn run(oxublk: &Path, files: &Path) -> Result<u8> {
    let started = Instant::now();
    let mut stage = Stage {
        oxublk: oxublk.to_path_buf(),
        device: None,
        mounted: None,
    };
    let done = stage.play(files);
    if let Err(error) = done {
        println!("✗ {error:#}");
        stage.clear();
        return Ok(1);
    }
    println!("Done in {:.2} s.", started.elapsed().as_secs_f64());
    Ok(0)
}

/// What exists at the moment and must go at the end.
#[derive(Debug)]
struct Stage {
    oxublk: PathBuf,
    device: Option<PathBuf>,
    mounted: Option<tempfile::TempDir>,
}

impl Stage {
    fn play(&mut self, files: &Path) -> Result<()> {
        let disk = step("make a memory disk of 256 MiB", || {
            let disk = PathBuf::from(made_path(&self.oxublk(&["add", "mem", "--size", "256M"])?)?);
            self.device = Some(disk.clone());
            Ok((disk.display().to_string(), disk))
        })?;
        step("make an ext4 file system", || {
            tool("mkfs.ext4", &["-q", "-F"], &disk)
        })?;
        step("mount it", || self.mount(&disk))?;
        let place = self.place()?;
        step("copy this repository's files", || {
            let total = copy_tree(files, &place)?;
            Ok((total.to_string(), ()))
        })?;
        // What is read after this comes from the disk: unmounting empties the page cache of the file system.
        step("sync, unmount", || self.unmount())?;
        step("check the file system", || {
            tool("fsck.ext4", &["-f", "-n"], &disk)
        })?;
        step("mount it again", || self.mount(&disk))?;
        let place = self.place()?;
        step("read all back and compare", || {
            let total = compare_tree(files, &place)?;
            Ok((format!("{total}, identical"), ()))
        })?;
        step("unmount", || self.unmount())?;
        let id = id_of(&disk)?;
        let info = step("ask what the disk did", || {
            Ok((String::new(), self.oxublk(&["info", &id])?))
        })?;
        indent(&info);
        step("remove the disk", || {
            self.oxublk(&["del", &id])?;
            self.device = None;
            Ok((String::new(), ()))
        })?;
        step("look that nothing is left", || {
            if disk.exists() {
                bail!("{} is still there", disk.display());
            }
            Ok((String::new(), ()))
        })?;
        indent(&self.oxublk(&["list"])?);
        Ok(())
    }

    fn oxublk(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.oxublk).args(arguments))
    }

    fn place(&self) -> Result<PathBuf> {
        self.mounted
            .as_ref()
            .map(|dir| dir.path().to_path_buf())
            .context("nothing is mounted")
    }

    fn mount(&mut self, disk: &Path) -> Result<(String, ())> {
        let place = tempfile::Builder::new().prefix("oxublk-demo-").tempdir()?;
        output(
            Command::new("mount")
                .args(["-t", "ext4"])
                .arg(disk)
                .arg(place.path()),
        )?;
        let shown = place.path().display().to_string();
        self.mounted = Some(place);
        Ok((shown, ()))
    }

    fn unmount(&mut self) -> Result<(String, ())> {
        output(Command::new("umount").arg(self.place()?))?;
        self.mounted = None;
        Ok((String::new(), ()))
    }

    /// After a failure: leaves nothing behind, as far as it can.
    fn clear(&mut self) {
        if self.mounted.is_some()
            && let Err(error) = self.unmount()
        {
            println!("  {error:#}");
            // The directory is in use as a mount point: its removal would take the disk's files with it.
            if let Some(place) = self.mounted.take() {
                println!("  left mounted: {}", place.keep().display());
            }
        }
        if let Some(disk) = self.device.take()
            && let Err(error) = id_of(&disk).and_then(|id| self.oxublk(&["del", &id]))
        {
            println!("  {error:#}");
        }
    }
}

/// Does one thing and shows its name, time and what it says.
fn step<T>(name: &str, action: impl FnOnce() -> Result<(String, T)>) -> Result<T> {
    let started = Instant::now();
    let (says, result) = action().with_context(|| name.to_owned())?;
    let line = format!(
        "✓ {name:<34} {:>7.2} s  {says}",
        started.elapsed().as_secs_f64()
    );
    println!("{}", line.trim_end());
    Ok(result)
}

fn indent(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

fn tool(program: &str, arguments: &[&str], disk: &Path) -> Result<(String, ())> {
    output(Command::new(program).args(arguments).arg(disk))?;
    Ok((String::new(), ()))
}

/// Runs a program; when it fails, what it said is the error.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!(
            "{name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&said).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The path that `oxublk add` prints.
fn made_path(printed: &str) -> Result<&str> {
    printed
        .split_whitespace()
        .find(|word| word.starts_with("/dev/ublkb"))
        .with_context(|| format!("oxublk add printed no path: {}", printed.trim()))
}

fn id_of(disk: &Path) -> Result<String> {
    let name = disk.to_string_lossy();
    let id = name
        .strip_prefix("/dev/ublkb")
        .with_context(|| format!("{name} is no ublk device"))?;
    Ok(id.to_owned())
}

/// Files and bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    files: u64,
    bytes: u64,
}

impl std::fmt::Display for Total {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} files, {} KiB", self.files, self.bytes / 1024)
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<Total> {
    for_each_file(from, from, &mut |file, name| {
        let copy = to.join(name);
        if let Some(dir) = copy.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(file, &copy).with_context(|| format!("cannot write {}", copy.display()))
    })
}

fn compare_tree(from: &Path, to: &Path) -> Result<Total> {
    for_each_file(from, from, &mut |file, name| {
        let copy = to.join(name);
        let (written, read) = (
            fs::read(file)?,
            fs::read(&copy).with_context(|| format!("cannot read {}", copy.display()))?,
        );
        if written != read {
            bail!("{} came back different", name.display());
        }
        Ok(u64::try_from(read.len())?)
    })
}

/// Calls `action` with each file and its name below `root`; it returns the bytes that it moved.
fn for_each_file(
    root: &Path,
    dir: &Path,
    action: &mut dyn FnMut(&Path, &Path) -> Result<u64>,
) -> Result<Total> {
    let mut total = Total::default();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            let inside = for_each_file(root, &path, action)?;
            total = Total {
                files: total.files + inside.files,
                bytes: total.bytes + inside.bytes,
            };
        } else {
            total.bytes += action(&path, path.strip_prefix(root)?)?;
            total.files += 1;
        }
    }
    Ok(total)
}
