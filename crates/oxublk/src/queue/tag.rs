//! The state machine of a queue's tags: pure, no I/O.
//!
//! ```text
//!             fetch              request                answered
//!   Unarmed ────────▶ Armed ───────────────▶ Held ───────────────▶ Armed …
//!                       │ returned without a request
//!                       ▼
//!                     Gone
//! ```
//!
//! A request that was delivered is a [`Held`]: not `Copy`, not `Clone`, made only here and used
//! up by the answer. A request cannot be answered twice, and a tag's buffer cannot be touched
//! while the driver may write to it.

use std::ops::Range;

use crate::id::Tag;

/// A request that is with the server: the right to touch the tag's buffer, and the duty to answer.
#[derive(Debug)]
#[must_use = "a request that is not answered hangs its client for ever"]
pub struct Held(Tag);

impl Held {
    /// The tag of the request.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.0
    }
}

/// Where a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not yet given to the driver.
    Unarmed,
    /// With the driver, waiting for a request.
    Armed,
    /// With the server: a request waits for its answer.
    Held,
    /// The driver gave it back for good: the device is stopping.
    Gone,
}

/// What a completion meant.
#[derive(Debug)]
pub enum Outcome {
    /// A request arrived.
    Request(Held),
    /// The driver gave the tag back without a request; nothing more comes on it.
    Gone,
    /// The driver refused the command: this is a defect, and the request, if any, still waits.
    Refused {
        /// The driver's errno, positive.
        errno: i32,
    },
    /// A completion for a tag that was not with the driver, or with a result that has no meaning.
    Unexpected,
}

/// The tags of one queue, or those of them that one thread serves.
#[derive(Debug)]
pub struct Tags {
    /// Of every tag below the last that is served.
    states: Box<[State]>,
    served: Range<u16>,
    gone: usize,
    /// The driver takes tags no more.
    ended: bool,
}

impl Tags {
    /// These tags, none of them armed.
    #[must_use]
    pub fn new(served: Range<u16>) -> Self {
        Self {
            states: vec![State::Unarmed; usize::from(served.end)].into(),
            served,
            gone: 0,
            ended: false,
        }
    }

    /// Every tag, in order.
    pub fn all(&self) -> impl Iterator<Item = Tag> + use<> {
        self.served.clone().map(Tag)
    }

    /// The tag's first fetch goes to the driver.
    pub fn fetch(&mut self, tag: Tag) {
        if let Some(state) = self.states.get_mut(tag.index()) {
            *state = State::Armed;
        }
    }

    /// The answer of `held` goes to the driver, which arms the tag again. Returns the tag.
    pub fn answer(&mut self, held: Held) -> Tag {
        if let Some(state) = self.states.get_mut(held.0.index()) {
            *state = State::Armed;
            if self.ended {
                *state = State::Gone;
                self.gone += 1;
            }
        }
        held.0
    }

    /// The driver gave back every armed tag, and takes none any more. Returns those that it gave back.
    pub fn end(&mut self) -> Vec<Tag> {
        self.ended = true;
        let back: Vec<Tag> = self
            .all()
            .filter(|tag| self.states.get(tag.index()) == Some(&State::Armed))
            .collect();
        for tag in &back {
            if let Some(state) = self.states.get_mut(tag.index()) {
                *state = State::Gone;
            }
        }
        self.gone += back.len();
        back
    }

    /// A command of `tag` completed with `result`.
    pub fn complete(&mut self, tag: Tag, result: i32) -> Outcome {
        let Some(state) = self.states.get_mut(tag.index()) else {
            return Outcome::Unexpected;
        };
        if *state != State::Armed {
            return Outcome::Unexpected;
        }
        match result {
            oxublk_sys::IO_RES_OK => {
                *state = State::Held;
                Outcome::Request(Held(tag))
            }
            oxublk_sys::IO_RES_ABORT => {
                *state = State::Gone;
                self.gone += 1;
                Outcome::Gone
            }
            errno if errno < 0 => Outcome::Refused {
                errno: errno.saturating_neg(),
            },
            _ => Outcome::Unexpected,
        }
    }

    /// Whether the driver gave back every tag: the queue has ended.
    #[must_use]
    pub fn all_gone(&self) -> bool {
        self.gone == self.served.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_held_until_answered_then_the_tag_is_armed_again() {
        let mut tags = Tags::new(0..2);
        tags.fetch(Tag(1));
        let Outcome::Request(held) = tags.complete(Tag(1), 0) else {
            panic!("no request")
        };
        assert_eq!(held.tag(), Tag(1));
        assert!(
            matches!(tags.complete(Tag(1), 0), Outcome::Unexpected),
            "held, not armed"
        );
        assert_eq!(tags.answer(held), Tag(1));
        assert!(matches!(tags.complete(Tag(1), 0), Outcome::Request(_)));
    }

    #[test]
    fn the_queue_ends_when_every_tag_came_back() {
        let mut tags = Tags::new(0..2);
        for tag in tags.all() {
            tags.fetch(tag);
        }
        assert!(matches!(tags.complete(Tag(0), -19), Outcome::Gone));
        assert!(!tags.all_gone());
        assert!(matches!(tags.complete(Tag(1), -19), Outcome::Gone));
        assert!(tags.all_gone());
    }

    #[test]
    fn when_the_driver_takes_none_any_more_a_held_tag_is_gone_with_its_answer() {
        let mut tags = Tags::new(0..3);
        for tag in tags.all() {
            tags.fetch(tag);
        }
        let Outcome::Request(held) = tags.complete(Tag(1), 0) else {
            panic!("no request")
        };
        assert_eq!(tags.end(), [Tag(0), Tag(2)]);
        assert!(!tags.all_gone());
        tags.answer(held);
        assert!(tags.all_gone());
    }

    #[test]
    fn completions_that_make_no_sense_are_told_apart() {
        let mut tags = Tags::new(0..1);
        assert!(
            matches!(tags.complete(Tag(0), 0), Outcome::Unexpected),
            "never fetched"
        );
        assert!(
            matches!(tags.complete(Tag(7), 0), Outcome::Unexpected),
            "no such tag"
        );
        tags.fetch(Tag(0));
        assert!(matches!(
            tags.complete(Tag(0), -22),
            Outcome::Refused { errno: 22 }
        ));
        assert!(matches!(tags.complete(Tag(0), 5), Outcome::Unexpected));
    }
}
