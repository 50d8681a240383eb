//! A client that shares memory with a disk's server: what it writes and reads from there the kernel does not copy.
//!
//! ```console
//! # truncate -s 64M /dev/shm/pool
//! # oxublk add mem --size 1G --shared-memory /dev/shm/pool
//! /dev/ublkb0
//! # shared_memory_client /dev/shm/pool /dev/ublkb0
//! ```
//!
//! It overwrites the first MiB of the disk.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to people"
)]

use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, ExitCode};

use oxublk::SharedMemory;

/// What is written and read at a time.
const PIECE: usize = 64 << 10;
/// How much in all.
const ALL: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, disk] = arguments.as_slice() else {
        eprintln!("usage: shared_memory_client FILE DISK (its first MiB is overwritten)");
        return ExitCode::from(2);
    };
    match run(file, disk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shared_memory_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &str, disk: &str) -> Result<(), Box<dyn Error>> {
    // The file that the server maps, mapped here: the same pages.
    let file = File::options().read(true).write(true).open(file)?;
    let memory = SharedMemory::map(file)?;
    if memory.len() < 2 * PIECE {
        return Err("the file is too small: 128 KiB are needed".into());
    }
    // Past the page cache: else the kernel would copy.
    let direct = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(disk)?;
    let (from, to) = (0..PIECE, PIECE..2 * PIECE);
    for offset in (0..ALL as u64).step_by(PIECE) {
        let written = pattern(offset);
        memory.store(from.start, &written)?;
        whole(from.clone(), |part, done| {
            memory.write_to(&direct, part, offset + done)
        })?;
        whole(to.clone(), |part, done| {
            memory.read_from(&direct, part, offset + done)
        })?;
        let mut read = vec![0; PIECE];
        memory.load(to.start, &mut read)?;
        if read != written {
            return Err(format!("what was read at {offset} is not what was written").into());
        }
    }
    println!("wrote {ALL} bytes from shared memory and read them back to there: all right");
    tell(disk);
    Ok(())
}

/// Repeats a transfer until all of the range is done.
fn whole(
    range: Range<usize>,
    mut transfer: impl FnMut(Range<usize>, u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < range.len() {
        match transfer(range.start + done..range.end, done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// Bytes that say where on the disk they belong.
fn pattern(offset: u64) -> Vec<u8> {
    let words = (offset..).step_by(8).take(PIECE / 8);
    words.flat_map(u64::to_le_bytes).collect()
}

/// What the server says of it.
fn tell(disk: &str) {
    let info = Command::new("oxublk").args(["info", disk]).output();
    let text = info.map(|info| String::from_utf8_lossy(&info.stdout).into_owned());
    let lines = text.iter().flat_map(|text| text.lines());
    for line in
        lines.filter(|line| line.starts_with("shared memory") || line.starts_with("from there"))
    {
        println!("{line}");
    }
}
