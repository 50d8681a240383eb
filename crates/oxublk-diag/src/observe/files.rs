//! Files of `/proc` and `/sys`: read whole, up to a bound.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// No file that is read here is larger on a sane host.
const MAX_BYTES: u64 = 4 << 20;

/// A file's text; bytes that are not UTF-8 are replaced.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file's text without the white space at its end, if it can be read.
pub(super) fn line(path: &Path) -> Option<String> {
    Some(text(path).ok()?.trim_end().to_owned())
}

/// A number in a file.
pub(super) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    line(path)?.parse().ok()
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// The names in a folder that are numbers, in their order.
pub(super) fn numbers(folder: &Path) -> Vec<u32> {
    let names = names(folder).unwrap_or_default();
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// `259:3` as two numbers.
pub(super) fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
