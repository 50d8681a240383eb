//! The model as a queue's ring.

use std::io;

use oxublk::Tag;
use oxublk::queue::{Completion, Held, Ring};
use oxublk::sys::IoDesc;

use crate::command::Command;
use crate::driver::Driver;
use crate::memory::Memory;
use crate::violation::Violation;

/// The server's end of the model. When it is dropped the server is gone, and the driver fails
/// what it did not answer.
#[derive(Debug)]
pub struct SimRing {
    driver: Driver,
    memory: Memory,
    /// Commands written down and not yet handed to the driver.
    commands: Vec<Command>,
    /// How many fit.
    capacity: usize,
}

impl SimRing {
    pub(crate) fn new(driver: Driver, memory: Memory, depth: u16) -> Self {
        // As the real one: a command for each tag, and one for the wake-up.
        let capacity = (usize::from(depth) + 1).next_power_of_two();
        Self {
            driver,
            memory,
            commands: Vec::with_capacity(capacity),
            capacity,
        }
    }

    fn push(&mut self, command: Command) -> io::Result<()> {
        if self.commands.len() == self.capacity {
            return Err(io::Error::other("a queue's submission ring is full"));
        }
        self.commands.push(command);
        Ok(())
    }
}

impl Ring for SimRing {
    fn fetch(&mut self, tag: Tag) -> io::Result<()> {
        self.push(Command::Fetch(tag))
    }

    fn commit(&mut self, tag: Tag, result: i32) -> io::Result<()> {
        self.push(Command::Commit(tag, result))?;
        self.memory.taken(tag, false);
        Ok(())
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        let mut state = self.driver.lock();
        state.enter(&mut self.commands, &mut self.memory, wait)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.driver.lock().take()?;
        if let Completion::Tag(tag, oxublk::sys::IO_RES_OK) = completion {
            self.memory.taken(tag, true);
        }
        Some(completion)
    }

    fn descriptor(&self, held: &Held) -> IoDesc {
        if !self.memory.is_held(held.tag()) {
            self.driver
                .lock()
                .broke(Violation::TouchedArmed(held.tag()));
        }
        self.memory.descriptor(held.tag())
    }

    fn buffer(&mut self, held: &Held) -> &mut [u8] {
        if !self.memory.is_held(held.tag()) {
            self.driver
                .lock()
                .broke(Violation::TouchedArmed(held.tag()));
        }
        self.memory.buffer(held.tag())
    }

    fn now_ns(&self) -> u64 {
        self.driver.clock().now_ns()
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        self.driver.lock().server_died();
    }
}
