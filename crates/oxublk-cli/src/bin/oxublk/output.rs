//! What is printed where: results on stdout, as text or JSON; errors and notes on stderr.

use std::io::{self, Write};

use oxublk_cli::exit::{Failure, Outcome};
use serde::Serialize;
use serde_json::json;

/// How this command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Prints a result: the document as JSON, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        document: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Outcome<()> {
        if self.json {
            let line = serde_json::to_string(document);
            let line = line.map_err(|error| Failure::io("cannot make JSON", &error.into()))?;
            self.raw(format!("{line}\n").as_bytes())
        } else {
            self.raw(text(document).as_bytes())
        }
    }

    /// Prints what is neither text nor JSON. A reader that has enough is no error.
    pub(crate) fn raw(self, bytes: &[u8]) -> Outcome<()> {
        let mut stdout = io::stdout();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::io("cannot write to stdout", &error))
            }
            _ => Ok(()),
        }
    }

    /// Tells people what happens; not in JSON.
    pub(crate) fn progress(self, line: &str) -> Outcome<()> {
        if self.json {
            Ok(())
        } else {
            self.raw(format!("{line}\n").as_bytes())
        }
    }

    /// Tells people what is worth knowing besides. A document has a field for it.
    pub(crate) fn notes(self, notes: &[String]) {
        if !self.json {
            for note in notes {
                to_stderr(&format!("note: {note}\n"));
            }
        }
    }

    /// Tells why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        complain(failure);
        self.failure_document(failure);
    }

    /// The failure for programs.
    pub(crate) fn failure_document(self, failure: &Failure) {
        if self.json {
            let exit_code = failure.kind as u8;
            let Failure {
                kind,
                message,
                causes,
                hint,
            } = failure;
            let error = json!({
                "kind": kind, "exit_code": exit_code,
                "message": message, "causes": causes, "hint": hint,
            });
            // There is nobody left to tell if this fails.
            let _ = self.raw(format!("{}\n", json!({ "error": error })).as_bytes());
        }
    }
}

/// The form of all errors.
pub(crate) fn complain(failure: &Failure) {
    to_stderr(&format!("oxublk: {failure}\n"));
}

/// In one piece, so that what others print does not come between.
fn to_stderr(text: &str) {
    // There is nobody left to tell if this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}
