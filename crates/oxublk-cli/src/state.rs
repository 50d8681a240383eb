//! What outlives a command: the files in `/run/oxublk`.
//!
//! | file | what it holds |
//! |---|---|
//! | `ID.json` | the [`Description`] of the device, written by its server |
//! | `ID.sock` | where the server answers with live metrics |
//! | `ID.log` | what the server logged |
//!
//! Nothing here is trusted: a file can be left by a server that was killed, written by another
//! version, or be garbage. Such files are reported as [`Found::Ended`],
//! [`Found::Gone`] or [`Found::Unusable`].

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

use oxublk::{ChosenPath, DeviceId, Features};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::args::DeviceOptions;
use crate::exit::{Failure, Outcome};
use crate::process::Process;

/// The environment variable that names another directory than `/run/oxublk`.
pub const RUN_DIR_VARIABLE: &str = "OXUBLK_RUN_DIR";

/// The format of [`Description`]. Raised when an older `oxublk` would misread a newer file.
const FORMAT: u32 = 1;
/// A description has a few hundred bytes; what is larger is none.
const MAX_BYTES: u64 = 64 << 10;

/// What a device is made of, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The target's name.
    pub target: String,
    /// The file that is served.
    pub path: Option<String>,
    /// How that is read and written.
    pub io: Option<FileIo>,
    /// What people may not expect.
    pub notes: Vec<String>,
}

impl Origin {
    /// A target without a file.
    #[must_use]
    pub fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..Self::default()
        }
    }
}

/// How a file is read and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIo {
    /// Past the page cache.
    pub direct: bool,
    /// Why, in words.
    pub why: String,
}

/// A device as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The format of this document, 1.
    pub format: u32,
    /// The version of oxublk that wrote it.
    pub oxublk_version: String,
    /// The device.
    pub id: u32,
    /// What answers its reads and writes: `null`, `mem`, `file`.
    pub target: String,
    /// The absolute path of the file that is served, if it is one.
    #[serde(default)]
    pub path: Option<String>,
    /// How that file is read and written.
    #[serde(default)]
    pub io: Option<FileIo>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What was asked for on the command line.
    pub options: DeviceOptions,
    /// The driver's features that were asked for, by the kernel's names.
    pub requested_features: Vec<String>,
    /// How requests' data come and go, and why so; null of a version that did not say.
    #[serde(default)]
    pub data_path: Option<ChosenPath>,
    /// The memories that clients share with the server.
    #[serde(default)]
    pub shared_memory: Vec<SharedFile>,
    /// The server.
    #[serde(flatten)]
    pub server: Process,
    /// The inode of `/dev/ublkcN`: another device of this id has another.
    pub node_inode: u64,
    /// When the device was made, in seconds since 1970.
    pub created_unix_seconds: u64,
}

/// Memory that clients share with the server, in [`Description`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// What they map.
    pub file: PathBuf,
    /// The driver's number for it.
    pub slot: u16,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether nobody can shrink it.
    pub sealed: bool,
}

impl Description {
    /// Describes a device that this process serves from now on.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of_this_process(
        id: DeviceId,
        origin: &Origin,
        size_bytes: u64,
        requested: Features,
        options: DeviceOptions,
    ) -> io::Result<Self> {
        Ok(Self {
            format: FORMAT,
            oxublk_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: id.0,
            target: origin.target.clone(),
            path: origin.path.clone(),
            io: origin.io.clone(),
            size_bytes,
            options,
            requested_features: requested
                .iter_names()
                .map(|(name, _)| name.to_owned())
                .collect(),
            data_path: None,
            shared_memory: Vec::new(),
            server: Process::this()?,
            node_inode: node_inode(id).unwrap_or(0),
            created_unix_seconds: unix_seconds(),
        })
    }

    /// Seconds since the device was made.
    #[must_use]
    pub fn age_seconds(&self) -> u64 {
        unix_seconds().saturating_sub(self.created_unix_seconds)
    }
}

/// The inode of `/dev/ublkcN`; none when there is no such device.
fn node_inode(id: DeviceId) -> Option<u64> {
    fs::metadata(id.char_path()).ok().map(|node| node.ino())
}

fn unix_seconds() -> u64 {
    // A clock before 1970 is no reason to fail.
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}

/// What the directory says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: oxublk did not make it.
    Nothing,
    /// It is served by a process that runs.
    Running(Description),
    /// Its server ended without cleaning up, and the device is still there.
    Ended(Description),
    /// The device that it describes is gone; there may be another with this id.
    Gone(Description),
    /// A file that cannot be used, and why.
    Unusable(String),
}

impl Found {
    /// The description of a device that is there.
    #[must_use]
    pub fn description(&self) -> Option<&Description> {
        match self {
            Self::Running(description) | Self::Ended(description) => Some(description),
            Self::Nothing | Self::Gone(_) | Self::Unusable(_) => None,
        }
    }

