//! What people read.

use std::fmt::Write as _;
use std::io;

use super::event::{Command, Slot, Thread};
use super::follow::{Checked, Said, Summary};
use super::request::{Followed, Kind, Refusal};
use super::stats::Latency;
use crate::finding::Station;
use crate::words::{age, bytes};

/// One line, or several: what `trace` prints.
#[must_use]
pub fn said(said: &Said, start_ns: u64) -> String {
    match said {
        Said::Request(request) => format!("{}\n", request_line(request, start_ns)),
        Said::Refused(refusal) => refused(refusal, start_ns),
        Said::Command(checked) => command(checked, start_ns),
        Said::Late { request, still_ns } => format!(
            "{} | {} for {}: {}\n",
            request_line(request, start_ns),
            if request.circles() {
                "not ended"
            } else {
                "nothing"
            },
            age(still_ns / 1_000_000),
            meaning(request)
        ),
        Said::Lost { count: Some(count) } => {
            format!("LOST: the kernel had no room for {count} events\n")
        }
        Said::Lost { count: None } => "LOST: the kernel had no room for events\n".to_owned(),
    }
}

/// `1.6 ms`, `36 µs`, `2.0 s`.
#[must_use]
pub fn short(ns: u64) -> String {
    let scaled = |unit: u64| {
        let tenths = ns / (unit / 10);
        match tenths {
            0..100 => format!("{}.{}", tenths / 10, tenths % 10),
            _ => (tenths / 10).to_string(),
        }
    };
    match ns {
        0..1000 => format!("{ns} ns"),
        1000..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", scaled(1_000_000)),
        _ => format!("{} s", scaled(1_000_000_000)),
    }
}

