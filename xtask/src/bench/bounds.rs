//! `--check`: bounds on our instructions per I/O, kept in the repository.

use super::catalogue::Device;
use super::plan::{Plan, Row};
use super::table::Table;
use crate::paths;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Of one device: row → instructions.
type Rows = BTreeMap<String, u64>;

/// Kernel series → device → row → the most instructions that an I/O may take. Of the anchor, null_blk: what it took
/// when the bounds were made.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bounds(BTreeMap<String, BTreeMap<String, Rows>>);

/// How a run stands to the bounds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// A line for each cell that is too dear, or that has a bound and was not measured.
    pub(super) failures: Vec<String>,
    /// Lines about what could not be judged.
    pub(super) notes: Vec<String>,
    /// So many cells were compared.
    pub(super) compared: usize,
    /// Of them so many are not worse.
    pub(super) within: usize,
}

impl Bounds {
    pub(super) fn read() -> Result<Self> {
        let path = path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Compares what was measured; of what was planned every cell that has a bound must have been.
    pub(super) fn judge(&self, series: &str, table: &Table, plan: &Plan) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(bounds) = self.0.get(series) else {
            let why = format!("there are no bounds for Linux {series}: make them with --accept");
            verdict.failures.push(why);
            return verdict;
        };
        for device in plan.devices.iter().filter(|device| **device != anchor()) {
            let Some(of_device) = bounds.get(device.id) else {
                let note = format!("{} has no bounds yet: --accept makes them", device.id);
                verdict.notes.push(note);
                continue;
            };
            for &row in &plan.rows {
                let Some(&bound) = of_device.get(row.name()) else {
                    let note = format!("{} has no bound in {}", device.id, row.name());
                    verdict.notes.push(note);
                    continue;
                };
                let shift = shift(bounds, table, row);
                verdict.compare(*device, row, median(table, *device, row), bound, shift);
            }
        }
        verdict
    }

    /// Takes what was measured, with a margin, as the bounds from now on.
    pub(super) fn accept(&mut self, series: &str, table: &Table) {
        let bounds = self.0.entry(series.to_owned()).or_default();
        for cell in &table.cells {
            let margin = if cell.device == anchor() {
                1.0
            } else {
                margin(cell.row)
            };
            let bound = whole(cell.median * margin);
            let rows = bounds.entry(cell.device.id.to_owned()).or_default();
            rows.insert(cell.row.name().to_owned(), bound);
        }
    }
}

impl Verdict {
    fn compare(&mut self, device: Device, row: Row, found: Option<f64>, bound: u64, shift: i64) {
        let limit = bound.saturating_add_signed(shift);
        let cell = format!("{} in {}", device.id, row.name());
        let Some(found) = found.map(whole) else {
            self.failures.push(format!("{cell}: was not measured"));
            return;
        };
        self.compared += 1;
        if found > limit {
            let mut line = format!("{cell}: {found} instructions, at most {limit} are allowed");
            if shift != 0 {
                let _ = write!(line, " ({bound} {shift:+}, as the anchor moved)");
            }
            self.failures.push(line);
        } else {
            self.within += 1;
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "WORSE: {failure}");
        }
        let (within, compared) = (self.within, self.compared);
        let _ = writeln!(text, "{within} of {compared} cells are within their bounds");
        text
    }
}

fn path() -> PathBuf {
    paths::workspace().join("xtask/bench-bounds.json")
}

/// No code of ours runs for it: when its figure moves, the kernel or the emulator is another one.
pub(super) fn anchor() -> Device {
    Device::null_blk()
}

/// By how much the anchor moved since the bounds were made: every device of the block layer pays that too.
fn shift(bounds: &BTreeMap<String, Rows>, table: &Table, row: Row) -> i64 {
    let then = bounds
        .get(anchor().id)
        .and_then(|rows| rows.get(row.name()));
    match (then, median(table, anchor(), row)) {
        (Some(&then), Some(now)) => whole(now).cast_signed() - then.cast_signed(),
        _ => 0,
    }
}

fn median(table: &Table, device: Device, row: Row) -> Option<f64> {
    let of = |cell: &&super::table::Cell| cell.device == device && cell.row == row;
    table.cells.iter().find(of).map(|cell| cell.median)
}

/// What runs of one build differ by: least in batches, more where the scheduler or copies decide.
fn margin(row: Row) -> f64 {
    match row {
        _ if row.in_bytes() => 1.06,
        Row::Rr32 | Row::Rw32 | Row::Rr32x2 | Row::Rw32x2 => 1.04,
        _ => 1.02,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of instructions: positive, and far below 2^53"
)]
fn whole(figure: f64) -> u64 {
    figure.round() as u64
}

