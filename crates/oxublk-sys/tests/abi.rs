//! Every fact of the kernel's header is in this crate, with the same number.
//!
//! The facts are in `abi-table.txt`, which `cargo xtask abi` writes from the newest header there is.
//! A line that nothing here produces is a failure: either the crate lacks something, or the line
//! belongs in [`IGNORED`] with a reason.

#![allow(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

use oxublk_sys::*;

const TABLE: &str = include_str!("abi-table.txt");

/// Facts that this crate leaves out, and why.
const IGNORED: &[(&str, &str)] = &[
    (
        "const BLK_ZONE_REP_CAPACITY",
        "a flag of the BLKREPORTZONE ioctl, not of a zone",
    ),
    (
        "const BLK_ZONE_REP_CACHED",
        "a flag of the BLKREPORTZONE ioctl, not of a zone",
    ),
];

/// Facts by their kind and name.
type Facts = BTreeMap<String, i128>;

fn table() -> Facts {
    TABLE.lines().skip(1).map(fact).collect()
}

fn fact(line: &str) -> (String, i128) {
    let (name, value) = line.rsplit_once(' ').expect("kind, name and value");
    let value = match value.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => value.parse(),
    };
    (name.to_owned(), value.expect("a number"))
}

/// What this crate says, under the header's names.
#[derive(Default)]
struct Ours(Facts);

impl Ours {
    fn add(&mut self, kind: &str, name: &str, value: impl Into<i128>) {
        let old = self.0.insert(format!("{kind} {name}"), value.into());
        assert_eq!(old, None, "{kind} {name} is listed twice");
    }

    fn constant(&mut self, name: &str, value: impl Into<i128>) {
        self.add("const", name, value);
    }

    fn length(&mut self, kind: &str, name: &str, value: usize) {
        self.add(kind, name, i128::try_from(value).expect("small"));
    }
}

/// Bytes of a field, given by how to get at it.
fn width<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// `layout!(ours, "name in C", Type, { field, "name in C" => field, ... })`
macro_rules! layout {
    ($ours:ident, $c:literal, $rust:ty, { $($fields:tt)* }) => {
        $ours.length("size", $c, size_of::<$rust>());
        layout!(@fields $ours, $c, $rust, $($fields)*);
    };
    (@fields $ours:ident, $c:literal, $rust:ty,) => {};
    (@fields $ours:ident, $c:literal, $rust:ty, $name:literal => $field:ident, $($rest:tt)*) => {
        layout!(@field $ours, $c, $rust, $name, $field);
        layout!(@fields $ours, $c, $rust, $($rest)*);
    };
    (@fields $ours:ident, $c:literal, $rust:ty, $field:ident, $($rest:tt)*) => {
        layout!(@field $ours, $c, $rust, stringify!($field), $field);
        layout!(@fields $ours, $c, $rust, $($rest)*);
    };
    (@field $ours:ident, $c:literal, $rust:ty, $name:expr, $field:ident) => {
        let name = format!("{}.{}", $c, $name);
        $ours.length("offset", &name, offset_of!($rust, $field));
        $ours.length("width", &name, width(|value: &$rust| &value.$field));
    };
}

/// `constants!(ours, "UBLK_", [NAME, ...])`: constants in scope whose C name has that prefix.
macro_rules! constants {
    ($ours:ident, $prefix:literal, [$($name:ident),* $(,)?]) => {
        $($ours.constant(concat!($prefix, stringify!($name)), $name);)*
    };
}

/// `flags!(ours, "UBLK_F_", Type)`: every named flag of a type.
macro_rules! flags {
    ($ours:ident, $prefix:literal, $flags:ty) => {
        for (name, flag) in <$flags>::all().iter_names() {
            $ours.constant(&format!("{}{name}", $prefix), flag.bits());
        }
    };
}

fn ours() -> Facts {
    let mut ours = Ours::default();
    command_layouts(&mut ours);
    parameter_layouts(&mut ours);
    commands(&mut ours);
    numbers(&mut ours);
    named_values(&mut ours);
    ours.0
}

