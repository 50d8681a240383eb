//! What is wrong with a command, from its bytes as the driver got them: a pure function.

use oxublk::Features;
use serde::{Deserialize, Serialize};

use super::event::{Command, Raw};
use super::request::Followed;
use super::seed::Expected;

/// Bits of byte 1 of a submission that no command on `/dev/ublkcN` may have.
const FLAGS: [(u8, &str); 4] = [
    (
        1 << 1,
        "IOSQE_IO_DRAIN: it waits until all commands before it have ended, and a fetch ends only with a request",
    ),
    (
        1 << 2,
        "IOSQE_IO_LINK: the next one starts only when this one has ended, and a fetch ends only with a request",
    ),
    (
        1 << 3,
        "IOSQE_IO_HARDLINK: the next one starts only when this one has ended, and a fetch ends only with a request",
    ),
    (
        1 << 6,
        "IOSQE_CQE_SKIP_SUCCESS: no completion is posted, and the server never hears of its request",
    ),
];
/// `IO_URING_F_SQE128`: the ring's submissions have 128 bytes.
const SQE128: u32 = 1 << 8;

/// Something that is worth knowing of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Whether it is a mistake, or only unusual.
    pub wrong: bool,
    /// What, in words.
    pub says: String,
}

fn wrong(says: impl Into<String>) -> Remark {
    Remark {
        wrong: true,
        says: says.into(),
    }
}

fn unusual(says: impl Into<String>) -> Remark {
    Remark {
        wrong: false,
        says: says.into(),
    }
}

/// What is wrong with a command. `request` is what has its tag; `sure` says whether all requests are known.
#[must_use]
pub fn check(
    command: &Command,
    request: Option<&Followed>,
    expected: &Expected,
    sure: bool,
) -> Vec<Remark> {
    let mut remarks = Vec::new();
    opcode(command, &mut remarks);
    if let Some(raw) = &command.raw {
        submission(raw, &mut remarks);
        if let Some(remark) = placement(command, raw, expected) {
            // The rest of what is read there has no meaning.
            remarks.push(remark);
            return remarks;
        }
    }
    if command.number() >= 0x25 {
        return remarks;
    }
    numbers(command, expected, &mut remarks);
    if command.number() <= 0x22 {
        address(command, expected, &mut remarks);
    }
    if command.is_commit() {
        match request {
            Some(request) => result(command, request, &mut remarks),
            None if sure => remarks.push(wrong(format!(
                "no request has tag {} of queue {}",
                command.slot().tag,
                command.slot().queue
            ))),
            None => {}
        }
    }
    remarks
}

/// `_IOWR('u', number, struct of 16 bytes)`.
fn opcode(command: &Command, remarks: &mut Vec<Remark>) {
    let number = command.number();
    let should_be = 0xc010_7500 | u32::from(number);
    if !(0x20..=0x27).contains(&number) {
        remarks.push(wrong(format!(
            "cmd_op 0x{:08x}: the driver knows no command 0x{number:02x}",
            command.op
        )));
    } else if command.op == u32::from(number) {
        remarks.push(unusual(format!(
            "cmd_op 0x{number:02x} is the old number: kernels without CONFIG_BLKDEV_UBLK_LEGACY_OPCODES refuse it, 0x{should_be:08x} works on all since 6.4"
        )));
    } else if command.op >> 8 & 0xff != u32::from(b'u') {
        remarks.push(wrong(format!(
            "cmd_op 0x{:08x} should be 0x{should_be:08x}: its second byte is 'u'",
            command.op
        )));
    } else if command.op != should_be {
        remarks.push(unusual(format!(
            "cmd_op 0x{:08x} should be 0x{should_be:08x}: the driver does not mind",
            command.op
        )));
    }
}

fn submission(raw: &Raw, remarks: &mut Vec<Remark>) {
    for (flag, meaning) in FLAGS {
        if raw.head[1] & flag != 0 {
            remarks.push(wrong(format!("it has {meaning}")));
        }
    }
    if raw.operation[4..] != [0; 4] {
        remarks.push(wrong("bytes 12 to 15 are not zero"));
    }
}

