//! The bytes of commands as they stand in a submission entry, from byte 48 on, and the numbers that
//! go with them. They are what a running driver accepted, so they hold without one.

#![cfg(target_endian = "little")]
#![allow(clippy::expect_used, reason = "a test stops at the first surprise")]

use oxublk_sys::*;
use zerocopy::{FromBytes, IntoBytes};

/// An address that shows where its bytes end up.
const ADDR: u64 = 0x1122_3344_5566_7788;
const ADDR_BYTES: [u8; 8] = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];

/// A payload of `N` bytes: zero but for the given pieces.
fn payload<const N: usize>(pieces: &[(usize, &[u8])]) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, piece) in pieces {
        bytes[*at..at + piece.len()].copy_from_slice(piece);
    }
    bytes
}

#[test]
fn get_features() {
    let cmd = CtrlCmd {
        len: FEATURES_LEN,
        addr: ADDR,
        ..CtrlCmd::new(ANY_DEV_ID)
    };
    let bytes = payload::<32>(&[
        (0, &[0xff, 0xff, 0xff, 0xff]),
        (4, &[0xff, 0xff]),
        (6, &[0x08, 0x00]),
        (8, &ADDR_BYTES),
    ]);
    assert_eq!(cmd.as_bytes(), bytes);
    assert_eq!(
        ctrl_op::GET_FEATURES.opcode.to_le_bytes(),
        [0x13, 0x75, 0x20, 0x80]
    );
}

#[test]
fn add_dev() {
    let cmd = CtrlCmd {
        len: 64,
        addr: ADDR,
        ..CtrlCmd::new(3)
    };
    let bytes = payload::<32>(&[
        (0, &[3]),
        (4, &[0xff, 0xff]),
        (6, &[0x40, 0x00]),
        (8, &ADDR_BYTES),
    ]);
    assert_eq!(cmd.as_bytes(), bytes);
    assert_eq!(
        ctrl_op::ADD_DEV.opcode.to_le_bytes(),
        [0x04, 0x75, 0x20, 0xc0]
    );
}

#[test]
fn add_dev_argument() {
    let info = DevInfo {
        nr_hw_queues: 2,
        queue_depth: 128,
        io_desc_size: 64,
        max_io_buf_bytes: 0x8_0000,
        dev_id: ANY_DEV_ID,
        ublksrv_pid: -1,
        flags: (Features::USER_COPY | Features::IO_DESC_SIZE).bits(),
        ublksrv_flags: ADDR,
        ..DevInfo::default()
    };
    let bytes = payload::<64>(&[
        (0, &[0x02, 0x00, 0x80, 0x00, 0x00, 0x00, 0x40, 0x00]),
        (8, &[0x00, 0x00, 0x08, 0x00]),
        (12, &[0xff, 0xff, 0xff, 0xff]),
        (16, &[0xff, 0xff, 0xff, 0xff]),
        (24, &[0x80, 0x00, 0x10]),
        (32, &ADDR_BYTES),
    ]);
    assert_eq!(info.as_bytes(), bytes);
    assert_eq!(DevInfo::read_from_bytes(&bytes).expect("64 bytes"), info);
}

#[test]
fn start_dev() {
    let cmd = CtrlCmd {
        data: [1234],
        ..CtrlCmd::new(7)
    };
    let bytes = payload::<32>(&[(0, &[7]), (4, &[0xff, 0xff]), (16, &[0xd2, 0x04])]);
    assert_eq!(cmd.as_bytes(), bytes);
    assert_eq!(
        ctrl_op::START_DEV.opcode.to_le_bytes(),
        [0x06, 0x75, 0x20, 0xc0]
    );
}

#[test]
fn a_path_in_front_of_the_argument() {
    let cmd = CtrlCmd {
        len: 12 + 64,
        addr: ADDR,
        dev_path_len: 12,
        ..CtrlCmd::new(0)
    };
    let bytes = payload::<32>(&[
        (4, &[0xff, 0xff]),
        (6, &[76, 0]),
        (8, &ADDR_BYTES),
        (24, &[12, 0]),
    ]);
    assert_eq!(cmd.as_bytes(), bytes);
}

#[test]
fn fetch() {
    let cmd = IoCmd {
        q_id: 1,
        tag: 5,
        result: -1,
        addr: ADDR,
    };
    let bytes = payload::<16>(&[(0, &[1, 0, 5, 0]), (4, &[0xff; 4]), (8, &ADDR_BYTES)]);
    assert_eq!(cmd.as_bytes(), bytes);
    assert_eq!(io_op::FETCH_REQ.to_le_bytes(), [0x20, 0x75, 0x10, 0xc0]);
}

#[test]
fn commit() {
    let cmd = IoCmd {
        q_id: 1,
        tag: 5,
        result: 4096,
        addr: ADDR,
    };
    let bytes = payload::<16>(&[
        (0, &[1, 0, 5, 0]),
        (4, &[0x00, 0x10, 0, 0]),
        (8, &ADDR_BYTES),
    ]);
    assert_eq!(cmd.as_bytes(), bytes);
    assert_eq!(
        io_op::COMMIT_AND_FETCH_REQ.to_le_bytes(),
        [0x21, 0x75, 0x10, 0xc0]
    );
}

#[test]
fn a_slot_for_automatic_registration_with_fallback() {
    let reg = AutoBufReg {
        index: 7,
        flags: AutoBufFlags::FALLBACK.bits(),
        ..AutoBufReg::default()
    };
    assert_eq!(
        reg.to_sqe_addr().to_le_bytes(),
        [0x07, 0x00, 0x01, 0, 0, 0, 0, 0]
    );
}

