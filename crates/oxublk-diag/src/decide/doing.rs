//! What a thread does, by both looks.

use crate::facts::{Armer, Task, TaskState, Tid};

use super::case::Case;

/// What a thread does, by both looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It ended.
    Gone,
    /// Stopped by a signal, or by a debugger.
    Stopped,
    /// Sleeps where signals do not reach it.
    Uninterruptible,
    /// Uses the processor.
    Spins,
    /// Waits for completions of a ring.
    WaitsForRing,
    /// Waits for a lock.
    Locked,
    /// Sleeps on a timer.
    Timer,
    /// Waits in another system call.
    Waits,
    /// It did different things in the two looks, or it could not be seen.
    Unknown,
}

impl Case<'_> {
    /// What a thread does.
    pub(super) fn doing(&self, tid: Tid) -> Doing {
        let Some(now) = self.task(tid) else {
            return Doing::Unknown;
        };
        let before = self
            .before
            .tasks
            .get(&tid)
            .filter(|before| before.start_ticks == now.start_ticks);
        let steady = before.is_none_or(|before| before.state == now.state);
        match now.state {
            TaskState::Zombie | TaskState::Dead => Doing::Gone,
            TaskState::Stopped | TaskState::Traced if steady => Doing::Stopped,
            TaskState::Uninterruptible if steady => Doing::Uninterruptible,
            TaskState::Running if steady && spins(before, now, self.between_ms) => Doing::Spins,
            TaskState::Sleeping if steady => sleeping(now),
            _ => Doing::Unknown,
        }
    }
}

/// Whether a thread used the processor between two looks, without giving it up by itself.
fn spins(before: Option<&Task>, now: &Task, between_ms: u64) -> bool {
    // A tick of /proc is 10 ms. A busy machine may give it a fifth of the time.
    let least = (between_ms / 50).max(1);
    before.is_some_and(|before| {
        let used = now.cpu_ticks.zip(before.cpu_ticks);
        let gave_up = now.switches.zip(before.switches);
        used.is_some_and(|(now, before)| now.saturating_sub(before) >= least)
            && gave_up.is_none_or(|(now, before)| now == before)
    })
}

fn sleeping(task: &Task) -> Doing {
    const RING: &[&str] = &[
        "io_cqring_wait",
        "io_cqring_schedule_timeout",
        "io_sq_thread",
    ];
    const LOCK: &[&str] = &[
        "futex_wait_queue",
        "futex_wait_queue_me",
        "futex_do_wait",
        "futex_wait",
    ];
    const TIMER: &[&str] = &["hrtimer_nanosleep", "common_nsleep", "do_nanosleep"];
    const POLL: &[&str] = &["do_sys_poll", "do_poll", "poll_schedule_timeout"];
    let call = task.syscall.as_ref().and_then(|call| call.name.as_deref());
    match call {
        Some("io_uring_enter") => Doing::WaitsForRing,
        Some("futex") => Doing::Locked,
        Some("nanosleep" | "clock_nanosleep") => Doing::Timer,
        _ if task.is_in(RING) => Doing::WaitsForRing,
        _ if task.is_in(LOCK) => Doing::Locked,
        _ if task.is_in(TIMER) => Doing::Timer,
        // A sleep that a delivery interrupted goes on as this. Beside sleeps only polls do.
        Some("restart_syscall") if !task.is_in(POLL) => Doing::Timer,
        Some(_) => Doing::Waits,
        None if task.wchan.is_some() || !task.stack.is_empty() => Doing::Waits,
        None => Doing::Unknown,
    }
}

/// `thread 4711 (ubq0)`.
pub(super) fn thread(armer: &Armer) -> String {
    format!("thread {} ({})", armer.tid, armer.comm)
}

/// `runs`, or in what it sleeps.
pub(super) fn does(doing: &Doing, task: &Task) -> String {
    match doing {
        Doing::Spins => "runs".to_owned(),
        _ => sleeps_in(task),
    }
}

/// `sleeps in futex (futex_do_wait)`.
pub(super) fn sleeps_in(task: &Task) -> String {
    let call = task.syscall.as_ref().map(|call| {
        let name = call
            .name
            .clone()
            .unwrap_or_else(|| format!("system call {}", call.number));
        match &call.object {
            // What a thread waits for is told in words already.
            Some(object) if object.starts_with(&name) => object.clone(),
            Some(object) => format!("{name} of {object}"),
            None => name,
        }
    });
    let function = task.wchan.as_ref().or_else(|| task.stack.first());
    match (call, function) {
        (Some(call), Some(function)) => format!("is in {call}, asleep in {function}"),
        (Some(call), None) => format!("is in {call}"),
        (None, Some(function)) => format!("sleeps in {function}"),
        (None, None) if task.state == TaskState::Running => "runs".to_owned(),
        (None, None) => "sleeps".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Doing, sleeping};
    use crate::facts::{Pid, SysCall, Task, TaskState, Tid};

    fn asleep(call: &str, function: &str) -> Doing {
        sleeping(&Task {
            tid: Tid(2),
            pid: Pid(1),
            comm: "ubq0".to_owned(),
            state: TaskState::Sleeping,
            tracer: None,
            parent: None,
            wchan: Some(function.to_owned()),
            stack: Vec::new(),
            syscall: Some(SysCall {
                number: 0,
                name: Some(call.to_owned()),
                arguments: [0; 6],
                object: None,
            }),
            cpu_ticks: None,
            switches: None,
            start_ticks: None,
            asleep_ms: None,
            kernel: false,
        })
    }

    #[test]
    fn a_sleep_that_was_interrupted_is_still_one() {
        for (call, function, doing) in [
            ("clock_nanosleep", "hrtimer_nanosleep", Doing::Timer),
            ("restart_syscall", "do_syscall_64", Doing::Timer),
            ("restart_syscall", "do_sys_poll", Doing::Waits),
            ("restart_syscall", "futex_do_wait", Doing::Locked),
            ("poll", "do_sys_poll", Doing::Waits),
            ("io_uring_enter", "io_cqring_wait", Doing::WaitsForRing),
        ] {
            assert_eq!(asleep(call, function), doing, "{call} in {function}");
        }
    }
}
