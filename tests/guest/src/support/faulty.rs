//! A server that does one thing wrong, and what `oxublk doctor` must say of it.

use super::device::{block, gone};
use super::process::{Finished, Process, run, send};
use super::procfs;
use super::runner::note;
use super::wait::{LONG, SOON, wait_until};
use anyhow::{Context as _, Result, bail, ensure};
use oxublk_diag::finding::{Cause, Finding, Health, Report};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The block that most faults wait for: the fault server's `TRIGGER_BYTE`.
pub(crate) const TRIGGER_BLOCK: u64 = (8 << 20) / 4096;
/// Enough for a device that gets ready at all.
const SHORT: Duration = Duration::from_secs(15);

/// So many are read from there on. A server that stops itself still answers some.
const BLOCKS: u64 = 64;

/// What makes a fault show itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Provoke {
    /// Nothing: the scan for partitions does, or the device never gets ready.
    Nothing,
    /// Reads of the trigger's block and the next ones, one after another.
    Reads,
    /// Writes of the same.
    Writes,
    /// One read of the trigger's block, then many at once elsewhere.
    Burst,
    /// Many reads at once from all CPUs.
    Everywhere,
    /// Reads that take all tags of a queue at once, from all CPUs; they come to an end.
    WholeQueues,
    /// Reads that go on until their process is killed.
    Load,
    /// The server is killed.
    Kill,
    /// The server is killed while reads are under way.
    KillUnderLoad,
}

/// What doctor must say.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// On every kernel.
    Cause(Cause),
    /// Up to 6.17, and later.
    ByKernel(Cause, Cause),
    /// Nothing is wrong.
    Healthy,
}

/// A fault and its verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) fault: &'static str,
    pub(crate) options: &'static str,
    pub(crate) provoke: Provoke,
    pub(crate) expected: Expected,
    /// Other causes that are true too.
    pub(crate) also: &'static [Cause],
    /// From which age on, in seconds, doctor calls a request slow, and stuck.
    pub(crate) limits: (u32, u32),
    /// Complaints of the kernel that it provokes.
    pub(crate) forgives: &'static [&'static str],
}

/// Linux 6.12 complains when a server dies that has armed some tags of a queue and not all.
const HALF_ARMED: &[&str] = &["ublk_ch_uring_cmd"];

/// What is younger is not called stuck; what is said after that must be right at once.
const LIMITS: (u32, u32) = (3, 3);

impl Case {
    pub(crate) const fn new(fault: &'static str, provoke: Provoke, expected: Expected) -> Self {
        Self {
            fault,
            options: "",
            provoke,
            expected,
            also: &[],
            limits: LIMITS,
            forgives: &[],
        }
    }

    /// A device that never gets ready.
    pub(crate) const fn unready(fault: &'static str, cause: Cause) -> Self {
        Self {
            forgives: HALF_ARMED,
            ..Self::new(fault, Provoke::Nothing, Expected::Cause(cause))
        }
    }

    /// A fault that a read of the trigger's block shows, or the next one.
    pub(crate) const fn read(fault: &'static str, cause: Cause) -> Self {
        Self::new(fault, Provoke::Reads, Expected::Cause(cause))
    }

    /// A server that is healthy while it is read.
    pub(crate) const fn healthy(fault: &'static str) -> Self {
        Self::new(fault, Provoke::Load, Expected::Healthy)
    }

    pub(crate) const fn with(self, options: &'static str) -> Self {
        Self { options, ..self }
    }

    pub(crate) const fn slow_after(self, slow: u32, stuck: u32) -> Self {
        Self {
            limits: (slow, stuck),
            ..self
        }
    }

