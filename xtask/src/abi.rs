//! `cargo xtask abi`: writes down what the kernel's own header says, for `oxublk-sys` to be held
//! against.
//!
//! The newest `linux-libc-dev` of Debian's archive is extracted, its header scanned for structures
//! and constants, a C program made that prints each of them, and its output becomes
//! `crates/oxublk-sys/tests/abi-table.txt`. The test `abi` of that crate fails for every line that
//! the crate does not have or has differently, so a new kernel's additions cannot be overlooked.

use crate::apt::Apt;
use crate::paths;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The package that carries the kernel's headers for programs.
const PACKAGE: &str = "linux-libc-dev";

/// Where the facts are kept, in the workspace.
const TABLE: &str = "crates/oxublk-sys/tests/abi-table.txt";

/// A header, and what of it belongs to ublk's interface.
struct Header {
    /// Its name in an `#include`.
    name: &'static str,
    /// Beginnings of the constants' names.
    constants: &'static [&'static str],
    /// Beginnings of the structures' names, or a whole name with a space behind it.
    structures: &'static [&'static str],
}

const HEADERS: &[Header] = &[
    Header {
        name: "linux/ublk_cmd.h",
        constants: &["UBLK_", "UBLKSRV_"],
        structures: &["ublk_", "ublksrv_"],
    },
    // The array that answers REPORT_ZONES.
    Header {
        name: "linux/blkzoned.h",
        constants: &["BLK_ZONE_"],
        structures: &["blk_zone "],
    },
    // The values of two fields of the integrity parameters.
    Header {
        name: "linux/fs.h",
        constants: &["LBMD_PI_"],
        structures: &[],
    },
];

