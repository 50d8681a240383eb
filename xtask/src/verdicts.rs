//! `cargo xtask verdicts`: runs every fault on real kernels and writes down what doctor said of it.

use crate::packages;
use crate::paths;
use crate::programs;
use crate::test::{self, Row};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The page that has the table.
const PAGE: &str = "docs/stuck.md";
/// What is between these lines is ours.
const BEGIN: &str = "<!-- verdicts -->";
const END: &str = "<!-- /verdicts -->";

/// Runs every fault on real kernels and writes the table of verdicts into docs/stuck.md
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A kernel, as for `guest`; may be given several times [default: 6.12 and latest]
    #[arg(long)]
    kernel: Vec<String>,
    /// Multiply the time that a scene may take: for a machine that is busy with other things
    #[arg(long, value_name = "FACTOR", default_value_t = 1)]
    patience: u64,
    /// Cargo's profile for the programs
    #[arg(long, default_value = "release")]
    profile: String,
}

/// Runs the task; the code is 0 when doctor was right each time.
pub(crate) fn main(arguments: &Arguments) -> Result<u8> {
    let page = paths::workspace().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    packages::ensure()?;
    let programs = programs::build(programs::PACKAGES, &arguments.profile)?;
    let mut scenes = test::chosen_scenes(&programs, &[])?;
    scenes.retain(|scene| scene.name.starts_with("faults-") || scene.name == "healthy");
    let how = test::Arguments {
        tier: Some(2),
        kernel: arguments.kernel.clone(),
        scene: Vec::new(),
        jobs: None,
        patience: arguments.patience,
        profile: arguments.profile.clone(),
        filter: None,
    };
    let mut rows = Vec::new();
    test::run_scenes(&how, &programs, &scenes, &mut rows)?;
    test::print_table(&rows);
    let table = table(&rows, &described(&programs)?);
    fs::write(&page, replaced(&text, &table)?).with_context(|| page.display().to_string())?;
    let failed = rows.iter().any(|row| row.tally.failed > 0);
    Ok(u8::from(failed))
}

/// What each fault does, as the fault server says.
fn described(programs: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let server = programs
        .iter()
        .find(|program| program.ends_with("ublk-faulty"))
        .map_or(Path::new("ublk-faulty"), PathBuf::as_path);
    let output = Command::new(server)
        .arg("--list")
        .output()
        .context("cannot run ublk-faulty")?;
    let text = String::from_utf8(output.stdout)?;
    let faults = text.lines().filter_map(|line| line.split_once("  "));
    Ok(faults
        .map(|(name, does)| (name.to_owned(), does.trim().to_owned()))
        .collect())
}

/// `verdict: TITLE: CAUSE (certainty)`
fn verdict(note: &str) -> Option<(&str, &str)> {
    note.strip_prefix("verdict: ")?.rsplit_once(": ")
}

fn table(rows: &[Row], described: &BTreeMap<String, String>) -> String {
    let mut kernels: Vec<&str> = Vec::new();
    let mut titles: Vec<&str> = Vec::new();
    let mut verdicts: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for row in rows {
        if !kernels.contains(&row.kernel.as_str()) {
            kernels.push(&row.kernel);
        }
        for (title, said) in row.notes.iter().filter_map(|note| verdict(note)) {
            if !titles.contains(&title) {
                titles.push(title);
            }
            verdicts.insert((title, row.kernel.as_str()), said);
        }
    }
    let mut text = "| fault | what the server does |".to_owned();
    for kernel in &kernels {
        // Writing to a string does not fail.
        let _ = write!(text, " Linux {kernel} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(kernels.len()));
    for title in titles {
        let fault = title.split([' ', ',']).next().unwrap_or_default();
        let does = described.get(fault).map_or("", String::as_str);
        let _ = write!(text, "| {title} | {does} |");
        for kernel in &kernels {
            let said = verdicts.get(&(title, *kernel)).unwrap_or(&"not run");
            let _ = write!(text, " {said} |");
        }
        text.push('\n');
    }
    text
}

/// The page with another table.
fn replaced(page: &str, table: &str) -> Result<String> {
    let parts = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        bail!("{PAGE} has no lines {BEGIN} and {END}");
    };
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_old_one_alone() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("no marks", "new").is_err());
    }

    #[test]
    fn a_note_has_a_title_and_what_was_said() {
        assert_eq!(
            verdict("verdict: half-dead --recovery plain: server_dead (certain)"),
            Some(("half-dead --recovery plain", "server_dead (certain)"))
        );
        assert_eq!(verdict("something took 1.0 s"), None);
    }
}
