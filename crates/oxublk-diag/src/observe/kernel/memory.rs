//! The kernel's memory, read through `/proc/kcore`: an ELF file whose segments are the kernel's mappings.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::btf::Field;

const SEGMENT_LOAD: u32 = 1;
/// No structure that is read here at once is larger.
const MAX_READ: usize = 1 << 20;

/// Memory that can be read by the kernel's addresses.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: u64,
    length: u64,
    offset: u64,
}

impl Memory {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be opened or read, or is not what it should be.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0)?;
        let count = usize::from(u16::from_le_bytes([header[56], header[57]]));
        let mut table = vec![0; count * 56];
        file.read_exact_at(&mut table, number(&header, 32, 8).unwrap_or_default())?;
        let segments = segments(&header, &table)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a 64-bit ELF file"))?;
        Ok(Self { file, segments })
    }

    /// So many bytes; none when they are not all mapped.
    pub(super) fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        if length > MAX_READ {
            return None;
        }
        let wanted = u64::try_from(length).ok()?;
        let segment = self.segments.iter().find(|segment| {
            address
                .checked_sub(segment.address)
                .and_then(|into| into.checked_add(wanted))
                .is_some_and(|end| end <= segment.length)
        })?;
        let mut bytes = vec![0; length];
        let at = segment.offset.checked_add(address - segment.address)?;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    /// A structure.
    pub(super) fn view(&self, address: u64, length: usize) -> Option<View> {
        Some(View {
            address,
            bytes: self.bytes(address, length)?,
        })
    }

    /// A member of a structure: a number of up to eight bytes.
    pub(super) fn get(&self, structure: u64, field: Field) -> Option<u64> {
        let address = structure.checked_add(u64::try_from(field.offset).ok()?)?;
        number(&self.bytes(address, field.size.min(8))?, 0, field.size)
    }

    /// A pointer that lies somewhere; none when it is null.
    pub(super) fn pointer(&self, structure: u64, field: Field) -> Option<u64> {
        self.get(structure, field).filter(|pointer| *pointer != 0)
    }
}

/// A piece of memory that was read at once.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Where it was.
    pub(super) address: u64,
    /// What it held.
    pub(super) bytes: Vec<u8>,
}

impl View {
    /// A member: a number of up to eight bytes.
    pub(super) fn get(&self, field: Field) -> Option<u64> {
        number(&self.bytes, field.offset, field.size)
    }

    /// A member of 32 bits or less.
    pub(super) fn get_u32(&self, field: Field) -> Option<u32> {
        u32::try_from(self.get(field)?).ok()
    }

    /// A member of 16 bits or less.
    pub(super) fn get_u16(&self, field: Field) -> Option<u16> {
        u16::try_from(self.get(field)?).ok()
    }
}

/// A little-endian number of up to eight bytes.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn segments(header: &[u8], table: &[u8]) -> Option<Vec<Segment>> {
    // ELF, 64 bits, little-endian.
    if header.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let mut segments = Vec::new();
    for entry in table.chunks_exact(56) {
        if number(entry, 0, 4)? == u64::from(SEGMENT_LOAD) {
            segments.push(Segment {
                address: number(entry, 16, 8)?,
                length: number(entry, 40, 8)?,
                offset: number(entry, 8, 8)?,
            });
        }
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Field, Memory};

    /// A file with one segment: `content` at the address `0xffff_8000_0000_1000`.
    fn core(content: &[u8]) -> tempfile::NamedTempFile {
        let mut data = vec![0; 64];
        data[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        data[32] = 64;
        data[56] = 1;
        let length = u64::try_from(content.len()).unwrap();
        let mut entry = vec![0; 56];
        entry[0] = 1;
        entry[8..16].copy_from_slice(&120_u64.to_le_bytes());
        entry[16..24].copy_from_slice(&0xffff_8000_0000_1000_u64.to_le_bytes());
        entry[32..40].copy_from_slice(&length.to_le_bytes());
        entry[40..48].copy_from_slice(&length.to_le_bytes());
        data.extend(entry);
        data.extend(content);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&data).unwrap();
        file
    }

    #[test]
    fn an_address_is_read_where_its_segment_says() {
        let file = core(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let memory = Memory::open(file.path()).unwrap();
        let base = 0xffff_8000_0000_1000;
        assert_eq!(memory.bytes(base + 2, 3), Some(vec![3, 4, 5]));
        let field = Field { offset: 4, size: 2 };
        assert_eq!(memory.get(base, field), Some(0x0605));
        assert_eq!(memory.view(base, 8).unwrap().get(field), Some(0x0605));
    }

    #[test]
    fn what_is_not_mapped_is_not_read() {
        let file = core(&[1, 2, 3, 4]);
        let memory = Memory::open(file.path()).unwrap();
        let base = 0xffff_8000_0000_1000;
        assert_eq!(memory.bytes(base + 2, 3), None);
        assert_eq!(memory.bytes(base - 1, 1), None);
        assert_eq!(memory.bytes(0, 1), None);
        assert_eq!(memory.bytes(u64::MAX, 8), None);
        assert_eq!(memory.bytes(base, usize::MAX), None);
    }

    #[test]
    fn another_file_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 300]).unwrap();
        assert!(Memory::open(file.path()).is_err());
    }
}
