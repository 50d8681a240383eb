//! What cannot work: each with a message that says why, and an exit code of its own.

use crate::support::device::gone;
use crate::support::runner::tests;
use crate::support::{Added, Scene, ok, procfs, run};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub(crate) const SCENE: Scene = Scene {
    name: "misuse",
    needs: "timeout=240",
    tests: tests![
        values_that_cannot_be_are_refused_with_their_bounds,
        an_ordinary_user_is_told_to_be_root,
        an_id_that_is_taken_is_refused,
        an_id_that_does_not_exist_is_named,
        garbage_in_the_run_directory_is_ignored_and_said,
        a_description_of_a_dead_server_is_not_believed,
        a_description_with_a_recycled_pid_kills_nobody,
        garbage_about_a_live_device_does_not_keep_it_from_being_deleted,
        errors_are_json_when_asked,
    ],
};

fn values_that_cannot_be_are_refused_with_their_bounds() -> Result<()> {
    for (line, words) in [
        ("add mem --size 0", &["--size", "size 0"] as &[&str]),
        ("add mem --size 1000", &["1000", "multiple", "512"]),
        (
            "add mem --size 512 --logical-block-size 4096",
            &["512", "multiple", "4096"],
        ),
        ("add mem --size 16X", &["--size", "16X", "16M"]),
        ("add mem --size -1", &["-1"]),
        ("add mem --size 9999P", &["--size", "too large"]),
        ("add mem", &["--size"]),
        ("add mem --size 16M --depth 0", &["--depth", "1 to 4096"]),
        ("add mem --size 16M --depth 4097", &["--depth", "1 to 4096"]),
        ("add mem --size 16M --queues 0", &["--queues"]),
        (
            "add mem --size 16M --logical-block-size 1000",
            &["1000", "4096"],
        ),
        (
            "add mem --size 16M --logical-block-size 8192",
            &["8192", "4096"],
        ),
        (
            "add mem --size 16M --max-io 1K",
            &["1024", "4 KiB", "32 MiB"],
        ),
        (
            "add mem --size 16M --max-io 64M",
            &["67108864", "4 KiB", "32 MiB"],
        ),
        ("add mem --size 16M --id 1048576", &["--id", "1048575"]),
        ("add floppy", &["floppy"]),
        ("info sda", &["sda", "/dev/ublkb0"]),
        ("del", &["ID"]),
    ] {
        let words_of_line: Vec<&str> = line.split(' ').collect();
        run("oxublk", &words_of_line)?
            .fails(2, words)
            .with_context(|| line.to_owned())?;
    }
    for (arguments, words) in [
        (&["--size=0"] as &[&str], &["size 0"] as &[&str]),
        (&["--size=1000"], &["1000", "multiple"]),
        (&["--size=16M", "--depth=4097"], &["1 to 4096"]),
        (&[], &["--size"]),
    ] {
        run("ublk-mem", arguments)?.fails(2, words)?;
    }
    ensure!(!Path::new("/dev/ublkc0").exists());
    Ok(())
}

fn an_ordinary_user_is_told_to_be_root() -> Result<()> {
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let as_user = |arguments: &[&str]| run("setpriv", &[&user, arguments].concat());
    let words = &["Permission denied", "/dev/ublk-control", "root"];
    as_user(&["oxublk", "add", "mem", "--size", "16M"])?.fails(6, words)?;
    as_user(&["ublk-mem", "--size=16M"])?.fails(6, words)?;
    let device = Added::new("mem --size 16M")?;
    as_user(&["oxublk", "del", &device.id.to_string()])?.fails(6, words)?;
    as_user(&["oxublk", "info", &device.id.to_string()])?.fails(6, words)?;
    // What is no secret is shown.
    let list = as_user(&["oxublk", "list"])?.success()?;
    ensure!(list.output.contains(&device.block()), "{list}");
    device.delete()
}

fn an_id_that_is_taken_is_refused() -> Result<()> {
    let device = Added::new("mem --size 16M --id 3")?;
    let refused = run("oxublk", &["add", "mem", "--size", "32M", "--id", "3"])?;
    refused.fails(7, &["device 3", "exists"])?;
    // The refusal did the one that is there no harm.
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=1",
        device.block()
    ))?;
    ensure!(device.info()?["description"]["size_bytes"] == 16 << 20);
    device.delete()
}

