//! What the runs are made of: requests, and the driver's manners.

use oxublk::sys::{IoFlags, op};
use oxublk_sim::{ClientRequest, Delivery, Kernel, Setup, StopOrder};
use proptest::prelude::*;

pub(crate) const SECTORS: u64 = 96;
const MAX_IO: usize = 8 << 10;

/// A request somewhere on a small disk, so that many overlap.
fn request() -> impl Strategy<Value = ClientRequest> {
    let ops = prop_oneof![
        6 => Just(op::READ),
        6 => Just(op::WRITE),
        1 => Just(op::FLUSH),
        1 => Just(op::DISCARD),
        1 => Just(op::WRITE_ZEROES),
        1 => Just(op::ZONE_OPEN),
    ];
    let flags = prop_oneof![
        Just(IoFlags::empty()),
        Just(IoFlags::FUA),
        Just(IoFlags::NOUNMAP)
    ];
    (ops, flags, 0..SECTORS, 1..=16u32).prop_map(|(op, flags, sector, sectors)| {
        if op == op::FLUSH {
            return ClientRequest::flush();
        }
        let room = u32::try_from(SECTORS - sector).unwrap();
        ClientRequest::new(op, sector, sectors.min(room)).with(flags)
    })
}

pub(crate) fn requests() -> impl Strategy<Value = Vec<ClientRequest>> {
    prop::collection::vec(request(), 0..120)
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    let kernels = prop_oneof![Just(Kernel::V6_12), Just(Kernel::V7_3)];
    let depths = prop_oneof![8 => 1..=8u16, 4 => 9..=128u16, 1 => Just(1024), 1 => Just(4096)];
    let delivery = prop_oneof![3 => Just(Delivery::Deferred), 1 => Just(Delivery::AnyCall)];
    let order = prop_oneof![Just(StopOrder::Drained), Just(StopOrder::Idle)];
    (kernels, depths, any::<u64>(), 0..50u8, delivery, order).prop_map(
        |(kernel, depth, seed, spurious_percent, delivery, stop_order)| Setup {
            kernel,
            depth,
            max_io_bytes: MAX_IO,
            sectors: SECTORS,
            seed,
            spurious_percent,
            delivery,
            stop_order,
            ..Setup::default()
        },
    )
}

/// 128 cases, and more with `PROPTEST_CASES`. What fails is printed whole.
pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases / 2,
        failure_persistence: None,
        ..default
    }
}