#[test]
fn automatic_registration_survives_the_way_through_a_submission_entry() {
    let reg = AutoBufReg {
        index: 0x7788,
        flags: 0x66,
        reserved0: 0x55,
        reserved1: 0x1122_3344,
    };
    assert_eq!(reg.to_sqe_addr(), ADDR);
    assert_eq!(AutoBufReg::from_sqe_addr(ADDR), reg);
}

#[test]
fn batch_of_two_elements_with_addresses() {
    let batch = BatchIo {
        q_id: 1,
        flags: BatchFlags::HAS_BUF_ADDR.bits(),
        nr_elem: 2,
        elem_bytes: 16,
        ..BatchIo::default()
    };
    assert_eq!(
        batch.as_bytes(),
        payload::<16>(&[(0, &[1, 0, 2, 0, 2, 0, 16])])
    );
    let elem = BatchElem {
        tag: 5,
        buf_index: 7,
        result: -5,
    };
    assert_eq!(elem.as_bytes(), [5, 0, 7, 0, 0xfb, 0xff, 0xff, 0xff]);
}

#[test]
fn position_of_a_byte_in_user_copy() {
    assert_eq!(user_copy_pos(0, 0, 0), IO_BUF_OFFSET);
    assert_eq!(user_copy_pos(1, 5, 512), 0x200_8a00_0200);
    let last = user_copy_pos(MAX_NR_QUEUES - 1, u16::MAX, MAX_IO_BUF_BYTES - 1);
    assert_eq!(last, IO_BUF_OFFSET + IO_BUF_TOTAL_SIZE - 1);
}

#[test]
fn queues_are_mapped_at_the_distance_of_the_greatest_depth() {
    assert_eq!(desc_mmap_offset(0, MIN_IO_DESC_SIZE, 4096), 0);
    assert_eq!(desc_mmap_offset(1, MIN_IO_DESC_SIZE, 4096), 0x1_8000);
    assert_eq!(desc_mmap_offset(3, MIN_IO_DESC_SIZE, 4096), 0x4_8000);
    assert_eq!(desc_mmap_offset(3, 64, 4096), 0xc_0000);
    assert_eq!(desc_mmap_offset(1, MIN_IO_DESC_SIZE, 65_536), 0x2_0000);
}

#[test]
fn a_queue_is_mapped_in_whole_pages() {
    assert_eq!(desc_mmap_len(1, MIN_IO_DESC_SIZE, 4096), 4096);
    assert_eq!(desc_mmap_len(128, MIN_IO_DESC_SIZE, 4096), 4096);
    assert_eq!(desc_mmap_len(171, MIN_IO_DESC_SIZE, 4096), 8192);
    assert_eq!(
        desc_mmap_len(MAX_QUEUE_DEPTH, MIN_IO_DESC_SIZE, 4096),
        0x1_8000
    );
}

#[test]
fn shared_memory_is_index_and_offset() {
    let addr = shmem_addr(0xfffe, 0x8000_0001);
    assert_eq!(addr, 0xfffe_8000_0001);
    assert_eq!(
        (shmem_index(addr), shmem_offset(addr)),
        (0xfffe, 0x8000_0001)
    );
}

#[test]
fn a_descriptor_has_its_flags_in_place() {
    let desc = IoDesc {
        op_flags: 0x0008_2001,
        ..IoDesc::default()
    };
    assert_eq!(desc.op(), op::WRITE);
    assert_eq!(desc.flags(), IoFlags::FUA | IoFlags::SHMEM_ZC);
    let unknown = IoDesc {
        op_flags: 0x8000_00ff,
        ..IoDesc::default()
    };
    assert_eq!(unknown.op(), 0xff);
    assert_eq!(unknown.flags().bits(), 0x8000_0000);
}

#[test]
fn features_are_listed_once_each_in_the_order_of_their_bits() {
    for (bit, info) in FEATURES.iter().enumerate() {
        assert_eq!(info.flag.bits(), 1 << bit, "{}", info.name);
        assert_eq!(Features::from_name(info.name), Some(info.flag));
        assert!(info.meaning.ends_with('.'), "{}", info.name);
    }
    assert_eq!(FEATURES.len(), 21);
    assert_eq!(Features::all().bits(), 0x1f_ffff);
}

/// What drivers were seen to answer, by kernel.
#[test]
fn features_are_dated_as_drivers_report_them() {
    let seen: [((u32, u32), u64); 6] = [
        ((6, 12), 0x00_01fe),
        ((6, 16), 0x00_3fff),
        ((6, 17), 0x00_7fff),
        ((6, 18), 0x00_7fff),
        ((7, 2), 0x0f_ffff),
        ((7, 3), 0x1f_ffff),
    ];
    for (kernel, reported) in seen {
        let known = FEATURES.iter().filter(|info| version(info.since) <= kernel);
        let known: Features = known.map(|info| info.flag).collect();
        assert_eq!(known.bits(), reported, "{kernel:?}");
    }
}

#[test]
fn commands_are_listed_in_the_order_of_their_numbers() {
    assert!(CTRL_OPS.is_sorted_by_key(|op| op.nr));
    for op in CTRL_OPS {
        assert_eq!(op.opcode & 0xff, u32::from(op.nr), "{}", op.name);
        assert!(version(op.since) >= (6, 0), "{}", op.name);
    }
    assert!(io_op::ALL.is_sorted());
    assert!(op::ALL.is_sorted());
}

/// "6.15" as numbers, to compare.
fn version(text: &str) -> (u32, u32) {
    let (major, minor) = text.split_once('.').expect("major.minor");
    (
        major.parse().expect("a number"),
        minor.parse().expect("a number"),
    )
}
