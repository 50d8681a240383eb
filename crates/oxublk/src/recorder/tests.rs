//! The recorder as its readers see it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use oxublk_sys::{IoDesc, op};
use zerocopy::IntoBytes as _;

use super::format::Header;
use super::{Recorded, Recording, Records, Refused, Station, TagRecord, read};
use crate::id::{DeviceId, QueueId, Tag};
use crate::operation::Operation;
use crate::queue::Request;

fn request(op: u8, sector: u64, sectors: u32) -> Request {
    Request::new(&IoDesc {
        op_flags: u32::from(op),
        nr_sectors: sectors,
        start_sector: sector,
        addr: 0,
    })
}

/// Where anybody finds the recorder of this process's device.
fn path(device: u32) -> PathBuf {
    let name = format!("/memfd:oxublk-recorder-{device} (deleted)");
    fs::read_dir("/proc/self/fd")
        .expect("our own")
        .map(|entry| entry.expect("an entry").path())
        .find(|fd| fs::read_link(fd).is_ok_and(|link| link.as_os_str() == name.as_str()))
        .expect("its recorder")
}

#[test]
fn others_read_what_the_server_wrote_and_cannot_change_it() {
    let queues = Records::of_device(DeviceId(704), 2, 4);
    let record = &queues[1].all()[3];
    assert_eq!(queues[0].all().len(), 4);
    record.armed(10);
    record.reaped(&request(op::WRITE, 24, 8), 20);
    record.handed(21);
    let file = File::open(path(704)).expect("it can be opened");
    let recording = read(&file).expect("a recording");
    assert_eq!(recording.header.device, 704);
    assert_eq!((recording.tags.len(), recording.moving), (8, 0));
    let expected = Recorded {
        queue: QueueId(1),
        tag: Tag(3),
        station: Station::WithDisk,
        operation: Operation::Write,
        sector: 24,
        bytes: 4096,
        result: None,
        requests: 1,
        armed_ns: 10,
        reaped_ns: 20,
        handed_ns: 21,
    };
    assert_eq!(recording.requests().collect::<Vec<_>>(), [&expected]);
    assert_eq!(expected.since_ns(), 21);
    let writer = OpenOptions::new().write(true).open(path(704));
    let writer = writer.expect("it can be opened");
    let refused = writer.write_at(b"x", 0).expect_err("sealed");
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert!(writer.set_len(0).is_err() && writer.set_len(1 << 20).is_err());
}

#[test]
fn the_record_is_gone_with_its_device() {
    let queues = Records::of_device(DeviceId(705), 1, 1);
    let file = path(705);
    drop(queues);
    let link = fs::read_link(file).unwrap_or_default();
    assert!(!link.to_string_lossy().contains("recorder-705"), "{link:?}");
}

#[test]
fn a_request_passes_the_stations_and_leaves_nothing_to_the_next() {
    let records = Records::private(1);
    let record = &records.all()[0];
    let at = || record.read(QueueId(0), Tag(0)).expect("nobody writes");
    let stand = || (at().station, at().result, at().handed_ns);
    assert_eq!(stand(), (Station::Unarmed, None, 0));
    record.armed(1);
    assert_eq!(stand(), (Station::Armed, None, 0));
    record.reaped(&request(op::READ, 0, 8), 5);
    assert_eq!(stand(), (Station::Reaped, None, 0));
    record.handed(6);
    assert_eq!(stand(), (Station::WithDisk, None, 6));
    record.answered(-5);
    assert_eq!(stand(), (Station::Answered, Some(-5), 6));
    record.submitted(8);
    assert_eq!(stand(), (Station::Armed, Some(-5), 6));
    record.reaped(&request(op::FLUSH, 0, 0), 9);
    assert_eq!(stand(), (Station::Reaped, None, 0));
    assert_eq!((at().operation, at().requests), (Operation::Flush, 2));
    record.handed(10);
    record.answered(0);
    record.submitted(11);
    assert_eq!((at().station, at().requests), (Station::Armed, 2));
    record.gone();
    assert_eq!((at().station, at().requests), (Station::Gone, 2));
}

/// A file of one queue with two tags.
fn file() -> Vec<u8> {
    let mut bytes = Header::new(DeviceId(3), 1, 2, 0).as_bytes().to_vec();
    for _ in 0..2 {
        bytes.extend_from_slice(TagRecord::default().as_bytes());
    }
    bytes
}

#[test]
fn what_changes_between_two_looks_is_left_out() {
    let (first, mut second) = (file(), file());
    second[64] = Station::Armed as u8;
    let recording = Recording::new(&first, &second).expect("a recording");
    assert_eq!((recording.tags.len(), recording.moving), (1, 1));
    assert_eq!(recording.tags[0].tag, Tag(1));
    // Being written, and a station that nobody knows.
    for station in [0xff, 77] {
        second[64] = station;
        let recording = Recording::new(&second, &second).expect("a recording");
        assert_eq!((recording.tags.len(), recording.moving), (1, 1));
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let refused = |bytes: &[u8]| Recording::new(bytes, bytes).expect_err("it is none");
    assert_eq!(refused(b""), Refused::NotOurs);
    assert_eq!(refused(&[0; 4096]), Refused::NotOurs);
    let with = |at: usize, value: u32| {
        let mut bytes = file();
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    assert_eq!(refused(&with(8, 2)), Refused::Version(2));
    // Sizes, queues, depth, clock.
    for (at, value) in [
        (12, 0),
        (16, 8),
        (24, 0),
        (24, 5000),
        (28, 3),
        (28, u32::MAX),
        (32, 0),
    ] {
        assert_eq!(refused(&with(at, value)), Refused::Damaged, "{at}: {value}");
    }
    assert_eq!(refused(&file()[..100]), Refused::Damaged);
    let not_ours = File::open("/proc/self/exe").expect("this program");
    assert_eq!(
        read(&not_ours).expect_err("a program").kind(),
        io::ErrorKind::InvalidData
    );
}

/// One thread writes requests whose sector says what their length and result are; readers never see a mixture.
#[test]
fn readers_never_see_two_requests_in_one() {
    let queues = Records::of_device(DeviceId(706), 1, 1);
    let record = &queues[0].all()[0];
    let file = File::open(path(706)).expect("it can be opened");
    let done = AtomicBool::new(false);
    let sane = |tag: &Recorded| {
        assert_eq!(tag.bytes, tag.sector * 512, "{tag:?}");
        if let Some(result) = tag.result {
            assert_eq!(u64::try_from(result), Ok(tag.bytes), "{tag:?}");
        }
        assert!(tag.handed_ns == 0 || tag.handed_ns == tag.sector, "{tag:?}");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            record.armed(0);
            let mut turn: u32 = 0;
            while !done.load(Relaxed) {
                turn = turn % 1_000_000 + 1;
                let request = request(op::READ, turn.into(), turn);
                record.reaped(&request, turn.into());
                record.handed(turn.into());
                record.answered(i32::try_from(request.length).expect("small"));
                record.submitted(turn.into());
                if turn.is_multiple_of(16) {
                    thread::yield_now();
                }
            }
        });
        for _ in 0..20_000 {
            if let Some(tag) = record.read(QueueId(0), Tag(0)) {
                sane(&tag);
            }
            read(&file).expect("a recording").tags.iter().for_each(sane);
        }
        done.store(true, Relaxed);
    });
}