    /// The kernel complains of this one in these words.
    pub(crate) const fn forgives(self, words: &'static [&'static str]) -> Self {
        Self {
            forgives: words,
            ..self
        }
    }

    pub(crate) const fn also(self, also: &'static [Cause]) -> Self {
        Self { also, ..self }
    }

    /// The cause on this kernel; none when it is healthy.
    fn cause(&self) -> Result<Option<Cause>> {
        Ok(match self.expected {
            Expected::Cause(cause) => Some(cause),
            Expected::ByKernel(old, _) if old_kernel()? => Some(old),
            Expected::ByKernel(_, new) => Some(new),
            Expected::Healthy => None,
        })
    }

    /// Its name in notes and the table.
    fn title(&self) -> String {
        let how = match self.provoke {
            Provoke::Writes => ", writes",
            Provoke::Kill | Provoke::KillUnderLoad => ", killed",
            _ => "",
        };
        let title = format!("{} {}", self.fault, self.options);
        format!("{}{how}", title.trim_end())
    }
}

/// Whether START_DEV itself scans for partitions, and more is as it was up to 6.17.
pub(crate) fn old_kernel() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers: Vec<u32> = release.split('.').map_while(|n| n.parse().ok()).collect();
    Ok(numbers.as_slice() < [6, 18].as_slice())
}

/// The fault server. Dropped, it and what it left are killed.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) id: u32,
    pub(crate) process: Process,
    holder: Option<u32>,
}

impl Faulty {
    /// Starts it, and returns when it is as far as it will come.
    pub(crate) fn start(fault: &str, options: &str) -> Result<Self> {
        let mut words = vec![fault];
        words.extend(options.split_whitespace());
        let mut process = Process::start("ublk-faulty", &words)?;
        let id = process.wait_line("the device's number", LONG, |line| {
            let (what, id) = line.split_once(' ')?;
            ["added", "recovering"]
                .contains(&what)
                .then(|| id.parse().ok())?
        })?;
        let far = ["ready ", "waiting ", "starting "];
        process.wait_line("how far it came", LONG, |line| {
            far.iter().any(|word| line.starts_with(word)).then_some(())
        })?;
        let holder = process
            .output_so_far()
            .lines()
            .find_map(|line| line.strip_prefix("holder ")?.parse().ok());
        Ok(Self {
            id,
            process,
            holder,
        })
    }

    /// Waits until the device is started.
    pub(crate) fn ready(&mut self) -> Result<()> {
        self.ready_within(LONG)
    }

    fn ready_within(&mut self, deadline: Duration) -> Result<()> {
        self.process
            .wait_line("that it is ready", deadline, |line| {
                line.starts_with("ready ").then_some(())
            })
    }

    /// Kills the server, and takes its device over with another.
    pub(crate) fn recovered(self) -> Result<Self> {
        let Self { id, process, .. } = self;
        process.signal(Signal::KILL)?;
        process.wait(SOON)?;
        let mut next = Self::start("healthy", &format!("--recover --id {id}"))?;
        next.ready()?;
        Ok(next)
    }

    /// Kills the server and what it left behind.
    pub(crate) fn kill(self) -> Result<()> {
        // It may have been killed by the test already.
        let _ = self.process.signal(Signal::KILL);
        if let Some(holder) = self.holder {
            send(holder, Signal::KILL)?;
        }
        self.process.wait(SOON).map(drop)
    }

    /// Does that, and deletes the device.
    pub(crate) fn clear(self, clients: Vec<Process>) -> Result<()> {
        let id = self.id;
        self.kill()?;
        // Linux 6.12 fails what a dead server held only after 30 s, when it held all tags.
        wait_until("the device can be deleted", LONG, || {
            let delete = run("oxublk", &["del", &id.to_string(), "--force"]);
            delete
                .and_then(Finished::success)
                .map_err(|error| format!("{error:#}"))
        })?;
        for client in clients {
            client.wait(SOON)?;
        }
        procfs::nobody_is_stuck()?;
        wait_until("the device is gone", SOON, || {
            gone(id).map_err(|error| error.to_string())
        })
    }
}

/// Runs a fault and asserts doctor's verdict.
pub(crate) fn examine(case: &Case) -> Result<()> {
    let mut server = Faulty::start(case.fault, case.options)?;
    let mut clients = provoke(&mut server, case.provoke)?;
    let told = verdict(case, server.id);
    if told.is_err() {
        note(format!("verdict: {}: **wrong**", case.title()));
    }
    if matches!(case.provoke, Provoke::Load) {
        // They end first: of a server with a polled ring that is killed under load 6.12 may leave a request that nothing ends.
        clients.clear();
    }
    // What doctor said wrong is more interesting than what was left after it.
    let cleared = server.clear(clients);
    told.and(cleared)
}

