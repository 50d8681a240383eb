//! `oxublk trace --json`: started, ended, and what it told.

use super::process::{Finished, Process};
use super::wait::LONG;
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

/// A trace that runs.
#[derive(Debug)]
pub(crate) struct Traced(pub(crate) Process);

/// What it told.
#[derive(Debug)]
pub(crate) struct Told {
    lines: Vec<Value>,
    pub(crate) finished: Finished,
}

impl Traced {
    /// Starts it, and returns when it follows requests.
    pub(crate) fn start(id: u32, options: &str) -> Result<Self> {
        let id = id.to_string();
        let mut words = vec!["--json", "trace", id.as_str()];
        words.extend(options.split_whitespace());
        let mut process = Process::start("oxublk", &words)?;
        process.wait_line("that it began", LONG, |line| {
            line.starts_with(r#"{"kind":"start""#).then_some(())
        })?;
        Ok(Self(process))
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn end(self) -> Result<Told> {
        self.0.signal(Signal::INT)?;
        Told::new(self.0.wait(LONG)?)
    }

    /// Waits until it has told this.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        self.0.wait_line(what, LONG, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            wanted(&line).then_some(())
        })
    }
}

impl Told {
    pub(crate) fn new(finished: Finished) -> Result<Self> {
        let lines = finished.output.lines().map(serde_json::from_str);
        let lines = lines
            .collect::<Result<_, _>>()
            .with_context(|| finished.to_string())?;
        Ok(Self { lines, finished })
    }

    pub(crate) fn kind(&self, kind: &str) -> Vec<&Value> {
        let lines = self.lines.iter().filter(|line| line["kind"] == kind);
        lines.collect()
    }

    pub(crate) fn summary(&self) -> Result<&Value> {
        let last = self.lines.last().context("it said nothing")?;
        ensure!(last["kind"] == "summary", "{last}");
        Ok(last)
    }

    pub(crate) fn count(&self, name: &str) -> Result<u64> {
        let summary = self.summary()?;
        summary[name]
            .as_u64()
            .with_context(|| format!("no {name} in {summary}"))
    }

    /// Nothing is wrong, lost or open.
    pub(crate) fn clean(&self) -> Result<&Self> {
        for name in ["errors", "refused", "wrong", "lost", "stuck", "strangers"] {
            ensure!(self.count(name)? == 0, "{name}: {}", self.finished);
        }
        ensure!(
            self.summary()?["open"] == Value::Array(Vec::new()),
            "{}",
            self.finished
        );
        ensure!(self.finished.status.success(), "{}", self.finished);
        Ok(self)
    }
}
