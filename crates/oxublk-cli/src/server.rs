//! Serving a device: from the disk to the end of the process.

use std::fs::File;
use std::path::{Path, absolute};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use oxublk::queue::Backend;
use oxublk::{Builder, Control, Device, DeviceId, DeviceInfo, Metrics, SharedMemory, Stopper};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::args::DeviceOptions;
use crate::exit::{Failure, Outcome};
use crate::live;
use crate::ready;
use crate::report::{Added, DeviceMetrics, Live, block_path, char_path};
use crate::state::{Description, Origin, RunDir, SharedFile};

/// A device that is served by this process and ready for use.
#[derive(Debug)]
pub struct Serving {
    device: SharedDevice,
    info: DeviceInfo,
    description: Description,
    run_dir: RunDir,
    notes: Vec<String>,
    signals: Signals,
    stopper: Stopper,
}

/// The device, until it is stopped.
#[derive(Clone, Debug)]
struct SharedDevice(Arc<RwLock<Option<Device>>>);

impl SharedDevice {
    fn with<T>(&self, look: impl FnOnce(&Device) -> T) -> Option<T> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(look)
    }

    fn take(&self) -> Option<Device> {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Makes the device, waits until it can be used, and writes down what it is. If that fails
/// nothing is left.
///
/// SIGINT and SIGTERM are held back from here on, and stop the device in [`Serving::run`].
///
/// # Errors
/// What the library says, or the run directory cannot be written.
pub fn start<B: Backend>(
    run_dir: &RunDir,
    origin: Origin,
    disk: B,
    options: &DeviceOptions,
) -> Outcome<Serving> {
    // First what concerns everybody: is there a driver at all?
    drop(Control::open()?);
    run_dir.create()?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(|error| Failure::io("cannot watch for signals", &error))?;
    let size_bytes = disk.size();
    tracing::debug!(?origin, size_bytes, ?options, "making a device");
    let device = builder(disk, options)?.start()?;
    let stopper = device.stopper();
    match describe(&device, run_dir, &origin, size_bytes, options) {
        Ok((info, description)) => {
            let device = SharedDevice(Arc::new(RwLock::new(Some(device))));
            let serving = Serving {
                device,
                info,
                description,
                run_dir: run_dir.clone(),
                notes: origin.notes,
                signals,
                stopper,
            };
            serving.offer_metrics();
            Ok(serving)
        }
        Err(failure) => {
            if let Err(error) = device.stop() {
                tracing::error!(?error, "cannot remove the device again");
            }
            Err(failure)
        }
    }
}

fn builder<B: Backend>(disk: B, options: &DeviceOptions) -> Outcome<Builder<B>> {
    let mut builder = Device::builder_of(disk)
        .queues(options.queues)
        .depth(options.depth)
        .threads_per_queue(options.threads_per_queue)
        .batch_io(options.batch_io);
    if let Some(path) = options.data_path {
        builder = builder.data_path(path.into());
    }
    if let Some(id) = options.id {
        builder = builder.id(DeviceId(id));
    }
    if options.stuck_after_ms > 0 {
        builder = builder.stuck_after(Duration::from_millis(options.stuck_after_ms));
    }
    for path in &options.shared_memory {
        builder = builder.share(shared_memory(path)?);
    }
    Ok(builder)
}

/// Maps a file that clients map too.
fn shared_memory(path: &Path) -> Outcome<SharedMemory> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|error| {
        Failure::io(format!("cannot open {}", path.display()), &error)
            .with_hint("make the file first, with its size: truncate -s 64M /dev/shm/NAME")
    })?;
    SharedMemory::map(file).map_err(|error| {
        let failure = Failure::from(error);
        Failure {
            message: format!("{}: {}", path.display(), failure.message),
            ..failure
        }
    })
}

/// What of the command line became of the device's slots: they are given in this order.
fn shared_files(device: &Device, options: &DeviceOptions) -> Vec<SharedFile> {
    let shared = device.shared();
    let files = options.shared_memory.iter().zip(&shared);
    files
        .map(|(path, (slot, memory))| SharedFile {
            file: absolute(path).unwrap_or_else(|_| path.clone()),
            slot: slot.0,
            bytes: memory.len() as u64,
            sealed: memory.is_sealed(),
        })
        .collect()
}

