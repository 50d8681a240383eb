//! Medians, ratios and the tables that show them.

use super::catalogue::Device;
use super::markdown::{middle, sorted, thousands, write_lines};
use super::plan::{Mode, Plan, Row, Sample};
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
    /// The rounds that it was measured in.
    pub(super) rounds: usize,
    /// Context switches per I/O, the median.
    pub(super) switches: f64,
    /// The 99th and the 99.9th percentile in µs, medians, of a timed latency.
    pub(super) tail: Option<(f64, f64)>,
    /// Times null_blk's figure.
    pub(super) to_null_blk: Option<f64>,
    /// For ours: the best of the peers that are of the same kind.
    pub(super) peer: Option<Best>,
}

/// The best of the peers in a cell.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Best {
    pub(super) device: Device,
    /// Our figure, times the peer's.
    pub(super) ratio: f64,
}

/// All cells of one run.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    /// What `uname -r` says in the guest.
    pub(super) kernel: String,
    pub(super) mode: Mode,
    pub(super) rounds: u32,
    pub(super) queues: u32,
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
        let all = cells.clone();
        for cell in &mut cells {
            cell.to_null_blk = all
                .iter()
                .find(|other| other.device == Device::null_blk() && other.row == cell.row)
                .map(|floor| cell.median / floor.median);
            cell.peer = best_peer(plan.mode, cell, &all);
        }
        Self {
            kernel,
            mode: plan.mode,
            rounds: plan.rounds,
            queues: plan.queues,
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
        let (rounds, queues) = (self.rounds_text(), self.queues);
        let ratios = "(× null_blk; × the best peer of the same kind)";
        match self.mode {
            Mode::WallClock => format!(
                "4 KiB in IOPS, more in MiB/s, lat1 in µs with p99 and p99.9 {ratios}, queues: {queues}, medians of {rounds} rounds"
            ),
            Mode::Instructions | Mode::Footprint => {
                format!("guest instructions per I/O {ratios}, medians of {rounds} rounds")
            }
        }
    }

    /// How many rounds there were: less than asked for, where the guest did not come to its end.
    fn rounds_text(&self) -> String {
        let rounds = || self.cells.iter().map(|cell| cell.rounds);
        match (rounds().min(), rounds().max()) {
            (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
            (_, most) => most.unwrap_or_default().to_string(),
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
            let mut line = vec![device.title.to_owned()];
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
    let tail = |pick: fn((f64, f64)) -> f64| {
        middle(&sorted(
            of_cell().filter_map(|sample| sample.tail).map(pick),
        ))
    };
    Cell {
        device: of.device,
        row: of.row,
        unit: mode.unit(of.row),
        median: middle(&figures),
        min: figures.first().copied().unwrap_or_default(),
        max: figures.last().copied().unwrap_or_default(),
        rounds: figures.len(),
        switches: middle(&sorted(of_cell().map(|sample| sample.switches))),
        tail: of.tail.map(|_| (tail(|tail| tail.0), tail(|tail| tail.1))),
        to_null_blk: None,
        peer: None,
    }
}

/// The peer that is ahead of the others in this cell; more is better where a rate is measured.
fn best_peer(mode: Mode, ours: &Cell, all: &[Cell]) -> Option<Best> {
    let rate = mode == Mode::WallClock && ours.row != Row::Lat1;
    let badness = |cell: &&Cell| if rate { -cell.median } else { cell.median };
    all.iter()
        .filter(|other| other.row == ours.row && ours.device.competes_with(other.device))
        .min_by(|one, other| badness(one).total_cmp(&badness(other)))
        .map(|best| Best {
            device: best.device,
            ratio: ours.median / best.median,
        })
}

fn figure(cell: &Cell) -> String {
    let mut text = thousands(cell.median);
    if let Some((p99, p999)) = cell.tail {
        let _ = write!(text, "; p99 {}, p99.9 {}", thousands(p99), thousands(p999));
    }
    let floor = cell.to_null_blk.map(|floor| format!("{floor:.2}×"));
    let peer = cell
        .peer
        .as_ref()
        .map(|best| format!("{:.3}× {}", best.ratio, best.device.id));
    match (floor, peer) {
        (Some(floor), Some(peer)) => text + &format!(" ({floor}; {peer})"),
        (Some(only), None) => text + &format!(" ({only})"),
        (None, Some(peer)) => text + &format!(" (–; {peer})"),
        (None, None) => text,
    }
}

fn spread(cell: &Cell) -> String {
    let percent = |value: f64| (value / cell.median - 1.0) * 100.0;
    let (low, high) = (percent(cell.min), percent(cell.max));
    format!("{:.2}; {low:+.1} … {high:+.1} %", cell.switches)
}

#[cfg(test)]
pub(super) mod tests {
    use super::Table;
    use crate::bench::plan::{Mode, Plan, Row, Sample};

    pub(in crate::bench) fn sample(device: &str, row: Row, round: u32, figure: f64) -> Sample {
        Sample {
            device: device.parse().unwrap(),
            row,
            round,
            figure,
            switches: 2.0,
            tail: None,
        }
    }

    pub(in crate::bench) fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            rounds: 3,
            seconds: 0,
            batch: false,
            huge_pages: false,
            queues: 1,
            devices: Vec::new(),
            rows: Vec::new(),
        }
    }

    #[test]
    fn medians_of_the_rounds_that_count_are_compared_with_the_best_peer() {
        let sample = |device, round, figure| sample(device, Row::Lat1, round, figure);
        let mut samples = vec![sample("null-blk", 0, 1.0)];
        for (round, figure) in [(1, 100.0), (2, 90.0), (3, 500.0)] {
            samples.push(sample("null-blk", round, figure));
            samples.push(sample("oxublk-null", round, figure * 2.0));
            samples.push(sample("rublk-null", round, figure * 4.0));
            samples.push(sample("selftest-null", round, figure * 2.5));
            samples.push(sample("libublk-ramdisk", round, figure));
        }
        let table = Table::of("7.3".to_owned(), &plan(Mode::Instructions), &samples);
        let ours = &table.cells[1];
        assert_eq!((ours.median, ours.min, ours.max), (200.0, 180.0, 1000.0));
        assert_eq!(ours.to_null_blk, Some(2.0));
        let best = ours.peer.as_ref().unwrap();
        assert_eq!((best.device.id, best.ratio), ("selftest-null", 0.8));
        assert!(table.cells[0].peer.is_none());
        let text = table.text();
        assert!(text.contains("medians of 3 rounds"), "{text}");
        assert!(
            text.contains("200 (2.00×; 0.800× selftest-null) |"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_was_cut_short_does_not_claim_all_rounds() {
        let samples = [
            sample("brd", Row::Rr32, 1, 1.0),
            sample("brd", Row::Rr32, 2, 1.0),
            sample("brd", Row::Lat1, 1, 1.0),
        ];
        let table = Table::of("7.3".to_owned(), &plan(Mode::Instructions), &samples);
        let text = table.text();
        assert!(text.contains("medians of 1 to 2 rounds"), "{text}");
    }

    #[test]
    fn of_rates_the_highest_is_the_best() {
        let mut samples = Vec::new();
        for (device, figure) in [
            ("oxublk-null", 50.0),
            ("rublk-null", 100.0),
            ("libublk-null", 80.0),
        ] {
            samples.push(sample(device, Row::Rr32, 1, figure));
            samples.push(Sample {
                tail: Some((figure * 2.0, figure * 3.0)),
                ..sample(device, Row::Lat1, 1, figure)
            });
        }
        let table = Table::of("7.3".to_owned(), &plan(Mode::WallClock), &samples);
        let best = |at: usize| table.cells[at].peer.as_ref().unwrap().device.id;
        assert_eq!((best(0), best(1)), ("rublk-null", "libublk-null"));
        let text = table.text();
        assert!(text.contains("80.0; p99 160, p99.9 240 |"), "{text}");
    }
}
