//! The kernel's type information: where in a structure a member is.
//!
//! BTF is a table of types and a table of strings. A module's table continues that of the kernel: its types
//! are numbered, and its strings placed, after the kernel's.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// A chain of typedefs and qualifiers, or of anonymous structures in each other, is shorter than this.
const MAX_NESTING: usize = 32;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Typedef, volatile, const, restrict, type tag: they say the same of another type.
const KIND_SAME: [u32; 5] = [8, 9, 10, 11, 18];

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Bytes from the beginning of the structure.
    pub(super) offset: usize,
    /// Its size in bytes.
    pub(super) size: usize,
}

/// The types of the kernel and of one module.
#[derive(Debug)]
pub(super) struct Btf {
    tables: Vec<Table>,
    /// The structures and unions that were asked for, the module's before the kernel's.
    named: HashMap<&'static str, u32>,
}

/// One table.
#[derive(Debug)]
struct Table {
    data: Vec<u8>,
    /// Where each type begins in `data`; the first has the number `first_type`.
    types: Vec<usize>,
    first_type: u32,
    strings: std::ops::Range<usize>,
    first_string: u32,
}

/// A type: its kind, how many entries follow, its size or the type that it refers to.
#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    kind: u32,
    entries: u32,
    bitfields: bool,
    size_or_type: u32,
    rest: &'a [u8],
}

impl Btf {
    /// Reads the kernel's table and a module's, and remembers where the structures of these names are. None when a table
    /// is not what it should be.
    pub(super) fn parse(kernel: Vec<u8>, module: Vec<u8>, wanted: &[&'static str]) -> Option<Self> {
        let kernel = Table::parse(kernel, 1, 0)?;
        let next_type = kernel.first_type + u32::try_from(kernel.types.len()).ok()?;
        let next_string = u32::try_from(kernel.strings.len()).ok()?;
        let module = Table::parse(module, next_type, next_string)?;
        let mut btf = Self {
            tables: vec![kernel, module],
            named: HashMap::new(),
        };
        for table in 0..btf.tables.len() {
            btf.index(table, wanted);
        }
        Some(btf)
    }

    fn index(&mut self, table: usize, wanted: &[&'static str]) {
        let mut found = Vec::new();
        let types = &self.tables[table];
        for (id, start) in (types.first_type..).zip(&types.types) {
            let kind = word(&types.data, start + 4).map_or(0, |info| info >> 24 & 0x1f);
            if kind != KIND_STRUCT && kind != KIND_UNION {
                continue;
            }
            let name = word(&types.data, *start).unwrap_or_default();
            let Some(name) = self.string(name) else {
                continue;
            };
            if let Some(wanted) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                found.push((*wanted, id));
            }
        }
        for (name, id) in found {
            self.named.insert(name, id);
        }
    }

    /// Where a member is: its name, or a path through nested structures, `cq.head`. Members of anonymous
    /// structures are found as if they were the outer one's.
    pub(super) fn field(&self, structure: &str, path: &str) -> Option<Field> {
        let mut id = *self.named.get(structure)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (at, member) = self.member(id, name.as_bytes(), 0)?;
            offset += at;
            id = member;
        }
        Some(Field {
            offset,
            size: self.size(id)?,
        })
    }

    /// The size of a structure.
    pub(super) fn size_of(&self, structure: &str) -> Option<usize> {
        self.size(*self.named.get(structure)?)
    }

    fn member(&self, id: u32, wanted: &[u8], depth: usize) -> Option<(usize, u32)> {
        let found = self.get(self.same(id)?)?;
        if depth > MAX_NESTING || (found.kind != KIND_STRUCT && found.kind != KIND_UNION) {
            return None;
        }
        for entry in found
            .rest
            .chunks_exact(12)
            .take(usize::try_from(found.entries).ok()?)
        {
            let (name, member, mut bits) = (word(entry, 0)?, word(entry, 4)?, word(entry, 8)?);
            if found.bitfields {
                bits &= 0x00ff_ffff;
            }
            let offset = usize::try_from(bits / 8).ok()?;
            let name = self.string(name)?;
            if name == wanted {
                return Some((offset, member));
            }
            if name.is_empty()
                && let Some((inner, member)) = self.member(member, wanted, depth + 1)
            {
                return Some((offset + inner, member));
            }
        }
        None
    }

    /// Through typedefs and qualifiers.
    fn same(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_NESTING {
            let found = self.get(id)?;
            if !KIND_SAME.contains(&found.kind) {
                return Some(id);
            }
            id = found.size_or_type;
        }
        None
    }

    fn size(&self, id: u32) -> Option<usize> {
        let found = self.get(self.same(id)?)?;
        match found.kind {
            // A pointer.
            2 => Some(8),
            KIND_ARRAY => {
                let element = self.size(word(found.rest, 0)?)?;
                element.checked_mul(usize::try_from(word(found.rest, 8)?).ok()?)
            }
            // An integer, a structure, a union, an enumeration, a floating-point number.
            1 | KIND_STRUCT | KIND_UNION | 6 | 16 | 19 => usize::try_from(found.size_or_type).ok(),
            _ => None,
        }
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        let table = self
            .tables
            .iter()
            .rev()
            .find(|table| id >= table.first_type)?;
        let start = *table
            .types
            .get(usize::try_from(id - table.first_type).ok()?)?;
        let info = word(&table.data, start + 4)?;
        Some(Type {
            kind: info >> 24 & 0x1f,
            entries: info & 0xffff,
            bitfields: info >> 31 == 1,
            size_or_type: word(&table.data, start + 8)?,
            rest: table.data.get(start + 12..)?,
        })
    }

