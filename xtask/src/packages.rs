//! What must be installed on the host: QEMU, and the tools that go into the guest.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool, found in PATH, and the Debian package that carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

/// Tools by the package that carries them: these run on the host.
const ON_HOST: &[(&str, &[&str])] = &[
    ("qemu-system-x86", &["qemu-system-x86_64"]),
    ("kmod", &["depmod"]),
    ("xz-utils", &["xz"]),
    ("util-linux", &["setpriv"]),
    ("libc-bin", &["ldd"]),
];

/// The same for those that are copied into the guest. What is not here is there as an applet of busybox.
const IN_GUEST: &[(&str, &[&str])] = &[
    ("bash", &["bash"]),
    ("dash", &["sh"]),
    ("busybox-static", &["busybox"]),
    (
        "coreutils",
        &[
            "cat",
            "chmod",
            "chown",
            "cp",
            "cut",
            "date",
            "dd",
            "df",
            "du",
            "env",
            "head",
            "id",
            "ln",
            "ls",
            "mkdir",
            "mknod",
            "mktemp",
            "mv",
            "od",
            "rm",
            "seq",
            "sha256sum",
            "sleep",
            "sort",
            "split",
            "stat",
            "stty",
            "sync",
            "tail",
            "tee",
            "timeout",
            "touch",
            "tr",
            "truncate",
            "uname",
            "wc",
        ],
    ),
    ("diffutils", &["cmp", "diff"]),
    ("findutils", &["find", "xargs"]),
    ("grep", &["grep"]),
    ("sed", &["sed"]),
    ("procps", &["kill", "pgrep", "pkill", "ps"]),
    ("psmisc", &["fuser", "killall"]),
    ("kmod", &["kmod"]),
    ("mount", &["losetup", "mount", "umount"]),
    (
        "util-linux",
        &[
            "blkdiscard",
            "blkid",
            "blkzone",
            "blockdev",
            "chrt",
            "dmesg",
            "fallocate",
            "findmnt",
            "flock",
            "fstrim",
            "ionice",
            "lsblk",
            "mountpoint",
            "nsenter",
            "partx",
            "prlimit",
            "runuser",
            "setpriv",
            "setsid",
            "taskset",
            "unshare",
            "wipefs",
        ],
    ),
    ("fdisk", &["sfdisk"]),
    ("parted", &["parted", "partprobe"]),
    ("dmsetup", &["dmsetup"]),
    (
        "e2fsprogs",
        &[
            "debugfs",
            "dumpe2fs",
            "e2fsck",
            "fsck.ext4",
            "mke2fs",
            "mkfs.ext4",
            "resize2fs",
            "tune2fs",
        ],
    ),
    ("xfsprogs", &["mkfs.xfs", "xfs_db", "xfs_io", "xfs_repair"]),
    ("btrfs-progs", &["btrfs", "mkfs.btrfs"]),
    ("fio", &["fio"]),
    ("strace", &["strace"]),
];

/// The tools that go into the guest.
pub(crate) fn guest_tools() -> impl Iterator<Item = Tool> {
    flatten(IN_GUEST)
}

fn flatten(
    table: &'static [(&'static str, &'static [&'static str])],
) -> impl Iterator<Item = Tool> {
    table
        .iter()
        .flat_map(|(package, names)| names.iter().map(|name| Tool { name, package }))
}

/// Finds a program as a shell would, and in the system's own directories even when PATH lacks them.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Makes sure that everything is installed: installs it where that is ours to do, else names what is missing.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    let still = self::missing();
    if !still.is_empty() {
        bail!(
            "installed {}, yet their programs are still missing: {}",
            missing.join(" "),
            still.join(" ")
        );
    }
    Ok(())
}

/// The same for the library that building rublk needs.
pub(crate) fn ensure_libclang() -> Result<()> {
    let installed = std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("/llvm-"))
        .any(|llvm| llvm.join("include/clang-c").exists());
    if installed {
        Ok(())
    } else {
        install(&["libclang-dev"])
    }
}

/// The same for the NBD server and client of the bench.
pub(crate) fn ensure_nbd() -> Result<()> {
    if find("nbdkit").is_some() && find("nbd-client").is_some() {
        Ok(())
    } else {
        install(&["nbdkit", "nbd-client"])
    }
}

/// Installs packages where that is ours to do: as root, on Debian and its like.
fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("apt-get install --no-install-recommends {list}");
    if !rustix::process::geteuid().is_root() || !Path::new("/etc/debian_version").exists() {
        bail!("packages are missing, install them first: sudo {by_hand}");
    }
    eprintln!("installing packages: {list}");
    if !apt_install(packages)? {
        // The lists may be old: the versions they name are gone from the archive.
        apt(&["-q", "update"])?;
        if !apt_install(packages)? {
            bail!("packages could not be installed, try by hand: {by_hand}");
        }
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = flatten(ON_HOST)
        .chain(flatten(IN_GUEST))
        .filter(|tool| find(tool.name).is_none())
        .map(|tool| tool.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn apt_install(packages: &[&str]) -> Result<bool> {
    let mut arguments = vec!["-q", "-y", "--no-install-recommends", "install"];
    arguments.extend(packages);
    apt(&arguments)
}

/// Runs apt-get silently; its output is shown when it fails.
fn apt(arguments: &[&str]) -> Result<bool> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}
