//! A stopped thread of another process, in which system calls can be made.
//!
//! The thread is seized and interrupted, not sent a signal: it sees nothing of it. It is stopped on its way back to user
//! space, where the kernel decides whether an interrupted system call is repeated; and when it is let go, it stands
//! there again with the registers it had, so that the kernel decides as if nothing had been.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use crate::facts::Tid;

use super::arch::{self, Registers, Stand};

/// `__WALL`: threads that are no children of ours too.
const WAIT_ALL: u32 = 0x4000_0000;
/// So many signals may come in the way of one system call.
const MAX_SIGNALS: u32 = 64;
/// For putting a thread back after something went wrong.
const PUT_BACK_LIMIT: Duration = Duration::from_secs(2);
/// The longest pause between two looks at a thread.
const PAUSE: Duration = Duration::from_millis(2);
/// More code than this is not searched for an instruction.
const MAX_CODE: u64 = 16 << 20;

/// Why a system call could not be made in a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may not be stopped by us.
    NotPermitted,
    /// It has ended.
    Gone,
    /// A signal has stopped its process.
    Stopped,
    /// It did not stop in time: it sleeps where nothing reaches it.
    DoesNotStop,
    /// It did not come back in time from a system call that was made in it.
    DoesNotReturn,
    /// It runs code of another kind than this program.
    OtherArchitecture,
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => "this process may not stop the thread: it is not root, or a security module or `kernel.yama.ptrace_scope` forbids it, or something else traces the thread",
            Self::Gone => "the thread has ended",
            Self::Stopped => "a signal has stopped its process",
            Self::DoesNotStop => "the thread does not stop: it sleeps where nothing reaches it",
            Self::DoesNotReturn => "a system call that was made in the thread does not return",
            Self::OtherArchitecture => "the thread does not run 64-bit code of this machine",
            Self::Other(what) => what,
        })
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPERM | Errno::EACCES => Self::NotPermitted,
            Errno::ESRCH => Self::Gone,
            other => Self::Other(format!("ptrace: {}", other.desc())),
        }
    }
}

/// What a wait for a thread brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It entered or left a system call.
    SystemCall,
    /// It stopped since we asked.
    Trap,
    /// A signal stopped its process.
    GroupStop,
    /// A signal is about to be delivered.
    Signal(i32),
    /// It ended.
    Ended,
    /// Something that was not asked for.
    Other,
}

impl Event {
    const fn of(status: i32) -> Self {
        const STOPPED: i32 = 0x7f;
        const TRAP: i32 = 5;
        const TRAP_OF_CALL: i32 = TRAP | 0x80;
        const EVENT_STOP: i32 = 128;
        if status & 0xff != STOPPED {
            return Self::Ended;
        }
        match (status >> 16, (status >> 8) & 0xff) {
            (EVENT_STOP, TRAP) => Self::Trap,
            (EVENT_STOP, _) => Self::GroupStop,
            (0, TRAP_OF_CALL) => Self::SystemCall,
            (0, signal) => Self::Signal(signal),
            _ => Self::Other,
        }
    }
}

/// Where the thread is for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way to user space, where interrupted system calls are looked after.
    AtTrap,
    /// After a system call that was made in it.
    AfterCall,
    /// It runs, or is in a system call that was made in it.
    Runs,
    /// No longer ours.
    LetGo,
}

/// A stopped thread. Dropped, it goes on where it was.
pub(super) struct Remote {
    thread: Pid,
    memory: File,
    /// What it goes on with.
    own: Registers,
    /// Where the instruction of a system call lies.
    instruction: u64,
    state: State,
    /// Signals that came in between and cannot be passed on as others are.
    held: Vec<i32>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("thread", &self.thread)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Stops a thread. On failure it goes on as if nothing had been.
    pub(super) fn stop(tid: Tid, limit: Duration) -> Result<Self, Trouble> {
        let number = i32::try_from(tid.0).map_err(|_| Trouble::Gone)?;
        let thread = Pid::from_raw(number);
        ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
        // From here on it is ours: should anything fail, the end of the calling thread lets it go, and one that has
        // stopped is let go at once.
        let stopped = stopped(thread, limit).and_then(|()| Self::new(tid, thread));
        if stopped.is_err() {
            let _ = ptrace::detach(thread, None);
        }
        stopped
    }

