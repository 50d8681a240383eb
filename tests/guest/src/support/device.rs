//! A device made with `oxublk add`.

use super::process::{Finished, ok, run};
use super::wait::{SOON, wait_until};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// A device that a server in the background serves. Dropped, it is deleted by force.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) id: u32,
    pub(crate) server: u32,
    pub(crate) queues: u64,
    deleted: bool,
}

impl Added {
    /// Runs `oxublk add` with these words.
    pub(crate) fn new(line: &str) -> Result<Self> {
        let document = ok(&format!("oxublk add {line} --json"))?.json()?;
        let number = |name: &str| {
            document[name]
                .as_u64()
                .with_context(|| format!("no {name} in {document}"))
        };
        let added = Self {
            id: u32::try_from(number("id")?)?,
            server: u32::try_from(number("server_pid")?)?,
            queues: number("queues")?,
            deleted: false,
        };
        let path = document["block_path"].as_str().unwrap_or_default();
        ensure!(path == added.block(), "{document}");
        Ok(added)
    }

    /// `/dev/ublkbN`.
    pub(crate) fn block(&self) -> String {
        block(self.id)
    }

    /// The disk's name, `ublkbN`.
    pub(crate) fn name(&self) -> String {
        format!("ublkb{}", self.id)
    }

    /// A file of the disk in `/sys/block`, without its newline.
    pub(crate) fn sys(&self, file: &str) -> Result<String> {
        let path = format!("/sys/block/{}/{file}", self.name());
        let text = fs::read_to_string(&path).with_context(|| path)?;
        Ok(text.trim_end().to_owned())
    }

    /// `oxublk info --json`.
    pub(crate) fn info(&self) -> Result<serde_json::Value> {
        ok(&format!("oxublk info {} --json", self.id))?.json()
    }

    /// Runs `oxublk del`, whatever comes of it.
    pub(crate) fn try_delete(&self, options: &[&str]) -> Result<Finished> {
        let id = self.id.to_string();
        run("oxublk", &[&["del", &id], options].concat())
    }

    /// Deletes it, which must leave nothing.
    pub(crate) fn delete(mut self) -> Result<()> {
        self.try_delete(&[])?.success()?;
        self.deleted = true;
        gone(self.id)?;
        ended(self.server)
    }

    /// Says that it is gone already, and checks that.
    pub(crate) fn check_gone(mut self) -> Result<()> {
        self.deleted = true;
        gone(self.id)
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        if !self.deleted {
            // What that leaves behind is found by the search for leftovers.
            let _ = self.try_delete(&["--force"]);
        }
    }
}

/// `/dev/ublkbN`.
pub(crate) fn block(id: u32) -> String {
    format!("/dev/ublkb{id}")
}

/// Checks that nothing of a device is there: nodes, entries of the kernel, files of the server.
pub(crate) fn gone(id: u32) -> Result<()> {
    let left: Vec<PathBuf> = [
        format!("/dev/ublkb{id}"),
        format!("/dev/ublkc{id}"),
        format!("/sys/block/ublkb{id}"),
        format!("/sys/class/ublk-char/ublkc{id}"),
        format!("/run/oxublk/{id}.json"),
        format!("/run/oxublk/{id}.sock"),
        format!("/run/oxublk/{id}.log"),
    ]
    .iter()
    .map(PathBuf::from)
    .filter(|path| path.symlink_metadata().is_ok())
    .collect();
    ensure!(left.is_empty(), "device {id} is gone, but left {left:?}");
    Ok(())
}

/// Waits until the kernel has a request of this disk under way.
pub(crate) fn in_flight(id: u32) -> Result<()> {
    let path = format!("/sys/block/ublkb{id}/inflight");
    wait_until("a request is under way", SOON, || {
        let counts = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let some = counts.split_ascii_whitespace().any(|count| count != "0");
        some.then_some(()).ok_or(counts)
    })
}

/// Waits until a process has ended, with all its threads: the first may be dead before the others.
pub(crate) fn ended(pid: u32) -> Result<()> {
    wait_until(format!("process {pid} has ended"), SOON, || {
        let threads = super::procfs::threads(pid);
        let running = threads.iter().find(|thread| thread.runs());
        running.map_or(Ok(()), |task| Err(task.to_string()))
    })
}

/// A file system that is mounted here. Dropped, it is unmounted.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) place: PathBuf,
    mounted: bool,
}

impl Mounted {
    pub(crate) fn new(device: &str, place: &str) -> Result<Self> {
        fs::create_dir_all(place)?;
        run("mount", &[device, place])?.success()?;
        Ok(Self {
            place: place.into(),
            mounted: true,
        })
    }

    /// One that was mounted by other means.
    pub(crate) fn already(place: &str) -> Self {
        Self {
            place: place.into(),
            mounted: true,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    /// Unmounts it, which must succeed.
    pub(crate) fn unmount(mut self) -> Result<()> {
        run("umount", &[&self.place])?.success()?;
        self.mounted = false;
        Ok(fs::remove_dir(&self.place)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run("umount", &["-l".as_ref(), self.place.as_os_str()]);
            let _ = fs::remove_dir(&self.place);
        }
    }
}
