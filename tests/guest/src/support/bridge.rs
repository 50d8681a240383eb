//! A disk whose answers come from another thread, as those of another runtime do.

use oxublk::{AsyncDisk, Buffer, Io};
use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

/// What the thread is asked: the bytes from this offset on, so many.
type Question = (u64, usize, Arc<Mutex<Answer>>);

#[derive(Debug, Default)]
struct Answer {
    bytes: Option<Vec<u8>>,
    waker: Option<Waker>,
}

/// Every eight bytes are their own offset.
#[derive(Debug)]
pub(crate) struct Bridge(Mutex<Sender<Question>>);

impl Default for Bridge {
    fn default() -> Self {
        let (sender, questions) = channel::<Question>();
        thread::spawn(move || {
            for (offset, length, answer) in questions {
                let words = (offset..).step_by(8).take(length / 8);
                let bytes = words.flat_map(u64::to_le_bytes).collect();
                let mut answer = lock(&answer);
                answer.bytes = Some(bytes);
                if let Some(waker) = answer.waker.take() {
                    waker.wake();
                }
            }
        });
        Self(Mutex::new(sender))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncDisk for Bridge {
    fn size(&self) -> u64 {
        64 << 20
    }

    async fn read_at(&self, _io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        let answer: Arc<Mutex<Answer>> = Arc::default();
        let question = (offset, buf.len(), Arc::clone(&answer));
        lock(&self.0).send(question).map_err(io::Error::other)?;
        let bytes = poll_fn(|context| {
            let mut answer = lock(&answer);
            match answer.bytes.take() {
                Some(bytes) => Poll::Ready(bytes),
                None => {
                    answer.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        buf.bytes_mut()?.copy_from_slice(&bytes);
        Ok(())
    }

    async fn write_at(&self, _io: &Io<'_>, _buf: &Buffer<'_>, _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