    fn new(tid: Tid, thread: Pid) -> Result<Self, Trouble> {
        let own = Registers::of(thread)?;
        if !own.are_native() {
            return Err(Trouble::OtherArchitecture);
        }
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{tid}/mem"));
        let memory = memory.map_err(|error| memory_trouble(&error))?;
        let instruction = find_instruction(tid, &memory, own.system_call())?;
        Ok(Self {
            thread,
            memory,
            own: own.undisturbed(),
            instruction,
            state: State::AtTrap,
            held: Vec::new(),
        })
    }

    /// Where the thread stands in its own code.
    pub(super) fn stand(&self) -> Stand {
        self.own.stand()
    }

    /// Reads the thread's memory.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Trouble> {
        let read = self.memory.read_exact_at(bytes, address);
        read.map_err(|error| memory_trouble(&error))
    }

    /// Writes to the thread's memory.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let written = self.memory.write_all_at(bytes, address);
        written.map_err(|error| memory_trouble(&error))
    }

    /// Makes a system call in the thread; a negative result is an errno.
    pub(super) fn call(
        &mut self,
        number: u64,
        arguments: [u64; 6],
        limit: Duration,
    ) -> Result<i64, Trouble> {
        for _ in 0..MAX_SIGNALS {
            self.own
                .calling(self.instruction, number, arguments)
                .put(self.thread)?;
            match self.resume(limit)? {
                Event::SystemCall => {
                    return match self.resume(limit)? {
                        Event::SystemCall => {
                            self.state = State::AfterCall;
                            Ok(Registers::of(self.thread)?.result())
                        }
                        other => Err(unexpected(other)),
                    };
                }
                // It came before the system call began: the thread takes it as if we were not there, and
                // then the call is made from where it stands, in the signal's handler perhaps.
                Event::Signal(signal) => self.pass(signal, limit)?,
                Event::Trap => {}
                other => return Err(unexpected(other)),
            }
        }
        Err(Trouble::Other(format!(
            "the thread gets one signal after another: {MAX_SIGNALS} came"
        )))
    }

    /// Lets the thread go on where it was.
    pub(super) fn release(mut self) -> Result<(), Trouble> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<(), Trouble> {
        let back = self.put_back();
        if back == Err(Trouble::Gone) && self.state != State::LetGo {
            // Until we have taken notice of its end, its process cannot end.
            self.state = State::LetGo;
            let _ = wait(self.thread, PUT_BACK_LIMIT, Trouble::Gone);
        }
        back
    }

    /// Runs the thread to its next stop at a system call.
    fn resume(&mut self, limit: Duration) -> Result<Event, Trouble> {
        ptrace::syscall(self.thread, None)?;
        self.state = State::Runs;
        let event = wait(self.thread, limit, Trouble::DoesNotReturn)?;
        self.state = match event {
            Event::Ended => State::LetGo,
            // The stop of a whole process is met at the same place as ours.
            Event::Trap | Event::GroupStop => State::AtTrap,
            _ => State::AfterCall,
        };
        Ok(event)
    }

    /// Lets the thread take a signal with its own registers, and stops it again before it executes anything.
    fn pass(&mut self, signal: i32, limit: Duration) -> Result<(), Trouble> {
        self.own.put(self.thread)?;
        ptrace::interrupt(self.thread)?;
        let known = Signal::try_from(signal).ok();
        if known.is_none() {
            // A realtime signal, for which there is no name.
            self.held.push(signal);
        }
        ptrace::cont(self.thread, known)?;
        self.state = State::Runs;
        match wait(self.thread, limit, Trouble::DoesNotStop)? {
            Event::Trap => {
                self.state = State::AtTrap;
                self.own = Registers::of(self.thread)?;
                Ok(())
            }
            Event::Signal(next) => self.pass(next, limit),
            Event::GroupStop => {
                self.state = State::AtTrap;
                Err(Trouble::Stopped)
            }
            other => Err(unexpected(other)),
        }
    }

    fn put_back(&mut self) -> Result<(), Trouble> {
        if self.state == State::LetGo {
            return Ok(());
        }
        if self.state == State::Runs {
            self.halt()?;
        }
        self.send_held();
        if self.state != State::AtTrap {
            ptrace::interrupt(self.thread)?;
            ptrace::cont(self.thread, None)?;
            self.state = State::Runs;
            self.halt()?;
        }
        self.own.put(self.thread)?;
        ptrace::detach(self.thread, None)?;
        self.state = State::LetGo;
        Ok(())
    }

    /// Waits for a thread that is about to stop, or is made to.
    fn halt(&mut self) -> Result<(), Trouble> {
        // It may be on its way to a stop already: then this one comes after it.
        let _ = ptrace::interrupt(self.thread);
        match wait(self.thread, PUT_BACK_LIMIT, Trouble::DoesNotReturn)? {
            Event::Trap | Event::GroupStop => self.state = State::AtTrap,
            Event::SystemCall => self.state = State::AfterCall,
            Event::Signal(signal) => self.pass(signal, PUT_BACK_LIMIT)?,
            Event::Ended => {
                self.state = State::LetGo;
                return Err(Trouble::Gone);
            }
            other => return Err(unexpected(other)),
        }
        Ok(())
    }

    /// The thread sends itself the signals that could not be passed on.
    fn send_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        let mut number = |call| {
            let result = self.call(call, [0; 6], PUT_BACK_LIMIT).ok()?;
            u64::try_from(result).ok()
        };
        // Its own numbers in its own namespace.
        let (Some(process), Some(thread)) = (number(arch::GETPID), number(arch::GETTID)) else {
            return;
        };
        for signal in held {
            let signal = u64::try_from(signal).unwrap_or_default();
            let arguments = [process, thread, signal, 0, 0, 0];
            let _ = self.call(arch::TGKILL, arguments, PUT_BACK_LIMIT);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // What fails here has been told already, or the thread has ended.
        let _ = self.let_go();
    }
}

