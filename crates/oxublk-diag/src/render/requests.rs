//! Where requests are, who waits, and how the devices are.

use std::fmt::Write as _;

use crate::facts::Device;
use crate::finding::{Located, Report};
use crate::words::{age, bytes};

use super::Style;

/// More rows say no more.
const MAX_ROWS: usize = 40;

pub(super) fn table(report: &Report, style: Style) -> String {
    let shown: Vec<&Located> = report
        .requests
        .iter()
        .filter(|request| style.verbose || request.stuck)
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut rows = vec![
        [
            "disk", "queue", "tag", "request", "age", "station", "waiting",
        ]
        .map(str::to_owned),
    ];
    rows.extend(shown.iter().take(MAX_ROWS).map(|request| row(request)));
    let mut text = format!("\nrequests:\n{}", columns(&rows));
    if shown.len() > MAX_ROWS {
        let _ = writeln!(text, "  and {} more", shown.len() - MAX_ROWS);
    }
    text
}

fn row(request: &Located) -> [String; 7] {
    let length = request
        .bytes
        .filter(|length| *length > 0)
        .map(|length| format!(" {}", bytes(length)));
    let sector = request.sector.map(|sector| format!(" at sector {sector}"));
    let station = request
        .station
        .map_or_else(|| "?".to_owned(), |station| station.to_string());
    [
        request.device.disk_name(),
        request.queue.to_string(),
        request.tag.to_string(),
        format!(
            "{}{}{}",
            request.operation,
            length.unwrap_or_default(),
            sector.unwrap_or_default()
        ),
        request.age_ms.map_or_else(|| "?".to_owned(), age),
        station,
        request.waiters.join("; "),
    ]
}

/// Columns, each as wide as its widest cell.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:width$} ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn waiters(report: &Report) -> String {
    let waiters = &report.snapshot.waiters;
    let mut text = String::new();
    if waiters.is_empty() {
        return text;
    }
    text.push_str("\nwaiting for a disk:\n");
    let rows: Vec<[String; 3]> = waiters
        .iter()
        .take(MAX_ROWS)
        .map(|waiter| {
            let behind = match waiter.issued {
                Some(false) => ", behind another's request: it issued none",
                _ => "",
            };
            [
                format!("{} (pid {})", waiter.comm, waiter.pid),
                waiter.since_ms.map_or_else(|| "?".to_owned(), age),
                format!("in {}{behind}", waiter.what),
            ]
        })
        .collect();
    text.push_str(&columns(&rows));
    if waiters.len() > MAX_ROWS {
        let _ = writeln!(text, "  and {} more", waiters.len() - MAX_ROWS);
    }
    text
}

/// What servers of ours say of their own requests.
pub(super) fn recorders(report: &Report) -> String {
    let rows: Vec<[String; 6]> = report
        .snapshot
        .devices
        .iter()
        .filter_map(|device| Some((device, device.recorder.as_ref()?)))
        .flat_map(|(device, recorder)| recorder.requests.iter().map(move |tag| (device, tag)))
        .map(|(device, tag)| {
            [
                device.id.disk_name(),
                tag.queue.to_string(),
                tag.tag.to_string(),
                format!(
                    "{} {} at sector {}",
                    tag.operation,
                    bytes(tag.bytes),
                    tag.sector
                ),
                tag.station.to_string(),
                format!("for {}", age(tag.since_ms)),
            ]
        })
        .take(MAX_ROWS)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\nas the servers say:\n{}", columns(&rows))
}

pub(super) fn devices(report: &Report) -> String {
    let mut text = String::new();
    if report.snapshot.devices.is_empty() {
        return text;
    }
    text.push_str("\ndevices:\n");
    let rows: Vec<[String; 4]> = report.snapshot.devices.iter().map(device).collect();
    text.push_str(&columns(&rows));
    text
}

fn device(device: &Device) -> [String; 4] {
    let state = device
        .state
        .map_or_else(|| "?".to_owned(), |state| state.to_string());
    let size = match (device.queue_count, device.depth) {
        (Some(queues), Some(depth)) => format!("{queues}×{depth}"),
        _ => "?".to_owned(),
    };
    let servers: Vec<String> = device
        .servers
        .iter()
        .map(|server| format!("{} (pid {})", server.comm, server.pid))
        .collect();
    let servers = if servers.is_empty() {
        "no server seen".to_owned()
    } else {
        servers.join(", ")
    };
    [
        format!("/dev/{}", device.id.disk_name()),
        state,
        size,
        servers,
    ]
}
