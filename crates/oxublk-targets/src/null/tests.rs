use oxublk::{Disk, Geometry};

use super::Null;

#[test]
fn default_geometry_is_one_that_the_driver_takes() {
    let null = Null::new(1 << 30);
    assert!(null.geometry().check(null.size()).is_ok());
    assert!(!null.geometry().volatile_cache);
}

#[test]
fn every_request_is_answered_and_the_buffer_is_left_alone_but_for_a_byte_a_page() {
    let null = Null {
        geometry: Geometry::default(),
        ..Null::new(1 << 20)
    };
    let mut buf = [7; 8192];
    null.write_at(&buf, 0).unwrap();
    null.read_at(&mut buf, 512).unwrap();
    null.discard(0, 1 << 20).unwrap();
    null.write_zeroes(0, 1 << 20, false).unwrap();
    let zeroes: Vec<usize> = (0..buf.len()).filter(|&at| buf[at] == 0).collect();
    assert_eq!(zeroes, [0, 4096]);
    assert!(buf.iter().all(|&byte| byte == 0 || byte == 7));
}
