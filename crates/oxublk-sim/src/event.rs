//! What happens to a queue besides requests.

use std::io;

use libc::EIO;
use oxublk::queue::Completion;

use crate::state::{Slot, State, TagState};
use crate::violation::Violation;

/// After this the block layer looks for requests that nobody answers.
const BLOCK_TIMEOUT_NS: u64 = 30_000_000_000;

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody stops the device. Requests that have arrived are served first; then the armed
    /// tags come back. Requests that have not arrived fail.
    Stop,
    /// Somebody asks the queue to leave.
    Wake,
    /// The server dies: `enter` fails, and the caller is to drop the ring.
    Die,
}

/// When an event happens: in the first `enter` at or after this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Before anything is armed.
    Start,
    /// When this many requests have been finished. It comes earlier when there is nothing else
    /// left to happen.
    Finished(usize),
}

impl State {
    /// The planned event whose moment has come.
    pub(crate) fn due(&mut self) -> Option<Event> {
        let finished = self.outcomes.len();
        let due = self.setup.plan.iter().position(|(after, _)| match after {
            After::Start => true,
            After::Finished(count) => finished >= *count,
        })?;
        Some(self.setup.plan.remove(due).1)
    }

    pub(crate) fn happen(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Stop => {
                self.stopping = true;
                while let Some(id) = self.to_come.pop_front() {
                    self.finish(id, Err(EIO));
                }
                Ok(())
            }
            Event::Wake => {
                self.woken = true;
                self.posted.push_back(Completion::Woken);
                Ok(())
            }
            Event::Die => {
                self.killed = true;
                Err(io::Error::other("the server dies here"))
            }
        }
    }

    /// The server is gone: what it has not answered fails.
    pub(crate) fn server_died(&mut self) {
        self.gone = true;
        let with_server = |slot: &Slot| matches!(slot.state, TagState::Held | TagState::Posted);
        if self.slots.iter().all(with_server) && self.dies_unnoticed() {
            self.clock.advance(BLOCK_TIMEOUT_NS);
        }
        let mut waiting = Vec::new();
        for slot in &mut self.slots {
            let excused = self.killed || (self.woken && slot.state == TagState::Posted);
            if let Some(id) = slot.request.take() {
                if with_server(slot) && !excused {
                    self.violations.push(Violation::NeverAnswered(id));
                }
                waiting.push(id);
            }
            slot.state = TagState::Gone;
        }
        waiting.extend(self.queued.drain(..));
        waiting.extend(self.to_come.drain(..));
        for id in waiting {
            self.finish(id, Err(EIO));
        }
    }

    const fn dies_unnoticed(&self) -> bool {
        self.setup.kernel.death_with_all_tags_held_is_noticed_late()
    }
}
