//! The house's rules that no lint knows: sizes, pages, leftovers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a surprise ends them"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file, its tests not counted.
const MAX_FILE_LINES: usize = 500;
/// Lines of a function.
const MAX_FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the workspace")
        .to_owned()
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        visit(&root().join(folder), &mut found);
    }
    assert!(found.len() > 30, "the walk found the workspace: {found:?}");
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The part of a file before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn files_are_short() {
    for path in sources() {
        let lines = without_tests(&read(&path)).lines().count();
        assert!(
            lines <= MAX_FILE_LINES,
            "{} has {lines} lines",
            path.display()
        );
    }
}

#[test]
fn functions_are_short() {
    for path in sources() {
        let text = read(&path);
        let mut start: Option<(usize, &str, &str)> = None;
        for (number, line) in without_tests(&text).lines().enumerate() {
            let indent = &line[..line.len() - line.trim_start().len()];
            let head = line.trim_start();
            if start.is_none() && is_function(head) && !line.ends_with('}') && !line.ends_with(';')
            {
                start = Some((number, indent, head));
            }
            let Some((first, outer, name)) = start else {
                continue;
            };
            if indent == outer
                && (head == "}" || head == ");" || head.ends_with(';') && number > first)
            {
                let lines = number - first + 1;
                assert!(
                    lines <= MAX_FUNCTION_LINES,
                    "{}:{}: {lines} lines: {name}",
                    path.display(),
                    first + 1
                );
                start = None;
            }
        }
    }
}

fn is_function(line: &str) -> bool {
    let words = [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "const ",
        "async ",
        "unsafe ",
        "extern \"C\" ",
    ];
    let mut rest = line;
    while let Some(shorter) = words.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = shorter;
    }
    rest.starts_with("fn ")
}

#[test]
fn nothing_is_left_to_do() {
    // In two pieces, or this line would find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("dbg", "!("),
    ];
    for path in sources() {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
    }
}

#[test]
fn every_target_has_its_page() {
    let targets = root().join("crates/oxublk-targets/src");
    let mut found = 0;
    for entry in fs::read_dir(targets).expect("the targets") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found += 1;
            let page = read(&path.join("README.md"));
            assert!(
                page.to_lowercase().contains("durab"),
                "{}: says nothing of durability",
                path.display()
            );
        }
    }
    assert!(found >= 2, "the walk found the targets");
}

#[test]
fn unsafe_code_is_in_its_rooms() {
    let rooms = [
        "crates/oxublk/src/control/apart.rs",
        "crates/oxublk/src/control/argument.rs",
        "crates/oxublk/src/control/envelope.rs",
        "crates/oxublk/src/mapping.rs",
        "crates/oxublk/src/queue/buffers.rs",
        "crates/oxublk/src/queue/uring/batch.rs",
        "crates/oxublk/src/queue/uring/enter.rs",
        "crates/oxublk/src/queue/uring/mod.rs",
        "crates/oxublk/src/ops/buffer.rs",
        "crates/oxublk/src/recorder/memory.rs",
        "crates/oxublk/src/shared/memory.rs",
        "crates/oxublk-targets/src/mem/store.rs",
        // Counts allocations.
        "crates/oxublk-sim/tests/allocations.rs",
        // The fault server is apart from the library, so that it can break its rules: it has a ring of its own, memory
        // that it takes away from under the driver, and forks that no safe function makes.
        "tests/faults/src/memory.rs",
        "tests/faults/src/process.rs",
        "tests/faults/src/ring.rs",
    ];
    let word = concat!("un", "safe {");
    for path in sources() {
        let Ok(inside) = path.strip_prefix(root()) else {
            continue;
        };
        let name = inside.display().to_string();
        if !name.starts_with("xtask/") && read(&path).contains(word) {
            assert!(rooms.contains(&name.as_str()), "{name} is no room for it");
        }
    }
}
