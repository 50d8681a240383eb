//! The guest's first process: prepares the system, runs the command, tells the host what became of it.

use crate::image::{ORDERS, Orders};
use crate::wire::Frame;
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, wait};
use rustix::system::{RebootCommand, reboot, sethostname, uname};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// The second serial port; the first is the kernel's console.
const PORT: &str = "/dev/ttyS1";
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin";
/// A pipe holds as much; what the command left in it is passed on after its end.
const PIPE_BYTES: usize = 65_536;

/// Type, place, options; a kernel may lack those that follow the first four.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Runs as process 1 and never returns to the kernel: the guest is switched off at the end.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = run() {
        eprintln!("guest: {error:#}");
    }
    switch_off();
    ExitCode::FAILURE
}

/// Without waiting for other processes, which may be stuck in the driver.
fn switch_off() {
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("guest: cannot switch off: {error}");
    }
}

fn run() -> Result<()> {
    mount_all()?;
    let port = Port::open()?;
    port.send(&Frame::Up);
    let orders = fs::read(format!("/{ORDERS}")).context("the image has no orders")?;
    let orders: Orders = serde_json::from_slice(&orders).context("the orders cannot be read")?;
    prepare(&orders, &port);
    let code = run_command(&orders, &port);
    port.send(&Frame::Exit(code));
    port.drain();
    Ok(())
}

fn mount_all() -> Result<()> {
    // The kernel makes its first root writable for everyone.
    fs::set_permissions("/", fs::Permissions::from_mode(0o755))?;
    for (number, (kind, place, options)) in MOUNTS.iter().enumerate() {
        // Places inside a mount of ours appear with it or are made here; the kernel makes those in /sys.
        let _ = fs::create_dir(place);
        let options = std::ffi::CString::new(*options)?;
        match mount(
            *kind,
            *place,
            *kind,
            MountFlags::empty(),
            Some(options.as_c_str()),
        ) {
            Ok(()) => {}
            Err(error) if number < 4 => {
                return Err(error).with_context(|| format!("cannot mount {place}"));
            }
            Err(error) => eprintln!("guest: no {place}: {error}"),
        }
    }
    for (name, target) in [
        ("fd", "fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(format!("/proc/self/{target}"), format!("/dev/{name}"))
            .with_context(|| format!("cannot make /dev/{name}"))?;
    }
    Ok(())
}

/// What can fail without spoiling every command: said, and left to the command to trip over.
fn prepare(orders: &Orders, port: &Port) {
    if let Err(error) = sethostname(b"guest") {
        port.say(&format!("no hostname: {error}"));
    }
    run_tool(port, "ip", &["link", "set", "lo", "up"]);
    if let Err(error) = make_static_nodes() {
        port.say(&format!("some device nodes are missing: {error:#}"));
    }
    if orders.load_ublk && !fs::exists("/dev/ublk-control").unwrap_or_default() {
        run_tool(port, "modprobe", &["ublk_drv"]);
    }
}

/// Makes the nodes whose opening loads a module, like /dev/loop-control: the kernel makes none before that.
fn make_static_nodes() -> Result<()> {
    let release = uname().release().to_string_lossy().into_owned();
    // Lines of depmod's: `loop loop-control c10:237`. A kernel without modules has no such file.
    let Ok(names) = fs::read_to_string(format!("/lib/modules/{release}/modules.devname")) else {
        return Ok(());
    };
    for line in names.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(name), Some(numbers)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((major, minor)) = numbers
            .strip_prefix('c')
            .and_then(|numbers| numbers.split_once(':'))
        else {
            continue;
        };
        let path = PathBuf::from("/dev").join(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        match mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from(0o600),
            makedev(major.parse()?, minor.parse()?),
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(())
}

fn run_tool(port: &Port, program: &str, arguments: &[&str]) {
    match Command::new(program)
        .args(arguments)
        .env("PATH", SEARCH_PATH)
        .status()
    {
        Ok(status) if status.success() => {}
        Ok(status) => port.say(&format!("{program} {}: {status}", arguments.join(" "))),
        Err(error) => port.say(&format!("{program}: {error}")),
    }
}

/// Runs the command and returns its code.
fn run_command(orders: &Orders, port: &Port) -> u8 {
    let Some((program, arguments)) = orders.argv.split_first() else {
        return 0;
    };
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([
            ("PATH", SEARCH_PATH),
            ("HOME", "/root"),
            ("USER", "root"),
            ("TERM", "dumb"),
            ("LC_ALL", "C"),
        ])
        .envs(orders.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            port.say(&format!("cannot run {program}: {error}"));
            return if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            };
        }
    };
    watch(port.clone(), Duration::from_secs(orders.timeout_seconds));
    match supervise(child, port) {
        Ok(status) => exit_code(status),
        Err(error) => {
            port.say(&format!("lost the command: {error:#}"));
            125
        }
    }
}

