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
    /// Which number in `dev` is ours.
    pub(super) of: Node,
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

/// Which node of the device an event's `dev` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// `/dev/ublkbN`.
    Disk,
    /// `/dev/ublkcN`.
    Char,
    /// It names none.
    Unknown,
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
    Field {
        name,
        argument,
        path,
        kind,
        optional: true,
        raw: false,
    }
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
const ON_DISK: Field = field("dev", "$arg1", DISK, "u");
const COMMAND: Field = field("cmd", "$arg1", &[], "x64");
const ON_CHAR: Field = field("dev", "$arg1", CHAR_DEVICE, "u");

/// The stations of a request in their order; of the probes for each, the first that can be placed.
pub(super) const STATIONS: &[&[Probe]] = &[
    &[Probe {
        name: "issued",
        shows: "when a request is issued, and with which tag",
        place: Place::Tracepoint("block_rq_issue"),
        fields: &[
            REQUEST,
            ON_DISK,
            field("queue", "$arg1", QUEUE, "u"),
            field("tag", "$arg1", &[Member("request", "tag")], "s32"),
            field("op", "$arg1", &[Member("request", "cmd_flags")], "x32"),
            field("sector", "$arg1", &[Member("request", "__sector")], "u"),
            field("len", "$arg1", &[Member("request", "__data_len")], "u"),
            // The name comes last: it may hold anything.
            field("comm", "$comm", &[], "string"),
        ],
        of: Node::Disk,
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
                field("dev", "$arg2", DISK, "u"),
            ],
            of: Node::Disk,
            only: "",
        },
        // Before: one call for all requests of the queue that wait.
        Probe {
            name: "handed",
            shows: "when the server's task takes a request over",
            place: Place::Entry(&["ublk_rq_task_work_cb"]),
            fields: &[field("queue", "$arg1", ARMED_QUEUE, "u"), ON_CHAR],
            of: Node::Char,
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
            ON_CHAR,
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
        of: Node::Char,
        only: "",
    }],
    &[Probe {
        name: "posted",
        shows: "when the completion is posted",
        place: Place::Tracepoint("io_uring_complete"),
        fields: &[
            field("cmd", "$arg2", &[], "x64"),
            field("dev", "$arg2", CHAR_DEVICE, "u"),
        ],
        of: Node::Char,
        only: "",
    }],
    &[Probe {
        name: "command",
        shows: "when the server answers, from which thread and with what",
        place: Place::Entry(&["ublk_ch_uring_cmd"]),
        fields: &[
            COMMAND,
            ON_CHAR,
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
        of: Node::Char,
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
            ON_DISK,
            field("queue", "$arg1", QUEUE, "u"),
            field("tag", "$arg1", &[Member("request", "tag")], "s32"),
            field("status", "$arg2", &[], "u8"),
            field("bytes", "$arg3", &[], "u32"),
            field("left", "$arg1", &[Member("request", "__data_len")], "u"),
        ],
        of: Node::Disk,
        only: "",
    }],
    &[Probe {
        name: "requeued",
        shows: "when the driver gives a request back",
        place: Place::Tracepoint("block_rq_requeue"),
        fields: &[REQUEST, ON_DISK],
        of: Node::Disk,
        only: "",
    }],
];

/// What the kernel's own events show, where probes cannot be placed.
pub(super) const PLAIN: &[&str] = &["block_rq_issue", "block_rq_complete", "block_rq_requeue"];

impl Probe {
    /// Its arguments as the kernel reads them; the name of a member that this kernel does not have, else.
    pub(super) fn arguments(&self, types: &Types, with_raw: bool) -> Result<String, String> {
        let mut text = String::new();
        for field in self.fields.iter().filter(|field| with_raw || !field.raw) {
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
    pub(super) fn filter(&self, disk: u32, char_device: u32) -> String {
        let number = match self.of {
            Node::Disk => disk,
            Node::Char => char_device,
            Node::Unknown => return self.only.to_owned(),
        };
        format!("dev == {number}")
    }
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
