use std::fs::{self, File as Plain};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use oxublk::AsyncDisk as _;
use tempfile::TempDir;

use super::limits::{self, Limits};
use super::{File, OpenError, OpenErrorKind, direct};

fn file_of(bytes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    Plain::create(&path).unwrap().set_len(bytes).unwrap();
    (folder, path)
}

fn refused(opened: Result<File, OpenError>, kind: OpenErrorKind, words: &[&str]) {
    let error = opened.unwrap_err();
    let said = format!("{error} {}", error.hint().unwrap_or_default());
    assert_eq!(error.kind(), kind, "{said}");
    for word in words {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn the_size_is_the_files_in_whole_blocks_and_the_rest_is_noted() {
    let (_folder, path) = file_of(1_000_000);
    let file = File::builder(&path).direct(false).open().unwrap();
    assert_eq!(file.size(), 1_000_000 - 64);
    assert!(file.notes()[0].contains("64 bytes"), "{:?}", file.notes());
    drop(file);
    let file = File::builder(&path).direct(false).logical_block_bytes(4096);
    let file = file.open().unwrap();
    assert_eq!(
        (file.size() % 4096, file.geometry().logical_block_bytes),
        (0, 4096)
    );
    drop(file);
    let file = File::builder(&path).size_bytes(512 << 10).open().unwrap();
    assert_eq!((file.size(), file.notes().len()), (512 << 10, 0));
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        1_000_000,
        "it stays as it is"
    );
}

#[test]
fn a_file_is_made_and_made_longer_only_when_asked() {
    let (folder, path) = file_of(4096);
    let builder = |path: &Path| File::builder(path).size_bytes(1 << 20);
    refused(
        builder(&path).open(),
        OpenErrorKind::Unusable,
        &["4096", "1048576", "--create"],
    );
    let file = builder(&path).create(true).open().unwrap();
    assert_eq!(
        (file.size(), fs::metadata(&path).unwrap().len()),
        (1 << 20, 1 << 20)
    );
    assert!(file.geometry().check(file.size()).is_ok());
    drop(file);
    // Never shorter.
    assert!(
        File::builder(&path)
            .size_bytes(512)
            .create(true)
            .open()
            .is_ok()
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    let new = folder.path().join("new");
    refused(
        builder(&new).open(),
        OpenErrorKind::Unusable,
        &["there is no", "--create"],
    );
    refused(
        File::builder(&new).create(true).open(),
        OpenErrorKind::Unusable,
        &["size"],
    );
    let sparse = File::builder(&new).size_bytes(1 << 40).create(true).open();
    assert_eq!(sparse.unwrap().size(), 1 << 40);
    assert!(fs::metadata(&new).unwrap().blocks() < 100, "sparse");
}

#[test]
fn what_was_made_in_vain_is_removed_and_what_was_there_is_not() {
    let (folder, path) = file_of(4096);
    let new = folder.path().join("new");
    for path in [&new, &path] {
        let odd = File::builder(path).size_bytes(1000).create(true).open();
        refused(odd, OpenErrorKind::Unusable, &["1000", "512"]);
    }
    assert!(!new.exists() && path.exists());
    let device = Path::new("/dev/none-such");
    let made = File::builder(device).size_bytes(512).create(true).open();
    refused(made, OpenErrorKind::Unusable, &["no device"]);
    assert!(!device.exists());
}

#[test]
fn what_is_no_file_is_refused_with_its_kind() {
    let (folder, path) = file_of(100);
    refused(
        File::open(folder.path()),
        OpenErrorKind::Unusable,
        &["directory"],
    );
    refused(
        File::open("/dev/null"),
        OpenErrorKind::Unusable,
        &["neither"],
    );
    refused(
        File::open(path.join("below")),
        OpenErrorKind::Unusable,
        &["cannot open"],
    );
    refused(
        File::open(&path),
        OpenErrorKind::Unusable,
        &["100 bytes", "--create"],
    );
}

#[test]
fn one_server_writes_or_several_read_and_the_holder_is_named() {
    let (_folder, path) = file_of(1 << 20);
    let read = || File::builder(&path).read_only(true).open();
    let writer = File::open(&path).unwrap();
    let this = format!("process {}", std::process::id());
    refused(File::open(&path), OpenErrorKind::Busy, &["locked", &this]);
    refused(read(), OpenErrorKind::Busy, &["locked"]);
    drop(writer);
    let readers = (read().unwrap(), read().unwrap());
    refused(File::open(&path), OpenErrorKind::Busy, &["--read-only"]);
    let geometry = readers.0.geometry();
    assert!(geometry.read_only && !geometry.volatile_cache && !geometry.discard);
}

#[test]
fn a_file_in_memory_is_buffered_and_gives_space_back() {
    let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    Plain::from(memory.try_clone().unwrap())
        .set_len(1 << 20)
        .unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    refused(
        File::builder(&path).direct(true).open(),
        OpenErrorKind::Unusable,
        &["lies in memory", "--buffered"],
    );
    let file = File::open(&path).unwrap();
    assert!(
        !file.way().direct && !file.is_zero_copy(),
        "{:?}",
        file.way()
    );
    let geometry = file.geometry();
    assert!(geometry.discard && geometry.write_zeroes && geometry.fua);
    assert_eq!(
        geometry.max_segments, 0,
        "nothing is passed on without zero copy"
    );
}

/// Only where the file system of the temporary directory has it; guests test it everywhere.
#[test]
fn direct_io_asks_for_blocks_that_the_disk_then_has() {
    let (_folder, path) = file_of(1 << 20);
    let plain = Plain::open(&path).unwrap();
    let Ok(alignment) = direct::alignment(&plain, false) else {
        return;
    };
    let file = File::open(&path).unwrap();
    assert!(file.way().direct && file.is_zero_copy(), "{:?}", file.way());
    let geometry = file.geometry();
    assert!(geometry.logical_block_bytes >= alignment.offset);
    assert!(geometry.check(file.size()).is_ok());
    let flags = rustix::fs::fcntl_getfl(&file.file).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::DIRECT));
    drop(file);
    let copied = File::builder(&path).zero_copy(false).open().unwrap();
    assert_eq!(copied.geometry().dma_alignment_bytes, 0);
}

