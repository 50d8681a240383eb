//! Why a guest died: read from its console.

/// What a console says of the end of its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    /// The first line of the kernel's complaint; none when it said nothing.
    pub(crate) says: Option<String>,
    /// Whether the functions named in it are the driver's or io_uring's: then it is ours to explain, and no accident of the
    /// emulation.
    pub(crate) concerns_us: bool,
}

impl Death {
    /// Reads a console from the first complaint on.
    pub(crate) fn read(console: &str) -> Self {
        let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
        let first = lines.iter().position(|line| complains(line));
        let rest = first.map_or(&[][..], |first| &lines[first..]);
        Self {
            says: rest.first().map(|line| without_stamp(line).to_owned()),
            concerns_us: rest.iter().any(|line| names_us(line)),
        }
    }

    /// In a few words.
    pub(crate) fn words(&self) -> String {
        match &self.says {
            Some(line) => format!("the guest's kernel died: {line}"),
            None => "the guest died and its kernel said nothing".to_owned(),
        }
    }
}

fn complains(line: &str) -> bool {
    [
        "Kernel panic - ",
        "BUG: ",
        "Oops: ",
        "general protection fault",
        "kernel BUG at",
        "double fault",
        "invalid opcode",
    ]
    .iter()
    .any(|words| without_stamp(line).contains(words))
}

/// The list of modules names the driver in every complaint.
fn names_us(line: &str) -> bool {
    let line = without_stamp(line);
    !line.starts_with("Modules linked in")
        && (line.contains("ublk_") || line.contains("io_uring") || line.contains(" io_"))
}

/// A line without `[    1.234567] `.
fn without_stamp(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|line| line.split_once("] "))
        .map_or(line, |(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::Death;

    const ACCIDENT: &str = "[    0.1] Linux version 6.12\n\
        [    7.25] Oops: general protection fault, probably for non-canonical address 0x5f: 0000 [#1] PREEMPT SMP NOPTI\n\
        [    7.25] CPU: 1 UID: 0 PID: 301 Comm: oxublk Not tainted 6.12\n\
        [    7.25] RIP: 0010:mas_walk+0x3d/0x170\n\
        [    7.25] Modules linked in: ublk_drv\n\
        [    7.26] Kernel panic - not syncing: Fatal exception\n";

    #[test]
    fn an_accident_is_told_by_its_first_line() {
        let death = Death::read(ACCIDENT);
        assert!(!death.concerns_us);
        assert!(
            death.words().contains("general protection fault"),
            "{death:?}"
        );
    }

    #[test]
    fn the_driver_in_the_trace_makes_it_ours() {
        let console = ACCIDENT.replace("mas_walk+0x3d", "ublk_ch_uring_cmd+0x3d");
        assert!(Death::read(&console).concerns_us);
        let console = ACCIDENT.replace("RIP: 0010:mas_walk", "RIP: 0010: io_issue_sqe");
        assert!(Death::read(&console).concerns_us);
    }

    #[test]
    fn silence_is_said() {
        let death = Death::read("[    0.1] ublk_drv: loaded\n");
        assert_eq!((death.says.as_deref(), death.concerns_us), (None, false));
        assert!(death.words().contains("said nothing"));
    }
}