fn command_layouts(ours: &mut Ours) {
    layout!(ours, "ublksrv_ctrl_cmd", CtrlCmd, {
        dev_id, queue_id, len, addr, data, dev_path_len, pad, reserved,
    });
    layout!(ours, "ublksrv_ctrl_dev_info", DevInfo, {
        nr_hw_queues, queue_depth, state, io_desc_size, max_io_buf_bytes, dev_id, ublksrv_pid, pad1,
        flags, ublksrv_flags, owner_uid, owner_gid, reserved1, reserved2,
    });
    layout!(ours, "ublksrv_io_cmd", IoCmd, {
        q_id, tag, result, addr, "zone_append_lba" => addr,
    });
    layout!(ours, "ublksrv_io_desc", IoDesc, {
        op_flags, nr_sectors, "nr_zones" => nr_sectors, start_sector, addr,
    });
    layout!(ours, "ublk_batch_io", BatchIo, {
        q_id, flags, nr_elem, elem_bytes, reserved, reserved2,
    });
    layout!(ours, "ublk_elem_header", BatchElem, { tag, buf_index, result, });
    layout!(ours, "ublk_auto_buf_reg", AutoBufReg, { index, flags, reserved0, reserved1, });
    layout!(ours, "ublk_shmem_buf_reg", ShmemBufReg, { addr, len, flags, reserved, });
    layout!(ours, "blk_zone", BlkZone, {
        start, len, wp, "type" => zone_type, cond, non_seq, reset, resv, capacity, reserved,
    });
}

fn parameter_layouts(ours: &mut Ours) {
    layout!(ours, "ublk_params", Params, {
        len, types, basic, discard, devt, zoned, dma, seg, integrity,
    });
    layout!(ours, "ublk_param_basic", ParamBasic, {
        attrs, logical_bs_shift, physical_bs_shift, io_opt_shift, io_min_shift, max_sectors,
        chunk_sectors, dev_sectors, virt_boundary_mask,
    });
    layout!(ours, "ublk_param_discard", ParamDiscard, {
        discard_alignment, discard_granularity, max_discard_sectors, max_write_zeroes_sectors,
        max_discard_segments, reserved0,
    });
    layout!(ours, "ublk_param_devt", ParamDevt, {
        char_major, char_minor, disk_major, disk_minor,
    });
    layout!(ours, "ublk_param_zoned", ParamZoned, {
        max_open_zones, max_active_zones, max_zone_append_sectors, reserved,
    });
    layout!(ours, "ublk_param_dma_align", ParamDmaAlign, { alignment, pad, });
    layout!(ours, "ublk_param_segment", ParamSegment, {
        seg_boundary_mask, max_segment_size, max_segments, pad,
    });
    layout!(ours, "ublk_param_integrity", ParamIntegrity, {
        flags, max_integrity_segments, interval_exp, metadata_size, pi_offset, csum_type, tag_size,
        pad,
    });
}

/// The header's last legacy numbers: newer commands have none.
const LAST_LEGACY_CTRL: u8 = 0x12;
const LAST_LEGACY_IO: u32 = 0x22;

fn commands(ours: &mut Ours) {
    for op in CTRL_OPS {
        ours.add("cmd", &format!("UBLK_U_CMD_{}", op.name), op.opcode);
        if op.nr <= LAST_LEGACY_CTRL {
            ours.constant(&format!("UBLK_CMD_{}", op.name), op.nr);
        }
    }
    for (opcode, name) in io_op::ALL {
        ours.add("cmd", &format!("UBLK_U_IO_{name}"), *opcode);
        let nr = *opcode & 0xff;
        if nr <= LAST_LEGACY_IO {
            ours.constant(&format!("UBLK_IO_{name}"), nr);
        }
    }
}