    fn string(&self, at: u32) -> Option<&[u8]> {
        let table = self
            .tables
            .iter()
            .rev()
            .find(|table| at >= table.first_string)?;
        let strings = table.data.get(table.strings.clone())?;
        let rest = strings.get(usize::try_from(at - table.first_string).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

impl Table {
    fn parse(data: Vec<u8>, first_type: u32, first_string: u32) -> Option<Self> {
        if data.get(..2)? != MAGIC.to_le_bytes() {
            return None;
        }
        let at = |offset| usize::try_from(word(&data, offset)?).ok();
        let header = at(4)?.max(HEADER);
        let types = section(&data, header, at(8)?, at(12)?)?;
        let strings = section(&data, header, at(16)?, at(20)?)?;
        let mut starts = Vec::new();
        let mut next = types.start;
        while next < types.end {
            starts.push(next);
            let info = word(&data, next + 4)?;
            next += 12 + extra(info >> 24 & 0x1f, info & 0xffff)?;
        }
        Some(Self {
            data,
            types: starts,
            first_type,
            strings,
            first_string,
        })
    }
}

fn section(
    data: &[u8],
    header: usize,
    offset: usize,
    length: usize,
) -> Option<std::ops::Range<usize>> {
    let start = header.checked_add(offset)?;
    let end = start.checked_add(length)?;
    (end <= data.len()).then_some(start..end)
}

/// How many bytes follow a type's twelve. None for a kind that did not exist when this was written: what comes after it cannot
/// be found.
fn extra(kind: u32, entries: u32) -> Option<usize> {
    let entries = usize::try_from(entries).ok()?;
    Some(match kind {
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * entries,
        6 | 13 => 8 * entries,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Btf, Field};
    use proptest::prelude::*;

    /// Types as they lie in a table: `(name, info, size or type, entries)`.
    fn table(types: &[(u32, u32, u32, &[u32])], strings: &[u8]) -> Vec<u8> {
        let mut body: Vec<u8> = Vec::new();
        for (name, info, size, entries) in types {
            for word in [*name, *info, *size].iter().chain(entries.iter()) {
                body.extend(word.to_le_bytes());
            }
        }
        let length = u32::try_from(body.len()).unwrap();
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, length, length, u32::try_from(strings.len()).unwrap()] {
            data.extend(word.to_le_bytes());
        }
        data.extend(body);
        data.extend(strings);
        data
    }

    const STRUCT: u32 = 4 << 24;

    /// `int` is 1; 2: `struct outer { int a; struct { int b; }; struct inner i; }`, 3: the anonymous one,
    /// 4: `struct inner { int c:4, d:4; }` with bit fields; the module has 5: `struct own { struct outer o; }`.
    fn example() -> Btf {
        let strings = b"\0int\0outer\0a\0b\0inner\0i\0c\0d\0";
        let kernel = table(
            &[
                (1, 1 << 24, 4, &[0x20]),
                (5, STRUCT | 3, 16, &[11, 1, 0, 0, 3, 32, 21, 4, 64]),
                (0, STRUCT | 1, 4, &[13, 1, 0]),
                (
                    15,
                    STRUCT | 2 | 1 << 31,
                    8,
                    &[23, 1, 4 << 24, 25, 1, 4 << 24 | 32],
                ),
            ],
            strings,
        );
        let first = u32::try_from(strings.len()).unwrap();
        let module = table(&[(first, STRUCT | 1, 16, &[first + 4, 2, 0])], b"own\0o\0");
        Btf::parse(kernel, module, &["outer", "own"]).unwrap()
    }

    #[test]
    fn members_are_found_through_anonymous_and_named_structures() {
        let btf = example();
        let field = |structure, path| btf.field(structure, path);
        assert_eq!(field("outer", "a"), Some(Field { offset: 0, size: 4 }));
        assert_eq!(field("outer", "b"), Some(Field { offset: 4, size: 4 }));
        assert_eq!(
            field("outer", "i.d"),
            Some(Field {
                offset: 12,
                size: 4
            })
        );
        assert_eq!(field("own", "o.b"), Some(Field { offset: 4, size: 4 }));
        assert_eq!(field("outer", "missing"), None);
        assert_eq!(field("nobody", "a"), None);
        assert_eq!(btf.size_of("own"), Some(16));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_not_believed(mut data in proptest::collection::vec(any::<u8>(), 0..400), good in any::<bool>()) {
            if good && data.len() > 24 {
                let length = u32::try_from(data.len() - 24).unwrap();
                data[..24].copy_from_slice(&table(&[], b"")[..24]);
                data[12..16].copy_from_slice(&length.to_le_bytes());
            }
            if let Some(btf) = Btf::parse(data.clone(), data, &["outer"]) {
                let _ = btf.field("outer", "a.b");
            }
        }
    }
}
