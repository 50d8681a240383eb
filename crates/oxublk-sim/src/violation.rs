//! The rules that a server can break.

use oxublk::Tag;

use crate::client::RequestId;

/// A rule that the server broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The driver refused a fetch of this tag with this errno.
    FetchRefused(Tag, i32),
    /// The driver refused a commit of this tag with this errno: no request of it was with the
    /// server. A second answer is refused so.
    CommitRefused(Tag, i32),
    /// An answer to a request whose completion the server has not taken from the ring.
    AnsweredUnseen(Tag),
    /// A read or write answered with another number of bytes than was asked for.
    WrongCount {
        /// The request's tag.
        tag: Tag,
        /// What it asked for.
        asked: usize,
        /// What the server said.
        answered: usize,
    },
    /// An answer to a request whose data an operation still uses.
    AnsweredWhileInUse(Tag),
    /// A tag's buffer or descriptor used while no request of it was with the server.
    TouchedArmed(Tag),
    /// A client's read returned bytes that nobody had written there, or that were overwritten
    /// before it began.
    WrongBytes {
        /// The read.
        request: RequestId,
        /// The first such sector.
        sector: u64,
    },
    /// The ring was given up, without a death in the plan, before this request was answered.
    NeverAnswered(RequestId),
    /// The server waits for something that will never come; these requests wait for the server.
    Hang(Vec<RequestId>),
}
