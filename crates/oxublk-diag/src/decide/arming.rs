//! A device that does not get ready: its tags are not armed.

use oxublk::DeviceState;

use crate::facts::{Command, IoCommand, Queue, Ring, Submission};
use crate::finding::{Cause, Certainty, Health};
use crate::words::age;

use super::answers::words;
use super::case::{DeviceCase, milliseconds};
use super::draft::Draft;
use super::history::{commands, errno};

/// `-EOPNOTSUPP`.
const NOT_SUPPORTED: i32 = -95;

/// What keeps a device from getting ready.
pub(super) fn findings(device: &DeviceCase<'_>) -> Vec<Draft> {
    let being_made = device.in_both(|device| {
        device.block.is_none()
            && matches!(device.state, None | Some(DeviceState::Dead))
            && !device.servers.is_empty()
            && device.all_armed != Some(true)
    });
    // Between the looks a server that works gets on.
    let gets_on = device
        .before
        .is_some_and(|before| before.armed_tags() != device.now.armed_tags());
    if !being_made || gets_on {
        return Vec::new();
    }
    let draft = refused(device)
        .or_else(|| serialised(device))
        .or_else(|| unsubmitted(device))
        .or_else(|| not_fetched(device));
    draft
        .into_iter()
        .map(|draft| draft.device(device.now.id))
        .collect()
}

/// For how long START_DEV has waited.
fn start_waits(device: &DeviceCase<'_>) -> Option<Option<u64>> {
    device
        .control_wait(Command::StartDev)
        .map(|wait| wait.since_ms)
}

fn draft(device: &DeviceCase<'_>, cause: Cause, certainty: Certainty, says: String) -> Draft {
    let waits = start_waits(device);
    let since = waits
        .flatten()
        .map(|since| format!(" for {}", age(since)))
        .unwrap_or_default();
    Draft::new(cause, Health::Stuck, certainty, says)
        .because_all(waits.map(|_| format!("START_DEV waits{since} for every tag to be armed")))
        .because_all(device.now.queues.iter().map(queue_line))
}

/// `queue 1: 127 of its tags are armed; not armed: 3`.
fn queue_line(queue: &Queue) -> String {
    let ranges: Vec<String> = queue
        .unarmed
        .iter()
        .take(8)
        .map(|range| {
            if range.first == range.last {
                range.first.to_string()
            } else {
                format!("{} to {}", range.first, range.last)
            }
        })
        .collect();
    let armed = queue
        .armed
        .map_or_else(|| "?".to_owned(), |armed| armed.to_string());
    let rest = if ranges.is_empty() {
        String::new()
    } else {
        format!("; never armed: {}", ranges.join(", "))
    };
    format!("queue {}: {armed} tags armed{rest}", queue.id)
}

/// The driver refused fetches: with what, and what the entries look like, tells why.
fn refused(device: &DeviceCase<'_>) -> Option<Draft> {
    if let Some(draft) = stride(device) {
        return Some(draft);
    }
    let refusals: Vec<(&Ring, &Submission, IoCommand, i32)> = commands(device)
        .filter(|(_, submission, _)| submission.taken)
        .filter_map(|(ring, submission, command)| {
            let result = ring.refusal_of(submission)?;
            Some((ring, submission, command, result))
        })
        .collect();
    let (ring, submission, command, result) = *refusals.last()?;
    let evidence = format!("{} was refused with {}", words(&command), errno(result));
    let kind = command.op >> 8 & 0xff;
    // Opcodes without a type byte are the old encoding, which most kernels take: those that do not say EOPNOTSUPP.
    let known = kind == u32::from(b'u') || (kind == 0 && result != NOT_SUPPORTED);
    if !known {
        let says = format!(
            "the server's fetches are refused: the opcode {:#010x} is not in the driver's encoding (its second byte must be 'u')",
            command.op
        );
        return Some(draft(device, Cause::WrongOpcode, Certainty::Certain, says).because(evidence));
    }
    if let Some(place) = misplaced(ring, submission, &command, &refusals) {
        let says = format!(
            "the server's fetches are refused: their queue, tag and address are not at byte 48 of the submission: {place}"
        );
        return Some(
            draft(device, Cause::WrongPlacement, Certainty::Likely, says)
                .because(format!("what the driver read: {evidence}")),
        );
    }
    let why = why_refused(device, &command);
    let says = format!("the server's fetches are refused: {why}");
    Some(draft(device, Cause::FetchRefused, Certainty::Likely, says).because(evidence))
}

