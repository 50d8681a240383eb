//! One disk, one device, until a signal: the shortest program.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::async_disk::AsyncDisk;
use crate::device::{Builder, Device};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::queue::Backend;

/// Serves `disk` as a block device until SIGINT or SIGTERM, or until somebody deletes the device;
/// then stops and deletes it.
///
/// The device has the defaults of [`Device::builder`]. Its path is logged with `tracing`.
///
/// # Errors
/// What [`Builder::start`](crate::Builder::start), [`Device::wait`] and [`Device::stop`] return.
pub fn serve<D: Disk>(disk: D) -> Result<()> {
    until_signal(Device::builder(disk))
}

/// The same for an asynchronous disk.
///
/// # Errors
/// As [`serve`].
pub fn serve_async<D: AsyncDisk>(disk: D) -> Result<()> {
    until_signal(Device::builder_async(disk))
}

fn until_signal<B: Backend>(builder: Builder<B>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Error::io("cannot watch for SIGINT and SIGTERM", error))?;
    let device = builder.start()?;
    tracing::info!(device = device.id().0, path = %device.block_path().display(), "ready");
    let (stopper, handle) = (device.stopper(), signals.handle());
    let watcher = thread::spawn(move || {
        if signals.forever().next().is_some() {
            stopper.stop();
        }
    });
    let served = device.wait();
    let stopped = device.stop();
    handle.close();
    // The watcher cannot panic; joined so that nothing of this call is left.
    let _ = watcher.join();
    served.and(stopped)
}
