//! A private instance of the kernel's tracing with our probes in it: set up, read, and taken down whatever happens.
//!
//! The instance and the group of the probes are named after this process and when it began. What a process that was
//! killed left behind is removed at the next start: it is idle, so the kernel lets it go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::facts::{Gap, Layer};
use crate::observe::kernel::Types;

use super::probes::{PLAIN, Place, Probe, STATIONS, STRUCTURES, Target, plain_filter};

/// Where tracefs is mounted.
const ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const PREFIX: &str = "oxublk_";

/// Why nothing at all can be traced.
#[derive(Debug)]
pub struct Error {
    /// What was attempted, and what the kernel said.
    pub what: String,
    /// What kind of failure.
    pub kind: io::ErrorKind,
    /// What to do about it.
    pub remedy: &'static str,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(what: &str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run as root, on a kernel that is not locked down for confidentiality"
            }
            io::ErrorKind::NotFound => "mount -t tracefs none /sys/kernel/tracing",
            _ => "a kernel with CONFIG_TRACING and room for the buffers: see --buffer",
        };
        Self {
            what: format!("cannot {what}: {}: {error}", path.display()),
            kind: error.kind(),
            remedy,
        }
    }
}

/// What is traced.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which device.
    pub target: Target,
    /// Whether the bytes around each command are recorded too.
    pub raw: bool,
    /// Memory for events that were not read yet, of all processors together.
    pub buffer_bytes: u64,
}

/// A tracing instance of our own.
#[derive(Debug)]
pub struct Session {
    root: PathBuf,
    instance: PathBuf,
    group: String,
    /// The events that were defined.
    defined: Vec<&'static str>,
    gaps: Vec<Gap>,
    pipe: Option<File>,
}

impl Session {
    /// Makes the instance, places the probes and starts. What could not be placed is in [`gaps`](Self::gaps).
    ///
    /// # Errors
    /// Nothing at all can be traced.
    pub fn start(wanted: &Wanted) -> Result<Self, Error> {
        let root = root()?;
        remove_stale(&root);
        let group = format!("{PREFIX}{}", identity("self").unwrap_or_default());
        let instance = root.join("instances").join(&group);
        fs::create_dir(&instance)
            .map_err(|error| Error::new("make a tracing instance", &instance, &error))?;
        let mut session = Self {
            root,
            instance,
            group,
            defined: Vec::new(),
            gaps: Vec::new(),
            pipe: None,
        };
        session.set_up(wanted)?;
        session.open_pipe()?;
        session.place_all(wanted);
        session.write("tracing_on", "1")?;
        Ok(session)
    }

