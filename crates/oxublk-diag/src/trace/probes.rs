//! Which probes follow a request, on which kernel: as data.
//!
//! Each is a dynamic event of the kernel's own tracing. What it records is written as a path from an argument of the probed
//! function through the kernel's structures; the offsets come from the kernel's type information, so that names of
//! arguments, which differ from kernel to kernel, do not matter.

use std::fmt::Write as _;

use crate::observe::kernel::Types;

/// The structures that the paths go through.
pub(super) const STRUCTURES: &[&str] = &[
    "blk_mq_hw_ctx",
    "block_device",
    "file",
    "gendisk",
    "inode",
    "io_uring_cmd",
    "request",
    "request_queue",
    "ublk_queue",
    "ublk_uring_cmd_pdu",
];

/// A probe.
#[derive(Debug)]
pub(super) struct Probe {
    /// The name of its events.
    pub(super) name: &'static str,
    /// What cannot be seen without it.
    pub(super) shows: &'static str,
    /// Where.
    pub(super) place: Place,
    /// What it records.
    fields: &'static [Field],
    /// How an event of our device is told from others.
    of: Node,
    /// A further condition of the kernel's filter.
    pub(super) only: &'static str,
}

/// Where a probe sits.
#[derive(Debug)]
pub(super) enum Place {
    /// At a tracepoint.
    Tracepoint(&'static str),
    /// At the beginning of the first of these functions that the kernel has.
    Entry(&'static [&'static str]),
    /// At the end of this function.
    Return(&'static str),
}

/// Where an event's device is found, from an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// The request that is this argument has a disk.
    Disk(&'static str),
    /// The command that is this argument is for a `/dev/ublkcN`.
    Char(&'static str),
    /// Nowhere.
    Unknown,
}

/// The device whose events are wanted.
#[derive(Clone, Debug)]
pub struct Target {
    /// The disk's name, `ublkbN`.
    pub disk_name: String,
    /// The number of `/dev/ublkbN`; none while there is no disk. Comparing names costs a little more.
    pub disk: Option<(u32, u32)>,
    /// The number of `/dev/ublkcN`.
    pub char_device: (u32, u32),
}

/// Major and minor number as the kernel keeps them.
const fn number((major, minor): (u32, u32)) -> u32 {
    major << 20 | minor
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    argument: &'static str,
    path: &'static [Step],
    /// The kernel's word for it, `s32`; `u`: unsigned, as wide as the member is.
    kind: &'static str,
    /// The probe is of use without it.
    optional: bool,
    /// Only for `--raw`.
    raw: bool,
}

/// One step of a path: reads memory at an offset from the value so far.
#[derive(Debug)]
enum Step {
    /// A member of a structure.
    Member(&'static str, &'static str),
    /// A member of a structure that lies in a member of another one.
    Inner([&'static str; 2], [&'static str; 2]),
    /// So many bytes: where the kernel's interface fixes them.
    Bytes(usize),
    /// The same in the memory of the process.
    User(usize),
}

use Step::{Bytes, Inner, Member, User};

const fn field(
    name: &'static str,
    argument: &'static str,
    path: &'static [Step],
    kind: &'static str,
) -> Field {
    Field {
        name,
        argument,
        path,
        kind,
        optional: false,
        raw: false,
    }
}

const fn optional(
    name: &'static str,
    argument: &'static str,
    path: &'static [Step],
    kind: &'static str,
) -> Field {
    let mut field = field(name, argument, path, kind);
    field.optional = true;
    field
}

const fn raw(name: &'static str, path: &'static [Step]) -> Field {
    Field {
        name,
        argument: "$arg1",
        path,
        kind: "x64",
        optional: true,
        raw: true,
    }
}

const SQE: Step = Member("io_uring_cmd", "sqe");
const CHAR_DEVICE: &[Step] = &[
    Member("io_uring_cmd", "file"),
    Member("file", "f_inode"),
    Member("inode", "i_rdev"),
];
const ARMED_QUEUE: &[Step] = &[
    Inner(["io_uring_cmd", "pdu"], ["ublk_uring_cmd_pdu", "ubq"]),
    Member("ublk_queue", "q_id"),
];
const DISK_NAME: &[Step] = &[
    Member("request", "q"),
    Member("request_queue", "disk"),
    Member("gendisk", "disk_name"),
];
const DISK: &[Step] = &[
    Member("request", "q"),
    Member("request_queue", "disk"),
    Member("gendisk", "part0"),
    Member("block_device", "bd_dev"),
];
const QUEUE: &[Step] = &[
    Member("request", "mq_hctx"),
    Member("blk_mq_hw_ctx", "queue_num"),
];

const REQUEST: Field = field("rq", "$arg1", &[], "x64");
const COMMAND: Field = field("cmd", "$arg1", &[], "x64");

/// The stations of a request in their order; of the probes for each, the first that can be placed.
pub(super) const STATIONS: &[&[Probe]] = &[
    &[Probe {
        name: "issued",
        shows: "when a request is issued, and with which tag",
        place: Place::Tracepoint("block_rq_issue"),
        fields: &[
            REQUEST,
            field("queue", "$arg1", QUEUE, "u"),
            field("tag", "$arg1", &[Member("request", "tag")], "s32"),
            field("op", "$arg1", &[Member("request", "cmd_flags")], "x32"),
            field("sector", "$arg1", &[Member("request", "__sector")], "u"),
            field("len", "$arg1", &[Member("request", "__data_len")], "u"),
            // The name comes last: it may hold anything.
            field("comm", "$comm", &[], "string"),
        ],
        of: Node::Disk("$arg1"),
        only: "",
    }],
    &[
        // Since 6.15: one call for each request.
        Probe {
            name: "handed",
            shows: "when the server's task takes a request over",
            place: Place::Entry(&["ublk_dispatch_req"]),
            fields: &[
                field("queue", "$arg1", &[Member("ublk_queue", "q_id")], "u"),
                field("tag", "$arg2", &[Member("request", "tag")], "s32"),
            ],
            of: Node::Disk("$arg2"),
            only: "",
        },
        // Before: one call for all requests of the queue that wait.
        Probe {
            name: "handed",
            shows: "when the server's task takes a request over",
            place: Place::Entry(&["ublk_rq_task_work_cb"]),
            fields: &[field("queue", "$arg1", ARMED_QUEUE, "u")],
            of: Node::Char("$arg1"),
            only: "",
        },
    ],
    &[Probe {
        name: "ended",
        shows: "which of the server's commands delivers a request",
        // Up to 6.17 a function of io_uring's, later that of its inline wrapper.
        place: Place::Entry(&["__io_uring_cmd_done", "io_uring_cmd_done"]),
        fields: &[
            COMMAND,
            field("res", "$arg2", &[], "s32"),
            optional("queue", "$arg1", ARMED_QUEUE, "u"),
            optional(
                "tag",
                "$arg1",
                &[Inner(
                    ["io_uring_cmd", "pdu"],
                    ["ublk_uring_cmd_pdu", "tag"],
                )],
                "u",
            ),
        ],
        of: Node::Char("$arg1"),
        only: "",
    }],
    &[Probe {
        name: "posted",
        shows: "when the completion is posted",
        place: Place::Tracepoint("io_uring_complete"),
        fields: &[field("cmd", "$arg2", &[], "x64")],
        of: Node::Char("$arg2"),
        only: "",
    }],
    &[Probe {
        name: "command",
        shows: "when the server answers, from which thread and with what",
        place: Place::Entry(&["ublk_ch_uring_cmd"]),
        fields: &[
            COMMAND,
            field("flags", "$arg2", &[], "x32"),
            field("op", "$arg1", &[SQE, Bytes(8)], "x32"),
            field("w0", "$arg1", &[SQE, Bytes(48)], "x64"),
            field("w1", "$arg1", &[SQE, Bytes(56)], "x64"),
            raw("b0", &[SQE, Bytes(0)]),
            raw("b8", &[SQE, Bytes(8)]),
            raw("b16", &[SQE, Bytes(16)]),
            raw("b64", &[SQE, Bytes(64)]),
            raw("b72", &[SQE, Bytes(72)]),
            raw("p0", &[SQE, Bytes(16), User(0)]),
            raw("p8", &[SQE, Bytes(16), User(8)]),
        ],
        of: Node::Char("$arg1"),
        only: "",
    }],
    &[Probe {
        name: "refused",
        shows: "which of the server's commands the driver refuses",
        place: Place::Return("ublk_ch_uring_cmd"),
        fields: &[COMMAND, field("res", "$retval", &[], "s32")],
        of: Node::Unknown,
        // -EIOCBQUEUED is what a command that was taken returns.
        only: "res < 0 && res != -529",
    }],
    &[Probe {
        name: "completed",
        shows: "when a request completes, and with which tag",
        place: Place::Tracepoint("block_rq_complete"),
        fields: &[
            REQUEST,
            field("queue", "$arg1", QUEUE, "u"),
            field("tag", "$arg1", &[Member("request", "tag")], "s32"),
            field("status", "$arg2", &[], "u8"),
            field("bytes", "$arg3", &[], "u32"),
            field("left", "$arg1", &[Member("request", "__data_len")], "u"),
        ],
        of: Node::Disk("$arg1"),
        only: "",
    }],
    &[Probe {
        name: "requeued",
        shows: "when the driver gives a request back",
        place: Place::Tracepoint("block_rq_requeue"),
        fields: &[REQUEST],
        of: Node::Disk("$arg1"),
        only: "",
    }],
];

/// What the kernel's own events show, where probes cannot be placed.
pub(super) const PLAIN: &[&str] = &["block_rq_issue", "block_rq_complete", "block_rq_requeue"];

impl Probe {
    /// Its arguments as the kernel reads them; the name of a member that this kernel does not have, else.
    pub(super) fn arguments(
        &self,
        types: &Types,
        target: &Target,
        with_raw: bool,
    ) -> Result<String, String> {
        let device = match (self.of, target.disk) {
            (Node::Disk(request), Some(_)) => Some(field("dev", request, DISK, "u")),
            (Node::Disk(request), None) => Some(field("disk", request, DISK_NAME, "string")),
            (Node::Char(command), _) => Some(field("dev", command, CHAR_DEVICE, "u")),
            (Node::Unknown, _) => None,
        };
        let mut text = String::new();
        for field in device
            .iter()
            .chain(self.fields)
            .filter(|field| with_raw || !field.raw)
        {
            match field.value(types) {
                // Writing to a string does not fail.
                Ok(value) => drop(write!(text, " {}={value}", field.name)),
                Err(_) if field.optional => {}
                Err(missing) => return Err(missing),
            }
        }
        Ok(text)
    }

    /// The kernel's filter: only our device.
    pub(super) fn filter(&self, target: &Target) -> String {
        match (self.of, target.disk) {
            (Node::Disk(_), Some(disk)) => format!("dev == {}", number(disk)),
            (Node::Disk(_), None) => format!("disk == \"{}\"", target.disk_name),
            (Node::Char(_), _) => format!("dev == {}", number(target.char_device)),
            (Node::Unknown, _) => self.only.to_owned(),
        }
    }
}

/// The filter of the kernel's own events.
pub(super) fn plain_filter(target: &Target) -> Option<String> {
    Some(format!("dev == {}", number(target.disk?)))
}

impl Field {
    /// `+48(+8($arg1)):x64`.
    fn value(&self, types: &Types) -> Result<String, String> {
        let find = |structure: &str, member: &str| {
            types
                .member(structure, member)
                .ok_or_else(|| format!("struct {structure} has no {member}"))
        };
        let mut value = self.argument.to_owned();
        let mut size = 8;
        for step in self.path {
            let offset;
            (offset, size) = match step {
                Member(structure, member) => find(structure, member)?,
                Inner(outer, inner) => {
                    let (inner, size) = find(inner[0], inner[1])?;
                    (find(outer[0], outer[1])?.0 + inner, size)
                }
                Bytes(offset) | User(offset) => (*offset, 8),
            };
            let space = if matches!(step, User(_)) { "u" } else { "" };
            value = format!("+{space}{offset}({value})");
        }
        // The width of some members differs from kernel to kernel.
        Ok(match self.kind {
            "u" => format!("{value}:u{}", size * 8),
            kind => format!("{value}:{kind}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number((259, 3)), 259 << 20 | 3);
    }
}
