//! A disk's size and geometry in the driver's words.

use oxublk_sys::{
    DevAttrs, ParamBasic, ParamDiscard, ParamDmaAlign, ParamSegment, ParamTypes, Params,
    SECTOR_SIZE,
};

use crate::disk::Geometry;

/// The largest discard or write-zeroes: 1 GiB, so that one request does not hold its queue for long.
const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// The driver's own limits of a segment, for when only one of ours is given.
const SEGMENT_BYTES: u32 = u32::MAX;
const SEGMENT_BOUNDARY_MASK: u64 = u32::MAX as u64;

/// The parameters of a disk whose geometry was checked.
pub(super) fn params(size_bytes: u64, geometry: &Geometry) -> Params {
    let mut params = Params {
        types: ParamTypes::BASIC.bits(),
        basic: ParamBasic {
            attrs: attributes(geometry).bits(),
            logical_bs_shift: shift(geometry.logical_block_bytes),
            physical_bs_shift: shift(geometry.physical_block_bytes),
            io_opt_shift: shift(geometry.optimal_io_bytes),
            io_min_shift: shift(geometry.physical_block_bytes),
            max_sectors: geometry.max_io_bytes >> 9,
            dev_sectors: size_bytes / SECTOR_SIZE,
            ..ParamBasic::default()
        },
        ..Params::default()
    };
    if geometry.discard || geometry.write_zeroes {
        params.types |= ParamTypes::DISCARD.bits();
        params.discard = ParamDiscard {
            discard_granularity: geometry.discard_granularity_bytes,
            max_discard_sectors: if geometry.discard {
                MAX_RANGE_SECTORS
            } else {
                0
            },
            max_write_zeroes_sectors: if geometry.write_zeroes {
                MAX_RANGE_SECTORS
            } else {
                0
            },
            max_discard_segments: 1,
            ..ParamDiscard::default()
        };
    }
    memory(&mut params, geometry);
    params
}

/// What the clients' memory must be like. A kernel that does not know these sections drops them.
fn memory(params: &mut Params, geometry: &Geometry) {
    if geometry.dma_alignment_bytes > 0 {
        params.types |= ParamTypes::DMA_ALIGN.bits();
        params.dma = ParamDmaAlign {
            alignment: geometry.dma_alignment_bytes - 1,
            ..ParamDmaAlign::default()
        };
    }
    if geometry.max_segments > 0 || geometry.max_segment_bytes > 0 {
        params.types |= ParamTypes::SEGMENT.bits();
        params.seg = ParamSegment {
            seg_boundary_mask: SEGMENT_BOUNDARY_MASK,
            max_segment_size: match geometry.max_segment_bytes {
                0 => SEGMENT_BYTES,
                bytes => bytes,
            },
            max_segments: geometry.max_segments,
            ..ParamSegment::default()
        };
    }
}

fn attributes(geometry: &Geometry) -> DevAttrs {
    let mut attributes = DevAttrs::empty();
    attributes.set(DevAttrs::READ_ONLY, geometry.read_only);
    attributes.set(DevAttrs::ROTATIONAL, geometry.rotational);
    attributes.set(DevAttrs::VOLATILE_CACHE, geometry.volatile_cache);
    attributes.set(DevAttrs::FUA, geometry.fua && geometry.volatile_cache);
    attributes
}

/// The exponent of a power of two; 0 for 0.
fn shift(bytes: u32) -> u8 {
    u8::try_from(bytes.checked_ilog2().unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_become_sectors_and_shifts() {
        let geometry = Geometry {
            logical_block_bytes: 4096,
            ..Geometry::default()
        };
        let params = params(1 << 30, &geometry);
        assert_eq!(params.basic.dev_sectors, 1 << 21);
        assert_eq!(
            (
                params.basic.logical_bs_shift,
                params.basic.physical_bs_shift
            ),
            (12, 12)
        );
        assert_eq!(params.basic.io_opt_shift, 0, "no preference");
        assert_eq!(params.basic.max_sectors, 2048);
        assert_eq!(
            params.types,
            ParamTypes::BASIC.bits(),
            "no discard unless asked"
        );
    }

    #[test]
    fn fua_without_a_cache_is_not_announced() {
        let geometry = Geometry {
            fua: true,
            ..Geometry::default()
        };
        assert_eq!(params(4096, &geometry).basic.attrs, 0);
    }

    #[test]
    fn write_zeroes_alone_announces_no_discard() {
        let geometry = Geometry {
            write_zeroes: true,
            ..Geometry::default()
        };
        let discard = params(4096, &geometry).discard;
        assert_eq!(
            (
                discard.max_discard_sectors,
                discard.max_write_zeroes_sectors
            ),
            (0, 1 << 21)
        );
    }

    #[test]
    fn limits_of_memory_are_sections_of_their_own_only_when_given() {
        let plain = params(4096, &Geometry::default());
        let sections = ParamTypes::DMA_ALIGN | ParamTypes::SEGMENT;
        assert!(!plain.param_types().intersects(sections));
        let geometry = Geometry {
            dma_alignment_bytes: 512,
            max_segments: 128,
            ..Geometry::default()
        };
        assert!(geometry.check(4096).is_ok());
        let limited = params(4096, &geometry);
        assert!(limited.param_types().contains(sections));
        assert_eq!(limited.dma.alignment, 511, "a mask");
        let segment = limited.seg;
        assert_eq!(
            (segment.max_segments, segment.max_segment_size),
            (128, u32::MAX),
            "the driver wants both"
        );
        assert!((segment.seg_boundary_mask + 1).is_power_of_two());
    }

    #[test]
    fn limits_that_the_driver_refuses_are_refused_before() {
        for alignment in [1, 2, 24, 8192] {
            let geometry = Geometry {
                dma_alignment_bytes: alignment,
                ..Geometry::default()
            };
            assert!(geometry.check(4096).is_err(), "{alignment}");
        }
        let geometry = Geometry {
            max_segment_bytes: 2048,
            ..Geometry::default()
        };
        assert!(geometry.check(4096).is_err());
    }
}
