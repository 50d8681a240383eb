//! The kernel's sparse arrays (`xarray`, `idr`).

use super::layout::XarrayLayout;
use super::memory::{Memory, number};

const SLOTS: usize = 64;
/// 64 bits in steps of 6.
const MAX_HEIGHT: u32 = 11;

/// All entries with their indices, at most `limit`. `head` is the array's `xa_head`.
pub(super) fn entries(
    memory: &Memory,
    layout: &XarrayLayout,
    head: u64,
    limit: usize,
) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    walk(memory, layout, head, 0, MAX_HEIGHT, limit, &mut found);
    found
}

fn walk(
    memory: &Memory,
    layout: &XarrayLayout,
    entry: u64,
    index: u64,
    height: u32,
    limit: usize,
    found: &mut Vec<(u64, u64)>,
) {
    if entry == 0 || found.len() >= limit || height == 0 {
        return;
    }
    let Some(node) = node(entry) else {
        if entry & 3 == 0 {
            found.push((index, entry));
        }
        return;
    };
    let Some((shift, slots)) = read(memory, layout, node) else {
        return;
    };
    for (slot, entry) in (0_u64..).zip(slots) {
        let index = index | slot.checked_shl(shift).unwrap_or_default();
        walk(memory, layout, entry, index, height - 1, limit, found);
    }
}

/// The entry of one index.
pub(super) fn entry(memory: &Memory, layout: &XarrayLayout, head: u64, index: u64) -> Option<u64> {
    let mut entry = head;
    for height in 0..MAX_HEIGHT {
        let Some(node) = node(entry) else {
            // A single entry in the head has the index 0.
            return (entry != 0 && entry & 3 == 0 && (height > 0 || index == 0)).then_some(entry);
        };
        let (shift, slots) = read(memory, layout, node)?;
        if height == 0 && index.checked_shr(shift)? >= 64 {
            return None;
        }
        let slot = usize::try_from(index.checked_shr(shift)? & 63).ok()?;
        entry = *slots.get(slot)?;
    }
    None
}

/// The node that an internal entry points to; smaller ones are marks of the array itself.
fn node(entry: u64) -> Option<u64> {
    (entry & 3 == 2 && entry > 4096).then(|| entry - 2)
}

fn read(memory: &Memory, layout: &XarrayLayout, node: u64) -> Option<(u32, Vec<u64>)> {
    let view = memory.view(node, layout.slots.offset + SLOTS * 8)?;
    let shift = view.get_u32(layout.shift)?;
    let slots = (0..SLOTS).map(|slot| number(&view.bytes, layout.slots.offset + slot * 8, 8));
    Some((shift, slots.collect::<Option<_>>()?))
}
