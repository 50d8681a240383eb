//! A host where nobody loaded the driver.

use crate::support::runner::tests;
use crate::support::{Added, Scene, ok, run};
use anyhow::{Result, ensure};
use std::path::Path;

pub(crate) const SCENE: Scene = Scene {
    name: "no-module",
    needs: "no-ublk timeout=120",
    tests: tests![without_the_driver_every_command_says_how_to_load_it],
};

/// One test: when the module is loaded the scene is over.
fn without_the_driver_every_command_says_how_to_load_it() -> Result<()> {
    ensure!(
        !Path::new("/dev/ublk-control").exists(),
        "the driver is there already"
    );
    let words = &["driver is not loaded", "modprobe ublk_drv"];
    for arguments in [
        &["add", "mem", "--size", "16M"] as &[&str],
        &["add", "null", "--foreground"],
        &["list"],
        &["info", "0"],
        &["del", "0"],
        &["features"],
    ] {
        run("oxublk", arguments)?.fails(5, words)?;
    }
    run("ublk-mem", &["--size=16M"])?.fails(5, words)?;
    run("zeroes", &[] as &[&str])?.fails(1, words)?;
    ensure!(
        !Path::new("/run/oxublk").exists(),
        "a command that failed left /run/oxublk"
    );
    ok("modprobe ublk_drv")?;
    let device = Added::new("mem --size 16M")?;
    ok(&format!(
        "dd if={} of=/dev/null bs=4K count=1",
        device.block()
    ))?;
    device.delete()
}