/// Writes the table anew and tells what has changed in it.
pub(crate) fn run() -> Result<()> {
    let apt = Apt::open()?;
    let version = apt.newest_version(PACKAGE)?;
    let dir = paths::cache_dir("abi")?;
    let package = tempfile::tempdir_in(&dir)?;
    apt.extract(&format!("{PACKAGE}={version}"), package.path())?;

    let work = tempfile::tempdir_in(&dir)?;
    let mut program = Program::default();
    for header in HEADERS {
        let from = package.path().join("usr/include").join(header.name);
        let text = fs::read_to_string(&from)
            .with_context(|| format!("{PACKAGE} {version} has no readable {}", header.name))?;
        // Only these headers are taken from the package: what they include is the system's.
        let to = work.path().join(header.name);
        fs::create_dir_all(to.parent().unwrap_or(work.path()))?;
        fs::write(&to, &text)?;
        program.add(header, &strip_comments(&text));
    }
    let facts = compile_and_run(&program.finish(), work.path())?;
    let names: Vec<_> = HEADERS.iter().map(|header| header.name).collect();
    let table = format!(
        "# {PACKAGE} {version}: {}. Written by cargo xtask abi.\n{facts}",
        names.join(", ")
    );

    let path = paths::workspace().join(TABLE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    report(&old, &table);
    Ok(())
}

/// Prints the lines that are new or gone.
fn report(old: &str, new: &str) {
    let old: BTreeSet<_> = old.lines().collect();
    let new: BTreeSet<_> = new.lines().collect();
    for gone in old.difference(&new) {
        println!("- {gone}");
    }
    for added in new.difference(&old) {
        println!("+ {added}");
    }
    println!(
        "{TABLE}: {} facts. `cargo test -p oxublk-sys` compares them.",
        new.len() - 1
    );
}

/// A C program under construction that prints facts.
#[derive(Default)]
struct Program {
    includes: String,
    body: String,
    seen: BTreeSet<String>,
}

impl Program {
    /// Adds everything of a header, whose text has no comments any more.
    fn add(&mut self, header: &Header, text: &str) {
        _ = writeln!(self.includes, "#include <{}>", header.name);
        for structure in structures(text) {
            let name = format!("{} ", structure.name);
            if begins(&name, header.structures) {
                self.add_structure(&structure);
            }
        }
        for constant in constants(text) {
            if begins(&constant.name, header.constants) && self.seen.insert(constant.name.clone()) {
                self.add_constant(&constant);
            }
        }
    }

    fn add_structure(&mut self, structure: &Structure) {
        let name = &structure.name;
        _ = writeln!(
            self.body,
            "\tprintf(\"size {name} %zu\\n\", sizeof(struct {name}));"
        );
        for field in &structure.fields {
            _ = writeln!(
                self.body,
                "\tprintf(\"offset {name}.{field} %zu\\n\", offsetof(struct {name}, {field}));\n\
                 \tprintf(\"width {name}.{field} %zu\\n\", sizeof(((struct {name} *)0)->{field}));"
            );
        }
    }

    fn add_constant(&mut self, constant: &Constant) {
        let name = &constant.name;
        _ = if constant.is_command {
            writeln!(
                self.body,
                "\tprintf(\"cmd {name} 0x%08lx\\n\", (unsigned long)({name}));"
            )
        } else {
            writeln!(
                self.body,
                "\tprintf(\"const {name} %lld\\n\", (long long)({name}));"
            )
        };
    }

    fn finish(self) -> String {
        format!(
            "#include <errno.h>\n#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n\
             {}\nint main(void)\n{{\n{}\treturn 0;\n}}\n",
            self.includes, self.body
        )
    }
}

fn begins(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Compiles the program with the headers in `dir` and returns what it prints.
fn compile_and_run(source: &str, dir: &Path) -> Result<String> {
    let (file, program) = (dir.join("facts.c"), dir.join("facts"));
    fs::write(&file, source)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let status = Command::new(&compiler)
        .arg("-I")
        .arg(dir)
        .args(["-Wall", "-o"])
        .args([&program, &file])
        .status()
        .with_context(|| format!("cannot run the C compiler {}", compiler.display()))?;
    if !status.success() {
        bail!("the C program that prints the header's facts does not compile: {status}");
    }
    let output = Command::new(&program).output()?;
    if !output.status.success() {
        bail!(
            "the program that prints the header's facts failed: {}",
            output.status
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A structure's name and its fields', those of anonymous unions among them.
#[derive(Debug, PartialEq, Eq)]
struct Structure {
    name: String,
    fields: Vec<String>,
}

/// A macro without arguments, or a value of an enumeration.
#[derive(Debug, PartialEq, Eq)]
struct Constant {
    name: String,
    /// It is the number of a command: put together by `_IOR` and its like.
    is_command: bool,
}

/// The text without `/* */` and `//` comments.
fn strip_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*").into_iter().chain(rest.find("//")).min() {
        let (before, comment) = rest.split_at(start);
        out.push_str(before);
        out.push(' ');
        let (end, skip) = if comment.starts_with("/*") {
            (comment.find("*/"), 2)
        } else {
            (comment.find('\n'), 0)
        };
        rest = end.map_or("", |end| &comment[end + skip..]);
    }
    out.push_str(rest);
    out
}

/// The structures defined in a text without comments.
fn structures(text: &str) -> Vec<Structure> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("struct ") {
        rest = &rest[at + "struct ".len()..];
        let name = rest.trim_start();
        let end = name.find(|c: char| !is_word(c)).unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        let Some(body) = behind.trim_start().strip_prefix('{') else {
            continue;
        };
        let body = &body[..closing_brace(body)];
        let fields = body
            .replace("union", "")
            .split([';', '{', '}'])
            .filter_map(field_name)
            .collect();
        found.push(Structure {
            name: name.to_owned(),
            fields,
        });
    }
    found
}

/// Where the brace is that closes the one in front of `body`.
fn closing_brace(body: &str) -> usize {
    let mut depth = 1;
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    body.len()
}

/// The name that a declaration such as `__u64 data[1]` gives.
fn field_name(declaration: &str) -> Option<String> {
    let name = declaration
        .split('[')
        .next()?
        .trim()
        .rsplit(|c| !is_word(c))
        .next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The constants defined in a text without comments: macros that have a value and no arguments,
/// and values of enumerations.
fn constants(text: &str) -> Vec<Constant> {
    let joined = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in joined.lines().map(str::trim) {
        let macro_text = line
            .strip_prefix('#')
            .and_then(|directive| directive.trim_start().strip_prefix("define"));
        let text = macro_text.unwrap_or(line).trim_start();
        let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (name, value) = text.split_at(end);
        let defined = match macro_text {
            Some(_) => !value.trim().is_empty() && !value.starts_with('('),
            None => value.trim_start().starts_with('=') && line.ends_with(','),
        };
        if defined && !name.is_empty() {
            found.push(Constant {
                name: name.to_owned(),
                is_command: ["_IO(", "_IOR(", "_IOW(", "_IOWR("]
                    .iter()
                    .any(|encoder| value.contains(encoder)),
            });
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\
#ifndef GUARD_H
#define GUARD_H
/* #define UBLK_IN_COMMENT 1 */
#define\tUBLK_ONE\t0x01 // one
#define UBLK_U_TWO\t\\
\t_IOWR('u', UBLK_ONE, struct ublk_thing)
#define UBLK_CALL(x) ((x) + 1)
struct ublk_thing;
struct ublk_thing {
\t__u64\tdata[1]; /* struct not_one { */
#define UBLK_INSIDE (1 << 0)
\tunion {
\t\t__u32 a;
\t\t__u32 b;
\t};
\tstruct ublk_inner\tinner;
};
enum blk {
\tBLK_LAST\t= 0x2,
};
static __inline__ int f(const struct ublk_thing *t)
{
\treturn t->a & 0xff;
}
";

    #[test]
    fn structures_are_found_with_the_fields_of_their_unions() {
        let found = structures(&strip_comments(HEADER));
        let fields = ["data", "a", "b", "inner"].map(String::from).to_vec();
        let thing = Structure {
            name: "ublk_thing".to_owned(),
            fields,
        };
        assert_eq!(found, [thing]);
    }

    #[test]
    fn constants_are_macros_with_values_and_values_of_enumerations() {
        let found = constants(&strip_comments(HEADER));
        let found: Vec<_> = found
            .iter()
            .map(|constant| (constant.name.as_str(), constant.is_command))
            .collect();
        assert_eq!(
            found,
            [
                ("UBLK_ONE", false),
                ("UBLK_U_TWO", true),
                ("UBLK_INSIDE", false),
                ("BLK_LAST", false)
            ]
        );
    }

    #[test]
    fn the_program_prints_a_line_for_each_fact() {
        let mut program = Program::default();
        program.add(&HEADERS[0], &strip_comments(HEADER));
        let source = program.finish();
        assert!(source.contains("size ublk_thing "));
        assert!(source.contains("offset ublk_thing.inner "));
        assert!(source.contains("cmd UBLK_U_TWO "));
        assert!(source.contains("const UBLK_INSIDE "));
        assert!(!source.contains("UBLK_CALL"));
        assert!(!source.contains("BLK_LAST"));
    }
}