fn since(at_ns: u64, start_ns: u64) -> String {
    let us = at_ns.saturating_sub(start_ns) / 1000;
    format!("t+{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn place(slot: Option<Slot>) -> String {
    slot.map_or_else(|| "q?/t?".to_owned(), |slot| slot.to_string())
}

/// `EINVAL`'s words.
fn errno(error: i32) -> String {
    let text = io::Error::from_raw_os_error(error.saturating_neg()).to_string();
    let text = text
        .split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned();
    format!("{error} ({text})")
}

fn request_line(request: &Followed, start_ns: u64) -> String {
    let mut line = if request.began_before {
        "t-before".to_owned()
    } else {
        since(request.issued_ns, start_ns)
    };
    // Writing to a string does not fail.
    let _ = write!(line, " {} {}", place(request.slot), request.operation);
    if let Some(length) = request.bytes.filter(|length| *length > 0) {
        let _ = write!(line, " {}", bytes(length));
    }
    if let Some(sector) = request.sector {
        let _ = write!(line, " at sector {sector}");
    }
    if let Some(issuer) = &request.issuer {
        let _ = write!(line, " by {issuer}");
    }
    if request.began_before {
        let ago = start_ns.saturating_sub(request.issued_ns) / 1_000_000;
        let _ = write!(line, ": issued before the trace began, {} before", age(ago));
        if let Some(station) = request.found_at {
            let _ = write!(line, ", found there: {station}");
        }
    } else {
        line.push_str(": issued");
    }
    let mut last_ns = request
        .issued_ns
        .max(if request.began_before { start_ns } else { 0 });
    if request.circles() {
        let _ = write!(line, " | … {} rounds", request.rounds);
    }
    // Of one that goes round, the last round says enough.
    let first = if request.circles() {
        request.steps.len().saturating_sub(8)
    } else {
        0
    };
    if let Some(step) = request.steps.get(first.wrapping_sub(1)) {
        last_ns = step.at_ns;
    }
    for (index, step) in request.steps.iter().enumerate().skip(first) {
        let next = request.steps.get(index + 1).map(|step| &step.kind);
        // The completion says the same, and more.
        if matches!(
            (&step.kind, next),
            (Kind::Delivered { .. }, Some(Kind::Posted))
        ) {
            continue;
        }
        let after = short(step.at_ns.saturating_sub(last_ns));
        let _ = write!(line, " | +{after} {}", words(&step.kind, next));
        last_ns = step.at_ns;
    }
    if request.holes {
        line.push_str(" [events were lost]");
    }
    if let Some(took) = request.took_ns() {
        let _ = write!(line, "  ({})", short(took));
    }
    line
}

fn words(kind: &Kind, next: Option<&Kind>) -> String {
    match kind {
        Kind::Handed { by } => format!("handed to {by}"),
        Kind::Delivered { .. } => "delivered".to_owned(),
        Kind::Posted => "completion posted".to_owned(),
        Kind::GaveBuffer => "buffer given".to_owned(),
        Kind::Answered { by, result } => {
            let accepted = matches!(
                next,
                Some(Kind::Completed { .. } | Kind::Partly { .. } | Kind::Requeued)
            );
            let answer = if *result < 0 {
                errno(*result)
            } else {
                result.to_string()
            };
            let accepted = if accepted { " → accepted" } else { "" };
            format!("answered {answer} by {}{accepted}", by.tid)
        }
        Kind::Refused { by, command, error } => {
            format!("{command} of {by} REFUSED: {}", errno(*error))
        }
        Kind::Partly { bytes } => format!("{bytes} bytes of it completed"),
        Kind::Requeued => "given back to the block layer".to_owned(),
        Kind::IssuedAgain { .. } => "issued again".to_owned(),
        Kind::Completed { error: 0 } => "completed".to_owned(),
        Kind::Completed { error } => format!("FAILED with {}", errno(*error)),
        Kind::Vanished => "gone: its end was not seen".to_owned(),
    }
}

/// What it means that a request stays where it is.
fn meaning(request: &Followed) -> String {
    if request.circles() {
        return format!(
            "it goes round: sent again {} times (a buffer that the driver cannot use, or answers that are not its length in bytes)",
            request.rounds
        );
    }
    let refused = request.steps.last().map(|step| &step.kind);
    if let Some(Kind::Refused { .. }) = refused {
        return "its answer was refused, and no other came".to_owned();
    }
    match (request.slot, request.station()) {
        (None, _) => "without probes nothing more is known",
        (_, Station::Issued) => "the block layer has it, and does not send it again",
        (_, Station::InDriver) => {
            "the driver has it, and the thread that armed the tag does not take it over"
        }
        (_, Station::HandedToTask) => "its completion was not posted",
        (_, Station::Posted | Station::Reaped) => "the server has it, and does not answer",
        (_, Station::Answered) => "it was answered, and does not complete",
        (_, Station::Completed) => "it is completed",
    }
    .to_owned()
}

fn thread_of(tid: Option<crate::facts::Tid>) -> Option<Thread> {
    tid.map(|tid| Thread { tid, comm: None })
}

fn refused(refusal: &Refusal, start_ns: u64) -> String {
    let Refusal {
        at_ns,
        by,
        command,
        slot,
        error,
        has_request,
        handed_to,
        armed_by,
    } = refusal;
    let mut line = format!(
        "{} {slot} REFUSED: {command} → {} from tid {by}",
        since(*at_ns, start_ns),
        errno(*error)
    );
    let owner = handed_to.clone().or_else(|| thread_of(*armed_by));
    match owner {
        Some(owner) if owner.tid != by.tid => {
            let _ = write!(
                line,
                ", for a tag that tid {owner} fetched: only that thread may answer it"
            );
        }
        _ if command == "COMMIT_AND_FETCH_REQ" && !has_request => {
            line.push_str(", for a tag without a request")
        }
        _ => {}
    }
    line.push('\n');
    line
}

fn command(checked: &Checked, start_ns: u64) -> String {
    let Checked {
        at_ns,
        by,
        command,
        remarks,
    } = checked;
    let mut text = format!(
        "{} {} {} by {}",
        since(*at_ns, start_ns),
        command.slot(),
        command.name(),
        by
    );
    if command.is_commit() {
        let _ = write!(text, ", result {}", command.result());
    }
    let _ = write!(text, ", addr 0x{:x}: ", command.address());
    text.push_str(if remarks.iter().any(|remark| remark.wrong) {
        "WRONG\n"
    } else {
        "as it should be\n"
    });
    text.push_str(&dump(command));
    for remark in remarks {
        let _ = writeln!(
            text,
            "      {}{}",
            if remark.wrong { "wrong: " } else { "note: " },
            remark.says
        );
    }
    text
}

fn dump(command: &Command) -> String {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut text = String::new();
    if let Some(raw) = &command.raw {
        let _ = writeln!(
            text,
            "       0: {}  {}  addr: {}",
            hex(&raw.head),
            hex(&raw.operation),
            hex(&raw.address.to_le_bytes())
        );
    }
    let _ = writeln!(text, "      48: {}", hex(&command.payload));
    text
}

/// What `trace` prints at the end.
#[must_use]
pub fn summary(summary: &Summary, start_ns: u64) -> String {
    let mut text = format!(
        "\n{} requests in {}: {} failed, {} sent again; {} commands refused\n",
        summary.requests,
        short(summary.took_ns),
        summary.errors,
        summary.requeued,
        summary.refused
    );
    if summary.commands > 0 {
        let _ = writeln!(
            text,
            "{} commands compared: {} wrong",
            summary.commands, summary.wrong
        );
    }
    if summary.strangers > 0 {
        let _ = writeln!(
            text,
            "{} more requests ended whose beginning was not seen",
            summary.strangers
        );
    }
    match summary.lost {
        0 => text.push_str("no event was lost\n"),
        lost => {
            let _ = writeln!(
                text,
                "LOST: {lost} events found no room: what they would have told is missing above (more room: --buffer)"
            );
        }
    }
    if !summary.latencies.is_empty() {
        text.push_str(&table(&summary.latencies));
    }
    if !summary.open.is_empty() {
        let _ = writeln!(text, "\nstill open: {}", summary.open.len());
        for request in summary.open.iter().take(MAX_OPEN) {
            let _ = writeln!(
                text,
                "  {} | now: {}",
                request_line(request, start_ns),
                meaning(request)
            );
        }
        if summary.open.len() > MAX_OPEN {
            let _ = writeln!(text, "  and {} more", summary.open.len() - MAX_OPEN);
        }
    }
    text
}

/// More lines say no more.
const MAX_OPEN: usize = 40;

fn table(latencies: &[Latency]) -> String {
    let mut text = format!(
        "\n{:36} {:>8} {:>9} {:>9} {:>9} {:>9}\n",
        "from → to", "count", "p50", "p99", "p99.9", "max"
    );
    for latency in latencies {
        let times = [
            latency.p50_ns,
            latency.p99_ns,
            latency.p99_9_ns,
            latency.max_ns,
        ]
        .map(short);
        let _ = writeln!(
            text,
            "{:36} {:>8} {:>9} {:>9} {:>9} {:>9}",
            latency.leg.name(),
            latency.count,
            times[0],
            times[1],
            times[2],
            times[3]
        );
    }
    text
}
