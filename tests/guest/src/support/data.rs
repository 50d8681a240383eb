//! Data that looks random and is the same each time. The kernel's own takes an emulated guest minutes.

use anyhow::{Context as _, Result};
use std::fs;

/// So many bytes that no block repeats.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    // Marsaglia's xorshift64*.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.take(length).collect()
}

/// Writes them to a file.
pub(crate) fn file(path: &str, length: usize) -> Result<()> {
    fs::write(path, bytes(length, length as u64)).with_context(|| format!("cannot write {path}"))
}
