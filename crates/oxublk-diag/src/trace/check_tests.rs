//! Commands that are right, and each way of being wrong.

use oxublk::{Features, QueueId, Tag};
use proptest::prelude::*;

use super::super::event::{Command, Raw, Slot};
use super::super::request::Followed;
use super::super::seed::Expected;
use super::check;

const FETCH: u32 = 0xc010_7520;
const COMMIT: u32 = 0xc010_7521;

fn payload(queue: u16, tag: u16, result: i32, address: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&queue.to_le_bytes());
    bytes[2..4].copy_from_slice(&tag.to_le_bytes());
    bytes[4..8].copy_from_slice(&result.to_le_bytes());
    bytes[8..].copy_from_slice(&address.to_le_bytes());
    bytes
}

fn command(op: u32, payload: [u8; 16]) -> Command {
    let mut operation = [0; 8];
    operation[..4].copy_from_slice(&op.to_le_bytes());
    let raw = Raw {
        head: [46, 1, 0, 0, 0, 0, 0, 0],
        operation,
        ..Raw::default()
    };
    Command {
        command: 1,
        op,
        issue_flags: 0x8000_0001,
        payload,
        raw: Some(raw),
    }
}

fn expected(features: Features) -> Expected {
    Expected {
        queues: Some(2),
        depth: Some(64),
        features: Some(features.bits()),
    }
}

fn read_of(bytes: u64) -> Followed {
    Followed {
        slot: Some(Slot {
            queue: QueueId(1),
            tag: Tag(3),
        }),
        operation: "read".to_owned(),
        bytes: Some(bytes),
        ..Followed::default()
    }
}

/// What is said, the mistakes with a `!` before them.
fn says(command: &Command, request: Option<&Followed>, features: Features) -> Vec<String> {
    let remarks = check(command, request, &expected(features), true);
    let mark = |wrong| if wrong { "!" } else { "" };
    remarks
        .into_iter()
        .map(|remark| format!("{}{}", mark(remark.wrong), remark.says))
        .collect()
}

#[track_caller]
fn one(says: &[String], words: &str) {
    assert!(
        says.len() == 1 && says[0].contains(words),
        "{words}: {says:?}"
    );
}

#[test]
fn good_commands_are_as_they_should_be() {
    let none = Features::empty();
    let read = read_of(4096);
    let fetch = command(FETCH, payload(1, 63, 0, 0x7f00_0000));
    assert_eq!(says(&fetch, None, none), [""; 0]);
    for result in [4096, -5, -28] {
        let commit = command(COMMIT, payload(1, 3, result, 0x7f00_0000));
        assert_eq!(says(&commit, Some(&read), none), [""; 0], "{result}");
    }
    let user_copy = command(COMMIT, payload(1, 3, 4096, 0));
    assert_eq!(says(&user_copy, Some(&read), Features::USER_COPY), [""; 0]);
    // All of it is zero, and that is right here.
    let first = command(FETCH, [0; 16]);
    assert_eq!(says(&first, None, Features::USER_COPY), [""; 0]);
}

#[test]
fn the_old_numbers_are_unusual_and_other_types_wrong() {
    let fetch = |op| command(op, payload(0, 0, 0, 0x1000));
    let none = Features::empty();
    one(
        &says(&fetch(0x20), None, none),
        "cmd_op 0x20 is the old number",
    );
    one(
        &says(&fetch(0xc010_7620), None, none),
        "!cmd_op 0xc0107620 should be 0xc0107520",
    );
    one(
        &says(&fetch(0xc018_7520), None, none),
        "the driver does not mind",
    );
    one(
        &says(&fetch(0xc010_7560), None, none),
        "!cmd_op 0xc0107560: the driver knows no command 0x60",
    );
}

#[test]
fn bytes_at_the_wrong_place_are_found() {
    let mut at_64 = command(FETCH, [0; 16]);
    at_64.issue_flags |= 1 << 8;
    at_64.raw.as_mut().unwrap().at_64 = Some(payload(1, 5, 0, 0x7f00_0000));
    one(
        &says(&at_64, None, Features::empty()),
        "!the 16 bytes are at byte 64 of the submission (there: queue 1, tag 5)",
    );
    // In a ring of short submissions that is the next one.
    at_64.issue_flags &= !(1 << 8);
    one(&says(&at_64, None, Features::empty()), "!addr is 0");

    let mut pointer = command(FETCH, [0; 16]);
    pointer.raw.as_mut().unwrap().pointed_at = Some(payload(0, 9, 0, 0x7f00_0000));
    one(
        &says(&pointer, None, Features::empty()),
        "!byte 16 holds a pointer to the 16 bytes (there: queue 0, tag 9)",
    );
}

#[test]
fn numbers_flags_and_addresses_are_compared() {
    let none = Features::empty();
    one(
        &says(&command(FETCH, payload(2, 0, 0, 1)), None, none),
        "!queue 2: the device has 2",
    );
    one(
        &says(&command(FETCH, payload(0, 64, 0, 1)), None, none),
        "!tag 64: a queue has 64",
    );
    one(
        &says(&command(FETCH, payload(0, 1, 0, 0)), None, none),
        "!addr is 0",
    );
    one(
        &says(
            &command(FETCH, payload(0, 1, 0, 1)),
            None,
            Features::USER_COPY,
        ),
        "!addr is 0x1",
    );
    one(
        &says(&command(COMMIT, payload(1, 4, 0, 1)), None, none),
        "!no request has tag 4 of queue 1",
    );
    let mut skips = command(FETCH, payload(0, 1, 0, 1));
    skips.raw.as_mut().unwrap().head[1] = 1 << 6;
    one(&says(&skips, None, none), "!it has IOSQE_CQE_SKIP_SUCCESS");
    let mut dirty = command(FETCH, payload(0, 1, 0, 1));
    dirty.raw.as_mut().unwrap().operation[7] = 1;
    one(&says(&dirty, None, none), "!bytes 12 to 15 are not zero");
}

#[test]
fn results_are_bytes() {
    let says = |operation: &str, result| {
        let mut request = read_of(8192);
        request.operation = operation.to_owned();
        let commit = command(COMMIT, payload(1, 3, result, 1));
        says(&commit, Some(&request), Features::empty())
    };
    one(
        &says("read", 16),
        "!result 16, and the read wants 8192 bytes: it must be in bytes, not in sectors",
    );
    one(&says("read", 8193), "too many");
    one(&says("read", 0), "!result 0");
    one(&says("read", 1), "!result 1");
    one(
        &says("write", 4096),
        "!result 4096, and the write wants 8192 bytes: 7.3 takes a short answer",
    );
    one(&says("read", 4096), "the rest is asked for again");
    one(&says("read", -70_000), "no errno");
    assert_eq!(says("discard", 0), [""; 0]);
}

proptest! {
    #[test]
    fn any_command_is_judged(
        op in any::<u32>(), flags in any::<u32>(), bytes in any::<[u8; 16]>(), head in any::<[u8; 8]>(),
        other in any::<Option<[u8; 16]>>(), features in any::<Option<u64>>(), length in any::<Option<u64>>(),
    ) {
        let mut command = command(op, bytes);
        command.issue_flags = flags;
        command.raw = Some(Raw { head, at_64: other, pointed_at: other, ..Raw::default() });
        let request = Followed { operation: "write".to_owned(), bytes: length, ..Followed::default() };
        let expected = Expected { queues: Some(1), depth: None, features };
        for remark in check(&command, Some(&request), &expected, true) {
            prop_assert!(!remark.says.is_empty());
        }
    }
}
