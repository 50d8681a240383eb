//! The host, for `doctor --verbose`.

use crate::facts::Host;

use super::requests::columns;

/// What matters for ublk on this host.
pub(super) fn host(host: &Host) -> String {
    let rows = [
        [
            "kernel".to_owned(),
            format!("{}, {}", host.release, host.machine),
        ],
        ["driver".to_owned(), driver(host)],
        ["io_uring".to_owned(), io_uring(host)],
        ["permissions".to_owned(), permissions(host)],
        ["limits".to_owned(), limits(host)],
    ];
    let mut text = format!("\nhost:\n{}", columns(&rows));
    let defects: Vec<[String; 2]> = host
        .known_defects()
        .map(|says| ["this kernel".to_owned(), says.to_owned()])
        .collect();
    text.push_str(&columns(&defects));
    text
}

fn driver(host: &Host) -> String {
    let there = match (host.driver_loaded, host.driver_configured.as_deref()) {
        (Some(true), _) => "loaded".to_owned(),
        (_, Some("no")) => "this kernel has none".to_owned(),
        (_, Some(how)) => format!("not loaded ({how})"),
        (_, None) => "not loaded".to_owned(),
    };
    match host.known_features() {
        Some(features) => format!(
            "{there}; {} features, `oxublk features` names them",
            features.bits().count_ones()
        ),
        None => there,
    }
}

fn io_uring(host: &Host) -> String {
    match host.io_uring.disabled {
        Some(0) => "for everybody",
        Some(1) => "for the privileged and one group (kernel.io_uring_disabled is 1)",
        Some(_) => "switched off (kernel.io_uring_disabled is 2)",
        None => "for everybody: this kernel has no switch",
    }
    .to_owned()
}

fn permissions(host: &Host) -> String {
    let who = if host.root { "root" } else { "not root" };
    let namespace = match host.initial_pid_namespace {
        Some(true) => "the host's processes",
        Some(false) => "another pid namespace than the host's",
        None => "which pid namespace is not known",
    };
    let lockdown = host.lockdown.as_deref().unwrap_or("not built in");
    format!("{who}; {namespace}; lockdown: {lockdown}")
}

fn limits(host: &Host) -> String {
    let devices = host.ublks_max.map_or_else(
        || "no limit known for unprivileged devices".to_owned(),
        |most| format!("at most {most} unprivileged devices (ublks_max)"),
    );
    let hung = match host.hung_task_seconds {
        Some(0) | None => "hung tasks are not logged".to_owned(),
        Some(seconds) => format!("tasks that hang for {seconds} s are logged"),
    };
    format!("{devices}; {hung}")
}

#[cfg(test)]
mod tests {
    use super::host;
    use crate::facts::{Host, IoUring};

    #[test]
    fn a_host_is_told_in_lines() {
        let text = host(&Host {
            release: "6.12.118".to_owned(),
            machine: "x86_64".to_owned(),
            driver_loaded: Some(false),
            driver_configured: Some("module".to_owned()),
            io_uring: IoUring {
                disabled: Some(2),
                present: Some(true),
            },
            lockdown: Some("integrity".to_owned()),
            ublks_max: Some(64),
            hung_task_seconds: Some(120),
            ..Host::default()
        });
        for words in [
            "6.12.118, x86_64",
            "not loaded (module)",
            "switched off",
            "not root",
            "lockdown: integrity",
            "at most 64",
            "120 s",
            "hang permanent",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
