//! Live metrics: the server answers each connection to its socket with one document.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::report::Live;

/// How long a client may take to read, and a server to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A device with 4096 requests in flight on each of 64 queues stays below this.
const MAX_BYTES: u64 = 64 << 20;

/// Answers connections to `path` with what `document` returns, until the process ends or
/// `document` has no more to say.
///
/// # Errors
/// The socket cannot be made. A socket that an earlier server left is replaced.
pub fn serve(
    path: &Path,
    mut document: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    thread::Builder::new()
        .name("oxublk-live".to_owned())
        .spawn(move || {
            for client in listener.incoming() {
                match client {
                    Ok(client) => {
                        let Some(document) = document() else { return };
                        if let Err(error) = answer(client, &document) {
                            tracing::debug!(%error, "a client did not take its metrics");
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%error, "live metrics end");
                        return;
                    }
                }
            }
        })?;
    Ok(())
}

fn answer(mut client: UnixStream, document: &[u8]) -> io::Result<()> {
    client.set_write_timeout(Some(TIMEOUT))?;
    client.write_all(document)
}

/// Asks the server at `path`. None if there is no server.
///
/// # Errors
/// A server is there, but does not answer in time, or with something else.
pub fn ask(path: &Path) -> io::Result<Option<Live>> {
    let address = SocketAddrUnix::new(path)?;
    // A blocking connect waits without limit when a server that is stopped has a full backlog.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if let Err(errno) = connect(&socket, &address) {
        let error = io::Error::from(errno);
        return match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        };
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    let text = read_until(stream, Instant::now() + TIMEOUT)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Everything until the end, within the deadline.
fn read_until(mut stream: UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || text.len() as u64 > MAX_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(text),
            Ok(length) => text.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.sock");
        assert!(ask(&path).unwrap().is_none());
        drop(UnixListener::bind(&path).unwrap());
        assert!(
            ask(&path).unwrap().is_none(),
            "a socket that was left behind"
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(ask(&path).unwrap().is_none(), "a file that is no socket");
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let began = Instant::now();
        assert_eq!(ask(&path).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= TIMEOUT);
    }

    #[test]
    fn a_server_that_talks_nonsense_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.sock");
        fs::write(&path, "left by an earlier server").unwrap();
        serve(&path, || Some(b"nonsense".to_vec())).unwrap();
        assert_eq!(ask(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(ask(&path).is_err(), "and again");
    }
}
