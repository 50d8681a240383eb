//! How a command ends: its exit code, and what it says when it fails.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitCode;

use oxublk::ErrorKind;
use serde::{Deserialize, Serialize};

/// The exit codes of both programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Failed for a reason that has no code of its own.
    Failure = 1,
    /// The command line, or a value on it, cannot be used.
    Usage = 2,
    /// Somebody has the device open, or its state does not allow this.
    Busy = 3,
    /// There is no such device.
    NoSuchDevice = 4,
    /// The driver is not loaded, or this kernel lacks what was asked for.
    NoDriver = 5,
    /// Not permitted.
    NoPermission = 6,
    /// A device with this id exists already.
    IdTaken = 7,
    /// `doctor`, `trace`: something is wrong or slow, nothing is stuck.
    Warnings = 8,
    /// `doctor`, `rescue`, `trace`: a request, a device or a command is stuck.
    Stuck = 9,
}

/// The exit codes as the help and the manual pages show them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason
  2  the command line, or a value on it, cannot be used
  3  somebody has the device open, or its state does not allow this
  4  no such device
  5  the ublk driver is not loaded, or this kernel lacks what was asked for
  6  not permitted
  7  a device with this id exists already
  8  doctor, trace: something is wrong or slow, nothing is stuck
  9  doctor, rescue, trace: a request, a device or a command is stuck";

impl Exit {
    /// The exit code as a number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NoDriver | ErrorKind::Unsupported => Self::NoDriver,
            ErrorKind::PermissionDenied => Self::NoPermission,
            ErrorKind::InvalidInput => Self::Usage,
            ErrorKind::DeviceExists => Self::IdTaken,
            ErrorKind::NoSuchDevice => Self::NoSuchDevice,
            ErrorKind::Busy => Self::Busy,
            _ => Self::Failure,
        }
    }
}

/// `Result` of a command.
pub type Outcome<T> = Result<T, Failure>;

/// Why a command failed. Prints as `message: cause: cause` and a line `hint: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code's name.
    pub kind: Exit,
    /// What was attempted and failed, in one line.
    pub message: String,
    /// Why, from the nearest cause to the first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without causes or hint.
    pub fn new(kind: Exit, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// An error of the operating system while doing what `message` says.
    pub fn io(message: impl Into<String>, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Failure,
        };
        Self {
            causes: causes(error),
            ..Self::new(kind, message)
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `error` and what caused it. An error that only repeats its cause is left out.
fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes.dedup();
    causes
}

impl From<oxublk::Error> for Failure {
    fn from(error: oxublk::Error) -> Self {
        Self {
            kind: error.kind().into(),
            message: error.to_string(),
            causes: error.source().map(causes).unwrap_or_default(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl StdError for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help() {
        let codes: Vec<String> = EXIT_CODES
            .lines()
            .skip(1)
            .map(|line| {
                line.trim_start()
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect()
            })
            .collect();
        assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        assert_eq!(Exit::Stuck as u8, 9);
    }

    #[test]
    fn kinds_of_the_library_have_codes() {
        assert_eq!(Exit::from(ErrorKind::NoDriver), Exit::NoDriver);
        assert_eq!(Exit::from(ErrorKind::InvalidInput), Exit::Usage);
        assert_eq!(Exit::from(ErrorKind::TimedOut), Exit::Failure);
    }

    #[test]
    fn a_failure_prints_its_causes_and_hint() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let failure = Failure::io("cannot open x", &error).with_hint("be root");
        assert_eq!(failure.kind, Exit::NoPermission);
        assert_eq!(
            failure.to_string(),
            "cannot open x: permission denied\nhint: be root"
        );
    }

    #[test]
    fn a_failure_survives_the_way_to_the_parent() {
        let failure = Failure::new(Exit::IdTaken, "id 3 is taken");
        let json = serde_json::to_string(&failure).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"id_taken","message":"id 3 is taken","causes":[],"hint":null}"#
        );
        assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
    }
}
