//! Asynchronous disks on the model: whatever the order of events, and whatever futures do with their operations.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]
#![allow(dead_code, reason = "this file uses only some of what the tests share")]

mod common;

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use common::plan::{SECTORS, config, requests, setup};
use oxublk::queue::{Async, Backend as _, Ended, QueueError, Share};
use oxublk::{AsyncDisk, Buffer, DataPath, DeviceId, Io, QueueId, QueueMetrics};
use oxublk_sim::{After, ClientRequest, Driver, Event, Report, Rng, Setup};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

/// A disk in a file that does its requests by operations, and misbehaves as a seed says.
struct Image {
    file: File,
    rng: Mutex<Rng>,
    /// How many of a hundred requests are played with.
    plays: usize,
}

/// What is done with a request besides doing it.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    Nothing,
    /// The operation is begun, given up, and begun again.
    GivesUp,
    /// The operation is begun, and the future panics.
    Panics,
    /// The future waits for another thread.
    WaitsForAThread,
    /// The ring is asked for a while.
    Sleeps,
}

impl Image {
    fn new(seed: u64, plays: usize) -> Self {
        let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SECTORS * 512).unwrap();
        Self {
            file,
            rng: Mutex::new(Rng::new(!seed)),
            plays,
        }
    }

    fn play(&self) -> Play {
        let mut rng = self.rng.lock().unwrap();
        if rng.below(100) >= self.plays {
            return Play::Nothing;
        }
        let plays = [
            Play::GivesUp,
            Play::Panics,
            Play::WaitsForAThread,
            Play::Sleeps,
        ];
        plays[rng.below(plays.len())]
    }

    async fn play_with(&self, play: Play, io: &Io<'_>, operation: impl Future) {
        match play {
            Play::Nothing => {}
            Play::GivesUp => begin(operation).await,
            Play::Panics => {
                begin(operation).await;
                resume_unwind(Box::new("the disk panics here"));
            }
            Play::WaitsForAThread => another_thread().await,
            Play::Sleeps => io.sleep(Duration::from_micros(3)).await.unwrap(),
        }
    }
}

/// Polls it once and drops it.
async fn begin(operation: impl Future) {
    let mut operation = pin!(operation);
    poll_fn(|context| {
        let _ = operation.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// Waits until another thread has woken us.
async fn another_thread() {
    let shared: Arc<Mutex<(bool, Option<Waker>)>> = Arc::default();
    let theirs = Arc::clone(&shared);
    let mut thread = None;
    poll_fn(|context| {
        let mut state = shared.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(context.waker().clone());
        let theirs = Arc::clone(&theirs);
        thread.get_or_insert_with(|| {
            std::thread::spawn(move || {
                let mut state = theirs.lock().unwrap();
                state.0 = true;
                if let Some(waker) = state.1.take() {
                    waker.wake();
                }
            })
        });
        drop(state);
        // The model's time does not pass while real threads run: it would call this a hang.
        if let Some(thread) = thread.take() {
            thread.join().unwrap();
        }
        Poll::Pending
    })
    .await;
}

impl AsyncDisk for Image {
    fn size(&self) -> u64 {
        SECTORS * 512
    }
    async fn read_at(&self, io: &Io<'_>, buf: &mut Buffer<'_>, offset: u64) -> io::Result<()> {
        let play = self.play();
        let all = (0, buf.len());
        self.play_with(play, io, io.read(&self.file, buf, all, offset))
            .await;
        io.read_exact(&self.file, buf, offset).await
    }
    async fn write_at(&self, io: &Io<'_>, buf: &Buffer<'_>, offset: u64) -> io::Result<()> {
        let play = self.play();
        let all = (0, buf.len());
        self.play_with(play, io, io.write(&self.file, buf, all, offset))
            .await;
        if play == Play::Nothing && buf.bytes()?.iter().all(|byte| *byte == 0xa5) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        io.write_all(&self.file, buf, offset).await
    }
    async fn flush(&self, io: &Io<'_>) -> io::Result<()> {
        io.sync_data(&self.file).await
    }
}

struct Run {
    ended: Result<Ended, QueueError>,
    report: Report,
    in_flight: usize,
    requests: u64,
}

fn run(setup: Setup, plays: usize, requests: &[ClientRequest]) -> Run {
    let (depth, seed) = (setup.depth, setup.seed);
    let driver = Driver::new(setup);
    for request in requests {
        driver.submit(*request).expect("a request that fits");
    }
    let metrics = Arc::new(QueueMetrics::new(QueueId(0), depth));
    let share = Share {
        device: DeviceId(0),
        metrics: Arc::clone(&metrics),
    };
    let disk = Async(Image::new(seed, plays));
    let (ring, ended) = disk.serve(&share, driver.ring(), DataPath::Copy, &mut || ());
    drop(ring);
    let report = metrics.report();
    Run {
        ended,
        report: driver.report(),
        in_flight: report.in_flight.len(),
        requests: report.operations.iter().map(|part| part.requests).sum(),
    }
}

impl Run {
    fn assert_rules_kept(&self, requests: usize) {
        assert_eq!(self.report.violations, [], "{:?}", self.ended);
        assert_eq!(self.report.unfinished, []);
        assert_eq!(self.report.outcomes.len(), requests, "each finished, once");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_request_is_answered_once_with_the_right_bytes(
        mut setup in setup(), plays in 0..60usize, failing_percent in 0..10u8, requests in requests(),
        shared_percent in prop_oneof![Just(0), 1..=100u8],
    ) {
        setup.failing_percent = failing_percent;
        setup.shared_percent = shared_percent;
        let run = run(setup, plays, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        prop_assert_eq!(run.in_flight, 0);
        prop_assert_eq!(run.requests, requests.len() as u64);
        if plays == 0 && failing_percent == 0 {
            let failed = run.report.outcomes.iter().filter(|outcome| {
                let error = outcome.result.err();
                error.is_some_and(|errno| errno != libc::EOPNOTSUPP)
            });
            prop_assert_eq!(failed.count(), 0);
        }
    }

    #[test]
    fn a_device_that_is_stopped_answers_what_has_arrived(
        mut setup in setup(), plays in 0..60usize, requests in requests(), after in 1..100usize,
    ) {
        setup.plan = vec![(After::Finished(after), Event::Stop)];
        let run = run(setup, plays, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
    }

    #[test]
    fn when_the_server_dies_every_request_comes_to_an_end(
        mut setup in setup(), plays in 0..60usize, requests in requests(), after in 0..100usize,
    ) {
        setup.plan = vec![(After::Finished(after), Event::Die)];
        let run = run(setup, plays, &requests);
        prop_assert!(matches!(run.ended, Err(QueueError::Ring(_))), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
    }
}

/// Requests that wait for operations do not hold up others: all are under way at once.
#[test]
fn requests_are_under_way_together() {
    let requests: Vec<_> = (0..64).map(|n| ClientRequest::read(n, 8)).collect();
    let setup = Setup {
        depth: 64,
        spurious_percent: 0,
        sectors: SECTORS,
        ..Setup::default()
    };
    let run = run(setup, 0, &requests);
    assert!(matches!(run.ended, Ok(Ended::Stopped)));
    assert_eq!(
        run.report.enters.submitting, 1,
        "the one that arms: operations go with the waits"
    );
}
