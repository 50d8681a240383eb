//! Reports as text for people. Programs read the [`Report`] itself, as JSON.

mod findings;
mod host;
mod requests;
pub(crate) mod wrap;

use std::fmt::Write as _;

use crate::doctor::Change;
use crate::finding::{Health, Report};

use crate::words::age;

/// What to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Requests that are not late too, who uses the disks, and the host.
    pub verbose: bool,
}

/// The report as `doctor` prints it: the summary, what is wrong, where requests are, who waits, and what could not be seen.
#[must_use]
pub fn text(report: &Report, style: Style) -> String {
    let mut text = summary(report);
    for finding in &report.findings {
        text.push('\n');
        text.push_str(&findings::finding(finding));
    }
    text.push_str(&requests::table(report, style));
    text.push_str(&requests::waiters(report));
    if style.verbose {
        text.push_str(&requests::recorders(report));
        text.push_str(&requests::devices(report));
        text.push_str(&host::host(&report.snapshot.host));
    }
    text.push_str(&gaps(report));
    text
}

/// One line: how many devices there are, and how they are.
#[must_use]
pub fn summary(report: &Report) -> String {
    let devices = report.snapshot.devices.len();
    let count = |health: Health| {
        let mut ids: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.health == health)
            .filter_map(|finding| finding.device)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let (stuck, warned) = (count(Health::Stuck), count(Health::Warning));
    let mut line = match devices {
        0 => "ublk: no devices".to_owned(),
        1 => "ublk: 1 device".to_owned(),
        many => format!("ublk: {many} devices"),
    };
    match report.health {
        Health::Healthy if devices == 0 => line.push('\n'),
        Health::Healthy => line.push_str(": healthy\n"),
        Health::Warning | Health::Stuck => {
            let mut parts = Vec::new();
            if stuck > 0 {
                parts.push(format!("{stuck} stuck"));
            }
            if warned > 0 {
                parts.push(format!("{warned} with warnings"));
            }
            if parts.is_empty() {
                parts.push("the host needs attention".to_owned());
            }
            // Writing to a string does not fail.
            let _ = writeln!(line, ": {}", parts.join(", "));
        }
    }
    line
}

/// What `doctor --watch` prints of a change.
#[must_use]
pub fn change(change: &Change) -> String {
    match change {
        Change::Appeared { finding } => findings::finding(finding),
        Change::Ended {
            device,
            cause,
            lasted_ms,
            ..
        } => {
            let place = device.map_or_else(
                || "this host".to_owned(),
                |id| format!("/dev/{}", id.disk_name()),
            );
            format!("ended: {place}: {cause}, after {}\n", age(*lasted_ms))
        }
        Change::HungTaskSoon {
            device,
            age_ms,
            after_seconds,
        } => format!(
            "warning: /dev/{}: the oldest request is {} old: after {after_seconds} s the kernel complains of a hung task\n",
            device.disk_name(),
            age(*age_ms)
        ),
    }
}

fn gaps(report: &Report) -> String {
    let mut text = String::new();
    if report.gaps.is_empty() {
        return text;
    }
    text.push_str("\nnot seen:\n");
    for gap in &report.gaps {
        let _ = writeln!(text, "  {} ({})", gap.what, gap.remedy);
    }
    text
}