#[cfg(test)]
mod tests {
    use super::Bounds;
    use crate::bench::catalogue::Device;
    use crate::bench::plan::{Mode, Plan, Row};
    use crate::bench::table::Table;
    use crate::bench::table::tests::{plan, sample};
    use clap::ValueEnum as _;

    fn table(figures: &[(&str, Row, f64)]) -> Table {
        let samples: Vec<_> = figures
            .iter()
            .map(|&(device, row, figure)| sample(device, row, 1, figure))
            .collect();
        Table::of("7.3.4".to_owned(), &plan(Mode::Instructions), &samples)
    }

    /// Asks for these devices in rr32b.
    fn asking(devices: &[&str]) -> Plan {
        Plan {
            devices: devices.iter().map(|id| id.parse().unwrap()).collect(),
            rows: vec![Row::Rr32b],
            ..plan(Mode::Instructions)
        }
    }

    fn accepted() -> Bounds {
        let mut bounds = Bounds::default();
        let figures = [
            ("null-blk", Row::Rr32b, 5_000.0),
            ("oxublk-null", Row::Rr32b, 7_500.0),
            ("null-blk", Row::Rr32, 5_000.0),
            ("oxublk-null", Row::Rr32, 10_000.0),
            ("null-blk", Row::Sr1m, 100_000.0),
            ("oxublk-null", Row::Sr1m, 100_000.0),
        ];
        bounds.accept("7.3", &table(&figures));
        bounds
    }

    fn failures(figures: &[(&str, Row, f64)]) -> Vec<String> {
        accepted()
            .judge(
                "7.3",
                &table(figures),
                &asking(&["null-blk", "oxublk-null"]),
            )
            .failures
    }

    #[test]
    fn each_row_has_its_margin_and_the_anchor_none() {
        let json = serde_json::to_value(accepted()).unwrap();
        assert_eq!(json["7.3"]["null-blk"]["rr32b"], 5_000);
        assert_eq!(json["7.3"]["oxublk-null"]["rr32b"], 7_650);
        assert_eq!(json["7.3"]["oxublk-null"]["rr32"], 10_400);
        assert_eq!(json["7.3"]["oxublk-null"]["sr1m"], 106_000);
        let read: Bounds = serde_json::from_value(json).unwrap();
        assert_eq!(read, accepted());
    }

    #[test]
    fn the_bounds_that_are_kept_are_of_devices_and_rows_that_exist() {
        let Bounds(kept) = Bounds::read().unwrap();
        for (series, devices) in &kept {
            assert!(devices.contains_key("null-blk"), "{series} has an anchor");
            for (id, rows) in devices {
                assert!(id.parse::<Device>().is_ok(), "{series}: {id}");
                for row in rows.keys() {
                    assert!(Row::from_str(row, false).is_ok(), "{series}: {id}: {row}");
                }
            }
        }
    }

    #[test]
    fn a_worse_cell_is_named_with_what_was_measured_and_its_bound() {
        let within = [
            ("null-blk", Row::Rr32b, 5_000.0),
            ("oxublk-null", Row::Rr32b, 7_650.0),
        ];
        assert_eq!(failures(&within), [""; 0]);
        let worse = [
            ("null-blk", Row::Rr32b, 5_000.0),
            ("oxublk-null", Row::Rr32b, 7_651.0),
        ];
        let line = "oxublk-null in rr32b: 7651 instructions, at most 7650 are allowed";
        assert_eq!(failures(&worse), [line]);
    }

    #[test]
    fn bounds_move_with_the_anchor() {
        let dearer_kernel = [
            ("null-blk", Row::Rr32b, 5_100.0),
            ("oxublk-null", Row::Rr32b, 7_750.0),
        ];
        assert_eq!(failures(&dearer_kernel), [""; 0]);
        let cheaper_kernel = [
            ("null-blk", Row::Rr32b, 4_900.0),
            ("oxublk-null", Row::Rr32b, 7_650.0),
        ];
        assert_eq!(failures(&cheaper_kernel).len(), 1);
    }

    #[test]
    fn what_was_not_measured_is_no_success() {
        let missing = [("null-blk", Row::Rr32b, 5_000.0)];
        assert_eq!(
            failures(&missing),
            ["oxublk-null in rr32b: was not measured"]
        );
        let verdict = accepted().judge("6.12", &table(&missing), &asking(&["oxublk-null"]));
        assert_eq!(verdict.failures.len(), 1);
    }

    #[test]
    fn a_device_without_bounds_is_a_note() {
        let figures = [
            ("null-blk", Row::Rr32b, 5_000.0),
            ("oxublk-mem", Row::Rr32b, 1.0),
        ];
        let verdict = accepted().judge("7.3", &table(&figures), &asking(&["oxublk-mem"]));
        assert_eq!((verdict.failures.len(), verdict.notes.len()), (0, 1));
    }
}
