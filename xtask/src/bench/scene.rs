//! The guest's side: makes the devices, measures the cells in turn, prints a line for each.

use super::devices::{self, Manner, Ready};
use super::load::{Buffers, Load};
use super::plan::{Mode, Plan, Row, Sample};
use super::{fio, footprint};
use anyhow::{Result, bail};

/// Measures what the plan says; it comes as JSON. Prints samples as JSON, one a line.
pub(crate) fn run(plan: &str) -> Result<u8> {
    let plan: Plan = serde_json::from_str(plan)?;
    let manner = Manner {
        batch: plan.batch,
        queues: plan.queues,
    };
    if plan.mode == Mode::Footprint {
        footprint::measure(&plan, manner)?;
        return Ok(0);
    }
    let buffers = Buffers::new(plan.huge_pages)?;
    let mut ready = Vec::new();
    for &device in &plan.devices {
        match devices::make(device, manner, &buffers) {
            Ok(device) => ready.push(device),
            // A kernel may lack what it needs; the others are compared without it.
            Err(error) => eprintln!("bench: no {}: {error:#}", device.title),
        }
    }
    if ready.is_empty() {
        bail!("there is no device to measure");
    }
    // Round 0 warms up. One row over all devices in turn: what drifts hits all of them.
    for round in 0..=plan.rounds {
        for &row in &plan.rows {
            ready.retain(
                |device| match measure(&plan, device, row, round, &buffers) {
                    Ok(sample) => say(&sample).is_ok(),
                    Err(error) => {
                        eprintln!(
                            "bench: {} left out: {}: {error:#}",
                            device.device.title,
                            row.name()
                        );
                        false
                    }
                },
            );
        }
    }
    Ok(0)
}

/// One line for the host.
pub(super) fn say(line: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}

fn measure(plan: &Plan, device: &Ready, row: Row, round: u32, buffers: &Buffers) -> Result<Sample> {
    let sample = Sample {
        device: device.device,
        row,
        round,
        figure: 0.0,
        switches: 0.0,
        tail: None,
    };
    if plan.mode == Mode::Instructions {
        let work = row.work();
        let ios = if round == 0 { work.ios / 4 } else { work.ios };
        let spent = Load::open(&device.path, &work, buffers)?.run(&work, ios)?;
        return Ok(Sample {
            figure: spent.ns,
            switches: spent.switches,
            ..sample
        });
    }
    let seconds = if round == 0 { 1 } else { plan.seconds };
    let measured = fio::measure(&device.path, row, seconds)?;
    Ok(Sample {
        figure: measured.figure,
        switches: measured.switches,
        tail: measured.tail,
        ..sample
    })
}
