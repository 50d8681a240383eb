//! What a host is made of.

use crate::kernel::Kernel;
use crate::rng::Rng;

use super::fault::Fault;

/// A device, its server, and what goes wrong. The same plan gives the same history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose rules hold.
    pub kernel: Kernel,
    /// How many queues the device has.
    pub queues: u16,
    /// How many tags each has.
    pub depth: u16,
    /// Whether the rings defer task work.
    pub deferred: bool,
    /// Decides everything else.
    pub seed: u64,
    /// What goes wrong; nothing when the server is healthy.
    pub fault: Option<Fault>,
    /// After so many answers of its queue, as soon as there is an occasion.
    pub after: usize,
}

impl Plan {
    /// The nearest plan in which its fault can happen and is one.
    #[must_use]
    pub fn suited(mut self) -> Self {
        let Some(fault) = self.fault else {
            return self;
        };
        match fault {
            Fault::QueueNeverFetched
            | Fault::DescriptorsOfQueueZero
            | Fault::AnswersAnotherQueue => {
                self.queues = self.queues.max(2);
                self.depth = self.depth.max(2);
            }
            Fault::FetchesLinked
            | Fault::FetchesDrained
            | Fault::TagsNeverFetched
            | Fault::Overflows => self.depth = self.depth.max(3),
            Fault::AnswersAnotherTag | Fault::AnswersWithFetch => self.depth = self.depth.max(2),
            Fault::NeverEnters => self.deferred = true,
            Fault::FetchedByTwo => {
                self.kernel = Kernel::V6_12;
                self.depth = self.depth.max(2);
            }
            Fault::ResultsInSectors | Fault::ResultsZero if self.kernel == Kernel::V7_3 => {
                self.kernel = Kernel::V6_12;
            }
            _ => {}
        }
        // A ring that defers has one owner: no other thread can enter it, and what overflows is fetched by its wait.
        if matches!(
            fault,
            Fault::AnswersFromAnotherThread
                | Fault::Overflows
                | Fault::FetchedByTwo
                | Fault::PollerAsleep
        ) {
            self.deferred = false;
        }
        self
    }
}

/// How this server does what servers do differently. All are healthy.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    /// Entries of a ring's submission queue, and of its completion queue.
    pub(crate) entries: (u32, u32),
    /// Submissions of 128 bytes.
    pub(crate) wide: bool,
    /// Opcodes without the type byte.
    pub(crate) legacy: bool,
    /// The device as a registered file.
    pub(crate) fixed_file: bool,
    /// A value of its own for each command, or one for all commands of a tag.
    pub(crate) unique: bool,
    /// How long a step of the server takes at most, in nanoseconds.
    pub(crate) step_ns: u64,
    /// Sectors of the largest request.
    pub(crate) sectors: u32,
    /// Whether a ring that does not defer is nevertheless for one thread.
    pub(crate) single_issuer: bool,
}

impl Style {
    pub(crate) fn of(plan: &Plan, rng: &mut Rng) -> Self {
        let depth = u32::from(plan.depth).next_power_of_two().max(2);
        let fault = plan.fault;
        // Fewer entries than tags: the server fetches in portions.
        let entries = match rng.below(4) {
            0 if !fault.is_some_and(Self::needs_room) => (depth / 2).max(2),
            1 => depth * 2,
            _ => depth,
        };
        let completions = match fault {
            Some(Fault::Overflows) => (depth / 2).max(2),
            _ => (depth * 2).max(entries * 2),
        };
        let owned = matches!(fault, Some(Fault::AnswersIntoOwnedRing));
        let foreign = matches!(
            fault,
            Some(Fault::AnswersFromAnotherThread | Fault::FetchedByTwo)
        );
        Self {
            entries: (entries, completions),
            wide: rng.below(6) == 0 || fault == Some(Fault::PayloadBehind),
            legacy: rng.below(4) == 0 && fault != Some(Fault::WrongOpcode),
            fixed_file: rng.below(2) == 0,
            unique: rng.below(2) == 0,
            step_ns: [2_000, 50_000, 1_000_000][rng.below(3)],
            sectors: [1, 8, 16][rng.below(3)],
            single_issuer: plan.deferred || owned || (rng.below(2) == 0 && !foreign),
        }
    }

    /// Faults that are told by every tag's last command: all of them must be in the ring's memory.
    const fn needs_room(fault: Fault) -> bool {
        matches!(
            fault,
            Fault::AnswersNotSubmitted
                | Fault::AnswersIntoOwnedRing
                | Fault::FetchesNotSubmitted
                | Fault::PollerAsleep
                | Fault::AsksForSilence
                | Fault::AnswersFromAnotherThread
                | Fault::AnswersFromAnotherRing
                | Fault::AnswersWithoutAddress
        ) || fault.is_misdirected()
            || fault.comes_back()
    }
}