/// Interrupts a seized thread and waits until it has stopped for us.
fn stopped(thread: Pid, limit: Duration) -> Result<(), Trouble> {
    ptrace::interrupt(thread)?;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match wait(thread, left, Trouble::DoesNotStop)? {
            Event::Trap => return Ok(()),
            Event::Signal(signal) => ptrace::cont(thread, Signal::try_from(signal).ok())?,
            other => return Err(unexpected(other)),
        }
    }
}

/// Waits until something happens to the thread. The kernel has no such wait with a deadline: it is asked again and again.
fn wait(thread: Pid, limit: Duration, late: Trouble) -> Result<Event, Trouble> {
    let end = Instant::now() + limit;
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WAIT_ALL);
    let mut pause = Duration::from_micros(20);
    loop {
        let last = Instant::now() >= end;
        match waitpid(rustix::process::Pid::from_raw(thread.as_raw()), options) {
            Ok(Some((_, status))) => return Ok(Event::of(status.as_raw())),
            Ok(None) if last => return Err(late),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Trouble::Gone),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE);
    }
}

fn unexpected(event: Event) -> Trouble {
    match event {
        Event::Ended => Trouble::Gone,
        Event::GroupStop => Trouble::Stopped,
        other => Trouble::Other(format!(
            "the thread stopped in an unexpected way: {other:?}"
        )),
    }
}

fn memory_trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::NotPermitted,
        _ => Trouble::Other(format!("the thread's memory: {error}")),
    }
}

/// An instruction that makes a system call: the thread's own, or one in the code that the process has mapped.
fn find_instruction(tid: Tid, memory: &File, own: Option<u64>) -> Result<u64, Trouble> {
    let is_there = |address: &u64| {
        let mut bytes = vec![0; arch::INSTRUCTION.len()];
        memory.read_exact_at(&mut bytes, *address).is_ok() && bytes == arch::INSTRUCTION
    };
    if let Some(address) = own.filter(is_there) {
        return Ok(address);
    }
    let maps = fs::read_to_string(format!("/proc/{tid}/maps"));
    let maps = maps.map_err(|error| memory_trouble(&error))?;
    let mut code: Vec<(u64, u64, bool)> = maps.lines().filter_map(executable).collect();
    // The kernel's own page of code is small, and everybody has it.
    code.sort_by_key(|(.., kernels)| !kernels);
    let mut searched = 0;
    for (start, end, _) in code {
        let length = end.saturating_sub(start).min(MAX_CODE - searched);
        searched += length;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let found = bytes
            .windows(arch::INSTRUCTION.len())
            .step_by(arch::ALIGNMENT)
            .position(|window| window == arch::INSTRUCTION);
        if let Some(found) = found.and_then(|at| u64::try_from(at * arch::ALIGNMENT).ok()) {
            return Ok(start + found);
        }
    }
    Err(Trouble::Other(
        "the process has no code that makes a system call".to_owned(),
    ))
}

/// `7ffc0b7f2000-7ffc0b7f4000 r-xp 00000000 00:00 0   [vdso]`: a range of code, and whether it is the kernel's.
fn executable(line: &str) -> Option<(u64, u64, bool)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if !words.next()?.starts_with("r-x") {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    // It cannot be read, and is no code on newer kernels.
    if line.ends_with("[vsyscall]") {
        return None;
    }
    Some((hex(start)?, hex(end)?, line.ends_with("[vdso]")))
}

#[cfg(test)]
mod tests;
