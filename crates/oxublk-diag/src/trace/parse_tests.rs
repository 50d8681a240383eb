//! Lines that the kernels printed, and lines that nobody printed.

use proptest::prelude::*;

use super::super::check::check;
use super::super::event::{Event, What};
use super::super::join::{Join, Outcome};
use super::super::seed::Expected;
use super::Parser;
use crate::facts::Tid;

/// What two kernels told of the same: `oxublk add mem` written and read; an answer from another thread than fetched; the
/// 16 bytes of a fetch at byte 64, recorded with `--raw`.
const RECORDED: [&str; 2] = [
    include_str!("testdata/6.12.txt"),
    include_str!("testdata/7.3.txt"),
];

fn parse(text: &str) -> (Vec<Event>, u64) {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    parser.feed(text.as_bytes(), &mut events);
    (events, parser.unknown)
}

/// A part of a recording: after `##### name`.
fn part(text: &str, name: &str) -> Vec<Event> {
    let (_, rest) = text.split_once(&format!("##### {name}\n")).unwrap();
    let (events, unknown) = parse(rest.split("#####").next().unwrap());
    assert_eq!(unknown, 0, "{name}");
    events
}

fn join(events: &[Event]) -> (Join, Vec<Outcome>) {
    let (mut join, mut outcomes) = (Join::default(), Vec::new());
    events
        .iter()
        .for_each(|event| join.push(event, &mut outcomes));
    (join, outcomes)
}

#[test]
fn requests_of_both_kernels_are_followed_to_their_end() {
    for text in RECORDED {
        let (join, outcomes) = join(&part(text, "mem"));
        assert!(join.open().is_empty());
        let requests: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Ended(request) => request,
                other => panic!("{other:?}"),
            })
            .collect();
        let what: Vec<_> = requests
            .iter()
            .map(|request| (request.operation.as_str(), request.sector, request.bytes))
            .collect();
        let expected = [
            ("write", Some(0), Some(4096)),
            ("write", Some(8), Some(4096)),
            ("read", Some(0), Some(1 << 20)),
            ("read", Some(2048), Some(1 << 20)),
        ];
        assert_eq!(what, expected);
        for request in requests {
            assert_eq!(request.steps.len(), 5, "{request:?}");
            let issuer = request.issuer.as_ref().unwrap();
            assert_eq!(issuer.comm.as_deref(), Some("dd"));
            assert!(request.took_ns().is_some_and(|took| took > 100_000));
        }
    }
}

#[test]
fn a_refused_answer_of_both_kernels_is_named() {
    for text in RECORDED {
        let (join, outcomes) = join(&part(text, "foreign"));
        let refusal = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Refused(refusal) => Some(refusal),
            _ => None,
        });
        let refusal = refusal.unwrap();
        assert_eq!(
            (refusal.error, refusal.by.comm.as_deref()),
            (-22, Some("answers"))
        );
        let owner = refusal.handed_to.as_ref().unwrap();
        assert_eq!(owner.comm.as_deref(), Some("queue0"));
        assert_ne!(owner.tid, refusal.by.tid);
        assert_eq!(join.open().len(), 1);
    }
}

#[test]
fn bytes_at_the_wrong_place_are_seen_on_both_kernels() {
    for text in RECORDED {
        let (_, outcomes) = join(&part(text, "at64"));
        let mut wrong = 0;
        for outcome in &outcomes {
            if let Outcome::Command { command, .. } = outcome {
                let remarks = check(command, None, &Expected::default(), true);
                assert!(remarks[0].says.contains("at byte 64"), "{remarks:?}");
                wrong += 1;
            }
        }
        let refused = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Refused(_)));
        assert_eq!((wrong, refused.count()), (8, 8));
    }
}

