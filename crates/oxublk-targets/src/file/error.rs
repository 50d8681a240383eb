//! Why a file cannot be served.

use std::fmt;
use std::io;

/// What kind of reason, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// What was asked for cannot be: no such file, a directory, a size or block size that does not fit.
    Unusable,
    /// Somebody else has it.
    Busy,
    /// Not permitted.
    NotPermitted,
    /// The operating system failed.
    Failed,
}

/// Why a file cannot be served, and what to do.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<io::Error>,
}

impl OpenError {
    pub(super) fn new(kind: OpenErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    pub(super) fn unusable(message: impl Into<String>) -> Self {
        Self::new(OpenErrorKind::Unusable, message)
    }

    /// An error of the operating system, by its kind.
    pub(super) fn io(message: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => OpenErrorKind::NotPermitted,
            io::ErrorKind::ResourceBusy => OpenErrorKind::Busy,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenErrorKind::Unusable,
            _ => OpenErrorKind::Failed,
        };
        Self {
            source: Some(source),
            ..Self::new(kind, message)
        }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What kind of reason.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