fn why_refused(device: &DeviceCase<'_>, command: &IoCommand) -> String {
    let queues = device.now.queue_count.unwrap_or(u16::MAX);
    let depth = device.now.depth.unwrap_or(u16::MAX);
    match command {
        _ if !command.is_fetch() => format!("command {:#04x} is no FETCH_REQ", command.number()),
        _ if command.queue.0 >= queues => {
            format!(
                "there is no queue {}: the device has {queues}, as ADD_DEV returned",
                command.queue
            )
        }
        _ if command.tag.0 >= depth => {
            format!(
                "there is no tag {}: the queues have {depth}, as ADD_DEV returned",
                command.tag
            )
        }
        _ if command.address == 0 && !device.user_copy() => {
            "they give no buffer (address 0)".to_owned()
        }
        _ if command.address != 0 && device.user_copy() => {
            "they give a buffer, which a device with USER_COPY does not have".to_owned()
        }
        _ => "the tag was fetched before, or by another thread".to_owned(),
    }
}

/// Where the 16 bytes seem to be instead. All refused entries look the same to the driver.
fn misplaced(
    ring: &Ring,
    submission: &Submission,
    command: &IoCommand,
    refusals: &[(&Ring, &Submission, IoCommand, i32)],
) -> Option<String> {
    let same = |other: &IoCommand| {
        (other.queue, other.tag, other.address) == (command.queue, command.tag, command.address)
    };
    let all_same = refusals.len() > 1 && refusals.iter().all(|(_, _, other, _)| same(other));
    let empty = command.queue.0 == 0 && command.tag.0 == 0 && command.address == 0;
    if !empty && !all_same {
        return None;
    }
    let bytes = |from: usize, to: usize| {
        submission
            .bytes
            .get(from..to)
            .is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    };
    if ring.has(Ring::SETUP_SQE128) && bytes(64, 80) {
        return Some(
            "they are at byte 64, behind the first half of a submission of 128 bytes".to_owned(),
        );
    }
    if bytes(16, 24) {
        return Some("there is a pointer at byte 16 instead; the driver follows none".to_owned());
    }
    all_same.then(|| "all of them look the same to the driver".to_owned())
}

/// Submissions of 64 bytes written one behind the other into a ring of 128-byte ones: the kernel sees every second one, and then
/// entries that were never written.
fn stride(device: &DeviceCase<'_>) -> Option<Draft> {
    let ring = device
        .rings()
        .filter(|ring| ring.has(Ring::SETUP_SQE128))
        .find(|ring| {
            let taken = || {
                ring.submissions
                    .iter()
                    .filter(|submission| submission.taken)
            };
            let unwritten =
                taken().any(|submission| submission.bytes.iter().all(|byte| *byte == 0));
            taken().any(two_in_one) || (unwritten && every_second_is_unarmed(device))
        })?;
    let says = "the server writes submissions of 64 bytes one behind the other into a ring whose entries have 128: the kernel sees every second one".to_owned();
    let fd = ring.fd.map_or_else(|| "?".to_owned(), |fd| fd.to_string());
    Some(draft(device, Cause::WrongPlacement, Certainty::Certain, says).because(format!(
        "the ring (descriptor {fd}) was made with IORING_SETUP_SQE128; the kernel took entries from it that were never written, or that hold two submissions"
    )))
}

fn two_in_one(submission: &Submission) -> bool {
    let half = |start: usize| submission.bytes.get(start..start + 8);
    half(64).is_some_and(|second| {
        second.first() == Some(&Submission::URING_CMD)
            && half(0).is_some_and(|first| first[4..] == second[4..])
    })
}

