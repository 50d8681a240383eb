//! The kernel's text of events, as data.
//!
//! A line of `trace_pipe`: sixteen columns of the thread's name, its id, the processor, four flags, the time, the event and
//! what the probe recorded. What is not such a line is counted and left out.

use oxublk::{QueueId, Tag};

use crate::facts::Tid;

use super::event::{Command, Event, Raw, Slot, Thread, What};

/// The name of a thread is printed in so many columns.
const COMM: usize = 16;

/// Cuts what the kernel tells into events.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a line whose end did not come yet.
    rest: Vec<u8>,
    last_ns: u64,
    /// Lines that were not understood.
    pub unknown: u64,
}

impl Parser {
    /// The events in what was read.
    pub fn feed(&mut self, text: &[u8], events: &mut Vec<Event>) {
        self.rest.extend_from_slice(text);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        for line in whole
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line = String::from_utf8_lossy(line);
            match self.line(&line) {
                Some(event) => {
                    self.last_ns = event.at_ns;
                    events.push(event);
                }
                None => self.unknown += 1,
            }
        }
    }

    fn line(&self, line: &str) -> Option<Event> {
        if let Some(count) = lost(line) {
            return Some(Event {
                at_ns: self.last_ns,
                thread: Thread {
                    tid: Tid(0),
                    comm: None,
                },
                what: What::Lost { count },
            });
        }
        event(line)
    }
}

/// `CPU:0 [LOST 123 EVENTS]`.
fn lost(line: &str) -> Option<Option<u64>> {
    let (_, rest) = line.strip_prefix("CPU:")?.split_once(" [LOST ")?;
    let count = rest.strip_suffix("EVENTS]")?;
    Some(count.trim().parse().ok())
}

fn event(line: &str) -> Option<Event> {
    let (mut comm, rest) = line.split_at_checked(COMM)?;
    comm = comm.trim_start();
    let (tid, rest) = rest.strip_prefix('-')?.split_once(" [")?;
    let (_, rest) = rest.split_once("] ")?;
    let (head, rest) = rest.split_once(": ")?;
    let at_ns = time(head.split_whitespace().next_back()?)?;
    let (name, rest) = rest.split_once(": ")?;
    let mut thread = Thread {
        tid: Tid(tid.trim().parse().ok()?),
        comm: (comm != "<...>").then(|| comm.to_owned()),
    };
    if let Some(what) = plain(name, rest) {
        return Some(Event {
            at_ns,
            thread,
            what,
        });
    }
    // Where the probe sits: `(__probestub_block_rq_issue+0x4/0x10)`.
    let (_, recorded) = rest.strip_prefix('(')?.split_once(") ")?;
    let fields = Fields::new(recorded);
    if let Some(comm) = fields.comm {
        thread.comm = Some(comm.to_owned());
    }
    let what = fields.what(name)?;
    Some(Event {
        at_ns,
        thread,
        what,
    })
}

/// `123.456789`: seconds.
fn time(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|digits| *digits <= 9)?;
    let seconds: u64 = seconds.parse().ok()?;
    let fraction: u64 = fraction.parse().ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(fraction.checked_mul(10_u64.pow(9 - digits))?)
}

/// What a probe recorded: `rq=0xffff tag=3 comm="dd"`.
struct Fields<'a> {
    text: &'a str,
    comm: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Self {
        match text.split_once(" comm=\"") {
            Some((text, comm)) => Self {
                text,
                comm: comm.strip_suffix('"'),
            },
            None => Self { text, comm: None },
        }
    }

    /// A number, whatever its sign and base. None when the kernel could not read it: `(fault)`.
    fn number(&self, name: &str) -> Option<i128> {
        let value = self
            .text
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))?;
        match value.strip_prefix("0x") {
            Some(hexadecimal) => i128::from_str_radix(hexadecimal, 16).ok(),
            None => value.parse().ok(),
        }
    }

    fn get<T: TryFrom<i128>>(&self, name: &str) -> Option<T> {
        T::try_from(self.number(name)?).ok()
    }

    fn slot(&self) -> Option<Slot> {
        Some(Slot {
            queue: QueueId(self.get("queue")?),
            tag: Tag(self.get("tag")?),
        })
    }

    fn bytes(&self, name: &str) -> Option<[u8; 8]> {
        Some(self.get::<u64>(name)?.to_le_bytes())
    }

    fn pair(&self, first: &str, second: &str) -> Option<[u8; 16]> {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&self.bytes(first)?);
        both[8..].copy_from_slice(&self.bytes(second)?);
        Some(both)
    }

    fn what(&self, event: &str) -> Option<What> {
        Some(match event {
            "issued" => What::Issued {
                request: self.get("rq")?,
                slot: self.slot()?,
                op: u8::try_from(self.get::<u32>("op")? & 0xff).ok()?,
                sector: self.get("sector").filter(|sector| *sector != u64::MAX),
                bytes: self.get("len")?,
            },
            "handed" => What::Handed {
                queue: QueueId(self.get("queue")?),
                tag: self.get("tag").map(Tag),
            },
            "ended" => What::Ended {
                command: self.get("cmd")?,
                slot: self.slot(),
                result: self.get("res")?,
            },
            "posted" => What::Posted {
                command: self.get("cmd")?,
            },
            "command" => What::Command(Command {
                command: self.get("cmd")?,
                op: self.get("op")?,
                issue_flags: self.get("flags")?,
                payload: self.pair("w0", "w1")?,
                raw: self.raw(),
            }),
            "refused" => What::Refused {
                command: self.get("cmd")?,
                result: self.get("res")?,
            },
            "completed" => What::Completed {
                request: self.get("rq")?,
                slot: self.slot(),
                error: errno(self.get("status")?),
                bytes: self.get("bytes")?,
                left: self.get("left")?,
            },
            "requeued" => What::Requeued {
                request: self.get("rq")?,
            },
            _ => return None,
        })
    }

    fn raw(&self) -> Option<Raw> {
        Some(Raw {
            head: self.bytes("b0")?,
            operation: self.bytes("b8")?,
            address: self.get("b16")?,
            at_64: self.pair("b64", "b72"),
            pointed_at: self.pair("p0", "p8"),
        })
    }
}

/// The errno of a `blk_status_t`.
fn errno(status: u8) -> i32 {
    match status {
        0 => 0,
        1 => -95,
        2 => -110,
        3 => -28,
        4 => -67,
        5 => -121,
        6 => -52,
        7 => -61,
        8 => -84,
        9 => -12,
        12 => -11,
        13 => -16,
        16 => -19,
        _ => -5,
    }
}

/// The kernel's own events: `259,0 R 4096 () 0 + 8 none,0,0 [dd]`; a completion has no byte count, and its error at the end.
fn plain(name: &str, rest: &str) -> Option<What> {
    let requeued = match name {
        "block_rq_issue" => None,
        "block_rq_complete" => Some(false),
        "block_rq_requeue" => Some(true),
        _ => return None,
    };
    let mut words = rest.split_whitespace();
    let (_, kind) = (words.next()?, words.next()?.to_owned());
    let words: Vec<&str> = words.collect();
    let plus = words.iter().position(|word| *word == "+")?;
    let sector = words.get(plus.checked_sub(1)?)?.parse().ok()?;
    Some(match requeued {
        None => What::PlainIssued {
            kind,
            sector,
            bytes: words.first()?.parse().ok()?,
        },
        Some(requeued) => What::PlainCompleted {
            kind,
            sector,
            error: words.last()?.trim_matches(['[', ']']).parse().ok()?,
            requeued,
        },
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
