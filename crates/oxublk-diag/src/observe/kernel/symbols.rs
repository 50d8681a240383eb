//! Where the kernel keeps what leads to everything else.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

/// Addresses of `/proc/kallsyms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    /// All ublk devices: `ublk_index_idr`.
    pub(super) devices: u64,
    /// All processes: `init_pid_ns`.
    pub(super) pids: u64,
    /// What an open ring's file has as its operations.
    pub(super) ring_operations: u64,
}

/// Why there are none.
#[derive(Debug)]
pub(super) enum NoSymbols {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// All addresses read as zero: not permitted (`kernel.kptr_restrict`), or locked down.
    Hidden,
    /// This symbol is not there.
    Missing(&'static str),
}

impl Symbols {
    /// Reads them: one pass over the file, which the kernel writes as it is read.
    pub(super) fn read(path: &Path) -> Result<Self, NoSymbols> {
        let mut symbols = Self::default();
        let mut lines =
            BufReader::with_capacity(1 << 16, File::open(path).map_err(NoSymbols::Unreadable)?);
        let mut line = Vec::new();
        let mut hidden = false;
        loop {
            line.clear();
            if lines
                .read_until(b'\n', &mut line)
                .map_err(NoSymbols::Unreadable)?
                == 0
            {
                break;
            }
            // `ffffffff84a52dc0 D init_pid_ns`, and for a module's ` [ublk_drv]` behind it.
            let mut words = line
                .trim_ascii_end()
                .split(|byte| byte.is_ascii_whitespace());
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let place = match name {
                b"ublk_index_idr" => &mut symbols.devices,
                b"init_pid_ns" => &mut symbols.pids,
                b"io_uring_fops" => &mut symbols.ring_operations,
                _ => continue,
            };
            *place = std::str::from_utf8(address)
                .ok()
                .and_then(|address| u64::from_str_radix(address, 16).ok())
                .unwrap_or_default();
            hidden |= *place == 0;
        }
        if hidden {
            return Err(NoSymbols::Hidden);
        }
        match symbols {
            Self { devices: 0, .. } => Err(NoSymbols::Missing("ublk_index_idr")),
            Self { pids: 0, .. } => Err(NoSymbols::Missing("init_pid_ns")),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{NoSymbols, Symbols};

    fn read(text: &str) -> Result<Symbols, NoSymbols> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Symbols::read(file.path())
    }

    #[test]
    fn symbols_of_the_kernel_and_of_the_module_are_found() {
        let text = "ffffffff84a52dc0 D init_pid_ns\nffffffff83e25b00 d io_uring_fops\nffffffffc0561260 d ublk_index_idr\t[ublk_drv]\n";
        let symbols = read(text).unwrap();
        assert_eq!(symbols.devices, 0xffff_ffff_c056_1260);
        assert_eq!(symbols.pids, 0xffff_ffff_84a5_2dc0);
        assert_eq!(symbols.ring_operations, 0xffff_ffff_83e2_5b00);
    }

    #[test]
    fn hidden_addresses_and_a_missing_module_are_told_apart() {
        let hidden =
            read("0000000000000000 D init_pid_ns\n0000000000000000 d ublk_index_idr\t[ublk_drv]\n");
        assert!(matches!(hidden, Err(NoSymbols::Hidden)));
        let missing = read("ffffffff84a52dc0 D init_pid_ns\n");
        assert!(matches!(missing, Err(NoSymbols::Missing("ublk_index_idr"))));
    }
}
