//! The host as a whole.

use crate::facts::Node;
use crate::finding::{Cause, Certainty, Health};

use super::case::Case;
use super::draft::Draft;

/// What is wrong with the host.
pub(super) fn findings(case: &Case<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = no_driver(case)
        .into_iter()
        .chain(no_io_uring(case))
        .chain(defect(case))
        .collect();
    drafts.extend(files(case));
    drafts
}

fn warning(cause: Cause, says: String) -> Draft {
    Draft::new(cause, Health::Warning, Certainty::Certain, says)
}

fn no_driver(case: &Case<'_>) -> Option<Draft> {
    let host = &case.now.host;
    if host.driver_loaded != Some(false) {
        return None;
    }
    let says = match host.driver_configured.as_deref() {
        Some("no") => format!("the kernel {} has no ublk driver", host.release),
        Some("module") => {
            "the ublk driver is not loaded; opening /dev/ublk-control does not load it".to_owned()
        }
        _ => "the ublk driver is not loaded".to_owned(),
    };
    Some(
        warning(Cause::NoDriver, says)
            .because("there is neither /dev/ublk-control nor /sys/module/ublk_drv"),
    )
}

fn no_io_uring(case: &Case<'_>) -> Option<Draft> {
    let io_uring = &case.now.host.io_uring;
    let says = match io_uring.disabled {
        Some(2) => "io_uring is switched off for everybody: no ublk server can run",
        Some(1) if !case.now.host.root => "io_uring is switched off for the unprivileged",
        _ => return None,
    };
    let disabled = io_uring.disabled.unwrap_or_default();
    Some(
        warning(Cause::NoIoUring, says.to_owned())
            .because(format!("kernel.io_uring_disabled is {disabled}")),
    )
}

/// The kernel has complained of the driver. After a warning it goes on as if nothing had been.
fn defect(case: &Case<'_>) -> Option<Draft> {
    const FATAL: &[&str] = &["BUG:", "Oops", "general protection fault", "kernel BUG at"];
    let with = |words: &[&str]| -> Vec<String> {
        let lines = case.now.host.log.iter();
        lines
            .filter(|line| words.iter().any(|word| line.contains(word)))
            .cloned()
            .collect()
    };
    let (fatal, warnings) = (with(FATAL), with(&["WARNING:"]));
    let release = &case.now.host.release;
    if !fatal.is_empty() {
        let says =
            format!("the kernel {release} has run into a defect of its own that concerns ublk");
        let draft = warning(Cause::KernelDefect, says).because_all(fatal);
        return Some(draft.first("reboot before anything else of ublk is trusted"));
    }
    let says = format!("the kernel {release} has warned of something in ublk, and went on");
    (!warnings.is_empty()).then(|| {
        Draft::new(
            Cause::KernelDefect,
            Health::Healthy,
            Certainty::Certain,
            says,
        )
        .because_all(warnings)
    })
}

/// `dd of=/dev/ublkb0` without a device makes a file there, and succeeds.
fn files(case: &Case<'_>) -> Vec<Draft> {
    case.devices()
        .filter(|device| device.in_both(|device| device.node == Node::File))
        .map(|device| {
            let path = device.now.id.block_path();
            let says = format!(
                "{} is a file and no block device: what was written there went into memory",
                path.display()
            );
            warning(Cause::NodeIsFile, says)
                .device(device.now.id)
                .first(format!("rm {}", path.display()))
        })
        .collect()
}
