//! Tables and numbers for people.

use std::fmt::Write as _;
use std::time::Duration;

use oxublk::{DeviceInfo, Metrics, QueueReport, Stuck};

use crate::report::{DeviceMetrics, Operation};
use crate::size::Size;

/// Rows as lines with aligned columns; the first row is the head. Ends with a newline.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column| {
        row.get(column)
            .map_or(0, |cell: &String| cell.chars().count())
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `3 s`, `2 min 5 s`, `1 h 2 min`, `4 d 1 h`.
#[must_use]
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `870 ns`, `12.5 µs`, `3.1 ms`, `2.0 s`.
#[must_use]
pub fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1000 => format!("{ns} ns"),
        _ => format!("{:.1?}", Duration::from_nanos(ns))
            .replace("µs", " µs")
            .replace("ms", " ms"),
    }
}

/// `yes` or `no`.
#[must_use]
pub fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// What a device did, a line for each operation that occurred.
#[must_use]
pub fn metrics(metrics: &DeviceMetrics) -> String {
    let head = [
        "OPERATION",
        "REQUESTS",
        "BYTES",
        "ERRORS",
        "P50",
        "P99",
        "P99.9",
        "MAX",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(
        metrics
            .total
            .iter()
            .filter(|operation| operation.requests > 0)
            .map(operation),
    );
    if rows.len() == 1 {
        "no requests yet\n".to_owned()
    } else {
        table(&rows)
    }
}

fn operation(operation: &Operation) -> Vec<String> {
    let Operation {
        operation,
        requests,
        bytes,
        errors,
        latency,
    } = operation;
    let size = if *bytes > 0 {
        Size(*bytes).human()
    } else {
        "-".to_owned()
    };
    let mut row = vec![
        operation.replace('_', " "),
        requests.to_string(),
        size,
        errors.to_string(),
    ];
    if let Some(latency) = latency {
        let values = [
            latency.p50_ns,
            latency.p99_ns,
            latency.p99_9_ns,
            latency.max_ns,
        ];
        row.extend(values.map(nanoseconds));
    }
    row
}

/// What each queue and tag of a device is doing.
#[must_use]
pub fn tags(info: &DeviceInfo, metrics: &Metrics) -> String {
    let mut text = format!(
        "{}: {} requests in flight",
        info.id.block_path().display(),
        metrics.in_flight()
    );
    if let Some(Stuck { now, total }) = metrics.stuck {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {now} of them stuck, {total} so far");
    }
    text.push('\n');
    for queue in &metrics.queues {
        queue_tags(&mut text, queue, info.depth);
    }
    text
}

fn queue_tags(text: &mut String, queue: &QueueReport, depth: u16) {
    let answered: u64 = queue
        .operations
        .iter()
        .map(|operation| operation.requests)
        .sum();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "queue {}: {answered} requests answered", queue.queue);
    for request in &queue.in_flight {
        let _ = writeln!(
            text,
            "  tag {}: {} of {} bytes at sector {}, {}, for {}",
            request.tag,
            request.operation.name(),
            request.bytes,
            request.sector,
            request.station,
            nanoseconds(request.age_ns)
        );
    }
    let waiting = |tag: &u16| !queue.in_flight.iter().any(|request| request.tag.0 == *tag);
    let idle: Vec<u16> = (0..depth).filter(waiting).collect();
    if !idle.is_empty() {
        let _ = writeln!(text, "  tags {}: armed, no request", ranges(&idle));
    }
}

/// `0-4, 6, 8-127`, from ascending numbers.
fn ranges(numbers: &[u16]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(u16::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_blanks_at_the_end() {
        let rows =
            [["ID", "SIZE", "×"], ["10", "1 GiB", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "ID  SIZE   ×\n10  1 GiB\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn ages() {
        assert_eq!(
            [0, 59, 60, 3599, 3600, 90_000].map(age).join("|"),
            "0 s|59 s|1 min 0 s|59 min 59 s|1 h 0 min|1 d 1 h"
        );
    }

    #[test]
    fn short_times() {
        assert_eq!(nanoseconds(870), "870 ns");
        assert_eq!(nanoseconds(12_500), "12.5 µs");
        assert_eq!(nanoseconds(3_100_000), "3.1 ms");
        assert_eq!(nanoseconds(2_000_000_000), "2.0s");
    }

    #[test]
    fn runs_of_numbers() {
        assert_eq!(ranges(&[0, 1, 2, 4, 6, 7]), "0-2, 4, 6-7");
        assert_eq!(ranges(&[u16::MAX]), "65535");
        assert_eq!(ranges(&[]), "");
    }
}
