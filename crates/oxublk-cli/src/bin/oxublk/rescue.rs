//! `oxublk rescue`

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use oxublk::host;
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_cli::rescue_args::RescueArgs;
use oxublk_diag::rescue::{self, Choice, Plan, Rescue};
use serde::Serialize;

use crate::output::Output;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    plan: &'a Plan,
    /// None when nothing was done.
    outcome: Option<&'a rescue::Outcome>,
}

pub(crate) fn run(arguments: &RescueArgs, output: &Output) -> Outcome<Exit> {
    let id = arguments.device;
    if !host::devices()?.contains(&id) && !id.block_path().exists() {
        return Err(
            Failure::new(Exit::NoSuchDevice, format!("there is no device {id}"))
                .with_hint("`oxublk list` shows what there is"),
        );
    }
    let mut rescue = Rescue::new(Choice {
        device: id,
        queue: arguments.queue(),
        tag: arguments.tag(),
        stuck_after: arguments.stuck_after,
    });
    let plan = rescue.plan();
    output.progress(rescue::plan_text(&plan).trim_end())?;
    if plan.requests.is_empty() || arguments.dry_run {
        document(output, &plan, None)?;
        return Ok(untouched(&plan));
    }
    if !arguments.yes && !agreed(&plan, output)? {
        document(output, &plan, None)?;
        output.progress("nothing was done")?;
        return Ok(Exit::Stuck);
    }
    let outcome = rescue.run(&plan);
    output.progress(rescue::outcome_text(&outcome).trim_end())?;
    document(output, &plan, Some(&outcome))?;
    Ok(if outcome.complete() && plan.cannot.is_empty() {
        Exit::Success
    } else {
        Exit::Stuck
    })
}

/// The exit code when nothing was done.
fn untouched(plan: &Plan) -> Exit {
    let unseen = plan.cannot.iter().any(|cannot| cannot.queue.is_none());
    match unseen {
        true if !rustix::process::geteuid().is_root() => Exit::NoPermission,
        true => Exit::Failure,
        false if plan.requests.is_empty() && plan.cannot.is_empty() => Exit::Success,
        false => Exit::Stuck,
    }
}

fn document(output: &Output, plan: &Plan, outcome: Option<&rescue::Outcome>) -> Outcome<()> {
    if !output.json {
        return Ok(());
    }
    let document = Document {
        schema: 1,
        plan,
        outcome,
    };
    output.result(&document, |_| String::new())
}

/// Asks whoever sits at the terminal.
fn agreed(plan: &Plan, output: &Output) -> Outcome<bool> {
    if output.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "nothing was done: there is nobody to ask whether these requests shall be ended",
        )
        .with_hint("--yes does it without asking, --dry-run only says what would be done"));
    }
    let count = plan.requests.len();
    let cannot = |error: &io::Error| Failure::io("cannot ask at the terminal", error);
    let mut stderr = io::stderr();
    write!(
        stderr,
        "end {count} of the device's requests with EIO? [y/N] "
    )
    .and_then(|()| stderr.flush())
    .map_err(|error| cannot(&error))?;
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| cannot(&error))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
