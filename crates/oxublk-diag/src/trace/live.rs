//! Tracing a device of this host.

use std::fs;
use std::io;

use oxublk::DeviceId;

use crate::facts::Gap;

use super::event::Event;
use super::order::{Order, PATIENCE_NS};
use super::parse::Parser;
use super::probes::Target;
use super::session::{Error, Session, Wanted};

/// The kernel hands over less than this at a time.
const CHUNK: usize = 64 << 10;
/// So many pieces are read before the events are used: the caller must see signals.
const PIECES: usize = 256;

/// A device that is traced.
#[derive(Debug)]
pub struct Live {
    session: Session,
    parser: Parser,
    order: Order,
    buffer: Vec<u8>,
    start_ns: u64,
}

impl Live {
    /// Begins.
    ///
    /// # Errors
    /// Nothing can be traced: there is no driver, no tracefs, no permission.
    pub fn start(id: DeviceId, raw: bool, buffer_bytes: u64) -> Result<Self, Error> {
        let wanted = Wanted {
            target: target(id)?,
            raw,
            buffer_bytes,
        };
        let session = Session::start(&wanted)?;
        Ok(Self {
            session,
            parser: Parser::default(),
            order: Order::default(),
            buffer: vec![0; CHUNK],
            // After the start: what is issued between is seen, and not taken for older.
            start_ns: now_ns(),
        })
    }

    /// When tracing began.
    #[must_use]
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// What will not be seen, and why.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        self.session.gaps()
    }

    /// The probes as they were given to the kernel.
    #[must_use]
    pub fn definitions(&self) -> Vec<String> {
        self.session.definitions()
    }

    /// Reads what there is, without waiting, and keeps it. Says whether there was anything.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut events = Vec::new();
        let mut any = false;
        for _ in 0..PIECES {
            let length = self.session.read(&mut self.buffer)?;
            let Some(text) = self.buffer.get(..length).filter(|text| !text.is_empty()) else {
                break;
            };
            any = true;
            self.parser.feed(text, &mut events);
        }
        events.into_iter().for_each(|event| self.order.push(event));
        Ok(any)
    }

    /// The events that were read and whose order is certain.
    pub fn take(&mut self) -> impl Iterator<Item = Event> + use<> {
        self.order.before(now_ns().saturating_sub(PATIENCE_NS))
    }

    /// Ends the recording. What was recorded can still be read.
    pub fn stop(&self) {
        self.session.stop();
    }

    /// Ends tracing, and returns the rest of the events and how many found no room. Everything that was set up in the
    /// kernel is gone afterwards.
    ///
    /// # Errors
    /// The kernel's; everything is gone all the same.
    pub fn finish(mut self) -> io::Result<(Vec<Event>, u64)> {
        self.session.stop();
        while self.read()? {}
        let lost = self.session.lost();
        Ok((self.order.before(u64::MAX).collect(), lost))
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock of the events.
#[must_use]
pub fn now_ns() -> u64 {
    crate::observe::now_ns()
}

/// A device, there or not yet.
fn target(id: DeviceId) -> Result<Target, Error> {
    let number = |path: String| {
        let text = fs::read_to_string(path).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let known = number(format!("/sys/class/ublk-char/ublkc{id}/dev"));
    // The driver gives the device of id N the minor number N.
    let char_device = known
        .or_else(|| Some((char_major()?, id.0)))
        .ok_or_else(|| Error {
            what: "the ublk driver is not loaded".to_owned(),
            kind: io::ErrorKind::NotFound,
            remedy: "modprobe ublk_drv",
        })?;
    Ok(Target {
        disk_name: id.disk_name(),
        disk: number(format!("/sys/block/{}/dev", id.disk_name())),
        char_device,
    })
}

/// The major number of all `/dev/ublkcN`.
fn char_major() -> Option<u32> {
    let text = fs::read_to_string("/proc/devices").ok()?;
    text.lines()
        .find_map(|line| line.trim().strip_suffix(" ublk-char")?.trim().parse().ok())
}
