//! Reading what may make the reader wait.
//!
//! Some files of `/proc` take a lock of the process that they describe (`maps`, `mem`), and a process that is stuck on
//! its own disk may hold it. Such a file is read by a thread of its own, which is left behind when it does not return.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Does something that may wait for ever, for so long at most. None when it was left behind.
pub(super) fn guarded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("oxublk-look".to_owned())
        .spawn(move || {
            // Nobody listens any more when this was too late.
            let _ = sender.send(work());
        });
    spawned.ok()?;
    receiver.recv_timeout(limit).ok()
}