#[test]
fn limits_are_those_of_the_queue_and_of_a_partition_its_disks() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for (name, value) in [
        ("logical_block_size", "4096"),
        ("physical_block_size", "16384"),
        ("optimal_io_size", "65536"),
        ("discard_granularity", "8192"),
        ("discard_max_bytes", "2147450880"),
        ("write_zeroes_max_bytes", "0"),
        ("rotational", "1"),
        ("max_segments", "70000"),
        ("max_segment_size", "4294967295"),
    ] {
        write(&format!("sda/queue/{name}"), &format!("{value}\n"));
    }
    write("sda/ro", "0\n");
    write("sda/sda1/ro", "1\n");
    fs::create_dir(root.path().join("block")).unwrap();
    symlink("../sda", root.path().join("block/8:0")).unwrap();
    symlink("../sda/sda1", root.path().join("block/8:1")).unwrap();
    let disk = Limits {
        logical_block_bytes: 4096,
        physical_block_bytes: 16384,
        optimal_io_bytes: 65536,
        discard_granularity_bytes: 8192,
        discards: true,
        zeroes: false,
        rotational: true,
        read_only: false,
        max_segments: u16::MAX,
        max_segment_bytes: u32::MAX,
    };
    let block = root.path().join("block");
    assert_eq!(limits::of_in(&block, (8, 0)), Some(disk));
    let partition = Limits {
        read_only: true,
        ..disk
    };
    assert_eq!(limits::of_in(&block, (8, 1)), Some(partition));
    assert_eq!(limits::of_in(&block, (0, 31)), None, "no device below");
}
