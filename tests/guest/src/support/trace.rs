//! The kernel's own record of block requests, in a trace instance of the test's own.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

const INSTANCES: &str = "/sys/kernel/tracing/instances";
const EVENTS: &[&str] = &["block_rq_issue", "block_rq_complete", "block_rq_requeue"];

/// Recording. Dropped, it stops and its buffer is freed.
#[derive(Debug)]
pub(crate) struct Trace(PathBuf);

/// One event of a block request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// Major and minor number, as in `259,0`.
    pub(crate) device: String,
    /// As in `R`, `WS`, `D`.
    pub(crate) kind: String,
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
    /// The thread in whose name it was: the last word, in brackets.
    pub(crate) comm: String,
}

impl Trace {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let dir = PathBuf::from(INSTANCES).join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let trace = Self(dir);
        trace.write("buffer_size_kb", "4096")?;
        for event in EVENTS {
            trace.write(&format!("events/block/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Everything recorded so far of a device.
    pub(crate) fn events(&self, device: &str) -> Result<Vec<Event>> {
        let mut events = self.all()?;
        events.retain(|event| event.device == device);
        Ok(events)
    }

    /// Everything recorded so far.
    pub(crate) fn all(&self) -> Result<Vec<Event>> {
        let text = fs::read_to_string(self.0.join("trace"))?;
        let events = text.lines().filter(|line| !line.starts_with('#'));
        Ok(events.filter_map(parse).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.write("tracing_on", "0");
        // Left when it cannot be removed: found by the search for leftovers.
        let _ = fs::remove_dir(&self.0);
    }
}

/// `dd-77 [000] ..... 9.5: block_rq_issue: 259,0 R 4096 () 0 + 8 none,0,0 [dd]`; a completion has no byte count.
fn parse(line: &str) -> Option<Event> {
    let (name, rest) = EVENTS
        .iter()
        .find_map(|name| Some((name, line.split_once(&format!(" {name}: "))?.1)))?;
    let mut words = rest.split_whitespace();
    let (device, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
    let words: Vec<&str> = words.collect();
    let plus = words.iter().position(|word| *word == "+")?;
    let number = |index: usize| words.get(index)?.parse().ok();
    Some(Event {
        name: (*name).to_owned(),
        device,
        kind,
        sector: number(plus.checked_sub(1)?)?,
        sectors: number(plus + 1)?,
        comm: words.last()?.trim_matches(['[', ']']).to_owned(),
    })
}

/// Requests that were issued and not completed: counted by kind, sector and length.
pub(crate) fn unanswered(events: &[Event]) -> Vec<&Event> {
    let mut open: Vec<&Event> = Vec::new();
    for event in events {
        if event.name == "block_rq_issue" {
            open.push(event);
        } else {
            let same = |other: &&Event| {
                (&other.kind, other.sector, other.sectors)
                    == (&event.kind, event.sector, event.sectors)
            };
            if let Some(index) = open.iter().position(same) {
                open.swap_remove(index);
            }
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let issue =
            parse("  dd-77 [000] ...1.  9.5: block_rq_issue: 259,0 R 4096 () 0 + 8 none,0,0 [dd]")
                .unwrap();
        assert_eq!(
            (issue.kind.as_str(), issue.sector, issue.sectors),
            ("R", 0, 8)
        );
        assert_eq!(issue.comm, "dd");
        let done =
            parse(" <idle>-0 [001] d.s..  9.6: block_rq_complete: 259,0 R () 0 + 8 none,0,0 [0]")
                .unwrap();
        assert_eq!(done.device, "259,0");
        assert!(unanswered(&[issue.clone(), done]).is_empty());
        assert_eq!(unanswered(&[issue]).len(), 1);
    }
}