fn describe(
    device: &Device,
    run_dir: &RunDir,
    origin: &Origin,
    size_bytes: u64,
    options: &DeviceOptions,
) -> Outcome<(DeviceInfo, Description)> {
    let id = device.id();
    ready::wait(id, size_bytes)?;
    let info = device.info()?;
    let requested = device.features().requested;
    let mut description =
        Description::of_this_process(id, origin, size_bytes, requested, options.clone())
            .map_err(|error| Failure::io("cannot find out about this process", &error))?;
    description.data_path = Some(device.data_path().clone());
    description.shared_memory = shared_files(device, options);
    run_dir.write(&description)?;
    let (features, path) = (device.features(), id.block_path());
    tracing::debug!(?features, "features of the driver, asked for, and granted");
    tracing::info!(device = id.0, path = %path.display(), ?info, "ready");
    Ok((info, description))
}

impl Serving {
    /// The device as `oxublk add` reports it.
    #[must_use]
    pub fn added(&self) -> Added {
        let Description {
            id,
            target,
            size_bytes,
            server,
            ..
        } = &self.description;
        Added {
            id: *id,
            block_path: block_path(self.id()),
            char_path: char_path(self.id()),
            target: target.clone(),
            size_bytes: *size_bytes,
            queues: self.info.queues,
            depth: self.info.depth,
            server_pid: server.pid,
            notes: self.notes.clone(),
        }
    }

    /// The device's id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.description.id)
    }

    /// Answers on `ID.sock`. A device without live metrics is still a device.
    fn offer_metrics(&self) {
        let device = self.device.clone();
        let description = self.description.clone();
        let document = move || {
            let metrics = device.with(|device| DeviceMetrics::from(&device.metrics()))?;
            serde_json::to_vec(&Live {
                description: description.clone(),
                metrics,
            })
            .ok()
        };
        let path = self.run_dir.socket_path(self.id());
        if let Err(error) = live::serve(&path, document) {
            tracing::warn!(%error, path = %path.display(), "there are no live metrics");
        }
    }

    /// Serves until SIGINT or SIGTERM, or until somebody deletes the device; then deletes it and
    /// what was written down about it. Returns what it did. `on_usr1` is called at SIGUSR1.
    ///
    /// # Errors
    /// A queue failed, or the device could not be deleted.
    pub fn run(
        self,
        on_usr1: impl Fn(&DeviceInfo, &Metrics) + Send + 'static,
    ) -> Outcome<DeviceMetrics> {
        let id = self.id();
        let Self {
            device,
            info,
            description,
            run_dir,
            mut signals,
            stopper,
            notes: _,
        } = self;
        let shared = device.clone();
        thread::Builder::new()
            .name("oxublk-signals".to_owned())
            .spawn(move || {
                for signal in &mut signals {
                    tracing::debug!(signal, "a signal came");
                    if signal != SIGUSR1 {
                        stopper.stop();
                    } else if let Some(metrics) = shared.with(Device::metrics) {
                        on_usr1(&info, &metrics);
                    }
                }
            })
            .map_err(|error| Failure::io("cannot start a thread", &error))?;
        let served = device.with(|device| (device.wait(), device.metrics()));
        let failed = served.as_ref().is_some_and(|(served, _)| served.is_err());
        tracing::info!(device = id.0, failed, "stopping");
        // While the device is there nobody else can have its id, nor files of that name.
        run_dir.remove(
            id,
            served.as_ref().is_some_and(|(served, _)| served.is_err()),
        );
        let stopped = device.take().map_or(Ok(()), Device::stop);
        if stopped.is_err() && id.block_path().exists() {
            // It is still there, and shall still be known as ours.
            run_dir.write(&description)?;
        }
        tracing::info!(device = id.0, ?stopped, "stopped");
        // This method owns the device, and it is taken only here.
        let Some((served, metrics)) = served else {
            return Ok(DeviceMetrics::default());
        };
        served.and(stopped)?;
        Ok(DeviceMetrics::from(&metrics))
    }

    /// Deletes the device again.
    ///
    /// # Errors
    /// The device could not be deleted.
    pub fn abandon(self) -> Outcome<()> {
        self.run_dir.remove(self.id(), false);
        Ok(self.device.take().map_or(Ok(()), Device::stop)?)
    }
}

#[cfg(test)]
mod tests {
    use oxublk::queue::Blocking;
    use oxublk_targets::Null;

    use super::*;
    use crate::exit::Exit;

    #[test]
    fn without_a_driver_nothing_is_left() {
        if std::path::Path::new(oxublk::sys::CONTROL_PATH).exists() {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(temporary.path().join("run"));
        let options = DeviceOptions::default();
        let origin = Origin::new("null");
        let failure = start(&run_dir, origin, Blocking(Null::new(1 << 20)), &options).unwrap_err();
        assert_eq!(failure.kind, Exit::NoDriver);
        assert!(!run_dir.path().exists());
    }
}
