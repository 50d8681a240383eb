//! Histories of requests, as the kernels tell them.

use oxublk::{QueueId, Tag};
use proptest::prelude::*;

use super::super::event::{Command, Event, Slot, Thread, What};
use super::super::request::{Followed, Kind};
use super::{Join, Outcome};
use crate::facts::Tid;
use crate::finding::Station;

const SERVER: u32 = 50;

fn slot(tag: u16) -> Slot {
    Slot {
        queue: QueueId(0),
        tag: Tag(tag),
    }
}

fn event(at_ns: u64, tid: u32, what: What) -> Event {
    let thread = Thread {
        tid: Tid(tid),
        comm: None,
    };
    Event {
        at_ns,
        thread,
        what,
    }
}

fn issued(at_ns: u64, request: u64, tag: u16) -> Event {
    let what = What::Issued {
        request,
        slot: slot(tag),
        op: 1,
        sector: Some(8),
        bytes: 4096,
    };
    event(at_ns, 7, what)
}

fn handed(at_ns: u64, tag: Option<u16>) -> Event {
    let what = What::Handed {
        queue: QueueId(0),
        tag: tag.map(Tag),
    };
    event(at_ns, SERVER, what)
}

fn ended(at_ns: u64, command: u64, tag: u16, result: i32) -> Event {
    let slot = Some(slot(tag));
    event(
        at_ns,
        SERVER,
        What::Ended {
            command,
            slot,
            result,
        },
    )
}

fn posted(at_ns: u64, command: u64) -> Event {
    event(at_ns, SERVER, What::Posted { command })
}

fn command(at_ns: u64, tid: u32, command: u64, op: u32, tag: u16) -> Event {
    let mut payload = [0; 16];
    payload[2..4].copy_from_slice(&tag.to_le_bytes());
    payload[4..8].copy_from_slice(&4096_i32.to_le_bytes());
    let what = What::Command(Command {
        command,
        op,
        issue_flags: 0,
        payload,
        raw: None,
    });
    event(at_ns, tid, what)
}

fn commit(at_ns: u64, address: u64, tag: u16) -> Event {
    command(at_ns, SERVER, address, 0xc010_7521, tag)
}

fn completed(at_ns: u64, request: u64, tag: u16, bytes: u64, left: u64) -> Event {
    let what = What::Completed {
        request,
        slot: Some(slot(tag)),
        error: 0,
        bytes,
        left,
    };
    event(at_ns, SERVER, what)
}

fn run(join: &mut Join, events: &[Event]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    events
        .iter()
        .for_each(|event| join.push(event, &mut outcomes));
    outcomes
}

/// The steps in short: a letter and the time.
fn steps(request: &Followed) -> String {
    let letter = |kind: &Kind| match kind {
        Kind::Handed { .. } => 'H',
        Kind::Delivered { .. } => 'D',
        Kind::Posted => 'P',
        Kind::GaveBuffer => 'G',
        Kind::Answered { .. } => 'A',
        Kind::Refused { .. } => 'R',
        Kind::Partly { .. } => 'p',
        Kind::Requeued => 'q',
        Kind::IssuedAgain { .. } => 'I',
        Kind::Completed { .. } => 'C',
        Kind::Vanished => 'V',
    };
    let words: Vec<String> = request
        .steps
        .iter()
        .map(|step| format!("{}{}", letter(&step.kind), step.at_ns))
        .collect();
    words.join(" ")
}

fn endings(outcomes: &[Outcome]) -> Vec<String> {
    let ended = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Ended(request) => Some(steps(request)),
        _ => None,
    });
    ended.collect()
}

#[test]
fn a_request_is_followed_from_station_to_station() {
    let mut join = Join::default();
    let events = [
        issued(1, 100, 3),
        handed(2, Some(3)),
        ended(3, 9, 3, 0),
        posted(4, 9),
        commit(5, 9, 3),
        completed(6, 100, 3, 4096, 4096),
    ];
    let stations = [
        Station::InDriver,
        Station::HandedToTask,
        Station::HandedToTask,
        Station::Posted,
        Station::Answered,
    ];
    for (event, station) in events.iter().zip(stations) {
        run(&mut join, std::slice::from_ref(event));
        assert_eq!(join.open()[0].station(), station, "{event:?}");
    }
    let outcomes = run(&mut join, &events[5..]);
    assert_eq!(endings(&outcomes), ["H2 D3 P4 A5 C6"]);
    assert!(join.open().is_empty());
}

