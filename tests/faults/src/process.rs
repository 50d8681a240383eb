//! Processes that a server leaves behind, or waits for, without `exec`: they share or inherit what it has.

use std::ffi::c_int;
use std::io;
use std::thread;

/// Sleeps in a lock for ever.
pub(crate) fn park() -> ! {
    loop {
        thread::park();
    }
}

/// Sleeps in vfork(2): uninterruptible but by a fatal signal, until the child ends, which it does with this thread.
pub(crate) fn hang_in_vfork() -> io::Result<()> {
    // SAFETY: as fork(2); the child makes system calls only.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_VFORK | libc::SIGCHLD,
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        0 => {
            // SAFETY: passes a number only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            pause_without_files()
        }
        1.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a copy of this process that has nothing open and everything mapped, and lives until it is killed.
pub(crate) fn leave_a_copy() -> io::Result<u32> {
    // SAFETY: as fork(2); the child makes system calls only.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match u32::try_from(pid) {
        Ok(0) => pause_without_files(),
        Ok(pid) => Ok(pid),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The child's life. No allocation, no lock: this is a copy of one thread of many.
fn pause_without_files() -> ! {
    // SAFETY: closes files of this process only.
    unsafe { libc::syscall(libc::SYS_close_range, 0, c_int::MAX, 0) };
    loop {
        // SAFETY: sleeps.
        unsafe { libc::pause() };
    }
}