/// Whether the 16 bytes are somewhere else.
fn placement(command: &Command, raw: &Raw, expected: &Expected) -> Option<Remark> {
    if command.payload != [0; 16] {
        return None;
    }
    let found = |bytes: Option<[u8; 16]>| {
        let other = Command {
            payload: bytes?,
            raw: None,
            ..command.clone()
        };
        let plausible =
            other.payload != [0; 16] && in_range(&other, expected) && other.address() != 0;
        plausible.then(|| other.slot())
    };
    if command.issue_flags & SQE128 != 0
        && let Some(slot) = found(raw.at_64)
    {
        return Some(wrong(format!(
            "the 16 bytes are at byte 64 of the submission (there: queue {}, tag {}): the driver reads byte 48, in submissions of 128 bytes too, and sees queue 0, tag 0, no buffer",
            slot.queue, slot.tag
        )));
    }
    let slot = found(raw.pointed_at)?;
    Some(wrong(format!(
        "byte 16 holds a pointer to the 16 bytes (there: queue {}, tag {}): the driver wants the bytes themselves at byte 48, and sees queue 0, tag 0, no buffer",
        slot.queue, slot.tag
    )))
}

fn in_range(command: &Command, expected: &Expected) -> bool {
    let slot = command.slot();
    expected.queues.is_none_or(|queues| slot.queue.0 < queues)
        && expected.depth.is_none_or(|depth| slot.tag.0 < depth)
}

fn numbers(command: &Command, expected: &Expected, remarks: &mut Vec<Remark>) {
    let slot = command.slot();
    if let Some(queues) = expected.queues.filter(|queues| slot.queue.0 >= *queues) {
        remarks.push(wrong(format!(
            "queue {}: the device has {queues}, counted from 0",
            slot.queue
        )));
    }
    if let Some(depth) = expected.depth.filter(|depth| slot.tag.0 >= *depth) {
        remarks.push(wrong(format!(
            "tag {}: a queue has {depth}, counted from 0",
            slot.tag
        )));
    }
}

/// Where the buffer's address must be, and where it must not.
fn address(command: &Command, expected: &Expected, remarks: &mut Vec<Remark>) {
    let Some(features) = expected.features.map(Features::from_bits_truncate) else {
        return;
    };
    let no_buffer = Features::USER_COPY | Features::SUPPORT_ZERO_COPY | Features::AUTO_BUF_REG;
    let address = command.address();
    if features.intersects(no_buffer) {
        // A zone append is answered with its sector there.
        if address != 0 && !features.contains(Features::ZONED) {
            remarks.push(wrong(format!("addr is 0x{address:x}: with USER_COPY, SUPPORT_ZERO_COPY or AUTO_BUF_REG it must be 0")));
        }
    } else if address == 0 && !features.contains(Features::NEED_GET_DATA) {
        remarks.push(wrong("addr is 0: the driver copies to and from a buffer of the server's, and needs its address"));
    }
}

fn result(command: &Command, request: &Followed, remarks: &mut Vec<Remark>) {
    let result = command.result();
    if result < -4095 {
        remarks.push(wrong(format!("result {result} is no errno")));
    }
    let (Ok(result), Some(bytes)) = (u64::try_from(result), request.due_bytes()) else {
        return;
    };
    if !matches!(request.operation.as_str(), "read" | "write") || result == bytes {
        return;
    }
    let is = format!(
        "result {result}, and the {} wants {bytes} bytes",
        request.operation
    );
    remarks.push(if result > bytes {
        wrong(format!("{is}: too many"))
    } else if result.checked_mul(512) == Some(bytes) {
        wrong(format!("{is}: it must be in bytes, not in sectors"))
    } else if !result.is_multiple_of(512) || result == 0 {
        wrong(format!(
            "{is}: the answer of one that failed is a negative errno"
        ))
    } else if request.operation == "write" {
        wrong(format!(
            "{is}: 7.3 takes a short answer to a write for a whole one"
        ))
    } else {
        unusual(format!("{is}: the rest is asked for again"))
    });
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
