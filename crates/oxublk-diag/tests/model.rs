//! Decide, on every history that the model of the driver can make.
//!
//! The model's host serves in whatever order its seed says until a fault happens; two views of it are what doctor would
//! have seen. The verdict names the fault, or says healthy. `PROPTEST_CASES=5000` looks longer.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "model/expect.rs"]
mod expect;
#[path = "model/sight.rs"]
mod sight;
#[path = "model/snapshot.rs"]
mod snapshot;

use oxublk_diag::decide::{Limits, decide};
use oxublk_diag::facts::Snapshot;
use oxublk_diag::finding::{Cause, Certainty, Health, Report};
use oxublk_sim::Kernel;
use oxublk_sim::host::{Does, Fault, Host, Plan, View};
use proptest::prelude::*;

use expect::expected;
use sight::{Sight, limit, mangle};
use snapshot::snapshot;

/// Between two looks.
const PAUSE_MS: u64 = 250;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn plan(fault: impl Strategy<Value = Option<Fault>>) -> impl Strategy<Value = Plan> {
    let kernels = prop::sample::select(&Kernel::ALL[..]);
    let depths = prop_oneof![4 => 1..=8u16, 1 => 9..=40u16];
    let sizes = (1..=3u16, depths);
    let (deferred, seed) = (any::<bool>(), any::<u64>());
    (kernels, sizes, deferred, seed, fault, 0..60usize).prop_map(
        |(kernel, (queues, depth), deferred, seed, fault, after)| {
            Plan {
                kernel,
                queues,
                depth,
                deferred,
                seed,
                fault,
                after,
            }
            .suited()
        },
    )
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop::sample::select(Fault::ALL).prop_map(Some)
}

/// Two views, a pause apart.
fn views(host: &mut Host) -> (View, View) {
    let before = host.view();
    host.pass(PAUSE_MS);
    (before, host.view())
}

fn verdict(before: &Snapshot, now: &Snapshot) -> Report {
    decide(before, now, Limits::default())
}

/// The age of the oldest request that is in both views.
fn oldest_ms(before: &View, now: &View) -> Option<u64> {
    let requests = |view: &View| -> Vec<_> {
        let tags = view
            .queues
            .iter()
            .flat_map(|queue| queue.tags.iter().map(move |tag| (queue.id, tag)));
        tags.filter_map(|(queue, tag)| Some((queue, tag.tag, tag.request?)))
            .collect()
    };
    let old = requests(before);
    let stayed = requests(now).into_iter().filter(|(queue, tag, request)| {
        old.iter()
            .any(|(q, t, r)| (q, t, r.id) == (queue, tag, request.id))
    });
    stayed
        .map(|(_, _, request)| request.age_ns / 1_000_000)
        .max()
}

/// The model until the fault has happened, and a request has waited for it long enough, if one ever does.
fn struck(plan: Plan) -> Option<(Host, View, View)> {
    let mut host = Host::new(plan);
    if !host.run() {
        return None;
    }
    for _ in 0..4 {
        host.pass(7000);
        let (before, now) = views(&mut host);
        if oldest_ms(&before, &now).is_some_and(|age| age > 6000) {
            return Some((host, before, now));
        }
    }
    let (before, now) = views(&mut host);
    Some((host, before, now))
}

fn told(report: &Report) -> String {
    let findings = report.findings.iter();
    findings
        .map(|finding| {
            format!(
                "\n{} ({:?}, {:?}): {}\n    {}",
                finding.cause,
                finding.health,
                finding.certainty,
                finding.says,
                finding.evidence.join("\n    ")
            )
        })
        .collect()
}

