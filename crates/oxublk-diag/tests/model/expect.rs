//! The verdict that each fault must have.

use oxublk_diag::finding::{Cause, Health};
use oxublk_sim::host::{Fault, View};

/// What decide must say.
#[derive(Debug)]
pub(crate) struct Expected {
    /// This.
    pub(crate) cause: Cause,
    /// Or one of these, where what could be seen fits both.
    pub(crate) or: &'static [Cause],
    /// What may be told beside it: other things that are true.
    pub(crate) beside: &'static [Cause],
    /// How bad.
    pub(crate) health: Health,
    /// Whether it is there without a request that is late.
    pub(crate) always: bool,
}

/// The verdict for a fault, seen in `view`.
pub(crate) fn expected(fault: Fault, view: &View) -> Expected {
    let cause = cause(fault, view);
    let always = matches!(
        fault,
        Fault::TagsNeverFetched
            | Fault::QueueNeverFetched
            | Fault::StartedFirst
            | Fault::WrongOpcode
            | Fault::PayloadBehind
            | Fault::PayloadByPointer
            | Fault::FetchesWithoutAddress
            | Fault::TagsFromOne
            | Fault::FetchesLinked
            | Fault::FetchesDrained
            | Fault::FetchesNotSubmitted
            | Fault::PollerAsleep
            | Fault::ThreadEnds
            | Fault::ThreadEndsInHandler
            | Fault::Stopped
            | Fault::Traced
            | Fault::DescriptorsOfQueueZero
            | Fault::FetchedByTwo
            | Fault::Dies
            | Fault::DiesRecoverably
            | Fault::DiesFailing
            | Fault::DiesHalf
            | Fault::ForgetsAndIsDeleted
            | Fault::ForgetsAndBlocksOthers
    );
    Expected {
        cause,
        or: or(fault),
        beside: beside(fault),
        health: health(fault),
        always,
    }
}

fn cause(fault: Fault, view: &View) -> Cause {
    match fault {
        Fault::TagsNeverFetched | Fault::QueueNeverFetched => Cause::NotFetched,
        Fault::StartedFirst => Cause::FetchAfterStart,
        Fault::WrongOpcode => Cause::WrongOpcode,
        Fault::PayloadBehind | Fault::PayloadByPointer => Cause::WrongPlacement,
        Fault::FetchesWithoutAddress | Fault::TagsFromOne => Cause::FetchRefused,
        Fault::FetchesLinked | Fault::FetchesDrained => Cause::FetchesSerialised,
        Fault::FetchesNotSubmitted => Cause::NotSubmitted,
        Fault::PollerAsleep => Cause::SqpollAsleep,
        Fault::NeverEnters => Cause::DeferredNotEntered,
        Fault::ThreadEnds | Fault::ThreadEndsInHandler => Cause::ArmerGone,
        Fault::ThreadUninterruptible => Cause::ArmerUninterruptible,
        Fault::OwnDevice => Cause::OwnDevice,
        Fault::Stopped | Fault::Traced => Cause::ServerStopped,
        Fault::BufferUnmapped | Fault::BufferReadOnly => Cause::BadBuffer,
        Fault::NeverReaps => Cause::NotReaped,
        Fault::Overflows => Cause::CqOverflow,
        Fault::AsksForSilence => Cause::CompletionSwallowed,
        Fault::HandlerLocked => Cause::HandlerLocked,
        Fault::HandlerSpins => Cause::HandlerSpins,
        Fault::HandlerBlocked => Cause::HandlerBlocked,
        Fault::HandlerOnTimer | Fault::HandlerInMedium => Cause::SlowMedium,
        Fault::Forgets => Cause::Forgotten,
        Fault::AnswersNotSubmitted => Cause::AnswerNotSubmitted,
        Fault::AnswersFromAnotherThread
        | Fault::AnswersFromAnotherRing
        | Fault::AnswersIntoOwnedRing
        | Fault::FetchedByTwo => Cause::ForeignThread,
        Fault::AnswersAnotherTag | Fault::AnswersAnotherQueue | Fault::AnswersWithFetch => {
            Cause::AnswerMisdirected
        }
        Fault::AnswersWithoutAddress => Cause::AnswerRefused,
        Fault::ResultsInSectors | Fault::ResultsZero => Cause::WrongResult,
        Fault::DescriptorsOfQueueZero => Cause::WrongDescriptors,
        Fault::Dies => Cause::ServerDead,
        Fault::DiesRecoverably => Cause::AwaitsRecovery,
        // Before 6.13 the flag is not known: such a device waits.
        Fault::DiesFailing if view.life == oxublk_sim::host::Life::Quiesced => {
            Cause::AwaitsRecovery
        }
        Fault::DiesFailing => Cause::FailsUntilRecovery,
        Fault::DiesHalf => Cause::ServerHalfDead,
        Fault::ForgetsAndIsDeleted => Cause::ControlStuck,
        Fault::ForgetsAndBlocksOthers => Cause::DeleteHoldsLock,
    }
}

fn beside(fault: Fault) -> &'static [Cause] {
    match fault {
        Fault::ForgetsAndIsDeleted | Fault::ForgetsAndBlocksOthers => &[Cause::Forgotten],
        // A thread that never comes to its ring is handed nothing either.
        Fault::NeverReaps => &[Cause::DeferredNotEntered],
        _ => &[],
    }
}

fn health(fault: Fault) -> Health {
    match fault {
        Fault::DescriptorsOfQueueZero
        | Fault::FetchedByTwo
        | Fault::Dies
        | Fault::DiesRecoverably
        | Fault::DiesFailing => Health::Warning,
        _ => Health::Stuck,
    }
}

impl Expected {
    /// Whether a cause may be told.
    pub(crate) fn allows(&self, cause: Cause) -> bool {
        self.names(cause) || self.beside.contains(&cause)
    }

    /// Whether a cause names the fault.
    pub(crate) fn names(&self, cause: Cause) -> bool {
        self.cause == cause || self.or.contains(&cause)
    }
}

fn or(fault: Fault) -> &'static [Cause] {
    match fault {
        // Who wrote what lies in a ring cannot be seen.
        Fault::AnswersNotSubmitted => &[Cause::ForeignThread],
        Fault::AnswersIntoOwnedRing => &[Cause::AnswerNotSubmitted],
        // A request that goes round is somewhere else in each look, or the ring has come round since its answer.
        Fault::BufferUnmapped | Fault::ResultsInSectors | Fault::ResultsZero => {
            &[Cause::Unexplained, Cause::Forgotten]
        }
        _ => &[],
    }
}