/// Provokes the fault. The clients that do may hang until the server is killed.
pub(crate) fn provoke(server: &mut Faulty, how: Provoke) -> Result<Vec<Process>> {
    let disk = block(server.id);
    match how {
        Provoke::Nothing => {}
        // Which of the server's tags the scan for partitions gets is chance: it may hang already.
        Provoke::Everywhere => {
            if server.ready_within(SHORT).is_err() {
                return Ok(Vec::new());
            }
        }
        _ => server.ready()?,
    }
    match how {
        Provoke::Nothing => Ok(Vec::new()),
        Provoke::Reads => Ok(vec![read(&disk, TRIGGER_BLOCK, BLOCKS)?]),
        Provoke::Writes => Ok(vec![write(&disk, TRIGGER_BLOCK, BLOCKS)?]),
        Provoke::Burst => {
            let mut clients = vec![read(&disk, TRIGGER_BLOCK, 1)?];
            for client in 1..=6 {
                clients.push(read(&disk, TRIGGER_BLOCK + 16 * client, 1)?);
            }
            Ok(clients)
        }
        Provoke::Everywhere => everywhere(&disk),
        Provoke::WholeQueues => {
            for cpu in ["0", "1"] {
                let line = format!(
                    "taskset -c {cpu} dd if={disk} of=/dev/null bs=2M count=4 iflag=direct conv=noerror"
                );
                run("sh", &["-c", &line])?;
            }
            Ok(Vec::new())
        }
        Provoke::Load => Ok(vec![load(&disk, "--iodepth=4 --rate_iops=200")?]),
        Provoke::Kill => {
            server.process.signal(Signal::KILL)?;
            super::device::ended(server.process.pid())?;
            Ok(Vec::new())
        }
        Provoke::KillUnderLoad => {
            let clients = vec![read(&disk, TRIGGER_BLOCK, BLOCKS)?];
            super::device::in_flight(server.id)?;
            server.process.signal(Signal::KILL)?;
            super::device::ended(server.process.pid())?;
            Ok(clients)
        }
    }
}

fn everywhere(disk: &str) -> Result<Vec<Process>> {
    (0..8)
        .map(|client| {
            let cpu = (client % 2).to_string();
            let mut line = vec!["-c".to_owned(), cpu, "dd".to_owned()];
            line.extend(dd_read(disk, TRIGGER_BLOCK + 16 * client, 8));
            // So that every tag has a turn.
            line.push("conv=noerror".to_owned());
            Process::start("taskset", &line)
        })
        .collect()
}

fn dd_read(disk: &str, block: u64, count: u64) -> Vec<String> {
    vec![
        format!("if={disk}"),
        "of=/dev/null".to_owned(),
        "bs=4096".to_owned(),
        format!("skip={block}"),
        format!("count={count}"),
        "iflag=direct".to_owned(),
    ]
}

/// Reads blocks past the page cache.
pub(crate) fn read(disk: &str, block: u64, count: u64) -> Result<Process> {
    Process::start("dd", &dd_read(disk, block, count))
}

