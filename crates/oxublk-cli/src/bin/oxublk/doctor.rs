//! `oxublk doctor`

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use oxublk::host;
use oxublk_cli::args::DoctorArgs;
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_diag::decide::Limits;
use oxublk_diag::doctor::{Doctor, Looks, Watch};
use oxublk_diag::finding::{Health, Report};
use oxublk_diag::observe::Options;
use oxublk_diag::render::{self, Style};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::Output;

pub(crate) fn run(arguments: &DoctorArgs, output: &Output) -> Outcome<Exit> {
    let limits = Limits {
        slow: arguments.slow,
        stuck: arguments.stuck_after,
    };
    let style = Style {
        verbose: arguments.verbose,
    };
    if let Some(path) = &arguments.from {
        let report = read(path)?.decide(limits);
        return print(&report, style, output);
    }
    let known = host::devices()?;
    if let Some(missing) = arguments
        .devices
        .iter()
        .find(|id| !known.contains(id) && !id.block_path().exists())
    {
        let message = format!("there is no device {missing}");
        return Err(Failure::new(Exit::NoSuchDevice, message)
            .with_hint("`oxublk list` shows what there is"));
    }
    let options = Options {
        devices: arguments.devices.clone(),
        kernel: !arguments.no_kernel,
        ..Options::default()
    };
    let mut doctor = Doctor::new(options, limits);
    if let Some(every) = arguments.watch {
        return watch(&mut doctor, every, output);
    }
    let looks = doctor.look();
    if let Some(path) = &arguments.snapshot {
        write(path, &looks)?;
    }
    let exit = print(&looks.decide(limits), style, output)?;
    if style.verbose && !output.json {
        output.raw(timings(&doctor).as_bytes())?;
    }
    Ok(exit)
}

fn print(report: &Report, style: Style, output: &Output) -> Outcome<Exit> {
    output.result(report, |report| render::text(report, style))?;
    Ok(exit(report.health))
}

const fn exit(health: Health) -> Exit {
    match health {
        Health::Healthy => Exit::Success,
        Health::Warning => Exit::Warnings,
        Health::Stuck => Exit::Stuck,
    }
}

fn timings(doctor: &Doctor) -> String {
    let mut text = "\nlooking took:\n".to_owned();
    for timing in doctor.timings() {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {:>8.1} ms  {}",
            timing.took.as_secs_f64() * 1000.0,
            timing.part
        );
    }
    text
}

fn read(path: &Path) -> Outcome<Looks> {
    let cannot =
        |error: &std::io::Error| Failure::io(format!("cannot read {}", path.display()), error);
    let file = File::open(path).map_err(|error| cannot(&error))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!(
                "{} is not what `doctor --snapshot` writes: {error}",
                path.display()
            ),
        )
    })
}

fn write(path: &Path, looks: &Looks) -> Outcome<()> {
    let cannot =
        |error: &std::io::Error| Failure::io(format!("cannot write {}", path.display()), error);
    let text = serde_json::to_vec(looks).map_err(|error| cannot(&error.into()))?;
    fs::write(path, text).map_err(|error| cannot(&error))
}

/// Examines until a signal comes; the exit code is that of the worst that was seen.
fn watch(doctor: &mut Doctor, every: Duration, output: &Output) -> Outcome<Exit> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::io("cannot wait for signals", &error))?;
    let (sender, stop) = mpsc::channel();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                break;
            }
        }
    });
    let mut watch = Watch::default();
    let mut worst = Health::Healthy;
    let mut first = true;
    loop {
        let report = doctor.examine();
        worst = worst.max(report.health);
        if std::mem::take(&mut first) && !output.json {
            output.raw(render::summary(&report).as_bytes())?;
        }
        for change in watch.compare(&report) {
            output.result(&change, render::change)?;
        }
        match stop.recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(exit(worst)),
        }
    }
}
