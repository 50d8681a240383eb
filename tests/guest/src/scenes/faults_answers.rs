//! Answers that are not given, refused, or wrong, and doctor says why.

use crate::support::Scene;
use crate::support::faulty::{Case, Expected, Provoke, cases};
use oxublk_diag::finding::Cause;

const WRONG_RESULT: Expected = Expected::Cause(Cause::WrongResult);
const WRONG_DESCRIPTORS: Expected = Expected::Cause(Cause::WrongDescriptors);
/// Linux 6.12 complains of an answer with more bytes than were asked for.
const TOO_MUCH: &[&str] = &["__ublk_complete_rq"];

pub(crate) const SCENE: Scene = Scene {
    name: "faults-answers",
    needs: "timeout=600",
    tests: cases![
        the_answer_is_not_submitted => Case::read("commit-not-submitted", Cause::AnswerNotSubmitted),
        another_thread_answers => Case::read("foreign-thread", Cause::ForeignThread),
        another_thread_answers_on_a_ring_of_one => Case::read("foreign-thread-single-issuer", Cause::ForeignThread),
        another_thread_answers_on_its_own_ring => Case::read("foreign-thread-own-ring", Cause::ForeignThread),
        the_answer_names_another_tag => Case::read("wrong-tag", Cause::AnswerMisdirected),
        the_answer_names_another_queue => Case::read("wrong-queue", Cause::AnswerMisdirected),
        the_answer_is_a_fetch => Case::read("fetch-instead-of-commit", Cause::AnswerMisdirected),
        the_answer_has_no_buffer => Case::read("commit-no-address", Cause::AnswerRefused),
        writes_are_answered_with_sectors => Case::new("result-sectors", Provoke::Writes, WRONG_RESULT),
        reads_are_answered_with_sectors => Case::new("result-sectors", Provoke::Reads, WRONG_RESULT),
        writes_are_answered_with_nothing => Case::new("result-zero", Provoke::Writes, WRONG_RESULT),
        reads_are_answered_with_nothing => Case::new("result-zero", Provoke::Reads, WRONG_RESULT),
        reads_are_answered_with_too_much => Case::new("result-too-big", Provoke::Reads, WRONG_RESULT).forgives(TOO_MUCH),
        descriptors_have_another_size => Case::new("descriptor-stride-32", Provoke::WholeQueues, WRONG_DESCRIPTORS).also(&[Cause::WrongResult]).forgives(TOO_MUCH),
        descriptors_are_another_queues => Case::new("descriptor-queue-0", Provoke::WholeQueues, WRONG_DESCRIPTORS).also(&[Cause::WrongResult]).forgives(TOO_MUCH),
    ],
};
