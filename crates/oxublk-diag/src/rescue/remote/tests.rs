//! On threads of an ordinary process, which must not notice anything.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{NanosleepRelativeResult, clock_nanosleep_relative};

use super::super::arch;
use super::{Remote, Trouble};
use crate::facts::Tid;

const CHILD: &str = "OXUBLK_TEST_CHILD";
/// How long the children wait where a wait has an end.
const WAIT: Duration = Duration::from_millis(1500);
const LIMIT: Duration = Duration::from_secs(20);

/// The child's part: waits in a system call, and says whether that was disturbed.
#[test]
#[ignore = "the child of the other tests"]
fn child() {
    let Ok(how) = std::env::var(CHILD) else {
        return;
    };
    println!("\ntid={}", rustix::thread::gettid().as_raw_nonzero());
    let started = Instant::now();
    let undisturbed = match how.as_str() {
        "read" => {
            let mut bytes = [0; 8];
            rustix::io::read(rustix::stdio::stdin(), &mut bytes) == Ok(4)
        }
        "sleep" => matches!(
            clock_nanosleep_relative(rustix::thread::ClockId::Monotonic, &timespec()),
            NanosleepRelativeResult::Ok
        ),
        "futex" => {
            let (lock, changed) = (Mutex::new(()), Condvar::new());
            let waited = changed.wait_timeout(lock.lock().unwrap(), WAIT).unwrap();
            waited.1.timed_out()
        }
        "poll" => {
            let (never, _open) = std::io::pipe().unwrap();
            poll(&mut [PollFd::new(&never, PollFlags::IN)], Some(&timespec())) == Ok(0)
        }
        "epoll" => {
            let empty = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            epoll::wait(&empty, &mut events, Some(&timespec())) == Ok(0)
        }
        "io_uring" => {
            let ring = io_uring::IoUring::new(2).unwrap();
            let limit = io_uring::types::Timespec::from(WAIT);
            let arguments = io_uring::types::SubmitArgs::new().timespec(&limit);
            let waited = ring.submitter().submit_with_args(1, &arguments);
            waited.unwrap_err().raw_os_error() == Some(Errno::TIME.raw_os_error())
        }
        "spin" => spin(),
        other => panic!("{other}"),
    };
    println!(
        "\nundisturbed={undisturbed} {}",
        started.elapsed().as_millis()
    );
}

fn timespec() -> Timespec {
    Timespec::try_from(WAIT).unwrap()
}

/// Computes until the time is over, and checks the result: every register matters.
fn spin() -> bool {
    let over = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&over);
    std::thread::spawn(move || {
        std::thread::sleep(WAIT);
        theirs.store(true, Ordering::Relaxed);
    });
    let (mut rounds, mut sum, mut fraction) = (0_u64, 0_u64, 1.0_f64);
    while !over.load(Ordering::Relaxed) {
        rounds += 1;
        sum = sum.wrapping_add(rounds.wrapping_mul(rounds));
        fraction = fraction.mul_add(0.5, 1.0);
    }
    let again = (1..=rounds).fold(0_u64, |sum, n| sum.wrapping_add(n.wrapping_mul(n)));
    again == sum && (fraction - 2.0).abs() < 1e-9
}

struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    tid: Tid,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a child, and returns when it waits.
    fn start(how: &str, state: char) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("rescue::remote::tests::child")
            .env(CHILD, how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let tid = line(&mut output, "tid=").trim().parse().unwrap();
        comes_into(tid, state);
        Self {
            child,
            output,
            tid: Tid(tid),
        }
    }

    fn stop(&self) -> Remote {
        Remote::stop(self.tid, LIMIT).unwrap()
    }

    /// It must not have noticed anything, and its wait must not have become much longer.
    fn stays_undisturbed(mut self, longest: Duration) {
        let said = line(&mut self.output, "undisturbed=");
        let (undisturbed, millis) = said.trim().split_once(' ').unwrap();
        assert_eq!(undisturbed, "true", "{said}");
        let millis: u64 = millis.parse().unwrap();
        assert!(Duration::from_millis(millis) < longest, "{millis}");
        assert!(self.child.wait().unwrap().success());
    }
}

/// Waits until a thread is in a state.
fn comes_into(tid: u32, state: char) {
    let end = Instant::now() + LIMIT;
    let stat = format!("/proc/{tid}/stat");
    loop {
        let text = std::fs::read_to_string(&stat).unwrap();
        let (_, rest) = text.rsplit_once(") ").unwrap();
        if rest.starts_with(state) {
            return;
        }
        assert!(Instant::now() < end, "{state} expected: {text}");
        std::thread::yield_now();
    }
}

fn line(output: &mut BufReader<ChildStdout>, start: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "no {start}");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.to_owned();
        }
    }
}

