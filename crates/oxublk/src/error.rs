//! One error for the whole library: what happened, to which device, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::id::DeviceId;

/// `Result` with this library's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing went wrong: match on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The ublk driver is not there: no `/dev/ublk-control`.
    NoDriver,
    /// The kernel refused for lack of privilege.
    PermissionDenied,
    /// A value given by the caller cannot be used.
    InvalidInput,
    /// A device with the wanted id exists.
    DeviceExists,
    /// No device has this id.
    NoSuchDevice,
    /// The device is in use, or in a state that does not allow this.
    Busy,
    /// A deadline passed.
    TimedOut,
    /// This kernel does not have what was asked for.
    Unsupported,
    /// A queue thread failed; the device cannot go on.
    QueueFailed,
    /// Any other error of the operating system.
    Io,
}

/// An error with its kind, the device, the driver's command and errno where there was one, and a
/// hint of what to do.
///
/// `Display` is one line without the hint. `Debug`, which a `main` that returns
/// [`Result`] prints, adds the causes and the hint.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    device: Option<DeviceId>,
    command: Option<&'static str>,
    errno: Option<i32>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            device: None,
            command: None,
            errno: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// An error of the operating system while doing what `message` says.
    pub(crate) fn io(message: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, message);
        error.0.errno = source.raw_os_error();
        error.0.source = Some(source.into());
        error
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_device(mut self, device: DeviceId) -> Self {
        self.0.device = Some(device);
        self
    }

    #[must_use]
    pub(crate) fn with_command(mut self, command: &'static str, errno: Option<i32>) -> Self {
        self.0.command = Some(command);
        self.0.errno = errno;
        self
    }

    /// What sort of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The device that it happened to.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.0.device
    }

    /// The driver's command that failed, by the kernel's name (`ADD_DEV`, `START_DEV`, …).
    #[must_use]
    pub fn command(&self) -> Option<&'static str> {
        self.0.command
    }

    /// The errno, as a positive number, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }
}

/// An errno for people: `errno 19, No such device`.
pub(crate) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let name = text.split(" (os error").next().unwrap_or_default();
    format!("errno {errno}, {name}")
}

/// For a `main` that makes its disk before it serves it.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let message = error.to_string();
        let mut wrapped = Self::io(message, error);
        // The message says it all: a chain would say it twice.
        wrapped.0.source = None;
        wrapped
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        match self.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}
