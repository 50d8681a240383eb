//! The queue's own code on the model: whatever the order of events, the driver's rules hold.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod common;

use common::disk::{Manners, call_of};
use common::plan::{config, requests, setup};
use common::run::{run, run_by};
use oxublk::queue::{Ended, QueueError};
use oxublk::{DataPath, Tag};
use oxublk_sim::{After, ClientRequest, Event, Kernel, Setup};
use proptest::prelude::*;

fn manners() -> impl Strategy<Value = Manners> {
    let some = || prop_oneof![2 => Just(0), 1 => 1..30usize];
    let slow = prop_oneof![Just(0), 1..30usize, Just(100)];
    (some(), some(), slow).prop_map(|(fails, panics, slow)| Manners {
        fails,
        panics,
        slow,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_request_is_answered_once_with_the_right_bytes(
        setup in setup(), manners in manners(), requests in requests(),
    ) {
        let run = run(setup, manners, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        prop_assert_eq!(run.delivered().len(), requests.len());
        run.assert_clients_saw_what_the_disk_did();
        run.assert_metrics_agree();
    }

    #[test]
    fn a_disk_that_moves_the_data_itself_is_told_apart_by_nobody(
        setup in setup(), manners in manners(), requests in requests(),
    ) {
        let run = run_by(DataPath::Direct, setup, manners, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        run.assert_metrics_agree();
    }

    #[test]
    fn where_a_client_has_its_data_makes_no_difference(
        mut setup in setup(), direct in any::<bool>(), shared in 1..=100u8, manners in manners(), requests in requests(),
    ) {
        setup.shared_percent = shared;
        let path = if direct { DataPath::Direct } else { DataPath::Copy };
        let run = run_by(path, setup, manners, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        run.assert_metrics_agree();
        let with_data = run.delivered().into_iter().filter(|outcome| outcome.request.has_data());
        let with_data = with_data.count() as u64;
        prop_assert!(run.shared <= with_data && (shared < 100 || run.shared == with_data));
    }

    #[test]
    fn a_device_that_is_stopped_answers_what_has_arrived(
        mut setup in setup(), manners in manners(), requests in requests(), after in 0..100usize,
    ) {
        setup.plan = vec![(After::Finished(after), Event::Stop)];
        let (kernel, starts_ready) = (setup.kernel, after > 0);
        let run = run(setup, manners, &requests);
        if !starts_ready && kernel != Kernel::V7_3 && !matches!(run.ended, Ok(Ended::Stopped)) {
            // Stopped before it had armed: this kernel refuses the fetches that come then.
            prop_assert!(matches!(run.ended, Err(QueueError::Refused(_, libc::EBUSY))));
            return Ok(());
        }
        prop_assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        for outcome in run.report.outcomes.iter().filter(|outcome| outcome.deliveries == 0) {
            prop_assert_eq!(outcome.result, Err(libc::EIO));
        }
        run.assert_clients_saw_what_the_disk_did();
        run.assert_metrics_agree();
    }

    #[test]
    fn a_queue_that_leaves_loses_no_answer(
        mut setup in setup(), manners in manners(), requests in requests(), after in 0..100usize,
    ) {
        setup.plan = vec![(After::Finished(after), Event::Wake)];
        let run = run(setup, manners, &requests);
        prop_assert!(matches!(run.ended, Ok(Ended::Woken)), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        // What the disk did, a client saw; what it saw besides, failed.
        let mut seen: Vec<_> = run.report.outcomes.iter().map(call_of).collect();
        for call in &run.calls {
            let at = seen.iter().position(|seen| seen == call);
            prop_assert!(at.is_some(), "lost: {call:?}");
            seen.swap_remove(at.unwrap());
        }
        prop_assert!(seen.iter().all(|rest| rest.result.is_err()));
        prop_assert_eq!(run.in_flight, 0);
        let counted: u64 = run.counted.iter().map(|counted| counted.requests).sum();
        prop_assert!(counted >= run.calls.len() as u64);
    }

    #[test]
    fn when_the_server_dies_what_it_has_not_answered_fails(
        mut setup in setup(), manners in manners(), requests in requests(), after in 0..100usize,
    ) {
        setup.plan = vec![(After::Finished(after), Event::Die)];
        let run = run(setup, manners, &requests);
        prop_assert!(matches!(run.ended, Err(QueueError::Ring(_))), "{:?}", run.ended);
        run.assert_rules_kept(requests.len());
        let mut done: Vec<_> = run.calls.clone();
        for outcome in &run.report.outcomes {
            let answered = done.iter().position(|call| *call == call_of(outcome));
            match answered {
                Some(at) => { done.swap_remove(at); }
                None => prop_assert!(
                    matches!(outcome.result, Err(libc::EIO | libc::EOPNOTSUPP)), "{:?}", outcome
                ),
            }
        }
    }

    #[test]
    fn a_refused_fetch_ends_the_queue_with_its_errno(mut setup in setup(), tag in 0..8u16) {
        let tag = Tag(tag % setup.depth);
        setup.refuse_fetch = Some((tag, libc::EINVAL));
        let run = run(setup, Manners::default(), &[ClientRequest::read(0, 1)]);
        prop_assert!(
            matches!(run.ended, Err(QueueError::Refused(refused, libc::EINVAL)) if refused == tag),
            "{:?}", run.ended
        );
    }
}

#[test]
fn a_wake_up_while_the_queue_arms_is_not_lost() {
    for seed in 0..20 {
        let plan = vec![(After::Start, Event::Wake)];
        let setup = Setup {
            seed,
            plan,
            ..Setup::default()
        };
        let run = run(setup, Manners::default(), &[ClientRequest::read(0, 1)]);
        assert!(matches!(run.ended, Ok(Ended::Woken)), "{:?}", run.ended);
        assert_eq!(run.report.violations, []);
    }
}

#[test]
fn a_device_stopped_while_the_queue_arms_ends_it() {
    for seed in 0..20 {
        let plan = vec![(After::Start, Event::Stop)];
        let setup = Setup {
            seed,
            plan,
            ..Setup::default()
        };
        let run = run(setup, Manners::default(), &[ClientRequest::read(0, 1)]);
        assert!(matches!(run.ended, Ok(Ended::Stopped)), "{:?}", run.ended);
        assert_eq!(run.report.violations, []);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let requests: Vec<_> = (0..80)
        .map(|n| match n % 3 {
            0 => ClientRequest::write(n % 40, 8),
            1 => ClientRequest::read(n % 50, 16),
            _ => ClientRequest::flush(),
        })
        .collect();
    let manners = Manners {
        fails: 10,
        panics: 10,
        slow: 20,
    };
    let once = |seed| {
        let setup = Setup {
            depth: 7,
            seed,
            ..Setup::default()
        };
        run(setup, manners, &requests).report
    };
    assert_eq!(once(3), once(3));
    assert_ne!(once(3), once(4));
}

#[test]
fn a_quick_disk_is_answered_with_one_system_call_a_batch() {
    let requests: Vec<_> = (0..64).map(|n| ClientRequest::read(n, 8)).collect();
    let setup = Setup {
        depth: 32,
        spurious_percent: 0,
        ..Setup::default()
    };
    let run = run(setup, Manners::default(), &requests);
    assert_eq!(run.report.enters.submitting, 1, "the one that arms");
}

#[test]
fn a_slow_disk_has_each_answer_handed_over_at_once() {
    let requests: Vec<_> = (0..200).map(|n| ClientRequest::read(n % 90, 4)).collect();
    let setup = Setup {
        depth: 32,
        ..Setup::default()
    };
    let manners = Manners {
        slow: 100,
        ..Manners::default()
    };
    let run = run(setup, manners, &requests);
    let submitting = run.report.enters.submitting;
    assert!(
        submitting > 120,
        "{submitting} for {} answers",
        requests.len()
    );
}
