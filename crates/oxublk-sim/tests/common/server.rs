//! A server that does only what a test tells it to.

use oxublk::queue::{Completion, Held, Outcome, Ring, Tags};
use oxublk_sim::{ClientRequest, Driver, Report, Setup, SimRing};

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) driver: Driver,
    pub(crate) ring: SimRing,
    tags: Tags,
}

impl Server {
    /// Nothing armed.
    pub(crate) fn new(setup: Setup) -> Self {
        let depth = setup.depth;
        let driver = Driver::new(setup);
        Self {
            ring: driver.ring(),
            driver,
            tags: Tags::new(0..depth),
        }
    }

    /// Every tag armed.
    pub(crate) fn armed(setup: Setup) -> Self {
        let mut server = Self::new(setup);
        for tag in server.tags.all() {
            server.ring.fetch(tag).unwrap();
            server.tags.fetch(tag);
        }
        server.ring.enter(false).unwrap();
        server
    }

    pub(crate) fn submit(&self, request: ClientRequest) {
        self.driver.submit(request).unwrap();
    }

    /// Waits for the next request.
    pub(crate) fn next(&mut self) -> Held {
        loop {
            match self.ring.next_completion() {
                None => self.ring.enter(true).unwrap(),
                Some(Completion::Tag(tag, result)) => match self.tags.complete(tag, result) {
                    Outcome::Request(held) => return held,
                    other => panic!("{other:?}"),
                },
                Some(other) => panic!("nobody asked for {other:?}"),
            }
        }
    }

    /// Writes the answer down; the next system call hands it over.
    pub(crate) fn answer(&mut self, held: Held, result: i32) {
        let tag = self.tags.answer(held);
        self.ring.commit(tag, result).unwrap();
    }

    /// Hands over what is written down and goes.
    pub(crate) fn end(mut self) -> Report {
        self.ring.enter(false).unwrap();
        let driver = self.driver.clone();
        drop(self);
        driver.report()
    }
}
