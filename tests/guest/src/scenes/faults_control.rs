//! Control commands that wait, and who makes them: doctor names both.

use crate::support::device::{block, in_flight};
use crate::support::faulty::{Faulty, Provoke, doctor, holds, provoke};
use crate::support::runner::tests;
use crate::support::{LONG, Process, SOON, Scene, procfs, wait_for};
use anyhow::{Result, ensure};
use oxublk_diag::finding::Cause;
use rustix::process::Signal;

pub(crate) const SCENE: Scene = Scene {
    name: "faults-control",
    needs: "timeout=400",
    tests: tests![
        a_stop_waits_for_the_server,
        a_delete_waits_for_somebody_who_has_the_disk_open,
        a_delete_keeps_other_devices_from_being_added,
        a_file_is_where_the_disk_should_be,
    ],
};

/// Sends a command for a device, and waits for its end as long as it takes.
fn send(command: &str, id: u32) -> Result<Process> {
    Process::start("ublk-faulty", &["--send", command, "--id", &id.to_string()])
}

/// Waits until a thread of a process (one of the kernel's, that executes its command) waits deaf to signals.
fn waits(what: &str, process: &Process) -> Result<()> {
    let deaf = || {
        procfs::threads(process.pid())
            .iter()
            .any(|task| task.state == 'D')
    };
    wait_for(what, LONG, deaf).map(drop)
}

fn a_stop_waits_for_the_server() -> Result<()> {
    let mut server = Faulty::start("forgotten", "")?;
    let mut clients = provoke(&mut server, Provoke::Reads)?;
    in_flight(server.id)?;
    clients.push(send("stop", server.id)?);
    holds(
        "forgotten, STOP_DEV sent",
        Some(server.id),
        Cause::ControlStuck,
    )?;
    holds(
        "forgotten, and STOP_DEV sent",
        Some(server.id),
        Cause::Forgotten,
    )?;
    server.clear(clients)
}

fn a_delete_waits_for_somebody_who_has_the_disk_open() -> Result<()> {
    let mut server = Faulty::start("healthy", "")?;
    server.ready()?;
    let id = server.id;
    let holder = Process::start("sh", &["-c", &format!("exec sleep 1000 < {}", block(id))])?;
    wait_for("the disk is open", SOON, || {
        procfs::running(holder.pid()).is_some_and(|task| task.name == "sleep")
    })?;
    server.process.signal(Signal::KILL)?;
    server.process.wait(SOON)?;
    let delete = send("del", id)?;
    let told = holds("DEL_DEV of a disk that is open", None, Cause::HeldOpen);
    drop(holder);
    delete.wait(SOON)?.success()?;
    told.map(drop)
}

/// Seen on 6.12 and 7.3: DEL_DEV waits for the server with the lock that ADD_DEV takes.
fn a_delete_keeps_other_devices_from_being_added() -> Result<()> {
    let mut server = Faulty::start("forgotten", "")?;
    let clients = provoke(&mut server, Provoke::Reads)?;
    in_flight(server.id)?;
    let delete = send("del", server.id)?;
    waits("the delete has the lock", &delete)?;
    let mut other = Process::start("ublk-faulty", &["healthy", "--id", "7"])?;
    waits("another device waits for it", &other)?;
    let told = holds(
        "DEL_DEV of a stuck disk, ADD_DEV of another",
        None,
        Cause::DeleteHoldsLock,
    );
    // The delete goes on when its server is dead.
    server.kill()?;
    delete.wait(SOON)?.success()?;
    for client in clients {
        client.wait(SOON)?;
    }
    other.wait_line("that it is ready", LONG, |line| {
        (line == "ready 7").then_some(())
    })?;
    other.signal(Signal::TERM)?;
    other.wait(SOON)?.success()?;
    told.map(drop)
}

fn a_file_is_where_the_disk_should_be() -> Result<()> {
    std::fs::write(block(9), "what dd left")?;
    let report = doctor(&[]);
    std::fs::remove_file(block(9))?;
    let findings = report?.findings;
    ensure!(
        findings
            .iter()
            .any(|finding| finding.cause == Cause::NodeIsFile),
        "{findings:#?}"
    );
    Ok(())
}
