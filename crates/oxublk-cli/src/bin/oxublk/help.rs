//! `oxublk completions` and `oxublk man`

use std::fs;
use std::path::Path;

use clap_complete::Shell;
use oxublk_cli::args::oxublk_command;
use oxublk_cli::exit::{Failure, Outcome};
use oxublk_cli::pages;

use crate::output::Output;

pub(crate) fn completions(shell: Shell, output: &Output) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut oxublk_command(), "oxublk", &mut script);
    output.raw(&script)
}

pub(crate) fn man(directory: Option<&Path>, output: &Output) -> Outcome<()> {
    let failed = |error| Failure::io("cannot make the manual pages", &error);
    let Some(directory) = directory else {
        let mut text = Vec::new();
        pages::print(&mut text).map_err(failed)?;
        return output.raw(&text);
    };
    fs::create_dir_all(directory)
        .map_err(|error| Failure::io(format!("cannot create {}", directory.display()), &error))?;
    for (name, page) in pages::all().map_err(failed)? {
        let path = directory.join(name);
        fs::write(&path, page)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
        output.progress(&path.display().to_string())?;
    }
    Ok(())
}
