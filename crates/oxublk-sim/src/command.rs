//! What the driver does with a server's commands.

use libc::{EBUSY, EINVAL, EIO, ENODEV};
use oxublk::Tag;
use oxublk::queue::{Op, OpId};
use oxublk::sys::{SECTOR_SIZE, op};

use crate::client::RequestId;
use crate::kernel::client_errno;
use crate::memory::Memory;
use crate::state::{State, TagState};
use crate::violation::Violation;

/// A command of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    Fetch(Tag),
    Commit(Tag, i32),
    Operate(OpId, Op),
}

/// What became of a request that was answered.
enum Verdict {
    Finished(Result<(), i32>),
    /// This many bytes more are done; the rest is delivered again.
    Partly(usize),
}

impl State {
    pub(crate) fn execute(&mut self, command: Command, memory: &mut Memory) {
        match command {
            Command::Fetch(tag) => match self.check_fetch(tag) {
                Ok(()) => self.arm(tag, None, memory),
                // Not a refusal: the tag comes back without a request, for good.
                Err(ENODEV) => self.come_back(tag),
                Err(errno) => {
                    self.refuse(tag, errno, Violation::FetchRefused(tag, errno));
                }
            },
            Command::Operate(id, op) => self.begin(id, op),
            Command::Commit(tag, result) => match self.check_commit(tag) {
                Ok(id) => self.commit(tag, id, result, memory),
                Err(errno) => {
                    self.refuse(tag, errno, Violation::CommitRefused(tag, errno));
                }
            },
        }
    }

    fn check_fetch(&self, tag: Tag) -> Result<(), i32> {
        let kernel = self.setup().kernel;
        let state = self.tag_state(tag).ok_or(EINVAL)?;
        match self.setup().refuse_fetch {
            Some((refused, errno)) if refused == tag => return Err(errno),
            _ => {}
        }
        if self.stopping() {
            return Err(kernel.fetch_after_stop());
        }
        if self.ready() {
            return Err(EBUSY);
        }
        match state {
            TagState::Unarmed => Ok(()),
            _ => Err(kernel.fetch_of_armed_tag()),
        }
    }

    /// The request that a commit of `tag` answers.
    fn check_commit(&self, tag: Tag) -> Result<RequestId, i32> {
        match self.tag_state(tag).ok_or(EINVAL)? {
            TagState::Posted | TagState::Held => self.request_of(tag).ok_or(EBUSY),
            TagState::Unarmed | TagState::Armed | TagState::Gone => Err(EBUSY),
        }
    }

    fn commit(&mut self, tag: Tag, id: RequestId, result: i32, memory: &mut Memory) {
        self.check_idle(tag);
        if self.tag_state(tag) == Some(TagState::Posted) {
            self.broke(Violation::AnsweredUnseen(tag));
        }
        let again = match self.judge(tag, id, result, memory) {
            Verdict::Finished(result) => {
                self.finish(id, result);
                None
            }
            Verdict::Partly(bytes) => {
                self.advance(id, bytes);
                Some(id)
            }
        };
        self.arm(tag, again, memory);
    }

    /// What `result` means for the request, after copying what was read.
    fn judge(&mut self, tag: Tag, id: RequestId, result: i32, memory: &mut Memory) -> Verdict {
        let Ok(answered) = usize::try_from(result) else {
            return Verdict::Finished(Err(client_errno(result.saturating_neg())));
        };
        let (request, done) = self.progress_of(id);
        if !request.has_data() {
            return Verdict::Finished(Ok(()));
        }
        let asked = request.bytes().saturating_sub(done);
        if answered != asked {
            self.broke(Violation::WrongCount {
                tag,
                asked,
                answered,
            });
        }
        if request.op == op::READ {
            self.copy_out(id, done, &memory.take(tag, asked.min(answered)));
        }
        if answered >= asked || (request.op == op::WRITE && self.short_write_is_whole()) {
            return Verdict::Finished(Ok(()));
        }
        // A read that yields nothing has failed. With part of a sector the real driver delivers
        // odd pieces until it comes to the same. Such a write comes again from the sector it came to.
        let part = answered as u64 % SECTOR_SIZE;
        if request.op == op::READ && (part != 0 || answered == 0) {
            return Verdict::Finished(Err(EIO));
        }
        Verdict::Partly(answered - usize::try_from(part).unwrap_or(0))
    }
}
