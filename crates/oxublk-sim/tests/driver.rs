//! The driver's own rules, on the ring itself: what each kernel does with right and wrong commands.
//!
//! The servers here are wrong on purpose. That the model reports each of them is what makes the
//! silence of the other tests mean something.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "common/server.rs"]
mod server;

use oxublk::Tag;
use oxublk::queue::{Completion, Ring};
use oxublk::sys::op;
use oxublk_sim::{After, ClientRequest, Event, Kernel, RequestId, Setup, Violation};
use server::Server;

fn quiet(kernel: Kernel, depth: u16) -> Setup {
    Setup {
        kernel,
        depth,
        spurious_percent: 0,
        ..Setup::default()
    }
}

#[test]
fn fetch_of_an_armed_tag_is_refused() {
    for kernel in Kernel::ALL {
        let mut server = Server::new(quiet(kernel, 2));
        server.ring.fetch(Tag(0)).unwrap();
        server.ring.fetch(Tag(0)).unwrap();
        server.ring.enter(false).unwrap();
        let errno = match kernel {
            Kernel::V6_12 | Kernel::V6_16 => libc::EBUSY,
            _ => libc::EINVAL,
        };
        let refused = Some(Completion::Tag(Tag(0), -errno));
        assert_eq!(server.ring.next_completion(), refused, "{kernel:?}");
        let violations = server.end().violations;
        assert_eq!(violations, [Violation::FetchRefused(Tag(0), errno)]);
    }
}

#[test]
fn fetch_is_refused_when_every_tag_is_armed() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 2));
    server.ring.fetch(Tag(1)).unwrap();
    server.ring.enter(false).unwrap();
    let refused = Some(Completion::Tag(Tag(1), -libc::EBUSY));
    assert_eq!(server.ring.next_completion(), refused);
}

#[test]
fn commands_of_a_tag_that_the_queue_does_not_have_are_refused() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 2));
    server.ring.fetch(Tag(2)).unwrap();
    server.ring.commit(Tag(9), 0).unwrap();
    server.ring.enter(false).unwrap();
    for tag in [2, 9] {
        let refused = Some(Completion::Tag(Tag(tag), -libc::EINVAL));
        assert_eq!(server.ring.next_completion(), refused);
    }
}

#[test]
fn commit_of_a_tag_that_is_not_with_the_server_is_refused() {
    let mut server = Server::armed(quiet(Kernel::V6_12, 2));
    server.ring.commit(Tag(1), 0).unwrap();
    server.ring.enter(false).unwrap();
    let refused = Some(Completion::Tag(Tag(1), -libc::EBUSY));
    assert_eq!(server.ring.next_completion(), refused);
    let violations = server.end().violations;
    assert_eq!(violations, [Violation::CommitRefused(Tag(1), libc::EBUSY)]);
}

#[test]
fn a_second_answer_is_refused_and_changes_nothing() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::flush());
    let held = server.next();
    server.ring.commit(held.tag(), 0).unwrap();
    server.ring.commit(held.tag(), -libc::EIO).unwrap();
    server.ring.enter(false).unwrap();
    let report = server.end();
    assert_eq!(report.outcomes.len(), 1);
    assert_eq!(report.outcomes[0].result, Ok(()));
    assert_eq!(
        report.violations,
        [Violation::CommitRefused(Tag(0), libc::EBUSY)]
    );
}

#[test]
fn requests_are_delivered_only_while_the_server_waits() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 4));
    server.submit(ClientRequest::read(0, 8));
    for _ in 0..100 {
        server.ring.enter(false).unwrap();
        assert_eq!(server.ring.next_completion(), None);
    }
    let held = server.next();
    assert_eq!(server.ring.descriptor(&held).nr_sectors, 8);
}

#[test]
fn a_flush_comes_with_sector_minus_one_and_no_length() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::flush());
    let held = server.next();
    let descriptor = server.ring.descriptor(&held);
    assert_eq!(descriptor.op(), op::FLUSH);
    assert_eq!(descriptor.start_sector, u64::MAX);
    assert_eq!(descriptor.nr_sectors, 0);
}