    fn of(description: Description, node_inode: Option<u64>) -> Self {
        if description.server.is_alive() {
            Self::Running(description)
        } else if node_inode == Some(description.node_inode) {
            Self::Ended(description)
        } else {
            Self::Gone(description)
        }
    }

    /// The server, if it runs.
    #[must_use]
    pub fn server(&self) -> Option<Process> {
        match self {
            Self::Running(description) => Some(description.server),
            _ => None,
        }
    }
}

/// The directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// `$OXUBLK_RUN_DIR`, or `/run/oxublk`.
    #[must_use]
    pub fn from_env() -> Self {
        match env::var_os(RUN_DIR_VARIABLE) {
            // A relative path would change its meaning with the working directory.
            Some(path) if !path.is_empty() => Self::new(path),
            _ => Self::new("/run/oxublk"),
        }
    }

    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self(absolute(&path).unwrap_or(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `ID.json`.
    #[must_use]
    pub fn description_path(&self, id: DeviceId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// `ID.sock`.
    #[must_use]
    pub fn socket_path(&self, id: DeviceId) -> PathBuf {
        self.0.join(format!("{id}.sock"))
    }

    /// `ID.log`.
    #[must_use]
    pub fn log_path(&self, id: DeviceId) -> PathBuf {
        self.0.join(format!("{id}.log"))
    }

    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(&self) -> Outcome<()> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.0);
        made.map_err(|error| {
            Failure::io(
                format!("cannot create the directory {}", self.0.display()),
                &error,
            )
            .with_hint(format!(
                "be root, or set {RUN_DIR_VARIABLE} to a directory of yours"
            ))
        })
    }

    /// Writes `ID.json`, all of it or nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, description: &Description) -> Outcome<()> {
        let path = self.description_path(DeviceId(description.id));
        let temporary = self
            .0
            .join(format!(".{}.{}.tmp", description.id, std::process::id()));
        let written = (|| {
            let mut file = File::create(&temporary)?;
            serde_json::to_writer_pretty(&mut file, description)?;
            file.write_all(b"\n")?;
            fs::rename(&temporary, &path)
        })();
        written.map_err(|error| {
            // What went wrong first is what counts.
            let _ = fs::remove_file(&temporary);
            Failure::io(format!("cannot write {}", path.display()), &error)
        })
    }

    /// What is known about device `id`.
    #[must_use]
    pub fn read(&self, id: DeviceId) -> Found {
        let path = self.description_path(id);
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return Found::Unusable(format!("{}: {error}", path.display())),
        };
        match parse(&text, id) {
            Ok(description) => Found::of(description, node_inode(id)),
            Err(reason) => Found::Unusable(format!("{}: {reason}", path.display())),
        }
    }

    /// The ids of which there are files of any kind.
    ///
    /// # Errors
    /// The directory is there but cannot be read.
    pub fn ids(&self) -> Outcome<BTreeSet<DeviceId>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => {
                return Err(Failure::io(
                    format!("cannot read {}", self.0.display()),
                    &error,
                ));
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| id_of(&name)).collect())
    }

    /// Removes what is there of device `id`. Its log too, unless `keep_log`. False, and a warning
    /// in the log, if something cannot be removed.
    pub fn remove(&self, id: DeviceId, keep_log: bool) -> bool {
        let log = (!keep_log).then(|| self.log_path(id));
        let mut removed = true;
        for path in [self.socket_path(id), self.description_path(id)]
            .into_iter()
            .chain(log)
        {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a file");
                    removed = false;
                }
                _ => {}
            }
        }
        removed
    }
}

/// The id in `ID.json`, `ID.sock` or `ID.log`.
fn id_of(name: &str) -> Option<DeviceId> {
    let (id, suffix) = name.split_once('.')?;
    let id = id.parse().ok().map(DeviceId)?;
    // `007.json` is not a name of ours.
    let ours = ["json", "sock", "log"].contains(&suffix) && name == format!("{id}.{suffix}");
    ours.then_some(id)
}

/// Reads a small regular file; never waits, whatever the path is.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("too large for a description"));
    }
    Ok(text)
}

