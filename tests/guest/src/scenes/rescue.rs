//! `oxublk rescue`: requests that their server never answers are ended; where that cannot be, nothing is changed.

use crate::support::faulty::{Faulty, TRIGGER_BLOCK, read};
use crate::support::process::{Finished, send};
use crate::support::special::{Offer, SPECIAL, Special};
use crate::support::{LONG, Process, SOON, Scene, Test, procfs, run, wait_until};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

pub(crate) const SCENE: Scene = Scene {
    name: "rescue",
    needs: "timeout=900",
    tests: &[
        Test::new("a_handler_in_its_own_lock", || rescued("locked")),
        Test::new("a_handler_that_reads_a_pipe", || rescued("blocked-pipe")),
        Test::new("a_handler_that_spins", || rescued("spin")),
        Test::new("a_completion_that_is_not_reaped", || rescued("not-reaped")),
        Test::new("an_answer_from_another_thread", || {
            rescued("foreign-thread")
        }),
        Test::new("an_answer_that_is_not_submitted", || {
            rescued("commit-not-submitted")
        }),
        Test::new(
            "two_requests_that_were_forgotten",
            two_requests_that_were_forgotten,
        ),
        Test::new(
            "two_queues_with_a_thread_each",
            two_queues_with_a_thread_each,
        ),
        Test::new(
            "a_disk_of_ours_that_never_answers",
            a_disk_of_ours_that_never_answers,
        ),
        Test::new(
            "a_dry_run_and_nobody_to_ask_change_nothing",
            a_dry_run_and_nobody_to_ask_change_nothing,
        ),
        Test::new(
            "a_stopped_server_is_left_alone",
            a_stopped_server_is_left_alone,
        ),
        Test::new("a_thread_in_vfork_is_left_alone", || {
            refused("armer-vfork", "", "sleeps uninterruptibly")
        }),
        Test::new("a_thread_that_ended_is_told", || {
            refused("armer-exits", "--recovery reissue", "cannot be rescued")
        }),
        Test::new("a_request_that_was_not_delivered_is_told", || {
            refused("deferred-not-entered", "", "was not delivered")
        }),
        Test::new("nothing_stuck_is_no_failure", nothing_stuck_is_no_failure),
    ],
};

/// Runs it for requests that are older than a second.
pub(crate) fn rescue(id: u32, options: &[&str]) -> Result<Finished> {
    let id = id.to_string();
    run(
        "oxublk",
        &[&["rescue", &id, "--stuck-after", "1"], options].concat(),
    )
}

/// The requests that were ended, as `--json` tells them.
pub(crate) fn ended(finished: &Finished) -> Result<Vec<Value>> {
    let document = finished.json()?;
    let ended = document["outcome"]["ended"].as_array();
    Ok(ended.with_context(|| document.to_string())?.clone())
}

/// Waits until so many requests have not ended for a second. Asked of doctor: the kernel does not count those that rest on
/// the list of requests to be sent again as in flight.
fn late(id: u32, count: u64) -> Result<()> {
    wait_until(format!("{count} requests are late"), LONG, || {
        let words = ["doctor", &id.to_string(), "--json", "--stuck-after", "1"];
        let report = run("oxublk", &words).map_err(|error| error.to_string())?;
        let report = report.json().map_err(|error| error.to_string())?;
        let requests = report["requests"].as_array().cloned().unwrap_or_default();
        let old = |request: &&Value| request["age_ms"].as_u64() >= Some(1000);
        let found = requests.iter().filter(old).count() as u64;
        (found >= count)
            .then_some(())
            .ok_or_else(|| format!("{requests:?}"))
    })
}

fn input_output_error(reader: Process) -> Result<()> {
    reader.wait(SOON)?.fails(1, &["Input/output error"])?;
    procfs::nobody_is_stuck()
}

fn rescued(fault: &str) -> Result<()> {
    let mut server = Faulty::start(fault, "")?;
    server.ready()?;
    let reader = read(&format!("/dev/ublkb{}", server.id), TRIGGER_BLOCK, 64)?;
    late(server.id, 1)?;
    let finished = rescue(server.id, &["--yes"])?.success()?;
    let pid = server.process.pid();
    for words in ["ended with EIO", &format!("kill -9 {pid}")] {
        ensure!(finished.output.contains(words), "{words}: {finished}");
    }
    input_output_error(reader)?;
    ensure!(procfs::running(pid).is_some(), "the server died of it");
    server.clear(Vec::new())
}