#[test]
fn the_rest_of_a_short_read_is_delivered_again() {
    for kernel in Kernel::ALL {
        let mut server = Server::armed(quiet(kernel, 2));
        server.submit(ClientRequest::read(8, 8));
        let held = server.next();
        server.ring.buffer(&held)[..1024].fill(0);
        server.answer(held, 1024);
        let held = server.next();
        let descriptor = server.ring.descriptor(&held);
        assert_eq!((descriptor.start_sector, descriptor.nr_sectors), (10, 6));
        server.ring.buffer(&held)[..3072].fill(0);
        server.answer(held, 3072);
        let report = server.end();
        let outcome = &report.outcomes[0];
        assert_eq!((outcome.result, outcome.deliveries), (Ok(()), 2));
        assert_eq!(report.violations.len(), 1, "{:?}", report.violations);
        assert!(matches!(
            report.violations[0],
            Violation::WrongCount {
                asked: 4096,
                answered: 1024,
                ..
            }
        ));
    }
}

#[test]
fn a_read_that_yields_nothing_has_failed() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 2));
    server.submit(ClientRequest::read(0, 1));
    let held = server.next();
    server.answer(held, 0);
    assert_eq!(server.end().outcomes[0].result, Err(libc::EIO));
}

#[test]
fn a_short_write_is_delivered_again_until_7_2_and_lost_on_7_3() {
    for kernel in Kernel::ALL {
        let mut server = Server::armed(quiet(kernel, 1));
        server.submit(ClientRequest::write(0, 4));
        let held = server.next();
        let first = server.ring.buffer(&held)[..2048].to_vec();
        server.answer(held, 512);
        if kernel != Kernel::V7_3 {
            let held = server.next();
            assert_eq!(server.ring.descriptor(&held).start_sector, 1);
            assert_eq!(server.ring.buffer(&held)[..1536], first[512..]);
            server.answer(held, 1536);
        }
        let report = server.end();
        let deliveries = if kernel == Kernel::V7_3 { 1 } else { 2 };
        assert_eq!(report.outcomes[0].result, Ok(()));
        assert_eq!(report.outcomes[0].deliveries, deliveries, "{kernel:?}");
        assert_eq!(report.violations.len(), 1, "the server is told");
    }
}

#[test]
fn a_client_sees_the_errnos_that_the_block_layer_knows_and_eio_for_others() {
    for (answered, seen) in [
        (libc::ENOSPC, libc::ENOSPC),
        (libc::EOPNOTSUPP, libc::EOPNOTSUPP),
        (libc::EILSEQ, libc::EILSEQ),
        (libc::EINVAL, libc::EINVAL),
        (libc::EPERM, libc::EIO),
        (libc::EROFS, libc::EIO),
        (4095, libc::EIO),
    ] {
        let mut server = Server::armed(quiet(Kernel::V7_3, 1));
        server.submit(ClientRequest::write(0, 1));
        let held = server.next();
        server.answer(held, -answered);
        assert_eq!(server.end().outcomes[0].result, Err(seen));
    }
}

#[test]
fn a_stop_waits_for_held_requests_then_every_tag_comes_back() {
    let setup = Setup {
        plan: vec![(After::Finished(1), Event::Stop)],
        ..quiet(Kernel::V7_3, 2)
    };
    let mut server = Server::armed(setup);
    for _ in 0..2 {
        server.submit(ClientRequest::flush());
    }
    let (first, second) = (server.next(), server.next());
    server.answer(first, 0);
    server.ring.enter(false).unwrap();
    server.ring.enter(false).unwrap();
    assert_eq!(server.ring.next_completion(), None, "one is still held");
    server.answer(second, 0);
    let mut gone = Vec::new();
    while gone.len() < 2 {
        server.ring.enter(true).unwrap();
        while let Some(Completion::Tag(tag, result)) = server.ring.next_completion() {
            assert_eq!(result, -libc::ENODEV);
            gone.push(tag);
        }
    }
    gone.sort();
    assert_eq!(gone, [Tag(0), Tag(1)]);
    assert_eq!(server.end().violations, []);
}