fn parse(text: &[u8], id: DeviceId) -> Result<Description, String> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let header: Header = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if header.format != FORMAT {
        return Err(format!(
            "format {} is of another version of oxublk",
            header.format
        ));
    }
    let description: Description =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if description.id != id.0 {
        return Err(format!("describes device {}", description.id));
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const ID: DeviceId = DeviceId(3);

    fn run_dir() -> (TempDir, RunDir) {
        let temporary = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(temporary.path().join("run/oxublk"));
        run_dir.create().unwrap();
        (temporary, run_dir)
    }

    fn description() -> Description {
        let options = DeviceOptions::default();
        let origin = Origin::new("mem");
        Description::of_this_process(ID, &origin, 16 << 20, Features::USER_COPY, options).unwrap()
    }

    fn files(run_dir: &RunDir) -> Vec<String> {
        let entries = fs::read_dir(run_dir.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_description_comes_back_as_it_was_written() {
        let (_temporary, run_dir) = run_dir();
        assert_eq!(run_dir.read(ID), Found::Nothing);
        run_dir.write(&description()).unwrap();
        let Found::Running(read) = run_dir.read(ID) else {
            panic!("{:?}", run_dir.read(ID))
        };
        assert_eq!(
            read.created_unix_seconds,
            description()
                .created_unix_seconds
                .min(read.created_unix_seconds)
        );
        assert_eq!(
            (read.id, read.target.as_str(), read.size_bytes),
            (3, "mem", 16 << 20)
        );
        assert_eq!(files(&run_dir), ["3.json"], "no temporary file is left");
        let mode = fs::metadata(run_dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn a_server_that_ended_is_recognised_also_when_its_pid_was_used_again() {
        let (_temporary, run_dir) = run_dir();
        let mut description = description();
        description.server.pid_start_ticks -= 1;
        description.node_inode = 77;
        let ended = Found::Ended(description.clone());
        assert_eq!(Found::of(description.clone(), Some(77)), ended);
        assert_eq!(ended.description(), Some(&description));
        description.server.pid = u32::MAX;
        run_dir.write(&description).unwrap();
        assert_eq!(run_dir.read(ID), Found::Gone(description));
    }

    #[test]
    fn another_device_with_the_id_is_not_the_one_described() {
        let mut description = description();
        description.server.pid_start_ticks -= 1;
        description.node_inode = 77;
        for node in [None, Some(78)] {
            let found = Found::of(description.clone(), node);
            assert_eq!(found, Found::Gone(description.clone()));
            assert_eq!((found.description(), found.server()), (None, None));
        }
    }

    #[test]
    fn garbage_is_unusable_with_a_reason() {
        let (_temporary, run_dir) = run_dir();
        let other_format = r#"{"format": 2, "whatever": true}"#;
        let other_id = serde_json::to_string(&Description {
            id: 4,
            ..description()
        })
        .unwrap();
        let long = " ".repeat(100_000);
        for (text, reason) in [
            ("", "EOF"),
            ("not json", "expected"),
            ("{}", "missing field `format`"),
            (r#"{"format": 1}"#, "missing field"),
            (other_format, "format 2 is of another version"),
            (other_id.as_str(), "describes device 4"),
            (long.as_str(), "too large"),
            ("\u{0}\u{0}", "expected"),
        ] {
            fs::write(run_dir.description_path(ID), text).unwrap();
            let Found::Unusable(said) = run_dir.read(ID) else {
                panic!("{text}")
            };
            assert!(said.contains(reason), "{said} lacks {reason}");
            assert!(said.contains("3.json"), "{said}");
        }
    }

    #[test]
    fn what_is_not_a_file_neither_blocks_nor_breaks() {
        let (_temporary, run_dir) = run_dir();
        let path = run_dir.description_path(ID);
        fs::create_dir(&path).unwrap();
        assert!(matches!(run_dir.read(ID), Found::Unusable(_)));
        fs::remove_dir(&path).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(run_dir.read(ID), Found::Unusable(_)));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(run_dir.read(ID), Found::Unusable(_)));
    }

    #[test]
    fn only_our_names_are_ids() {
        let (_temporary, run_dir) = run_dir();
        for name in [
            "0.json",
            "12.sock",
            "7.log",
            "007.json",
            "x.json",
            "3",
            ".3.99.tmp",
            "3.json~",
        ] {
            fs::write(run_dir.path().join(name), "").unwrap();
        }
        let ids: Vec<u32> = run_dir.ids().unwrap().into_iter().map(|id| id.0).collect();
        assert_eq!(ids, [0, 7, 12]);
        assert!(RunDir::new("/nonexistent/oxublk").ids().unwrap().is_empty());
    }

    #[test]
    fn removing_takes_all_or_leaves_the_log() {
        let (_temporary, run_dir) = run_dir();
        run_dir.write(&description()).unwrap();
        fs::write(run_dir.socket_path(ID), "").unwrap();
        fs::write(run_dir.log_path(ID), "").unwrap();
        assert!(run_dir.remove(ID, true));
        assert_eq!(files(&run_dir), ["3.log"]);
        assert!(run_dir.remove(ID, false));
        assert!(files(&run_dir).is_empty());
        assert!(run_dir.remove(ID, false), "there is nothing to remove");
        fs::create_dir(run_dir.description_path(ID)).unwrap();
        assert!(!run_dir.remove(ID, false));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&text, ID).is_err());
        }
    }
}