#[test]
fn the_kernels_own_events_and_losses_are_understood() {
    let text = "              dd-77      [000] ...1.     9.500001: block_rq_issue: 259,0 R 4096 () 8 + 8 none,0,0 [dd]
          <idle>-0       [001] d.s..     9.600002: block_rq_complete: 259,0 WS () 0 + 8 none,0,0 [-5]
CPU:1 [LOST 123 EVENTS]
CPU:0 [LOST EVENTS]
           <...>-78      [001] ...1.     9.700000: requeued: (x+0x4/0x10) dev=1 rq=0xff\n";
    let (events, unknown) = parse(text);
    assert_eq!(unknown, 0);
    let what: Vec<&What> = events.iter().map(|event| &event.what).collect();
    assert!(
        matches!(
            what[0],
            What::PlainIssued {
                sector: 8,
                bytes: 4096,
                ..
            }
        ),
        "{what:?}"
    );
    assert!(
        matches!(
            what[1],
            What::PlainCompleted {
                error: -5,
                requeued: false,
                ..
            }
        ),
        "{what:?}"
    );
    assert_eq!(what[2], &What::Lost { count: Some(123) });
    assert_eq!(what[3], &What::Lost { count: None });
    assert_eq!(events[3].at_ns, 9_600_002_000);
    assert_eq!(
        (events[4].thread.tid, &events[4].thread.comm),
        (Tid(78), &None)
    );
}

#[test]
fn a_name_may_hold_anything() {
    let line = " a: [b] \"c\"-1 x=2-77      [000] ...1.     9.500001: issued: (x+0x4/0x10) dev=1 rq=0x1 queue=0 tag=3 op=0x1 \
                sector=18446744073709551615 len=0 comm=\"a: [b] \"c\"-1 x=\"\n";
    let (events, unknown) = parse(line);
    assert_eq!((events.len(), unknown), (0, 1), "longer than a name can be");
    let line = line.replace(" a: [b] \"c\"-1 x=2-77", "  a: [b] \"c\"-1 x-77");
    let (events, unknown) = parse(&line);
    assert_eq!((events.len(), unknown), (1, 0));
    assert_eq!(events[0].thread.comm.as_deref(), Some("a: [b] \"c\"-1 x="));
    assert!(matches!(events[0].what, What::Issued { sector: None, .. }));
}

#[test]
fn what_the_kernel_could_not_read_is_left_out() {
    let line = "         ublk0q0-157     [001] .....    33.960496: ended: (f+0x4/0x10) dev=1 cmd=0x9 res=0 queue=(fault) tag=0\n";
    let (events, _) = parse(line);
    assert!(
        matches!(events[0].what, What::Ended { slot: None, .. }),
        "{events:?}"
    );
    let (events, unknown) = parse(&line.replace("cmd=0x9", "cmd=(fault)"));
    assert_eq!((events.len(), unknown), (0, 1));
}

proptest! {
    #[test]
    fn garbage_is_no_event_and_hurts_nobody(
        text in "(issued|ended|command|completed|: |\\(|\\) |=0x|tag=|rq=|\\[000\\]|-7 |9\\.5|CPU:0 \\[LOST |[ -~\n]){0,80}",
    ) {
        let _ = parse(&text);
    }

    #[test]
    fn bytes_are_no_event_and_hurt_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.feed(&bytes, &mut events);
        prop_assert!(events.is_empty());
    }

    /// However it is cut, and whatever is broken in it, the rest is understood.
    #[test]
    fn a_recording_may_come_in_any_pieces(size in 1..200_usize, broken in 0..4000_usize) {
        let text = RECORDED[0].lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n") + "\n";
        let (whole, _) = parse(&text);
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        text.as_bytes().chunks(size).for_each(|piece| parser.feed(piece, &mut events));
        prop_assert_eq!(&events, &whole);
        let mut bytes = text.into_bytes();
        let place = broken % bytes.len();
        bytes[place] ^= 0x15;
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.feed(&bytes, &mut events);
        prop_assert!(events.len() + 2 >= whole.len());
    }
}