fn two_requests_that_were_forgotten() -> Result<()> {
    let mut server = Faulty::start("forgotten", "")?;
    server.ready()?;
    let disk = format!("/dev/ublkb{}", server.id);
    let readers = [
        read(&disk, TRIGGER_BLOCK, 1)?,
        read(&disk, TRIGGER_BLOCK, 1)?,
    ];
    late(server.id, 2)?;
    let finished = rescue(server.id, &["--yes", "--json"])?.success()?;
    let ended = ended(&finished)?;
    ensure!(ended.len() == 2, "{ended:?}");
    ensure!(ended[0]["tag"] != ended[1]["tag"], "{ended:?}");
    for reader in readers {
        input_output_error(reader)?;
    }
    server.clear(Vec::new())
}

fn two_queues_with_a_thread_each() -> Result<()> {
    let mut server = Faulty::start("locked", "--queues 2")?;
    server.ready()?;
    let line = |cpu| {
        format!(
            "exec taskset -c {cpu} dd if=/dev/ublkb{} of=/dev/null bs=4096 count=1 skip={TRIGGER_BLOCK} iflag=direct",
            server.id
        )
    };
    let readers = [
        Process::start("sh", &["-c", &line(0)])?,
        Process::start("sh", &["-c", &line(1)])?,
    ];
    late(server.id, 2)?;
    let finished = rescue(server.id, &["--yes", "--json"])?.success()?;
    let ended = ended(&finished)?;
    ensure!(ended.len() == 2, "{ended:?}");
    ensure!(ended[0]["tid"] != ended[1]["tid"], "{ended:?}");
    for reader in readers {
        input_output_error(reader)?;
    }
    server.clear(Vec::new())
}

fn a_disk_of_ours_that_never_answers() -> Result<()> {
    let disk = Special::start("stuck", Offer::default())?;
    let reader = read(&disk.block(), SPECIAL / 4096, 1)?;
    late(disk.id, 1)?;
    rescue(disk.id, &["--yes"])?.success()?;
    input_output_error(reader)?;
    disk.process.signal(Signal::KILL)?;
    disk.process.wait(SOON)?;
    run("oxublk", &["del", &disk.id.to_string()])?.success()?;
    crate::support::device::gone(disk.id)
}

fn a_dry_run_and_nobody_to_ask_change_nothing() -> Result<()> {
    let mut server = Faulty::start("locked", "")?;
    server.ready()?;
    let mut reader = read(&format!("/dev/ublkb{}", server.id), TRIGGER_BLOCK, 1)?;
    late(server.id, 1)?;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.process.pid()));
    let before = descriptors()?.count();
    let dry = rescue(server.id, &["--dry-run"])?.fails(9, &[])?;
    ensure!(
        dry.output.contains("to be ended with EIO")
            && !dry.output.contains("ended with EIO: queue"),
        "{dry}"
    );
    rescue(server.id, &[])?.fails(2, &["nobody to ask", "--yes"])?;
    let other = rescue(server.id, &["--yes", "--queue", "0", "--tag", "99"])?.fails(9, &[])?;
    ensure!(other.output.contains("cannot be rescued"), "{other}");
    ensure!(reader.runs()?, "the reader has ended");
    ensure!(descriptors()?.count() == before, "a descriptor was left");
    server.clear(vec![reader])
}

fn a_stopped_server_is_left_alone() -> Result<()> {
    let mut server = Faulty::start("healthy", "")?;
    server.ready()?;
    let pid = server.process.pid();
    send(pid, Signal::STOP)?;
    let reader = read(&format!("/dev/ublkb{}", server.id), TRIGGER_BLOCK, 1)?;
    late(server.id, 1)?;
    let finished = rescue(server.id, &["--yes"])?.fails(9, &[])?;
    for words in ["stopped by a signal", &format!("kill -CONT {pid}")] {
        ensure!(finished.output.contains(words), "{words}: {finished}");
    }
    send(pid, Signal::CONT)?;
    reader.wait(SOON)?.success()?;
    server.clear(Vec::new())
}

/// It says why it cannot, and changes nothing.
fn refused(fault: &str, options: &str, words: &str) -> Result<()> {
    let mut server = Faulty::start(fault, options)?;
    server.ready()?;
    let mut reader = read(&format!("/dev/ublkb{}", server.id), TRIGGER_BLOCK, 64)?;
    late(server.id, 1)?;
    let finished = rescue(server.id, &["--yes"])?.fails(9, &[])?;
    // The text is broken into lines.
    let output = finished.output.split_whitespace().collect::<Vec<_>>();
    ensure!(output.join(" ").contains(words), "{words}: {finished}");
    ensure!(reader.runs()?, "the reader has ended");
    server.clear(vec![reader])
}

fn nothing_stuck_is_no_failure() -> Result<()> {
    let mut server = Faulty::start("healthy", "")?;
    server.ready()?;
    let finished = rescue(server.id, &["--yes"])?.success()?;
    ensure!(
        finished.output.contains("no request is stuck"),
        "{finished}"
    );
    run("oxublk", &["rescue", "77"])?.fails(4, &["no device 77"])?;
    server.clear(Vec::new())
}