#[test]
fn one_run_of_a_queue_serves_all_that_wait_and_the_last_run_counts() {
    let mut join = Join::default();
    let outcomes = run(
        &mut join,
        &[
            issued(1, 100, 0),
            issued(2, 101, 1),
            handed(3, None),
            ended(4, 9, 0, 0),
            // The run had begun without it.
            issued(5, 102, 2),
            handed(6, None),
            ended(7, 10, 1, 0),
            ended(8, 11, 2, 0),
            completed(9, 100, 0, 1, 1),
            completed(9, 101, 1, 1, 1),
            completed(9, 102, 2, 1, 1),
        ],
    );
    assert_eq!(endings(&outcomes), ["H3 D4 C9", "H6 D7 C9", "H6 D8 C9"]);
}

#[test]
fn a_refused_answer_is_named_with_both_threads() {
    let mut join = Join::default();
    let outcomes = run(
        &mut join,
        &[
            issued(1, 100, 3),
            handed(2, Some(3)),
            posted(3, 9),
            command(4, 77, 12, 0xc010_7521, 3),
            event(
                5,
                77,
                What::Refused {
                    command: 12,
                    result: -22,
                },
            ),
        ],
    );
    let [Outcome::Refused(refusal)] = outcomes.as_slice() else {
        panic!("{outcomes:?}")
    };
    assert_eq!((refusal.error, refusal.by.tid), (-22, Tid(77)));
    assert_eq!(
        refusal.handed_to.as_ref().map(|by| by.tid),
        Some(Tid(SERVER))
    );
    let open = join.open();
    assert_eq!(steps(open[0]), "H2 R4");
    assert_eq!(open[0].station(), Station::Posted);
}

#[test]
fn a_refusal_that_comes_as_a_completion_is_one() {
    let mut join = Join::default();
    let events = [
        command(1, SERVER, 9, 0xc010_7520, 3),
        ended(2, 9, 0, -16),
        posted(3, 9),
    ];
    let outcomes = run(&mut join, &events);
    assert!(
        matches!(outcomes.as_slice(), [Outcome::Refused(refusal)] if refusal.error == -16 && refusal.slot == slot(3)),
        "{outcomes:?}"
    );
    // A command that is taken back is none.
    let outcomes = run(
        &mut join,
        &[command(4, SERVER, 9, 0xc010_7520, 3), ended(5, 9, 3, -19)],
    );
    assert!(outcomes.is_empty(), "{outcomes:?}");
}

#[test]
fn a_request_that_is_sent_again_keeps_its_past_and_may_change_its_tag() {
    let mut join = Join::default();
    let requeued = |at| event(at, SERVER, What::Requeued { request: 100 });
    let outcomes = run(
        &mut join,
        &[
            issued(1, 100, 3),
            completed(2, 100, 3, 512, 4096),
            requeued(3),
            issued(4, 200, 3),
            issued(5, 100, 4),
            handed(6, Some(4)),
            completed(7, 100, 4, 3584, 3584),
        ],
    );
    assert_eq!(endings(&outcomes), ["p2 q3 I5 H6 C7"]);
    assert_eq!(join.open().len(), 1);
}

#[test]
fn one_that_goes_round_for_ever_does_not_grow() {
    let mut join = Join::default();
    run(&mut join, &[issued(1, 100, 3)]);
    for at in 2..5000 {
        run(
            &mut join,
            &[
                event(at, SERVER, What::Requeued { request: 100 }),
                issued(at, 100, 3),
            ],
        );
    }
    let open = join.open();
    assert!(
        open[0].circles() && open[0].steps.len() < 40,
        "{}",
        open[0].steps.len()
    );
    assert_eq!(open[0].rounds, 4998);
}

