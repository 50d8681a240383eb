//! The guest's side: makes the devices, measures the cells in turn, prints a line for each.

use super::devices::{self, Ready};
use super::fio;
use super::load::Load;
use super::plan::{Mode, Plan, Row, Sample};
use anyhow::{Result, bail};

/// Measures what the plan says; it comes as JSON. Prints samples as JSON, one a line.
pub(crate) fn run(plan: &str) -> Result<u8> {
    let plan: Plan = serde_json::from_str(plan)?;
    let mut ready = Vec::new();
    for &device in &plan.devices {
        match devices::make(device, plan.batch) {
            Ok(device) => ready.push(device),
            // A kernel may lack a module; the others are compared without it.
            Err(error) => eprintln!("bench: no {}: {error:#}", device.title()),
        }
    }
    if ready.is_empty() {
        bail!("there is no device to measure");
    }
    // Round 0 warms up. One row over all devices in turn: what drifts hits all of them.
    for round in 0..=plan.rounds {
        for &row in &plan.rows {
            for device in &ready {
                let (figure, switches) = measure(&plan, device, row, round)?;
                let sample = Sample {
                    device: device.device,
                    row,
                    round,
                    figure,
                    switches,
                };
                println!("{}", serde_json::to_string(&sample)?);
            }
        }
    }
    Ok(0)
}

fn measure(plan: &Plan, device: &Ready, row: Row, round: u32) -> Result<(f64, f64)> {
    match plan.mode {
        Mode::Instructions => {
            let work = row.work();
            let ios = if round == 0 { work.ios / 4 } else { work.ios };
            let spent = Load::open(&device.path, &work)?.run(&work, ios)?;
            Ok((spent.ns, spent.switches))
        }
        Mode::WallClock => {
            let seconds = if round == 0 { 1 } else { plan.seconds };
            fio::measure(&device.path, row, seconds)
        }
    }
}
