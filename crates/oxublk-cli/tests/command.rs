//! The programs as their users run them, on a machine without the driver.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const OXUBLK: &str = env!("CARGO_BIN_EXE_oxublk");
const UBLK_MEM: &str = env!("CARGO_BIN_EXE_ublk-mem");

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A program's run directory, which it must not create without a device.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run_dir(&self) -> std::path::PathBuf {
        self.0.path().join("run")
    }

    fn run(&self, program: &str, line: &str) -> Said {
        let output: Output = Command::new(program)
            .args(line.split_whitespace())
            .env("OXUBLK_RUN_DIR", self.run_dir())
            .env_remove("OXUBLK_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn oxublk(line: &str) -> Said {
    Place::new().run(OXUBLK, line)
}

/// With a driver these commands make devices: for a guest, not for the machine of a developer.
fn has_driver() -> bool {
    Path::new(oxublk::sys::CONTROL_PATH).exists()
}

#[test]
fn without_the_driver_every_command_says_how_to_load_it() {
    if has_driver() {
        return;
    }
    for line in [
        "add mem --size 16M",
        "add mem --size 16M --foreground",
        "add null --id 3",
        "list",
        "info 0",
        "info /dev/ublkb0",
        "del 0",
        "del --all --force",
        "features",
    ] {
        let place = Place::new();
        let said = place.run(OXUBLK, line);
        assert_eq!(said.code, 5, "{line}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{line}");
        assert!(
            said.stderr
                .starts_with("oxublk: the ublk driver is not loaded"),
            "{}",
            said.stderr
        );
        assert!(
            said.stderr
                .contains("\nhint: load it with `modprobe ublk_drv`"),
            "{}",
            said.stderr
        );
        assert!(!place.run_dir().exists(), "{line} left something");
    }
    let said = Place::new().run(UBLK_MEM, "--size=16M");
    assert_eq!(said.code, 5);
    assert!(
        said.stderr
            .starts_with("ublk-mem: the ublk driver is not loaded"),
        "{}",
        said.stderr
    );
}

#[test]
fn errors_are_json_on_stdout_and_text_on_stderr() {
    let said = oxublk("add mem --size 1000 --json");
    assert_eq!(said.code, 2);
    let error = &said.json()["error"];
    assert_eq!(
        (&error["kind"], &error["exit_code"]),
        (&"usage".into(), &2.into())
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("1000 is not a multiple"), "{message}");
    assert!(said.stderr.contains(message));
    let said = oxublk("--json add mem --size 0");
    assert_eq!(
        (said.code, &said.json()["error"]["kind"]),
        (2, &"usage".into())
    );
    assert!(
        said.stderr.contains("For more information"),
        "{}",
        said.stderr
    );
}

#[test]
fn values_that_cannot_be_are_usage_errors_with_a_reason() {
    for (line, reason) in [
        ("add mem --size 0", "size 0 cannot be a block device"),
        (
            "add mem --size 1000",
            "is not a multiple of the logical block size (512 bytes)",
        ),
        (
            "add mem --size 16M --logical-block-size 8K",
            "is not 512, 1024, 2048 or 4096",
        ),
        (
            "add mem --size 1536 --logical-block-size 1K",
            "logical block size (1024 bytes)",
        ),
        ("add mem --size 16Q", "powers of 1024"),
        ("add mem --size=-1", "not a size"),
        ("add mem --size 8192P", "too large"),
        ("add mem", "--size <SIZE>"),
        ("add mem --size 16M --depth 0", "from 1 to 4096"),
        ("add mem --size 16M --depth 4097", "from 1 to 4096"),
        ("add mem --size 16M --queues 0", "from 1 to 4096"),
        ("add mem --size 16M --max-io 5000", "multiple of 4096"),
        (
            "add mem --size 16M --max-io 64M",
            "between 4 KiB and 32 MiB",
        ),
        ("add floppy", "floppy"),
        ("info sda", "/dev/ublkb0"),
        ("info 1048576", "from 0 to 1048575"),
        ("del", "required"),
        ("del --all 3", "cannot be used with"),
        ("", "Usage"),
    ] {
        let said = oxublk(line);
        assert_eq!(said.code, 2, "{line}: {}", said.stderr);
        assert!(said.stderr.contains(reason), "{line}: {}", said.stderr);
    }
    assert_eq!(Place::new().run(UBLK_MEM, "--size=0").code, 2);
    assert_eq!(Place::new().run(UBLK_MEM, "").code, 2);
}

#[test]
fn a_size_that_this_host_cannot_give_is_said() {
    let said = oxublk("add mem --size 8191P");
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("cannot make a disk in memory"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("hint: choose a smaller --size"),
        "{}",
        said.stderr
    );
}

#[test]
fn files_left_behind_do_no_harm() {
    if has_driver() {
        return;
    }
    let place = Place::new();
    let run_dir = place.run_dir();
    fs::create_dir(&run_dir).unwrap();
    fs::write(run_dir.join("0.json"), "garbage").unwrap();
    fs::create_dir(run_dir.join("1.json")).unwrap();
    for line in [
        "list",
        "info 0",
        "del 0",
        "del --all",
        "add mem --size 16M --id 0",
    ] {
        let said = place.run(OXUBLK, line);
        assert_eq!(said.code, 5, "{line}: {}", said.stderr);
        assert!(!said.stderr.contains("panicked"), "{line}: {}", said.stderr);
    }
}

#[test]
fn help_names_the_exit_codes_and_hides_what_is_internal() {
    for line in ["--help", "add --help", "add mem --help", "del --help"] {
        let said = oxublk(line);
        assert_eq!(said.code, 0);
        assert!(!said.stdout.contains("background-server"), "{line}");
    }
    assert!(
        oxublk("--help")
            .stdout
            .contains("7  a device with this id exists already")
    );
    assert!(oxublk("--version").stdout.starts_with("oxublk "));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = oxublk(&format!("completions {shell}"));
        assert_eq!(said.code, 0);
        assert!(said.stdout.contains("oxublk"), "{shell}");
    }
    assert_eq!(oxublk("completions cmd.exe").code, 2);
}

#[test]
fn manual_pages_are_printed_or_written() {
    let said = oxublk("man");
    assert_eq!(said.code, 0);
    assert!(said.stdout.contains(".TH oxublk 1") && said.stdout.contains(".TH oxublk-del 1"));
    let place = Place::new();
    let directory = place.0.path().join("new/man1");
    let said = place.run(OXUBLK, &format!("man --dir {}", directory.display()));
    assert_eq!(said.code, 0, "{}", said.stderr);
    for name in ["oxublk.1", "oxublk-add-mem.1", "ublk-mem.1"] {
        assert!(
            fs::metadata(directory.join(name)).unwrap().len() > 0,
            "{name}"
        );
    }
    let said = place.run(OXUBLK, "man --dir /dev/null/man");
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("cannot create /dev/null/man"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_reader_that_has_enough_is_no_error_and_a_full_disk_is() {
    let run = |stdout: Stdio| {
        let mut child = Command::new(OXUBLK);
        let child = child
            .args(["man"])
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(reader);
    assert_eq!(
        run(std::os::fd::OwnedFd::from(writer).into()).status.code(),
        Some(0)
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = run(full.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}