#[test]
fn a_server_that_dies_with_every_tag_in_hand_is_noticed_late_on_6_12() {
    for (kernel, late) in [(Kernel::V6_12, true), (Kernel::V7_3, false)] {
        let mut server = Server::armed(quiet(kernel, 1));
        server.submit(ClientRequest::read(0, 1));
        let _held = server.next();
        let outcome = server.end().outcomes.remove(0);
        assert_eq!(outcome.result, Err(libc::EIO));
        assert_eq!(outcome.finished_ns > 29_000_000_000, late, "{kernel:?}");
    }
}

#[test]
fn a_request_that_is_never_answered_is_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 2));
    server.submit(ClientRequest::read(0, 1));
    let _held = server.next();
    assert!(
        server.ring.enter(true).is_err(),
        "nothing can come any more"
    );
    assert_eq!(
        server.end().violations,
        [
            Violation::Hang(vec![RequestId(0)]),
            Violation::NeverAnswered(RequestId(0))
        ]
    );
}

#[test]
fn a_buffer_used_after_the_answer_is_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::read(0, 1));
    let held = server.next();
    server.ring.buffer(&held)[..512].fill(0);
    server.ring.commit(held.tag(), 512).unwrap();
    server.ring.buffer(&held)[0] = 1;
    let _ = server.ring.descriptor(&held);
    assert_eq!(
        server.end().violations[..2],
        [
            Violation::TouchedArmed(Tag(0)),
            Violation::TouchedArmed(Tag(0))
        ]
    );
}

#[test]
fn an_answer_before_the_request_was_seen_is_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::flush());
    server.ring.enter(true).unwrap();
    server.ring.commit(Tag(0), 0).unwrap();
    server.ring.enter(false).unwrap();
    assert_eq!(server.end().violations, [Violation::AnsweredUnseen(Tag(0))]);
}

#[test]
fn a_read_answered_from_a_buffer_that_was_not_filled_is_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::read(3, 2));
    let held = server.next();
    server.ring.buffer(&held)[..512].fill(0);
    server.answer(held, 1024);
    let wrong = Violation::WrongBytes {
        request: RequestId(0),
        sector: 4,
    };
    assert_eq!(server.end().violations, [wrong]);
}

#[test]
fn reads_answered_from_each_others_buffers_are_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 2));
    server.submit(ClientRequest::write(0, 1));
    let held = server.next();
    let stored = server.ring.buffer(&held)[..512].to_vec();
    server.answer(held, 512);
    server.submit(ClientRequest::read(0, 1));
    server.submit(ClientRequest::read(1, 1));
    let (one, other) = (server.next(), server.next());
    // Filled by the order of arrival instead of by the descriptor, the wrong way round.
    let first_is_0 = server.ring.descriptor(&one).start_sector == 0;
    let (of_0, of_1) = if first_is_0 {
        (one, other)
    } else {
        (other, one)
    };
    server.ring.buffer(&of_0)[..512].fill(0);
    server.ring.buffer(&of_1)[..512].copy_from_slice(&stored);
    server.answer(of_0, 512);
    server.answer(of_1, 512);
    let violations = server.end().violations;
    assert_eq!(violations.len(), 2, "{violations:?}");
    assert!(
        violations
            .iter()
            .all(|violation| matches!(violation, Violation::WrongBytes { .. }))
    );
}

#[test]
fn a_write_that_was_answered_and_not_stored_is_reported() {
    let mut server = Server::armed(quiet(Kernel::V7_3, 1));
    server.submit(ClientRequest::write(0, 1));
    let held = server.next();
    server.answer(held, 512);
    server.submit(ClientRequest::read(0, 1));
    let held = server.next();
    server.ring.buffer(&held)[..512].fill(0);
    server.answer(held, 512);
    assert!(matches!(
        server.end().violations[..],
        [Violation::WrongBytes { sector: 0, .. }]
    ));
}

#[test]
fn requests_that_no_block_layer_sends_are_not_taken() {
    let server = Server::new(quiet(Kernel::V7_3, 1));
    for request in [
        ClientRequest::read(0, 0),
        ClientRequest::read(0, 33),
        ClientRequest::write(255, 2),
        ClientRequest::new(op::DISCARD, 256, 1),
        ClientRequest::read(u64::MAX, 1),
    ] {
        assert!(server.driver.submit(request).is_err(), "{request:?}");
    }
}
