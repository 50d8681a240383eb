//! Opening the kernel for reading: what is missing is named, with what to do about it.

use std::fs;
use std::io;
use std::path::Path;

use crate::facts::{Gap, Layer};

use super::Kernel;
use super::btf::Btf;
use super::layout::{Layout, Missing, STRUCTURES};
use super::memory::Memory;
use super::symbols::{NoSymbols, Symbols};

impl Kernel {
    /// Opens the running kernel.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn open() -> Result<Self, Gap> {
        Self::open_at(Path::new("/proc"), Path::new("/sys"))
    }

    /// The same with other places for `/proc` and `/sys`.
    pub(super) fn open_at(proc: &Path, sys: &Path) -> Result<Self, Gap> {
        let path = proc.join("kcore");
        let memory = Memory::open(&path).map_err(|error| no_memory(&path, &error))?;
        let kernel = read_types(&sys.join("kernel/btf/vmlinux"))?;
        let module = read_types(&sys.join("kernel/btf/ublk_drv"))?;
        let layout = Btf::parse(kernel, module, STRUCTURES)
            .ok_or_else(|| Missing("a table that this version can read".to_owned()))
            .and_then(|btf| Layout::new(&btf))
            .map_err(|Missing(what)| {
                gap(
                    format!("the kernel's type information has no {what}"),
                    "this kernel is newer than this program: a newer one may read it",
                )
            })?;
        let path = proc.join("kallsyms");
        let symbols = Symbols::read(&path).map_err(|error| no_symbols(&path, &error))?;
        Ok(Self {
            memory,
            layout,
            symbols,
        })
    }
}

fn gap(what: String, remedy: &str) -> Gap {
    Gap {
        layer: Layer::Kernel,
        whole: true,
        what,
        remedy: remedy.to_owned(),
    }
}

fn no_memory(path: &Path, error: &io::Error) -> Gap {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root, with CAP_SYS_RAWIO, on a kernel that is not locked down for confidentiality"
        }
        io::ErrorKind::NotFound => {
            "this kernel was built without CONFIG_PROC_KCORE, or /proc is not mounted here"
        }
        _ => "on a kernel with /proc/kcore this works",
    };
    gap(format!("{}: {error}", path.display()), remedy)
}

pub(super) fn read_types(path: &Path) -> Result<Vec<u8>, Gap> {
    fs::read(path).map_err(|error| {
        gap(
            format!("{}: {error}", path.display()),
            "a kernel with CONFIG_DEBUG_INFO_BTF_MODULES, and the ublk_drv module loaded",
        )
    })
}

fn no_symbols(path: &Path, error: &NoSymbols) -> Gap {
    let path = path.display();
    match error {
        NoSymbols::Unreadable(error) => gap(format!("{path}: {error}"), "run as root"),
        NoSymbols::Hidden => gap(
            format!("{path} hides the addresses"),
            "run as root, with CAP_SYSLOG, and kernel.kptr_restrict below 2",
        ),
        NoSymbols::Missing(name) => gap(
            format!("{path} has no {name}"),
            "a kernel with CONFIG_KALLSYMS_ALL, and the ublk_drv module loaded",
        ),
    }
}
