//! Where `tracing` events go: to stderr, which for a server in the background is its log file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The environment variable that says what is logged: `debug`, `oxublk=debug`, …
pub const LOG_VARIABLE: &str = "OXUBLK_LOG";

/// A log file that has grown to this is started over.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// The log of this process.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Whether stderr is a log file of ours, which may be cut.
    is_file: Arc<AtomicBool>,
}

impl Log {
    /// Logs to stderr from now on, what `$OXUBLK_LOG` says or else what is at least `level`.
    #[must_use]
    pub fn init(level: LevelFilter) -> Self {
        let log = Self::default();
        let filter = EnvFilter::builder()
            .with_default_directive(level.into())
            .with_env_var(LOG_VARIABLE)
            .from_env_lossy();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(log.clone())
            .with_ansi(false);
        // There is one log in a process; a second would not be heard, and that is no harm.
        let _ = subscriber.try_init();
        log
    }

    /// Makes the file at `path`, new and empty, stdout and stderr of this process.
    ///
    /// # Errors
    /// The file cannot be made; nothing has changed then.
    pub fn redirect_to(&self, path: &Path) -> io::Result<()> {
        // A new file: an earlier server may still write to the old one.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        self.redirect(&file)?;
        self.is_file.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes stdout and stderr of this process silent.
    ///
    /// # Errors
    /// There is no `/dev/null`.
    pub fn silence(&self) -> io::Result<()> {
        self.redirect(&OpenOptions::new().write(true).open("/dev/null")?)
    }

    fn redirect(&self, file: &File) -> io::Result<()> {
        rustix::stdio::dup2_stdout(file)?;
        rustix::stdio::dup2_stderr(file)?;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter(self)
    }
}

/// Writes to stderr, and starts a log file over that has grown too large.
#[derive(Debug)]
pub struct LogWriter<'a>(&'a Log);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.is_file.load(Ordering::Relaxed) {
            let log = rustix::stdio::stderr();
            let size = rustix::fs::fstat(log)?.st_size;
            if u64::try_from(size).is_ok_and(|size| size > MAX_LOG_BYTES) {
                rustix::fs::ftruncate(log, 0)?;
                io::stderr().write_all(b"The log was full and starts over.\n")?;
            }
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