/// Whether what a thread of the server does cannot be told from two views: one thing now and another then, or it runs
/// in both and slept between.
fn is_unsteady(before: &View, now: &View) -> bool {
    const BUSY_NS: u64 = 60_000_000;
    now.threads.iter().any(|thread| {
        let old = before.threads.iter().find(|old| old.tid == thread.tid);
        old.is_some_and(|old| {
            let spins = thread.cpu_ns - old.cpu_ns > BUSY_NS && thread.switches == old.switches;
            old.does != thread.does || (thread.does == Does::Runs && !spins)
        })
    })
}

fn sight() -> impl Strategy<Value = Sight> {
    let seen = || any::<bool>();
    (seen(), seen(), seen(), seen(), seen()).prop_map(
        |(structures, past, tasks, debugfs, inside)| Sight {
            structures,
            past,
            tasks,
            debugfs,
            inside,
        },
    )
}

/// Faults of a handler that takes its time.
const HANDLERS: [Fault; 5] = [
    Fault::HandlerOnTimer,
    Fault::HandlerInMedium,
    Fault::HandlerBlocked,
    Fault::HandlerSpins,
    Fault::HandlerLocked,
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_verdict_names_the_fault(plan in plan(any_fault())) {
        let (host, before, now) = struck(plan).expect("every fault finds its occasion");
        let fault = host.plan().fault.unwrap();
        let report = verdict(&snapshot(&before), &snapshot(&now));
        let expected = expected(fault, &now);
        let late = oldest_ms(&before, &now).is_some_and(|age| age > 6000);
        if !late && !expected.always {
            prop_assert_eq!(report.health, Health::Healthy, "nobody waits: {}", told(&report));
            return Ok(());
        }
        let causes: Vec<_> = report.findings.iter().map(|finding| finding.cause).collect();
        let named = causes.iter().any(|cause| expected.names(*cause));
        // What a thread does is not known when it does one thing now and another then.
        let unsteady = is_unsteady(&before, &now);
        prop_assert!(
            named || unsteady && causes.contains(&Cause::Unexplained),
            "{}: {}", expected.cause, told(&report)
        );
        prop_assert!(report.health >= expected.health, "{}", told(&report));
        for cause in causes {
            let fits = expected.allows(cause) || (unsteady && cause == Cause::Unexplained);
            prop_assert!(fits, "{cause}, not only {}: {}", expected.cause, told(&report));
        }
    }

    #[test]
    fn a_healthy_server_is_healthy(plan in plan(Just(None)), age in 0..3000u64) {
        let mut host = Host::new(plan);
        host.run();
        host.pass(age);
        let (before, now) = views(&mut host);
        let report = verdict(&snapshot(&before), &snapshot(&now));
        prop_assert!(report.findings.is_empty(), "{}", told(&report));
        prop_assert_eq!(report.health, Health::Healthy);
    }

    #[test]
    fn a_server_that_still_arms_is_healthy(plan in plan(Just(None))) {
        let mut host = Host::new(plan);
        host.arm_in_part();
        let (before, now) = views(&mut host);
        let report = verdict(&snapshot(&before), &snapshot(&now));
        prop_assert!(report.findings.is_empty(), "{}", told(&report));
    }

    #[test]
    fn a_handler_that_takes_its_time_is_a_warning(
        plan in plan(prop::sample::select(&HANDLERS[..]).prop_map(Some)), wait in 1100..4000u64,
    ) {
        let mut host = Host::new(plan);
        prop_assert!(host.run(), "it finds its occasion");
        host.pass(wait);
        let (before, now) = views(&mut host);
        let report = verdict(&snapshot(&before), &snapshot(&now));
        let cause = expected(host.plan().fault.unwrap(), &now).cause;
        prop_assert_eq!(report.health, Health::Warning, "{}", told(&report));
        prop_assert!(report.findings.iter().all(|finding| finding.cause == cause), "{}", told(&report));
    }

    #[test]
    fn what_is_certain_is_right_whatever_was_not_seen(plan in plan(any_fault()), sight in sight()) {
        let (host, before, now) = struck(plan).expect("every fault finds its occasion");
        let expected = expected(host.plan().fault.unwrap(), &now);
        let (mut before, mut now) = (snapshot(&before), snapshot(&now));
        limit(&mut before, sight);
        limit(&mut now, sight);
        let report = verdict(&before, &now);
        for finding in &report.findings {
            let right = finding.certainty < Certainty::Certain || expected.allows(finding.cause);
            prop_assert!(right, "{}, not {}: {}", finding.cause, expected.cause, told(&report));
        }
    }

    #[test]
    fn a_healthy_server_is_healthy_whatever_was_not_seen(plan in plan(Just(None)), sight in sight()) {
        let mut host = Host::new(plan);
        host.run();
        let (before, now) = views(&mut host);
        let (mut before, mut now) = (snapshot(&before), snapshot(&now));
        limit(&mut before, sight);
        limit(&mut now, sight);
        let report = verdict(&before, &now);
        prop_assert!(report.findings.is_empty(), "{}", told(&report));
    }

    #[test]
    fn a_request_of_one_look_is_no_finding(plan in plan(any_fault())) {
        let (_, before, now) = struck(plan).expect("every fault finds its occasion");
        let (mut before, now) = (snapshot(&before), snapshot(&now));
        let tags = before.devices[0].queues.iter_mut().flat_map(|queue| &mut queue.tags);
        for request in tags.filter_map(|tag| tag.request.as_mut()) {
            request.identity = request.identity.map(|identity| identity + 1_000_000);
        }
        let report = verdict(&before, &now);
        let about = report.findings.iter().filter(|finding| !finding.tags.is_empty());
        prop_assert_eq!(about.count(), 0, "{}", told(&report));
    }

    #[test]
    fn a_request_that_moves_is_not_judged_by_its_place(plan in plan(any_fault())) {
        use oxublk_diag::facts::Place;
        let (host, before, now) = struck(plan).expect("every fault finds its occasion");
        let expected = expected(host.plan().fault.unwrap(), &now);
        let (mut before, now) = (snapshot(&before), snapshot(&now));
        for tag in before.devices[0].queues.iter_mut().flat_map(|queue| &mut queue.tags) {
            tag.place = match tag.place {
                Some(Place::Armed) => Some(Place::WithServer),
                _ => Some(Place::Armed),
            };
        }
        let report = verdict(&before, &now);
        for finding in report.findings.iter().filter(|finding| !finding.tags.is_empty()) {
            let allowed = finding.cause == Cause::Unexplained || expected.allows(finding.cause);
            prop_assert!(allowed, "{}", told(&report));
        }
    }

    #[test]
    fn looks_that_make_no_sense_are_survived(
        one in plan(any_fault()), other in plan(any_fault()), seed in any::<u64>(),
    ) {
        let looks = |plan| struck(plan).map(|(_, before, now)| (snapshot(&before), snapshot(&now)));
        let Some(((mut before, _), (_, mut now))) = looks(one).zip(looks(other)) else {
            return Ok(());
        };
        mangle(&mut before, seed);
        mangle(&mut now, !seed);
        let report = verdict(&before, &now);
        prop_assert_eq!(report.schema, 1);
    }
}

#[test]
fn every_fault_is_met() {
    for fault in Fault::ALL {
        let met = (0..12).filter(|seed| {
            let plan = Plan {
                kernel: Kernel::ALL[(seed % 5) as usize],
                queues: 2,
                depth: 4,
                deferred: seed % 2 == 0,
                seed: *seed,
                fault: Some(*fault),
                after: 10,
            };
            let (_, before, now) = struck(plan).expect("every fault finds its occasion");
            let report = verdict(&snapshot(&before), &snapshot(&now));
            let expected = expected(*fault, &now);
            report
                .findings
                .iter()
                .any(|finding| finding.cause == expected.cause)
        });
        let met = met.count();
        assert!(
            met >= 6,
            "{fault:?}: its verdict came up in {met} of 12 runs"
        );
    }
}
