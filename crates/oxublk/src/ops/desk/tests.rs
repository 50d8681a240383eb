//! What becomes of operations that end, that are given up, and that were never submitted.

use std::task::Context;

use super::*;

const TAG: Tag = Tag(2);

fn desk() -> Desk {
    let desk = Desk::new(4);
    desk.enter(TAG);
    desk
}

fn sleep(nanoseconds: u64) -> Op {
    Op::Sleep { nanoseconds }
}

/// Gives all to the kernel.
fn submitted(desk: &Desk) -> Vec<(OpId, Op)> {
    let mut given = Vec::new();
    desk.submit(|id, op| {
        given.push((id, *op));
        Ok::<(), ()>(())
    })
    .expect("room");
    given
}

fn poll(waiting: &mut Waiting<'_>) -> Poll<i32> {
    Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_operation_is_submitted_once_and_its_result_comes_to_who_waits() {
    let desk = desk();
    let mut waiting = desk.begin(sleep(1));
    assert!(desk.is_busy(TAG), "about to go to the kernel");
    let given = submitted(&desk);
    assert_eq!(given, [(waiting.id, sleep(1))]);
    assert_eq!(submitted(&desk), []);
    assert!(desk.is_busy(TAG));
    assert_eq!(poll(&mut waiting), Poll::Pending);
    assert_eq!(desk.ended(waiting.id, -5), Some(TAG));
    assert!(!desk.is_busy(TAG));
    assert_eq!(poll(&mut waiting), Poll::Ready(-5));
    let id = waiting.id;
    drop(waiting);
    assert_eq!(desk.begin(sleep(2)).id, id, "the number is used again");
}

#[test]
fn what_is_given_up_before_it_is_submitted_never_is() {
    let desk = desk();
    drop(desk.begin(sleep(1)));
    assert_eq!(submitted(&desk), []);
    assert!(!desk.is_busy(TAG));
}

#[test]
fn what_is_given_up_later_is_cancelled_and_keeps_its_tag_busy_until_it_has_ended() {
    let desk = desk();
    let waiting = desk.begin(sleep(1));
    let operation = waiting.id;
    submitted(&desk);
    drop(waiting);
    assert!(desk.is_busy(TAG));
    let given = submitted(&desk);
    let [(cancel, op)] = given[..] else {
        panic!("{given:?}")
    };
    assert_eq!(op, Op::Cancel { operation });
    assert_ne!(
        desk.begin(sleep(3)).id,
        operation,
        "the number is still in use"
    );
    assert_eq!(desk.ended(cancel, 0), Some(TAG));
    assert!(desk.is_busy(TAG), "the operation itself has not ended");
    assert_eq!(desk.ended(operation, -libc::ECANCELED), Some(TAG));
    assert!(!desk.is_busy(TAG));
    assert_eq!(desk.ended(operation, 0), None, "it ended before");
}

#[test]
fn who_waits_with_a_waker_of_its_own_is_woken_by_it() {
    let desk = desk();
    let mut waiting = desk.begin(sleep(1));
    submitted(&desk);
    let other = Wakeups::new(8);
    let waker = other.waker(Tag(7));
    let polled = Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
    assert_eq!(polled, Poll::Pending);
    desk.ended(waiting.id, 0);
    let mut woken = Vec::new();
    other.take(|tag| woken.push(tag));
    assert_eq!(woken, [Tag(7)]);
}