fn every_second_is_unarmed(device: &DeviceCase<'_>) -> bool {
    device.now.queues.iter().any(|queue| {
        queue.unarmed.len() > 1
            && queue
                .unarmed
                .iter()
                .all(|range| range.first == range.last && range.first.0 % 2 == 1)
    })
}

/// Linked or drained commands wait for the one before them to complete, which is when a request comes.
fn serialised(device: &DeviceCase<'_>) -> Option<Draft> {
    const CHAINED: u8 = Submission::IO_LINK | Submission::IO_HARDLINK | Submission::IO_DRAIN;
    let (_, submission, _) = commands(device).find(|(_, submission, command)| {
        submission.taken && command.is_fetch() && submission.flags & CHAINED != 0
    })?;
    let flag = if submission.flags & Submission::IO_DRAIN != 0 {
        "IOSQE_IO_DRAIN"
    } else {
        "IOSQE_IO_LINK"
    };
    let says = format!(
        "the server's fetches carry {flag}: each waits until the one before it completes, and a fetch completes when a request comes"
    );
    Some(draft(
        device,
        Cause::FetchesSerialised,
        Certainty::Certain,
        says,
    ))
}

/// Fetches that were written and not taken.
fn unsubmitted(device: &DeviceCase<'_>) -> Option<Draft> {
    // A server that has not asked for the start may yet come to it.
    if start_is_young(start_waits(device)?, device) {
        return None;
    }
    let ring = device.rings().find(|ring| {
        device.stays_unsubmitted(ring)
            && (ring.submissions.is_empty()
                || commands(device)
                    .any(|(other, submission, _)| std::ptr::eq(other, *ring) && !submission.taken))
    })?;
    let count = format!(
        "{} submissions of the ring (descriptor {}) are written and not taken, the same in both looks",
        ring.unsubmitted(),
        ring.fd.map_or_else(|| "?".to_owned(), |fd| fd.to_string())
    );
    let polled = ring
        .sqpoll
        .or_else(|| ring.has(Ring::SETUP_SQPOLL).then_some(crate::facts::Tid(0)));
    if let Some(tid) = polled {
        let says = format!(
            "the server's fetches are written, and the ring's polling thread {tid} sleeps: nobody wakes it"
        );
        return Some(draft(device, Cause::SqpollAsleep, Certainty::Certain, says).because(count));
    }
    let says = "the server's fetches are written, and nobody gives them to the kernel".to_owned();
    Some(draft(device, Cause::NotSubmitted, Certainty::Certain, says).because(count))
}

/// The start of a big device on a busy host takes its time.
fn start_is_young(waits: Option<u64>, device: &DeviceCase<'_>) -> bool {
    waits.is_some_and(|since| since < milliseconds(device.case.limits.slow))
}

/// Tags that were never fetched.
fn not_fetched(device: &DeviceCase<'_>) -> Option<Draft> {
    let waits = start_waits(device)?;
    if start_is_young(waits, device) {
        return None;
    }
    let known = device.now.queues.iter().any(|queue| queue.armed.is_some());
    if known && device.now.armed_tags() == 0 {
        let says = "START_DEV was sent before any tag was armed, and waits for that: nothing was ever fetched".to_owned();
        return Some(
            draft(device, Cause::FetchAfterStart, Certainty::Likely, says)
                .because_all(device.server_lines()),
        );
    }
    let whole: Vec<String> = device
        .now
        .queues
        .iter()
        .filter(|queue| queue.armed == Some(0))
        .map(|queue| queue.id.to_string())
        .collect();
    let says = match whole.as_slice() {
        _ if !known => "START_DEV waits: some tags are not armed".to_owned(),
        [] => "START_DEV waits for tags that the server never fetched".to_owned(),
        _ => format!(
            "START_DEV waits for queue {}, of which the server fetched nothing",
            whole.join(", ")
        ),
    };
    // Without the rings' memory: they may have been fetched, and refused.
    let certainty = match (known, commands(device).next().is_some()) {
        (true, true) => Certainty::Certain,
        (true, false) => Certainty::Likely,
        _ => Certainty::Possible,
    };
    Some(draft(device, Cause::NotFetched, certainty, says))
}
