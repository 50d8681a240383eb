//! Servers that do not arm every tag: the device never gets ready, and doctor says why.

use crate::support::Scene;
use crate::support::faulty::{Case, cases};
use oxublk_diag::finding::Cause;

pub(crate) const SCENE: Scene = Scene {
    name: "faults-arming",
    needs: "timeout=500",
    tests: cases![
        a_tag_is_never_fetched => Case::unready("skip-tag", Cause::NotFetched),
        a_queue_is_never_fetched => Case::unready("skip-queue", Cause::NotFetched),
        fetches_wait_for_the_start => Case::unready("fetch-after-start", Cause::FetchAfterStart),
        the_opcode_has_another_type => Case::unready("wrong-opcode", Cause::WrongOpcode),
        the_command_is_at_byte_64 => Case::unready("payload-at-64", Cause::WrongPlacement),
        the_command_is_passed_by_address => Case::unready("payload-by-pointer", Cause::WrongPlacement),
        the_entries_have_another_size => Case::unready("sqe-stride", Cause::WrongPlacement),
        a_fetch_has_no_buffer => Case::unready("fetch-no-address", Cause::FetchRefused),
        fetches_are_linked => Case::unready("fetch-linked", Cause::FetchesSerialised),
        fetches_are_drained => Case::unready("fetch-drained", Cause::FetchesSerialised),
        fetches_are_not_submitted => Case::unready("fetch-not-submitted", Cause::NotSubmitted),
        the_polling_thread_sleeps => Case::unready("sqpoll-asleep", Cause::SqpollAsleep),
    ],
};