fn getpid(remote: &mut Remote) -> Result<i64, Trouble> {
    remote.call(arch::GETPID, [0; 6], LIMIT)
}

/// Makes calls in a waiting thread, twice, with a pause between in which it waits on.
fn calls_in(how: &str, state: char) -> Running {
    let running = Running::start(how, state);
    let pid = i64::from(running.child.id());
    for _ in 0..2 {
        let mut remote = running.stop();
        let stand = remote.stand();
        for _ in 0..3 {
            assert_eq!(getpid(&mut remote), Ok(pid));
        }
        assert_eq!(
            remote.call(arch::GETTID, [0; 6], LIMIT),
            Ok(i64::from(running.tid.0))
        );
        // A page of its memory, mapped, written, read, and unmapped.
        let address = remote.call(arch::MMAP, [0, 4096, 3, 0x22, u64::MAX, 0], LIMIT);
        let address = u64::try_from(address.unwrap()).unwrap();
        remote.write(address, b"here").unwrap();
        let mut bytes = [0; 4];
        remote.read(address, &mut bytes).unwrap();
        assert_eq!(&bytes, b"here");
        let unmapped = remote.call(arch::MUNMAP, [address, 4096, 0, 0, 0, 0], LIMIT);
        assert_eq!(unmapped, Ok(0));
        remote.release().unwrap();
        if state == 'S' {
            // It has executed nothing of its own since.
            let again = running.stop();
            assert_eq!(again.stand(), stand);
            again.release().unwrap();
        }
    }
    running
}

#[test]
fn calls_are_made_in_a_thread_that_waits_and_it_waits_on() {
    for how in ["sleep", "futex", "poll", "epoll", "io_uring"] {
        eprintln!("{how}");
        calls_in(how, 'S').stays_undisturbed(Duration::from_secs(30));
    }
}

#[test]
fn a_wait_with_an_end_keeps_it() {
    let running = Running::start("sleep", 'S');
    let started = Instant::now();
    let mut remote = running.stop();
    while started.elapsed() < WAIT * 2 {
        getpid(&mut remote).unwrap();
    }
    remote.release().unwrap();
    let released = Instant::now();
    running.stays_undisturbed(Duration::from_secs(30));
    assert!(released.elapsed() < WAIT, "it slept anew");
}

#[test]
fn a_thread_that_reads_gets_what_comes_later() {
    let mut running = calls_in("read", 'S');
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"late").unwrap();
    running.stays_undisturbed(Duration::from_secs(30));
}

#[test]
fn calls_are_made_in_a_thread_that_computes_and_it_computes_on() {
    calls_in("spin", 'R').stays_undisturbed(Duration::from_secs(60));
}

#[test]
fn a_call_that_does_not_return_is_given_up_and_the_thread_goes_on() {
    let mut running = Running::start("read", 'S');
    let mut remote = running.stop();
    let started = Instant::now();
    let limit = Duration::from_millis(100);
    let paused = remote.call(arch::PAUSE, [0; 6], limit);
    assert_eq!(paused, Err(Trouble::DoesNotReturn));
    assert!(started.elapsed() < LIMIT);
    remote.release().unwrap();
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"late").unwrap();
    running.stays_undisturbed(Duration::from_secs(30));
}

fn send(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn signals_that_come_meanwhile_have_the_effect_that_they_always_have() {
    let mut running = Running::start("read", 'S');
    let pid = i64::from(running.child.id());
    let mut remote = running.stop();
    // Ignored by default.
    send(&running, Signal::URG);
    send(&running, Signal::WINCH);
    assert_eq!(getpid(&mut remote), Ok(pid));
    send(&running, Signal::URG);
    assert_eq!(getpid(&mut remote), Ok(pid));
    remote.release().unwrap();
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"late").unwrap();
    running.stays_undisturbed(Duration::from_secs(30));

    let mut running = Running::start("read", 'S');
    let mut remote = running.stop();
    send(&running, Signal::TERM);
    assert_eq!(getpid(&mut remote), Err(Trouble::Gone));
    drop(remote);
    assert!(!running.child.wait().unwrap().success());
}

#[test]
fn a_process_that_is_stopped_or_gone_is_left_as_it_is() {
    let mut running = Running::start("read", 'S');
    let mut remote = running.stop();
    send(&running, Signal::STOP);
    assert_eq!(getpid(&mut remote), Err(Trouble::Stopped));
    drop(remote);
    // The kernel stops it again when it runs the next time, which may be after we were let go on.
    comes_into(running.tid.0, 'T');
    assert!(matches!(
        Remote::stop(running.tid, LIMIT),
        Err(Trouble::Stopped)
    ));
    send(&running, Signal::CONT);
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"late").unwrap();
    let tid = running.tid;
    running.stays_undisturbed(Duration::from_secs(30));
    assert!(matches!(Remote::stop(tid, LIMIT), Err(Trouble::Gone)));
}