fn an_id_that_does_not_exist_is_named() -> Result<()> {
    for command in ["info", "del"] {
        run("oxublk", &[command, "41"])?.fails(4, &["41", "no such device"])?;
        run("oxublk", &[command, "/dev/ublkb41"])?.fails(4, &["41", "no such device"])?;
    }
    // Those that exist are deleted all the same.
    let device = Added::new("mem --size 16M")?;
    run("oxublk", &["del", "41", &device.id.to_string()])?.fails(4, &["41"])?;
    device.check_gone()
}

fn run_file(id: u32) -> String {
    format!("/run/oxublk/{id}.json")
}

fn notes(listed: &Value) -> String {
    listed["notes"].to_string()
}

fn garbage_in_the_run_directory_is_ignored_and_said() -> Result<()> {
    fs::create_dir_all("/run/oxublk")?;
    for garbage in ["", "\u{0}\u{0}{", r#"{"format": 99}"#] {
        fs::write(run_file(12), garbage)?;
        let listed = ok("oxublk list --json")?.json()?;
        ensure!(
            listed["devices"] == json!([]) && notes(&listed).contains("12"),
            "{garbage:?}: {listed}"
        );
        // The id is free, and its file is replaced.
        let device = Added::new("mem --size 16M --id 12")?;
        ensure!(device.info()?["description"]["size_bytes"] == 16 << 20);
        device.delete()?;
        fs::write(run_file(12), garbage)?;
        run("oxublk", &["del", "--all"])?.success()?;
        gone(12)?;
    }
    Ok(())
}

/// A description like a real one, with another id and server.
fn description(id: u32, change: impl Fn(&mut Value)) -> Result<()> {
    let device = Added::new("mem --size 16M")?;
    let mut text: Value = serde_json::from_str(&fs::read_to_string(run_file(device.id))?)?;
    device.delete()?;
    text["id"] = json!(id);
    change(&mut text);
    Ok(fs::write(run_file(id), text.to_string())?)
}

fn a_description_of_a_dead_server_is_not_believed() -> Result<()> {
    // Its server was real, and has ended.
    description(13, |_| ())?;
    let listed = ok("oxublk list --json")?.json()?;
    ensure!(
        listed["devices"] == json!([]) && notes(&listed).contains("13"),
        "{listed}"
    );
    run("oxublk", &["info", "13"])?.fails(4, &["13"])?;
    run("oxublk", &["del", "13"])?.fails(4, &["13"])?;
    gone(13)
}

fn a_description_with_a_recycled_pid_kills_nobody() -> Result<()> {
    let sleeper = crate::support::Process::start("sleep", &["1000"])?;
    let pid = sleeper.pid();
    description(14, |text| text["pid"] = json!(pid))?;
    let listed = ok("oxublk list --json")?.json()?;
    ensure!(
        listed["devices"] == json!([]) && notes(&listed).contains("14"),
        "{listed}"
    );
    run("oxublk", &["del", "14"])?.fails(4, &["14"])?;
    gone(14)?;
    ensure!(
        procfs::running(pid).is_some(),
        "process {pid}, which is no server, was killed"
    );
    // The same, and a device with that id.
    description(14, |text| text["pid"] = json!(pid))?;
    let device = Added::new("mem --size 16M --id 14")?;
    device.delete()?;
    ensure!(
        procfs::running(pid).is_some(),
        "process {pid}, which is no server, was killed"
    );
    Ok(())
}

fn garbage_about_a_live_device_does_not_keep_it_from_being_deleted() -> Result<()> {
    let device = Added::new("mem --size 16M")?;
    fs::write(run_file(device.id), "garbage")?;
    let listed = ok("oxublk list --json")?.json()?;
    ensure!(
        listed["devices"][0]["state"] == "live" && notes(&listed).contains("ignored"),
        "{listed}"
    );
    ok(&format!("oxublk info {}", device.id))?;
    device.delete()
}

fn errors_are_json_when_asked() -> Result<()> {
    let failed = run("oxublk", &["--json", "info", "41"])?.fails(4, &["41"])?;
    let document = failed.json()?;
    ensure!(document["error"]["kind"] == "no_such_device", "{document}");
    ensure!(
        document["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("41")),
        "{document}"
    );
    Ok(())
}
