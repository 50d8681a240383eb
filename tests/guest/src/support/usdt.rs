//! The static probes (USDT) of a program, and the kernel's record of when they fire: uprobes through tracefs.

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSegment as _};
use std::fs;
use std::path::{Path, PathBuf};

const TRACING: &str = "/sys/kernel/tracing";
/// The names of our probes' arguments.
const ARGUMENTS: [&str; 6] = ["device", "queue", "tag", "operation", "sector", "last"];

/// A place in a program where a probe is.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) name: String,
    /// Where it is in the file, and where the counter of its listeners is.
    place: u64,
    listeners: u64,
    /// `-8@%rdx -8@%rsi`.
    arguments: String,
}

/// The probes that a program has from us.
pub(crate) fn probes(program: &Path) -> Result<Vec<Probe>> {
    let bytes = fs::read(program)?;
    let file = object::File::parse(bytes.as_slice())?;
    let section = file
        .section_by_name(".note.stapsdt")
        .context("it has no .note.stapsdt")?;
    let in_file = |address: u64| {
        file.segments().find_map(|segment| {
            let (offset, size) = segment.file_range();
            let inside = address.checked_sub(segment.address())?;
            (inside < size).then_some(offset + inside)
        })
    };
    let mut probes = Vec::new();
    let mut rest = section.data()?;
    while let Some((note, after)) = note(rest) {
        rest = after;
        let word = |at: usize| Some(u64::from_le_bytes(note.get(at..at + 8)?.try_into().ok()?));
        let mut texts = note.get(24..).unwrap_or_default().split(|byte| *byte == 0);
        let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
        let (provider, name, arguments) = (text(), text(), text());
        ensure!(provider == "oxublk", "a probe {name} of {provider}");
        let (place, listeners) = (word(0).and_then(in_file), word(16).and_then(in_file));
        probes.push(Probe {
            place: place.with_context(|| format!("{name} is nowhere"))?,
            listeners: listeners.with_context(|| format!("{name} has no counter"))?,
            name,
            arguments,
        });
    }
    Ok(probes)
}

/// The first note's content, and what follows it.
fn note(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let padded = |length: u32| (length as usize).next_multiple_of(4);
    let begin = 12 + padded(word(0)?);
    let length = word(4)?;
    let content = bytes.get(begin..begin + length as usize)?;
    Some((
        content,
        bytes.get(begin + padded(length)..).unwrap_or_default(),
    ))
}

/// Uprobes on a program's probes. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Uprobes {
    group: &'static str,
    events: Vec<String>,
    instance: PathBuf,
}

/// A probe that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) name: String,
    /// In the order of the probe's arguments.
    pub(crate) arguments: Vec<i64>,
}

impl Uprobes {
    /// Listens at all places of these probes.
    pub(crate) fn listen(group: &'static str, program: &Path, probes: &[Probe]) -> Result<Self> {
        let instance = Path::new(TRACING).join("instances").join(group);
        fs::create_dir(&instance).with_context(|| format!("cannot make {}", instance.display()))?;
        let mut uprobes = Self {
            group,
            events: Vec::new(),
            instance,
        };
        for (index, probe) in probes.iter().enumerate() {
            let event = format!("{}_{index}", probe.name);
            let definition = format!(
                "p:{group}/{event} {}:{:#x}({:#x}){}",
                program.display(),
                probe.place,
                probe.listeners,
                fetch(&probe.arguments)
            );
            append("uprobe_events", &definition)?;
            uprobes.events.push(event);
        }
        let enable = uprobes.instance.join("events").join(group).join("enable");
        fs::write(&enable, "1").with_context(|| enable.display().to_string())?;
        Ok(uprobes)
    }

    /// What fired so far.
    pub(crate) fn fired(&self) -> Result<Vec<Fired>> {
        let text = fs::read_to_string(self.instance.join("trace"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.filter_map(|line| self.parse(line)).collect())
    }

    /// `ublk0q0-77 [000] ..... 9.5: reaped_2: (0x55d0c1d389) device=0 queue=0 tag=3 …`
    fn parse(&self, line: &str) -> Option<Fired> {
        let (event, rest) = self
            .events
            .iter()
            .find_map(|event| Some((event, line.split_once(&format!(" {event}: "))?.1)))?;
        let arguments = rest
            .split_whitespace()
            .filter_map(|word| word.split_once('=')?.1.parse().ok());
        Some(Fired {
            name: event.rsplit_once('_')?.0.to_owned(),
            arguments: arguments.collect(),
        })
    }
}

impl Drop for Uprobes {
    fn drop(&mut self) {
        let enable = self.instance.join("events").join(self.group).join("enable");
        let _ = fs::write(enable, "0");
        // What cannot be removed is found by the search for leftovers.
        let _ = fs::remove_dir(&self.instance);
        for event in &self.events {
            let _ = append("uprobe_events", &format!("-:{}/{event}", self.group));
        }
    }
}

/// `-8@%rdx -8@%rsi` as tracefs wants it: ` device=%dx:s64 queue=%si:s64`.
fn fetch(arguments: &str) -> String {
    let registers = arguments
        .split(' ')
        .filter_map(|argument| argument.split_once("@%"));
    ARGUMENTS
        .iter()
        .zip(registers)
        .map(|(name, (_, register))| {
            let short = register
                .strip_prefix('r')
                .filter(|rest| rest.chars().all(|letter| letter.is_ascii_alphabetic()));
            format!(" {name}=%{}:s64", short.unwrap_or(register))
        })
        .collect()
}

fn append(file: &str, line: &str) -> Result<()> {
    use std::io::Write as _;
    let path = Path::new(TRACING).join(file);
    let mut file = fs::OpenOptions::new().append(true).open(&path)?;
    file.write_all(format!("{line}\n").as_bytes())
        .with_context(|| format!("{}: {line}", path.display()))
}
