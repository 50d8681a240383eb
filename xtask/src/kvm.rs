//! Whether the processor can run guests: found out by booting one.
//!
//! A `/dev/kvm` that opens proves nothing: inside some virtual machines it is there, and ordinary guests never come up.

use crate::guest::{Job, print_nothing};
use crate::image::{self, Content, Orders};
use crate::paths;
use crate::qemu::{self, Accelerator, End, Files, Limits, Machine};
use anyhow::Result;
use std::fs::{self, OpenOptions};
use std::time::Duration;

/// A guest that KVM runs is up within a second or two.
const LIMIT: Duration = Duration::from_secs(10);

/// Returns KVM if it works here, else TCG. The answer is kept until this machine boots again.
pub(crate) fn choose(job: &Job) -> Result<Accelerator> {
    if OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let kept = paths::cache_dir("kvm")?.join(boot.trim());
    let works = match fs::read_to_string(&kept) {
        Ok(answer) => answer.trim() == "works",
        Err(_) => {
            let works = probe(job)?;
            fs::write(&kept, if works { "works" } else { "does not work" })?;
            if !works {
                eprintln!("KVM does not run guests here: they are emulated");
            }
            works
        }
    };
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

fn probe(job: &Job) -> Result<bool> {
    let dir = paths::run_dir()?;
    let (initramfs, console) = (dir.path().join("initramfs"), dir.path().join("console"));
    let orders = Orders {
        argv: vec!["true".to_owned()],
        env: Vec::new(),
        load_ublk: false,
        timeout_seconds: LIMIT.as_secs(),
    };
    image::write(
        &Content {
            modules: None,
            programs: &[],
            with: &[],
            orders: &orders,
        },
        &initramfs,
    )?;
    let machine = Machine {
        accelerator: Accelerator::Kvm,
        cpus: 1,
        memory: "1G".to_owned(),
        append: String::new(),
        quiet: true,
    };
    let files = Files {
        kernel: &job.kernel.image,
        initramfs: &initramfs,
        console: &console,
    };
    let limits = Limits {
        silence: LIMIT,
        boot: LIMIT,
        command: LIMIT,
    };
    // A QEMU that cannot open KVM says no as well.
    let end = qemu::boot(&machine, &files, limits, &mut print_nothing).map(|(end, _)| end);
    Ok(matches!(end, Ok(End::Exited(0))))
}
