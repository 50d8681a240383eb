//! The manual pages, from the definitions of the command lines.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

use crate::args::{oxublk_command, ublk_mem_command};
use crate::exit::EXIT_CODES;

/// What only the pages of the programs have.
const FILES: &str = r"
.SH FILES
.TP
\fI/run/oxublk/ID.json\fR
The device as its server wrote it down: target, size, options, process.
.TP
\fI/run/oxublk/ID.sock\fR
A socket: each connection is answered with one JSON document of live metrics.
.TP
\fI/run/oxublk/ID.log\fR
What a server in the background logged. Kept when the server failed.
.SH ENVIRONMENT
.TP
\fBOXUBLK_RUN_DIR\fR
Another directory than \fI/run/oxublk\fR.
.TP
\fBOXUBLK_LOG\fR
What is logged: \fBdebug\fR, \fBoxublk=debug\fR, and so on.
";

const EXAMPLES: &str = r"
.SH EXAMPLES
.nf
oxublk add mem \-\-size 1G
mkfs.ext4 /dev/ublkb0
mount /dev/ublkb0 /mnt
oxublk list
umount /mnt
oxublk del 0
.fi
.SH SEE ALSO
.BR ublk\-mem (1)
";

/// The pages of both programs and of every command: file name (`oxublk-add.1`) and content.
///
/// # Errors
/// None that can occur: pages are made in memory.
pub fn all() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    for mut command in [oxublk_command(), ublk_mem_command()] {
        command.build();
        add(&mut pages, &command)?;
    }
    Ok(pages)
}

/// Writes the pages of `oxublk` and its commands, one after the other.
///
/// # Errors
/// `out` cannot be written.
pub fn print(out: &mut impl Write) -> io::Result<()> {
    for (name, page) in all()? {
        if name.starts_with("oxublk") {
            out.write_all(&page)?;
        }
    }
    Ok(())
}

fn add(pages: &mut Vec<(String, Vec<u8>)>, command: &Command) -> io::Result<()> {
    let page = Man::new(command.clone()).manual("oxublk");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    let subcommands = || {
        command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
    };
    if subcommands().next().is_some() {
        page.render_subcommands_section(&mut text)?;
    }
    write!(
        text,
        ".SH EXIT STATUS\n.nf\n{}\n.fi",
        after_head(EXIT_CODES)
    )?;
    text.extend_from_slice(FILES.as_bytes());
    if command.get_name() == "oxublk" {
        text.extend_from_slice(EXAMPLES.as_bytes());
    } else {
        text.extend_from_slice(b".SH SEE ALSO\n.BR oxublk (1)\n");
    }
    pages.push((page.get_filename(), without_repetition(text)));
    subcommands().try_for_each(|subcommand| add(pages, subcommand))
}

/// Each section comes with the same definitions: keeps the first.
fn without_repetition(text: Vec<u8>) -> Vec<u8> {
    let Ok(text) = String::from_utf8(text) else {
        return Vec::new();
    };
    match text.find(".TH ") {
        Some(end) => {
            let (definitions, rest) = text.split_at(end);
            format!("{definitions}{}", rest.replace(definitions, "")).into_bytes()
        }
        None => text.into_bytes(),
    }
}

/// All lines but the first.
fn after_head(text: &str) -> &str {
    text.split_once('\n').map_or(text, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = all().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "oxublk.1",
            "oxublk-add.1",
            "oxublk-add-mem.1",
            "oxublk-del.1",
            "ublk-mem.1",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        for (name, page) in &pages {
            let page = String::from_utf8_lossy(page);
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "FILES"] {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{name} has no {section}"
                );
            }
            assert!(
                !page.contains("background-server"),
                "{name} shows a hidden option"
            );
        }
    }

    #[test]
    fn exit_codes_are_in_the_manual() {
        let mut text = Vec::new();
        print(&mut text).unwrap();
        assert!(String::from_utf8_lossy(&text).contains("a device with this id exists already"));
    }
}
