//! What a server does wrong, or what happens to it.

/// One thing that goes wrong. Each is a kind of mistake that real servers made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    // While the device is made: `START_DEV` waits for every tag.
    /// Some tags are never fetched.
    TagsNeverFetched,
    /// One queue is never fetched.
    QueueNeverFetched,
    /// Nothing is fetched: the server waits for `START_DEV` first.
    StartedFirst,
    /// The opcode's type byte is not the driver's.
    WrongOpcode,
    /// The payload is at byte 64 of submissions of 128 bytes.
    PayloadBehind,
    /// The submission holds a pointer to the payload.
    PayloadByPointer,
    /// Fetches give no buffer.
    FetchesWithoutAddress,
    /// Tags are counted from 1.
    TagsFromOne,
    /// Each fetch is linked to the next.
    FetchesLinked,
    /// Each fetch drains the ring.
    FetchesDrained,
    /// Fetches are written, and nobody enters the kernel.
    FetchesNotSubmitted,
    /// Fetches are written for a polling thread that sleeps.
    PollerAsleep,
    // On the way to the server.
    /// The ring defers, and its owner does something else.
    NeverEnters,
    /// The thread that fetched ends; its process lives.
    ThreadEnds,
    /// The thread sleeps where nothing reaches it, with nothing in hand.
    ThreadUninterruptible,
    /// The thread reads the disk that it serves.
    OwnDevice,
    /// All threads are stopped by a signal.
    Stopped,
    /// All threads are stopped by a debugger.
    Traced,
    /// Buffers are given that are not mapped.
    BufferUnmapped,
    /// Buffers are given that are mapped for reading only.
    BufferReadOnly,
    // In the server.
    /// The thread does not look at its completions.
    NeverReaps,
    /// The completion queue is too small, and what found no room is never asked for.
    Overflows,
    /// Commands ask for no completion.
    AsksForSilence,
    /// The handler waits for a lock.
    HandlerLocked,
    /// The handler runs for ever.
    HandlerSpins,
    /// The handler waits for a file, a socket, a child.
    HandlerBlocked,
    /// The handler sleeps on a timer.
    HandlerOnTimer,
    /// The handler waits for what the server stores on, in state D.
    HandlerInMedium,
    /// A request is dropped.
    Forgets,
    /// The thread ends with a request in hand.
    ThreadEndsInHandler,
    // On the way back.
    /// Answers are written, and nobody gives them to the kernel.
    AnswersNotSubmitted,
    /// Another thread answers, through the same ring.
    AnswersFromAnotherThread,
    /// Another thread answers, through a ring of its own.
    AnswersFromAnotherRing,
    /// Another thread writes answers into a ring that only its owner may enter.
    AnswersIntoOwnedRing,
    /// An answer names a tag that has no request.
    AnswersAnotherTag,
    /// An answer names another queue.
    AnswersAnotherQueue,
    /// An answer is sent as a fetch.
    AnswersWithFetch,
    /// Answers give no buffer.
    AnswersWithoutAddress,
    /// Results of writes are in sectors. No fault since 7.3, which takes any as whole: the data is lost, and no
    /// request is stuck.
    ResultsInSectors,
    /// Results of writes are 0. As above.
    ResultsZero,
    /// All queues' descriptors are mapped from the place of the first.
    DescriptorsOfQueueZero,
    /// One queue is fetched by two threads. No fault since 6.16.
    FetchedByTwo,
    // Life and death.
    /// The server dies, and nothing recovers the device.
    Dies,
    /// The server dies; requests wait for a new one.
    DiesRecoverably,
    /// The server dies; requests fail until a new one comes. Before 6.13 they wait.
    DiesFailing,
    /// The server dies, and its child has the device open.
    DiesHalf,
    /// A request is dropped, and somebody deletes the device.
    ForgetsAndIsDeleted,
    /// The same, and somebody else adds one.
    ForgetsAndBlocksOthers,
}