/// As a shell reports it: 128 and the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Passes on what the command prints until it ends; meanwhile buries every process that lost its parent.
fn supervise(mut child: Child, port: &Port) -> Result<ExitStatus> {
    let (over, still_running) = pipe_with(PipeFlags::CLOEXEC)?;
    let over = Arc::new(over);
    let mut relays = Vec::new();
    let mut relay = |pipe: OwnedFd, frame: fn(Vec<u8>) -> Frame| {
        let (over, port) = (over.clone(), port.clone());
        relays.push(thread::spawn(move || {
            pass_on(&File::from(pipe), &over, &port, frame)
        }));
    };
    if let Some(pipe) = child.stdout.take() {
        relay(pipe.into(), Frame::Output);
    }
    if let Some(pipe) = child.stderr.take() {
        relay(pipe.into(), Frame::Error);
    }
    let status = wait_for(Pid::from_child(&child))?;
    drop(still_running);
    for relay in relays {
        if relay.join().is_err() {
            port.say("lost a part of the command's output");
        }
    }
    Ok(status)
}

fn wait_for(command: Pid) -> Result<ExitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
    }
}

/// Passes on what comes through a pipe until it is closed, or the command is over and the pipe empty: a server
/// that the command left behind may hold it open.
fn pass_on(mut pipe: &File, over: &OwnedFd, port: &Port, frame: fn(Vec<u8>) -> Frame) {
    let mut buffer = vec![0; PIPE_BYTES];
    let mut left = PIPE_BYTES;
    loop {
        let mut fds = [
            PollFd::new(pipe, PollFlags::IN),
            PollFd::new(over, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let [has_data, is_over] = fds.map(|fd| !fd.revents().is_empty());
        if !has_data {
            return;
        }
        match std::io::Read::read(&mut pipe, &mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                port.send(&frame(buffer[..count].to_vec()));
                left = if is_over {
                    left.saturating_sub(count)
                } else {
                    left
                };
            }
        }
        if left == 0 {
            return;
        }
    }
}

/// Ends the guest when the command has run for too long, after the kernel has shown who waits for what.
fn watch(port: Port, limit: Duration) {
    thread::spawn(move || {
        let (_never_sent, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(limit);
        // Tasks that wait in the kernel, with their stacks, on the console.
        if let Err(error) = fs::write("/proc/sysrq-trigger", "w") {
            eprintln!("guest: no list of blocked tasks: {error}");
        }
        port.say(&format!(
            "still running (process, state, waits in, command):\n{}",
            processes()
        ));
        port.send(&Frame::TimedOut);
        port.drain();
        switch_off();
    });
}

/// All processes but ours and the kernel's own, a line for each.
fn processes() -> String {
    let read = |pid: &str, name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
    };
    let mut lines = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.parse::<u32>().is_ok_and(|pid| pid > 1))
        else {
            continue;
        };
        let command = read(pid, "cmdline").replace('\0', " ");
        let state = read(pid, "status")
            .lines()
            .find_map(|line| line.strip_prefix("State:").map(str::to_owned));
        // A kernel thread has no command line; neither has a dead process, which is worth a line.
        let state = state.unwrap_or_default();
        if command.is_empty() && !state.contains('Z') {
            continue;
        }
        let command = if command.is_empty() {
            read(pid, "comm")
        } else {
            command
        };
        let (state, place) = (state.trim(), read(pid, "wchan"));
        lines.push_str(&format!(
            "  {pid:>6}  {state}  {place}  {}\n",
            command.trim()
        ));
    }
    lines
}

/// The serial port to the host.
#[derive(Debug, Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .with_context(|| format!("cannot open {PORT}"))?;
        let mut settings = tcgetattr(&file)?;
        settings.make_raw();
        tcsetattr(&file, OptionalActions::Now, &settings)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    fn send(&self, frame: &Frame) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = frame.write(&mut *file) {
            eprintln!("guest: cannot write to {PORT}: {error}");
        }
    }

    /// A word of our own among the command's errors.
    fn say(&self, text: &str) {
        self.send(&Frame::Error(format!("guest: {text}\n").into_bytes()));
    }

    fn drain(&self) {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = tcdrain(file.as_fd()) {
            eprintln!("guest: {PORT}: {error}");
        }
    }
}
