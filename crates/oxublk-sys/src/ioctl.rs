//! How a command number is put together: direction, size of the payload, type and number.

/// The type byte of every ublk command.
pub const IOCTL_TYPE: u8 = b'u';

const NR_BITS: u32 = 8;
const TYPE_BITS: u32 = 8;
const SIZE_BITS: u32 = 14;

const TYPE_SHIFT: u32 = NR_BITS;
const SIZE_SHIFT: u32 = TYPE_SHIFT + TYPE_BITS;
const DIR_SHIFT: u32 = SIZE_SHIFT + SIZE_BITS;

const DIR_WRITE: u32 = 1;
const DIR_READ: u32 = 2;

const fn encode(dir: u32, nr: u8, size: u16) -> u32 {
    (dir << DIR_SHIFT)
        | ((size as u32) << SIZE_SHIFT)
        | ((IOCTL_TYPE as u32) << TYPE_SHIFT)
        | nr as u32
}

/// Number of a command whose payload of `size` bytes is marked as read by the caller.
///
/// `size` has 14 bits in the encoding. The driver looks at `nr` and the type byte only, for all
/// but the newest commands; the other bits are sent as the header defines them.
#[must_use]
pub const fn ior(nr: u8, size: u16) -> u32 {
    encode(DIR_READ, nr, size)
}

/// Number of a command whose payload of `size` bytes is marked as written and read by the caller.
#[must_use]
pub const fn iowr(nr: u8, size: u16) -> u32 {
    encode(DIR_READ | DIR_WRITE, nr, size)
}