/// Reads and writes until the process is killed; `how` is for fio.
pub(crate) fn load(disk: &str, how: &str) -> Result<Process> {
    let line = format!(
        "--name=load --filename={disk} --rw=randrw --bs=4k --ioengine=libaio --direct=1 --time_based --runtime=3600 \
         --thread {how}"
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    Process::start("fio", &words)
}

fn write(disk: &str, block: u64, count: u64) -> Result<Process> {
    let words = [
        "if=/dev/zero".to_owned(),
        format!("of={disk}"),
        "bs=4096".to_owned(),
        format!("seek={block}"),
        format!("count={count}"),
        "oflag=direct".to_owned(),
        "conv=nocreat".to_owned(),
    ];
    Process::start("dd", &words)
}

/// So often a healthy device is looked at.
const LOOKS: u32 = 2;

/// Runs doctor until it has something to say of this device, and asserts that it is the right thing.
fn verdict(case: &Case, id: u32) -> Result<()> {
    let title = case.title();
    let Some(cause) = case.cause()? else {
        return healthy(&title);
    };
    // What is true too may be said before it.
    let report = look(&title, Some(id), cause, case.limits, &|found| {
        found
            .iter()
            .any(|finding| !case.also.contains(&finding.cause))
    })?;
    let findings = about(&report, Some(id));
    let contradicts = findings.iter().find(|finding| {
        finding.cause != cause && !case.also.contains(&finding.cause) && !accompanies(finding)
    });
    ensure!(
        contradicts.is_none(),
        "{title}: {cause} expected, and nothing else: {findings:#?}"
    );
    Ok(())
}

/// Runs doctor several times, and it must have nothing to say.
pub(crate) fn healthy(title: &str) -> Result<()> {
    for look in 1..=LOOKS {
        let report = doctor(&[])?;
        let findings = about(&report, None);
        ensure!(
            findings.is_empty(),
            "{title}: healthy expected, look {look}: {findings:#?}"
        );
    }
    note(format!("verdict: {title}: healthy"));
    Ok(())
}

/// Runs doctor until it says this, among others, of a device or of the host: where several things are wrong, one is old
/// enough before another.
pub(crate) fn holds(title: &str, id: Option<u32>, cause: Cause) -> Result<Report> {
    let named = |findings: &[&Finding]| findings.iter().any(|finding| finding.cause == cause);
    look(title, id, cause, LIMITS, &named)
}

/// Runs doctor until its findings are `enough`: then this cause must be among them.
fn look(
    title: &str,
    id: Option<u32>,
    cause: Cause,
    limits: (u32, u32),
    enough: &dyn Fn(&[&Finding]) -> bool,
) -> Result<Report> {
    let (slow, stuck) = (limits.0.to_string(), limits.1.to_string());
    let end = Instant::now() + LONG;
    let report = loop {
        let report = doctor(&["--slow", &slow, "--stuck-after", &stuck])?;
        let findings = about(&report, id);
        if enough(&findings) {
            break report;
        }
        ensure!(
            Instant::now() < end,
            "{title}: {cause} expected within {LONG:?}: {findings:#?}"
        );
    };
    let findings = about(&report, id);
    let Some(found) = findings.iter().find(|finding| finding.cause == cause) else {
        bail!("{title}: {cause} expected: {findings:#?}");
    };
    let certainty = serde_json::to_value(found.certainty)?;
    let certainty = certainty.as_str().unwrap_or_default();
    note(format!("verdict: {title}: {cause} ({certainty})"));
    Ok(report)
}

/// What may be said beside any verdict: who waits because of it, and what the kernel is known for.
fn accompanies(finding: &Finding) -> bool {
    matches!(
        finding.cause,
        Cause::ControlStuck | Cause::HeldOpen | Cause::KernelDefect
    )
}

/// What a report says of a device; without one, all that it says.
pub(crate) fn about(report: &Report, id: Option<u32>) -> Vec<&Finding> {
    let concerns = |finding: &&Finding| {
        let device = finding.device.map(|device| device.0);
        finding.health > Health::Healthy && (id.is_none() || device == id)
    };
    report.findings.iter().filter(concerns).collect()
}

/// Runs `oxublk doctor --json`.
pub(crate) fn doctor(options: &[&str]) -> Result<Report> {
    let finished: Finished = run("oxublk", &[&["doctor", "--json"], options].concat())?;
    serde_json::from_str(&finished.output).with_context(|| finished.to_string())
}

/// Cases as tests of these names; after a semicolon functions as tests.
macro_rules! cases {
    ($($name:ident => $case:expr),* $(,)? $(; $($test:ident),*)?) => {
        &[$({
            const CASE: $crate::support::faulty::Case = $case;
            $crate::support::Test::new(stringify!($name), || $crate::support::faulty::examine(&CASE))
                .forgives(CASE.forgives)
        },)* $($($crate::support::Test::new(stringify!($test), $test),)*)?]
    };
}
pub(crate) use cases;
