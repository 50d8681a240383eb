//! Medians, ratios and the tables that show them.

use super::plan::{Device, Mode, Plan, Row, Sample};
use serde::Serialize;
use std::fmt::Write as _;

/// One cell: a device in a row, over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    pub(super) device: Device,
    pub(super) row: Row,
    pub(super) unit: &'static str,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Context switches per I/O, the median.
    pub(super) switches: f64,
    /// Times null_blk's figure.
    pub(super) to_null_blk: Option<f64>,
    /// Times the figure of rublk's device of the same kind.
    pub(super) to_rublk: Option<f64>,
}

/// All cells of one run.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    /// What `uname -r` says in the guest.
    pub(super) kernel: String,
    pub(super) mode: Mode,
    pub(super) rounds: u32,
    /// Whether the servers ran as batch jobs.
    pub(super) batch: bool,
    pub(super) cells: Vec<Cell>,
}

impl Table {
    /// Puts samples together; those of round 0 warmed up and do not count.
    pub(super) fn of(kernel: String, plan: &Plan, samples: &[Sample]) -> Self {
        let mut cells: Vec<Cell> = Vec::new();
        for sample in samples.iter().filter(|sample| sample.round > 0) {
            let same = |cell: &Cell| cell.device == sample.device && cell.row == sample.row;
            if !cells.iter().any(same) {
                cells.push(cell(plan.mode, samples, sample));
            }
        }
        let figures: Vec<(Device, Row, f64)> = cells
            .iter()
            .map(|cell| (cell.device, cell.row, cell.median))
            .collect();
        let ratio = |cell: &Cell, to: Device| {
            let base = figures
                .iter()
                .find(|(device, row, _)| *device == to && *row == cell.row);
            base.map(|(_, _, base)| cell.median / base)
        };
        for cell in &mut cells {
            cell.to_null_blk = ratio(cell, Device::NullBlk);
            cell.to_rublk = cell.device.peer().and_then(|peer| ratio(cell, peer));
        }
        Self {
            kernel,
            mode: plan.mode,
            rounds: plan.rounds,
            batch: plan.batch,
            cells,
        }
    }

    /// Markdown that reads well in a terminal too.
    pub(super) fn text(&self) -> String {
        let policy = if self.batch {
            ", servers as batch jobs"
        } else {
            ""
        };
        let mut text = format!("Linux {}, {}{policy}:\n\n", self.kernel, self.what());
        self.block(&mut text, &figure);
        let _ = writeln!(
            text,
            "\nContext switches per I/O; lowest and highest round, to the median:\n"
        );
        self.block(&mut text, &spread);
        text
    }

    fn what(&self) -> String {
        let rounds = self.rounds;
        match self.mode {
            Mode::Instructions => format!(
                "guest instructions per I/O (× null_blk; × rublk), medians of {rounds} rounds"
            ),
            Mode::WallClock => format!(
                "4 KiB in IOPS, 128 KiB in MiB/s, lat1 in µs (× null_blk; × rublk), medians of {rounds} rounds"
            ),
        }
    }

    fn block(&self, text: &mut String, show: &dyn Fn(&Cell) -> String) {
        let mut rows: Vec<Row> = Vec::new();
        let mut devices: Vec<Device> = Vec::new();
        for cell in &self.cells {
            if !rows.contains(&cell.row) {
                rows.push(cell.row);
            }
            if !devices.contains(&cell.device) {
                devices.push(cell.device);
            }
        }
        let mut lines = vec![vec!["device".to_owned()]];
        lines[0].extend(rows.iter().map(|row| row.name().to_owned()));
        for device in devices {
            let mut line = vec![device.title().to_owned()];
            line.extend(rows.iter().map(|row| {
                let cell = self
                    .cells
                    .iter()
                    .find(|cell| cell.device == device && cell.row == *row);
                cell.map_or_else(String::new, show)
            }));
            lines.push(line);
        }
        write_lines(text, &lines);
    }
}

fn cell(mode: Mode, samples: &[Sample], of: &Sample) -> Cell {
    let of_cell = || {
        samples
            .iter()
            .filter(|sample| sample.round > 0 && sample.device == of.device && sample.row == of.row)
    };
    let figures = sorted(of_cell().map(|sample| sample.figure));
    Cell {
        device: of.device,
        row: of.row,
        unit: mode.unit(of.row),
        median: middle(&figures),
        min: figures.first().copied().unwrap_or_default(),
        max: figures.last().copied().unwrap_or_default(),
        switches: middle(&sorted(of_cell().map(|sample| sample.switches))),
        to_null_blk: None,
        to_rublk: None,
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values; of an even number the mean of the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    let upper = sorted.get(half).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = half.checked_sub(1).and_then(|at| sorted.get(at)).copied();
    lower.map_or(upper, |lower| (lower + upper) / 2.0)
}

fn figure(cell: &Cell) -> String {
    let mut text = thousands(cell.median);
    match (cell.to_null_blk, cell.to_rublk) {
        (Some(floor), Some(peer)) => {
            let _ = write!(text, " ({floor:.2}×; {peer:.3}×)");
        }
        (Some(floor), None) => {
            let _ = write!(text, " ({floor:.2}×)");
        }
        (None, Some(peer)) => {
            let _ = write!(text, " (–; {peer:.3}×)");
        }
        (None, None) => {}
    }
    text
}

fn spread(cell: &Cell) -> String {
    let percent = |value: f64| (value / cell.median - 1.0) * 100.0;
    let (low, high) = (percent(cell.min), percent(cell.max));
    format!("{:.2}; {low:+.1} … {high:+.1} %", cell.switches)
}

/// `12,345`; small values keep a digit behind the point.
fn thousands(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines of a Markdown table, the first one its head, columns as wide as their widest cell.
fn write_lines(text: &mut String, lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let width = *width;
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(*width);
                let _ = write!(text, "|-{dashes}{}", if column == 0 { '-' } else { ':' });
            }
            text.push_str("|\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, middle, thousands};
    use crate::bench::plan::{Device, Mode, Plan, Row, Sample};

    fn sample(device: Device, round: u32, figure: f64) -> Sample {
        Sample {
            device,
            row: Row::Lat1,
            round,
            figure,
            switches: 2.0,
        }
    }

    #[test]
    fn medians_of_the_rounds_that_count_are_compared() {
        let mut samples = vec![sample(Device::NullBlk, 0, 1.0)];
        for (round, figure) in [(1, 100.0), (2, 90.0), (3, 500.0)] {
            samples.push(sample(Device::NullBlk, round, figure));
            samples.push(sample(Device::OxublkNull, round, figure * 2.0));
            samples.push(sample(Device::RublkNull, round, figure * 4.0));
        }
        let plan = Plan {
            mode: Mode::Instructions,
            rounds: 3,
            seconds: 0,
            batch: false,
            devices: Vec::new(),
            rows: Vec::new(),
        };
        let table = Table::of("7.3".to_owned(), &plan, &samples);
        let ours = &table.cells[1];
        assert_eq!((ours.median, ours.min, ours.max), (200.0, 180.0, 1000.0));
        assert_eq!((ours.to_null_blk, ours.to_rublk), (Some(2.0), Some(0.5)));
        assert_eq!(table.cells[0].to_rublk, None);
        let text = table.text();
        assert!(text.contains("200 (2.00×; 0.500×) |"), "{text}");
    }

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(12.34), "12.3");
        assert_eq!(middle(&[1.0, 2.0]), 1.5);
    }
}