    /// What will not be seen, and why.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The probes as they were given to the kernel.
    #[must_use]
    pub fn definitions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("dynamic_events")).unwrap_or_default();
        let ours = format!(":{}/", self.group);
        text.lines()
            .filter(|line| line.contains(&ours))
            .map(str::to_owned)
            .collect()
    }

    /// Reads what the kernel has to tell, and says how many bytes that was: 0 when there is nothing now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        match pipe.read(buffer) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            read => read,
        }
    }

    /// Ends the recording. What was recorded can still be read.
    pub fn stop(&self) {
        // If this fails, the instance is removed all the same.
        let _ = self.write("tracing_on", "0");
    }

    /// How many events found no room so far, on all processors.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let cpus = fs::read_dir(self.instance.join("per_cpu"))
            .into_iter()
            .flatten()
            .flatten();
        let stats = cpus.filter_map(|cpu| fs::read_to_string(cpu.path().join("stats")).ok());
        stats.map(|text| count_lost(&text)).sum()
    }

    fn set_up(&self, wanted: &Wanted) -> Result<(), Error> {
        self.write("tracing_on", "0")?;
        self.write("trace_clock", "mono")?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = fs::read_dir(self.instance.join("per_cpu"))
            .map_or(cpus, Iterator::count)
            .max(1);
        let kib = (wanted.buffer_bytes / 1024 / u64::try_from(cpus).unwrap_or(1)).max(64);
        self.write("buffer_size_kb", &kib.to_string())
    }

    fn open_pipe(&mut self) -> Result<(), Error> {
        let path = self.instance.join("trace_pipe");
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path);
        self.pipe = Some(pipe.map_err(|error| Error::new("read the trace", &path, &error))?);
        Ok(())
    }

    fn place_all(&mut self, wanted: &Wanted) {
        let types = match Types::open(STRUCTURES) {
            Ok(types) => types,
            Err(gap) => {
                self.gaps
                    .push(missing(format!("probes: {}", gap.what), gap.remedy));
                return self.plain(wanted);
            }
        };
        for station in STATIONS {
            let mut reasons = Vec::new();
            let placed = station.iter().any(|probe| {
                let placed = self.place(probe, &types, wanted);
                placed.map_err(|reason| reasons.push(reason)).is_ok()
            });
            if let (false, Some(probe)) = (placed, station.first()) {
                self.gaps.push(missing(
                    format!("{}: {}", probe.shows, reasons.join("; ")),
                    "a kernel with CONFIG_KPROBE_EVENTS and CONFIG_FPROBE_EVENTS, on which this version was tried",
                ));
            }
        }
        let has = |name| self.defined.contains(&name);
        if !has("issued") || !has("completed") {
            self.plain(wanted);
        }
    }

    /// Places a probe and switches it on.
    fn place(&mut self, probe: &Probe, types: &Types, wanted: &Wanted) -> Result<(), String> {
        let arguments = probe.arguments(types, &wanted.target, wanted.raw)?;
        let (group, name) = (&self.group, probe.name);
        let tries: Vec<String> = match &probe.place {
            Place::Tracepoint(point) => vec![format!("t:{group}/{name} {point}{arguments}")],
            Place::Entry(functions) => functions
                .iter()
                .flat_map(|function| {
                    ["f", "p"].map(|kind| format!("{kind}:{group}/{name} {function}{arguments}"))
                })
                .collect(),
            Place::Return(function) => vec![
                format!("f:{group}/{name} {function}%return{arguments}"),
                format!("r:{group}/{name} {function}{arguments}"),
            ],
        };
        let mut reason = String::new();
        for definition in tries {
            match define(&self.root, &definition) {
                Ok(()) => {
                    self.defined.push(name);
                    return self.enable(probe, wanted);
                }
                Err(error) => reason = format!("`{definition}`: {error}"),
            }
        }
        Err(reason)
    }

    fn enable(&self, probe: &Probe, wanted: &Wanted) -> Result<(), String> {
        let folder = format!("events/{}/{}", self.group, probe.name);
        let filter = probe.filter(&wanted.target);
        self.write(&format!("{folder}/filter"), &filter)
            .map_err(|error| error.what)?;
        self.write(&format!("{folder}/enable"), "1")
            .map_err(|error| error.what)
    }

    /// The kernel's own events, without tags: better than nothing.
    fn plain(&mut self, wanted: &Wanted) {
        let Some(filter) = plain_filter(&wanted.target) else {
            self.gaps.push(missing(
                "anything, until there is a disk: without probes it is recognised by its number",
                "trace again when the device is started",
            ));
            return;
        };
        for event in PLAIN {
            let folder = format!("events/block/{event}");
            let written = self
                .write(&format!("{folder}/filter"), &filter)
                .and_then(|()| self.write(&format!("{folder}/enable"), "1"));
            if let Err(error) = written {
                self.gaps.push(missing(error.what, error.remedy.to_owned()));
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.instance.join(file);
        fs::write(&path, text).map_err(|error| Error::new("set up tracing", &path, &error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
        // The kernel removes nothing that is open.
        self.pipe = None;
        take_down(&self.root, &self.group);
    }
}

fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Gap {
    Gap {
        layer: Layer::Tracefs,
        whole: false,
        what: what.into(),
        remedy: remedy.into(),
    }
}

/// The sum of `overrun` and `dropped events`.
fn count_lost(stats: &str) -> u64 {
    let lines = stats.lines().filter_map(|line| line.split_once(':'));
    let counts = lines.filter(|(name, _)| ["overrun", "dropped events"].contains(&name.trim()));
    counts
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .sum()
}

fn root() -> Result<PathBuf, Error> {
    let mut first = None;
    for root in ROOTS.map(PathBuf::from) {
        match fs::read_dir(root.join("instances")) {
            Ok(_) => return Ok(root),
            Err(error) => {
                let error = Error::new("trace", &root.join("instances"), &error);
                if error.kind == io::ErrorKind::PermissionDenied {
                    return Err(error);
                }
                first.get_or_insert(error);
            }
        }
    }
    let none = || {
        Error::new(
            "trace",
            Path::new(ROOTS[0]),
            &io::ErrorKind::NotFound.into(),
        )
    };
    Err(first.unwrap_or_else(none))
}

/// Appends: a file that is opened to be overwritten loses everybody's probes.
fn define(root: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .open(root.join("dynamic_events"))?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Removes an instance and its group of probes. An instance that somebody reads, and probes that somebody uses, stay.
fn take_down(root: &Path, group: &str) {
    let instance = root.join("instances").join(group);
    if instance.exists() && fs::remove_dir(&instance).is_err() {
        return;
    }
    let text = fs::read_to_string(root.join("dynamic_events")).unwrap_or_default();
    for event in text.lines().filter_map(|line| event_of(line, group)) {
        let _ = define(root, &format!("-:{group}/{event}"));
    }
}

/// What processes that are gone left behind.
fn remove_stale(root: &Path) {
    let mut groups: Vec<String> = fs::read_dir(root.join("instances"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let text = fs::read_to_string(root.join("dynamic_events")).unwrap_or_default();
    groups.extend(text.lines().filter_map(group_of).map(str::to_owned));
    groups.sort_unstable();
    groups.dedup();
    for group in groups
        .iter()
        .filter(|group| group.starts_with(PREFIX) && !lives(group))
    {
        take_down(root, group);
    }
}

/// The group in `t:GROUP/EVENT place …`.
fn group_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    Some(rest.split_once('/')?.0)
}

fn event_of<'a>(line: &'a str, group: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(':')?;
    rest.strip_prefix(group)?
        .strip_prefix('/')?
        .split_whitespace()
        .next()
}

/// Whether the process that a group is named after lives.
fn lives(group: &str) -> bool {
    let Some(named) = group.strip_prefix(PREFIX) else {
        return true;
    };
    let pid = named.split('_').next().unwrap_or_default();
    identity(pid).is_some_and(|identity| identity == named)
}

/// A process's id and when it began: tells it from a later one of the same id.
fn identity(pid: &str) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let (before, after) = stat.rsplit_once(')')?;
    let pid = before.split_whitespace().next()?;
    let start = after.split_whitespace().nth(19)?;
    Some(format!("{pid}_{start}"))
}

#[cfg(test)]
mod tests {
    use super::{count_lost, event_of, group_of, identity, lives};

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = identity("self").unwrap();
        assert!(lives(&format!("oxublk_{own}")));
        assert!(!lives(&format!("oxublk_{own}1")));
        assert!(!lives("oxublk_4294967295_1"));
        assert!(lives("somebody_else"));
    }

    #[test]
    fn probes_are_recognised_in_the_kernels_list() {
        let line = "t:oxublk_7_99/issued block_rq_issue rq=$arg1:x64 tag=+116($arg1):s32";
        assert_eq!(group_of(line), Some("oxublk_7_99"));
        assert_eq!(event_of(line, "oxublk_7_99"), Some("issued"));
        assert_eq!(event_of(line, "oxublk_7_9"), None);
        assert_eq!(group_of("nonsense"), None);
    }

    #[test]
    fn losses_are_summed() {
        let stats = "entries: 5\noverrun: 17\ncommit overrun: 3\nbytes: 9\ndropped events: 2\nread events: 1\n";
        assert_eq!(count_lost(stats), 19);
    }
}
