//! The model as a queue's ring.

use std::io;
use std::ptr::NonNull;

use oxublk::Tag;
use oxublk::queue::{Carrier, Completion, Held, Memory as Place, Op, OpId, Ring, SharedPart};
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
        let operation = |command: &&Command| !matches!(command, Command::Operate(..));
        if self.commands.iter().filter(operation).count() == self.capacity {
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

    fn look(&mut self) -> io::Result<()> {
        let mut state = self.driver.lock();
        state.enter(&mut self.commands, &mut self.memory, false)?;
        state.work(&mut self.memory);
        Ok(())
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

    fn carrier(&mut self, held: &Held) -> Carrier<'_> {
        Carrier::Memory(self.buffer(held))
    }

    fn shared(&mut self, held: &Held) -> io::Result<SharedPart> {
        let descriptor = self.descriptor(held);
        self.memory.shared_part(&descriptor)
    }

    fn memory(&mut self, held: &Held) -> io::Result<Place> {
        let buffer = self.buffer(held);
        let length = buffer.len();
        Ok(Place::Mapped {
            start: NonNull::from(buffer).cast(),
            length,
        })
    }

    fn operate(&mut self, id: OpId, op: &Op) -> io::Result<()> {
        // As the real one: what does not fit beside the tags' commands is handed over before.
        self.commands.push(Command::Operate(id, *op));
        Ok(())
    }

    fn nudge(&mut self) -> io::Result<Box<dyn Fn() + Send + Sync>> {
        let driver = self.driver.clone();
        Ok(Box::new(move || driver.lock().nudged()))
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
