//! What the guest's first process says to the host over one serial port.
//!
//! One port carries everything in order: what the command printed, byte for byte, and what became of it. The
//! kernel's own messages go to another port, so nothing mixes. A frame is a kind, a length, and as many bytes.

use std::io::{self, Read, Write};

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Userspace is up: from here on a failure is not one of booting.
    Up,
    /// The command wrote to its standard output.
    Output(Vec<u8>),
    /// The command wrote to its standard error.
    Error(Vec<u8>),
    /// The command ended with this code (128 + signal when it was killed).
    Exit(u8),
    /// The command was still running when its time was over.
    TimedOut,
}

/// No frame is longer; a longer one means that the port carries something else.
const MAX_LENGTH: u32 = 1 << 20;

impl Frame {
    /// Writes the frame.
    pub(crate) fn write(&self, port: &mut impl Write) -> io::Result<()> {
        let (kind, content): (u8, &[u8]) = match self {
            Self::Up => (b'U', &[]),
            Self::Output(bytes) => (b'O', bytes),
            Self::Error(bytes) => (b'E', bytes),
            Self::Exit(code) => (b'X', std::slice::from_ref(code)),
            Self::TimedOut => (b'T', &[]),
        };
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut message = vec![kind];
        message.extend(length.to_le_bytes());
        message.extend(content);
        port.write_all(&message)?;
        port.flush()
    }

    /// Reads the next frame; none at the end of the stream.
    pub(crate) fn read(port: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 5];
        match port.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > MAX_LENGTH {
            return Err(io::Error::other(
                "the guest's port carries something that is no frame",
            ));
        }
        let mut content = Vec::new();
        port.take(u64::from(length)).read_to_end(&mut content)?;
        Ok(Some(match (kind, content.as_slice()) {
            (b'U', []) => Self::Up,
            (b'O', _) => Self::Output(content),
            (b'E', _) => Self::Error(content),
            (b'X', [code]) => Self::Exit(*code),
            (b'T', []) => Self::TimedOut,
            _ => {
                return Err(io::Error::other(
                    "the guest's port carries an unknown frame",
                ));
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Frame;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let frames = [
            Frame::Up,
            Frame::Output(vec![0, 13, 10, 255]),
            Frame::Error(Vec::new()),
            Frame::Exit(3),
            Frame::TimedOut,
        ];
        let mut port = Vec::new();
        for frame in &frames {
            frame.write(&mut port).unwrap();
        }
        let mut port = port.as_slice();
        for frame in &frames {
            assert_eq!(Frame::read(&mut port).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(Frame::read(&mut port).unwrap(), None);
    }

    #[test]
    fn a_kernel_message_on_the_port_is_an_error_not_a_huge_frame() {
        assert!(Frame::read(&mut b"[    0.000000] Linux version".as_slice()).is_err());
    }
}
