//! The host as a whole.

use std::path::Path;

use crate::facts::{Host, IoUring};

use super::Roots;
use super::files;

/// What holds for all devices.
pub(super) fn look(roots: &Roots) -> Host {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let sys = |name: &str| roots.proc.join("sys/kernel").join(name);
    let module = roots.sys.join("module/ublk_drv");
    Host {
        driver_loaded: Some(module.exists() || roots.dev.join("ublk-control").exists()),
        driver_configured: configured(roots, &release),
        features: None,
        io_uring: IoUring {
            disabled: files::number(&sys("io_uring_disabled")),
            // The setting came with 6.6; before it, the ring's own folder in /proc/sys/kernel does not exist either.
            present: files::number::<u8>(&sys("io_uring_disabled")).map(|_| true),
        },
        root: rustix::process::geteuid().is_root() && in_initial_user_namespace(&roots.proc),
        initial_pid_namespace: initial_pid_namespace(&roots.proc),
        lockdown: files::line(&roots.sys.join("kernel/security/lockdown"))
            .as_deref()
            .and_then(chosen),
        ublks_max: files::number(&module.join("parameters/ublks_max")),
        hung_task_seconds: files::number(&sys("hung_task_timeout_secs")),
        log: Vec::new(),
        machine: uname.machine().to_string_lossy().into_owned(),
        release,
    }
}

/// `[none] integrity confidentiality`: the word in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Where the kernel's configuration has the driver.
fn configured(roots: &Roots, release: &str) -> Option<String> {
    if roots.sys.join("module/ublk_drv").exists() {
        return Some("loaded".to_owned());
    }
    let modules = Path::new("/lib/modules").join(release);
    let listed = |name: &str| {
        Some(
            files::text(&modules.join(name))
                .ok()?
                .contains("/ublk_drv.ko"),
        )
    };
    match (listed("modules.builtin"), listed("modules.dep")) {
        (Some(true), _) => Some("built in".to_owned()),
        (_, Some(true)) => Some("module".to_owned()),
        (None, None) => None,
        _ => Some("no".to_owned()),
    }
}

/// In the initial namespace all ids are mapped to themselves.
fn in_initial_user_namespace(proc: &Path) -> bool {
    files::line(&proc.join("self/uid_map"))
        .is_none_or(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// The kernel's own threads have their first, `kthreadd`, only there.
fn initial_pid_namespace(proc: &Path) -> Option<bool> {
    files::line(&proc.join("2/comm")).map_or(Some(false), |name| Some(name == "kthreadd"))
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn the_chosen_word_is_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality").as_deref(),
            Some("integrity")
        );
        assert_eq!(chosen("none"), None);
    }
}