#[test]
fn what_was_under_way_before_is_completed_by_its_tag() {
    let mut join = Join::default();
    let seed = Followed {
        slot: Some(slot(3)),
        began_before: true,
        found_at: Some(Station::Posted),
        ..Followed::default()
    };
    join.seed(seed, Some(Tid(SERVER)));
    // A run of the queue does not concern it: it was delivered.
    let outcomes = run(
        &mut join,
        &[
            handed(1, None),
            commit(2, 9, 3),
            completed(3, 0xffff_0000, 3, 1, 1),
        ],
    );
    assert_eq!(endings(&outcomes), ["A2 C3"]);
    // Of another one nothing was known.
    run(&mut join, &[completed(4, 0xffff_1000, 5, 1, 1)]);
    assert_eq!(join.strangers, 1);
}

#[test]
fn a_lost_end_is_noticed_when_the_tag_is_used_again() {
    let mut join = Join::default();
    let lost = event(2, 0, What::Lost { count: Some(40) });
    let outcomes = run(&mut join, &[issued(1, 100, 3), lost, issued(3, 101, 3)]);
    assert_eq!(outcomes[0], Outcome::Lost(Some(40)));
    let Outcome::Ended(request) = &outcomes[1] else {
        panic!("{outcomes:?}")
    };
    assert!(request.holes);
    assert_eq!(steps(request), "V3");
    assert_eq!(join.open().len(), 1);
}

#[test]
fn without_probes_sector_and_kind_must_do() {
    let mut join = Join::default();
    let begin = |at, kind: &str, sector| {
        let kind = kind.to_owned();
        event(
            at,
            7,
            What::PlainIssued {
                kind,
                sector,
                bytes: 512,
            },
        )
    };
    let end = |at, kind: &str, sector, requeued| {
        let kind = kind.to_owned();
        event(
            at,
            7,
            What::PlainCompleted {
                kind,
                sector,
                error: 0,
                requeued,
            },
        )
    };
    let outcomes = run(
        &mut join,
        &[
            begin(1, "R", 8),
            begin(2, "WS", 8),
            end(3, "WS", 8, true),
            begin(4, "WS", 8),
            end(5, "WS", 8, false),
            end(6, "R", 16, false),
            end(7, "R", 8, false),
        ],
    );
    assert_eq!(endings(&outcomes), ["q3 I4 C5", "C7"]);
    assert_eq!(join.strangers, 1);
}

fn any_event() -> impl Strategy<Value = Event> {
    let what =
        (0..9_u8, 0..4_u64, 0..3_u16, -2..2_i32).prop_map(
            |(kind, address, tag, number)| match kind {
                0 => issued(0, 100 + address, tag).what,
                1 => handed(0, (number < 0).then_some(tag)).what,
                2 => ended(0, address, tag, number * 19).what,
                3 => What::Posted { command: address },
                4 => commit(0, address, tag).what,
                5 => What::Refused {
                    command: address,
                    result: -22,
                },
                6 => completed(0, 100 + address, tag, u64::from(tag), 1).what,
                7 => What::Requeued {
                    request: 100 + address,
                },
                _ => What::Lost { count: None },
            },
        );
    what.prop_map(|what| event(0, 1, what))
}

proptest! {
    /// Whatever comes, every request that was issued is open or has ended, once, and its steps are in order.
    #[test]
    fn no_request_is_lost_or_told_twice(events in proptest::collection::vec(any_event(), 0..200)) {
        let mut join = Join::default();
        let mut outcomes = Vec::new();
        let (mut begun, mut again) = (0, 0);
        for (at_ns, event) in (1..).zip(events) {
            begun += usize::from(matches!(event.what, What::Issued { .. }));
            join.push(&Event { at_ns, ..event }, &mut outcomes);
        }
        let open: Vec<Followed> = join.open().into_iter().cloned().collect();
        let told = endings(&outcomes).len();
        let ended = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Ended(request) => Some(request),
            _ => None,
        });
        for request in open.iter().chain(ended) {
            again += usize::try_from(request.rounds).unwrap();
            let times: Vec<u64> = request.steps.iter().map(|step| step.at_ns).collect();
            prop_assert!(times.is_sorted(), "{}", steps(request));
        }
        prop_assert_eq!(begun, open.len() + told + again);
    }
}