fn numbers(ours: &mut Ours) {
    constants!(
        ours,
        "UBLK_",
        [
            FEATURES_LEN,
            IO_RES_OK,
            IO_RES_NEED_GET_DATA,
            IO_RES_ABORT,
            MAX_QUEUE_DEPTH,
            MAX_NR_QUEUES,
            IO_BUF_OFF,
            IO_BUF_BITS,
            IO_BUF_BITS_MASK,
            TAG_OFF,
            TAG_BITS,
            TAG_BITS_MASK,
            QID_OFF,
            QID_BITS,
            QID_BITS_MASK,
            INTEGRITY_FLAG_OFF,
            MIN_SEGMENT_SIZE,
            SHMEM_ZC_OFF_MASK,
            SHMEM_ZC_IDX_OFF,
            SHMEM_ZC_IDX_MASK,
        ]
    );
    constants!(
        ours,
        "UBLKSRV_",
        [
            CMD_BUF_OFFSET,
            IO_BUF_OFFSET,
            IO_BUF_TOTAL_BITS,
            IO_BUF_TOTAL_SIZE,
            IO_INTEGRITY_FLAG,
        ]
    );
    flags!(ours, "UBLK_F_", Features);
    flags!(ours, "UBLK_IO_F_", IoFlags);
    flags!(ours, "UBLK_AUTO_BUF_REG_", AutoBufFlags);
    flags!(ours, "UBLK_BATCH_F_", BatchFlags);
    flags!(ours, "UBLK_SHMEM_BUF_", ShmemBufFlags);
    flags!(ours, "UBLK_ATTR_", DevAttrs);
    flags!(ours, "UBLK_PARAM_TYPE_", ParamTypes);
    flags!(ours, "LBMD_PI_CAP_", IntegrityFlags);
    ours.constant("UBLK_AUTO_BUF_REG_F_MASK", AutoBufFlags::all().bits());
}

fn named_values(ours: &mut Ours) {
    for (value, name) in op::ALL {
        ours.constant(&format!("UBLK_IO_OP_{name}"), *value);
    }
    {
        use dev_state::*;
        constants!(ours, "UBLK_S_DEV_", [DEAD, LIVE, QUIESCED, FAIL_IO]);
    }
    {
        use zone_type::*;
        constants!(
            ours,
            "BLK_ZONE_TYPE_",
            [CONVENTIONAL, SEQWRITE_REQ, SEQWRITE_PREF]
        );
    }
    {
        use zone_cond::*;
        constants!(
            ours,
            "BLK_ZONE_COND_",
            [
                NOT_WP, EMPTY, IMP_OPEN, EXP_OPEN, CLOSED, READONLY, FULL, OFFLINE, ACTIVE,
            ]
        );
    }
    {
        use csum_type::*;
        constants!(ours, "LBMD_PI_CSUM_", [NONE, IP, CRC16_T10DIF, CRC64_NVME]);
    }
}

#[test]
fn the_table_names_the_package_it_is_from() {
    let first = TABLE.lines().next().expect("a first line");
    let version = first
        .strip_prefix("# linux-libc-dev ")
        .expect("the package");
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{first}");
}

#[test]
fn every_fact_of_the_header_is_ours_or_left_out_for_a_reason() {
    let ours = ours();
    let mut wrong = Vec::new();
    for (name, theirs) in table() {
        let ignored = IGNORED.iter().any(|(ignored, _)| *ignored == name);
        match ours.get(&name) {
            Some(_) if ignored => wrong.push(format!("{name} is ignored, but the crate has it")),
            Some(ours) if *ours == theirs => {}
            Some(ours) => wrong.push(format!("{name}: {theirs} in the header, {ours} here")),
            None if ignored => {}
            None => wrong.push(format!("{name} = {theirs} is not in the crate")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_header_has_everything_that_we_have_or_ignore() {
    let table = table();
    let ours = ours();
    let ignored = IGNORED.iter().map(|(name, _)| (*name).to_owned());
    let gone: Vec<_> = ours
        .into_keys()
        .chain(ignored)
        .filter(|name| !table.contains_key(name))
        .collect();
    assert!(gone.is_empty(), "not in the header: {gone:#?}");
}

#[test]
fn what_is_ignored_has_a_reason() {
    for (name, reason) in IGNORED {
        assert!(!reason.is_empty(), "{name}");
    }
}