/// When a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// While the tags are fetched.
    Arming,
    /// When the thread has nothing in hand.
    Idle,
    /// When the thread has a request in hand.
    Busy,
    /// It is there from the beginning.
    Always,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::TagsNeverFetched,
        Self::QueueNeverFetched,
        Self::StartedFirst,
        Self::WrongOpcode,
        Self::PayloadBehind,
        Self::PayloadByPointer,
        Self::FetchesWithoutAddress,
        Self::TagsFromOne,
        Self::FetchesLinked,
        Self::FetchesDrained,
        Self::FetchesNotSubmitted,
        Self::PollerAsleep,
        Self::NeverEnters,
        Self::ThreadEnds,
        Self::ThreadUninterruptible,
        Self::OwnDevice,
        Self::Stopped,
        Self::Traced,
        Self::BufferUnmapped,
        Self::BufferReadOnly,
        Self::NeverReaps,
        Self::Overflows,
        Self::AsksForSilence,
        Self::HandlerLocked,
        Self::HandlerSpins,
        Self::HandlerBlocked,
        Self::HandlerOnTimer,
        Self::HandlerInMedium,
        Self::Forgets,
        Self::ThreadEndsInHandler,
        Self::AnswersNotSubmitted,
        Self::AnswersFromAnotherThread,
        Self::AnswersFromAnotherRing,
        Self::AnswersIntoOwnedRing,
        Self::AnswersAnotherTag,
        Self::AnswersAnotherQueue,
        Self::AnswersWithFetch,
        Self::AnswersWithoutAddress,
        Self::ResultsInSectors,
        Self::ResultsZero,
        Self::DescriptorsOfQueueZero,
        Self::FetchedByTwo,
        Self::Dies,
        Self::DiesRecoverably,
        Self::DiesFailing,
        Self::DiesHalf,
        Self::ForgetsAndIsDeleted,
        Self::ForgetsAndBlocksOthers,
    ];

    pub(crate) const fn when(self) -> When {
        match self {
            Self::TagsNeverFetched
            | Self::QueueNeverFetched
            | Self::StartedFirst
            | Self::WrongOpcode
            | Self::PayloadBehind
            | Self::PayloadByPointer
            | Self::FetchesWithoutAddress
            | Self::TagsFromOne
            | Self::FetchesLinked
            | Self::FetchesDrained
            | Self::FetchesNotSubmitted
            | Self::PollerAsleep => When::Arming,
            Self::NeverEnters
            | Self::ThreadEnds
            | Self::ThreadUninterruptible
            | Self::NeverReaps
            | Self::Overflows => When::Idle,
            Self::DescriptorsOfQueueZero | Self::FetchedByTwo => When::Always,
            _ => When::Busy,
        }
    }

    /// Whether the server goes on serving with the mistake in it, rather than once.
    pub(crate) const fn goes_on(self) -> bool {
        matches!(
            self,
            Self::BufferUnmapped
                | Self::BufferReadOnly
                | Self::Overflows
                | Self::AsksForSilence
                | Self::Forgets
                | Self::AnswersNotSubmitted
                | Self::AnswersFromAnotherThread
                | Self::AnswersFromAnotherRing
                | Self::AnswersIntoOwnedRing
                | Self::AnswersAnotherTag
                | Self::AnswersAnotherQueue
                | Self::AnswersWithFetch
                | Self::AnswersWithoutAddress
                | Self::ResultsInSectors
                | Self::ResultsZero
                | Self::ForgetsAndIsDeleted
                | Self::ForgetsAndBlocksOthers
        ) || matches!(self.when(), When::Always)
    }

    /// Whether requests come back to the server when they are answered.
    pub(crate) const fn comes_back(self) -> bool {
        matches!(
            self,
            Self::BufferUnmapped | Self::ResultsInSectors | Self::ResultsZero
        )
    }

    /// Whether an answer goes astray.
    pub(crate) const fn is_misdirected(self) -> bool {
        matches!(
            self,
            Self::AnswersAnotherTag | Self::AnswersAnotherQueue | Self::AnswersWithFetch
        )
    }

    /// Whether one answer goes wrong, and those after it do not.
    pub(crate) const fn is_single(self) -> bool {
        matches!(
            self,
            Self::Forgets
                | Self::AnswersAnotherTag
                | Self::AnswersAnotherQueue
                | Self::AnswersWithFetch
                | Self::ForgetsAndIsDeleted
                | Self::ForgetsAndBlocksOthers
        )
    }
}
