//! Blocks of fields, read.

use std::collections::VecDeque;

use super::static_table::{self, COUNT, FIELDS};
use super::{OVERHEAD, TABLE, huffman, integer};
use crate::http1::scan::is_value;
use crate::message::name::{OTHER, tag_of};

/// The block cannot be read, so that the table is lost, and with it the connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Malformed;

impl From<huffman::Malformed> for Malformed {
    fn from(_: huffman::Malformed) -> Self {
        Self
    }
}

/// What a field is by its name.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Kind {
    /// Its name begins with a colon.
    Pseudo,
    Field,
    /// Its name or its value is none (RFC 9113 8.2.1).
    Bad,
}

/// One field of a block.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub kind: Kind,
    /// The tag of its name.
    pub tag: u8,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

struct Entry {
    /// Name and value.
    bytes: Box<[u8]>,
    name: u32,
    tag: u8,
    /// Whether the name is one; and the value.
    kind: Kind,
    value_ok: bool,
}

impl Entry {
    fn field(&self) -> Field<'_> {
        let (name, value) = self.bytes.split_at(self.name as usize);
        Field { kind: if self.value_ok { self.kind } else { Kind::Bad }, tag: self.tag, name, value }
    }

    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// The decoder of one connection.
#[derive(Default)]
pub struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    /// What the peer has said that it uses; `None` for all it may.
    max: Option<usize>,
    /// For the name and value under way.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What a name is, and its tag.
fn kind_of(name: &[u8]) -> (Kind, u8) {
    match name {
        [b':', ..] => (Kind::Pseudo, OTHER),
        [] => (Kind::Bad, OTHER),
        _ if is_name(name) => (Kind::Field, tag_of(name)),
        _ => (Kind::Bad, OTHER),
    }
}

/// A token without upper-case letters.
fn is_name(name: &[u8]) -> bool {
    crate::http1::scan::is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// No control characters, and no white space around it.
fn is_field_value(value: &[u8]) -> bool {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    is_value(value) && !blank(value.first()) && !blank(value.last())
}

impl Decoder {
    /// Reads a whole block, field by field.
    ///
    /// # Errors
    /// The block is malformed. Fields that are not allowed are no such error: they are [`Kind::Bad`].
    pub fn decode(&mut self, mut block: &[u8], mut sink: impl FnMut(Field<'_>)) -> Result<(), Malformed> {
        let mut begun = false;
        while let Some(&first) = block.first() {
            match first {
                0x80.. => sink(self.indexed(integer::read(&mut block, 7)?)?),
                0x40.. => {
                    let (kind, tag) = self.literal(&mut block, 6)?;
                    let value_ok = is_field_value(&self.value);
                    sink(Field {
                        kind: if value_ok { kind } else { Kind::Bad },
                        tag,
                        name: &self.name,
                        value: &self.value,
                    });
                    self.insert(kind, tag, value_ok);
                }
                0x20.. => {
                    let max = integer::read(&mut block, 5)?;
                    // Only at the beginning, and never more than was allowed.
                    if begun || max > TABLE {
                        return Err(Malformed);
                    }
                    self.max = Some(max);
                    self.shrink(max);
                    continue;
                }
                _ => {
                    let (kind, tag) = self.literal(&mut block, 4)?;
                    let kind = if is_field_value(&self.value) { kind } else { Kind::Bad };
                    sink(Field { kind, tag, name: &self.name, value: &self.value });
                }
            }
            begun = true;
        }
        Ok(())
    }

    fn indexed(&self, number: usize) -> Result<Field<'_>, Malformed> {
        match number {
            0 => Err(Malformed),
            1..=COUNT => {
                let (name, value) = FIELDS[number - 1];
                let kind = if name.starts_with(':') { Kind::Pseudo } else { Kind::Field };
                let tag = static_table::tags()[number - 1];
                Ok(Field { kind, tag, name: name.as_bytes(), value: value.as_bytes() })
            }
            _ => self.entries.get(number - COUNT - 1).map(Entry::field).ok_or(Malformed),
        }
    }

    /// Reads a field that is written out, into `name` and `value`.
    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<(Kind, u8), Malformed> {
        let number = integer::read(block, prefix)?;
        self.name.clear();
        let (kind, tag) = match number {
            0 => {
                text(block, &mut self.name)?;
                kind_of(&self.name)
            }
            1..=COUNT => {
                let name = FIELDS[number - 1].0;
                self.name.extend_from_slice(name.as_bytes());
                let kind = if name.starts_with(':') { Kind::Pseudo } else { Kind::Field };
                (kind, static_table::tags()[number - 1])
            }
            _ => {
                let entry = self.entries.get(number - COUNT - 1).ok_or(Malformed)?;
                self.name.extend_from_slice(&entry.bytes[..entry.name as usize]);
                (entry.kind, entry.tag)
            }
        };
        self.value.clear();
        text(block, &mut self.value)?;
        Ok((kind, tag))
    }

    fn insert(&mut self, kind: Kind, tag: u8, value_ok: bool) {
        let max = self.max.unwrap_or(TABLE);
        let size = self.name.len() + self.value.len() + OVERHEAD;
        if size > max {
            self.shrink(0);
            return;
        }
        self.shrink(max - size);
        let mut bytes = Vec::with_capacity(size - OVERHEAD);
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.value);
        let name = self.name.len() as u32;
        self.entries.push_front(Entry { bytes: bytes.into_boxed_slice(), name, tag, kind, value_ok });
        self.size += size;
    }

    /// Drops the oldest entries until the others have `size` at most.
    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.size();
        }
    }

    /// Gives back the memory that only a block under way needs.
    pub fn rest(&mut self) {
        self.name = Vec::new();
        self.value = Vec::new();
    }
}

/// Reads a text (RFC 7541 5.2).
fn text(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let coded = block.first().is_some_and(|b| b & 0x80 != 0);
    let len = integer::read(block, 7)?;
    let (text, rest) = block.split_at_checked(len).ok_or(Malformed)?;
    *block = rest;
    match coded {
        true => huffman::decode(text, out)?,
        false => out.extend_from_slice(text),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut all = Vec::new();
        decoder.decode(block, |f| {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            all.push(format!("{}: {}", text(f.name), text(f.value)));
        })?;
        Ok(all)
    }

    /// The requests of RFC 7541 C.3 and C.4, on one connection each.
    #[test]
    fn the_requests_of_the_specification_decode() {
        const FIRST: &[&str] = &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut d = Decoder::default();
            assert_eq!(fields(&mut d, &hex(blocks[0])).unwrap(), FIRST);
            assert_eq!(d.size, 57);
            let second = fields(&mut d, &hex(blocks[1])).unwrap();
            assert_eq!(
                (&second[..4], second[4].as_str()),
                (&FIRST.map_owned()[..], "cache-control: no-cache")
            );
            assert_eq!(d.size, 110);
            let third = fields(&mut d, &hex(blocks[2])).unwrap();
            assert_eq!(third[1..3], [":scheme: https", ":path: /index.html"]);
            assert_eq!(third[4], "custom-key: custom-value");
            assert_eq!(d.size, 164);
        }
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for [&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|s| (*s).to_owned()).collect()
        }
    }

    /// The responses of RFC 7541 C.6, with a table of 256 bytes, so that entries are dropped.
    #[test]
    fn a_small_table_drops_what_is_old() {
        let mut d = Decoder::default();
        let first = hex(
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
             919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        let got = fields(&mut d, &first).unwrap();
        assert_eq!(got[0], ":status: 302");
        assert_eq!(got[3], "location: https://www.example.com");
        assert_eq!(d.size, 222);
        assert_eq!(fields(&mut d, &hex("4883 640e ffc1 c0bf")).unwrap()[0], ":status: 307");
        assert_eq!(d.size, 222);
        let third = hex(
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        );
        assert_eq!(fields(&mut d, &third).unwrap()[4], "content-encoding: gzip");
        assert_eq!(d.size, 215);
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for (block, why) in [
            ("80", "number 0"),
            ("be", "an entry that is not there"),
            ("7e 00", "a name that is not there"),
            ("82 20", "a size change behind a field"),
            ("3fe2 1f", "a larger table than allowed"),
            ("40 05 61", "a name that is cut short"),
            ("40 01 61", "no value"),
            ("00 01 61 81", "a value that is cut short"),
            ("00 01 61 84 ffff ffff", "no text in Huffman's code"),
            ("ff ff ff ff ff ff ff", "a number without end"),
        ] {
            assert_eq!(fields(&mut Decoder::default(), &hex(block)), Err(Malformed), "{why}");
        }
    }

    #[test]
    fn names_and_values_are_judged() {
        for (name, value, want) in [
            ("a", "b", Kind::Field),
            ("a", "", Kind::Field),
            ("A", "b", Kind::Bad),
            ("", "b", Kind::Bad),
            ("a b", "b", Kind::Bad),
            ("a", " b", Kind::Bad),
            ("a", "b\t", Kind::Bad),
            ("a", "b\r\nc", Kind::Bad),
            ("a", "b\0", Kind::Bad),
            (":x", "b", Kind::Pseudo),
        ] {
            for first in [0x00_u8, 0x40] {
                let mut block = vec![first, name.len() as u8];
                block.extend_from_slice(name.as_bytes());
                block.push(value.len() as u8);
                block.extend_from_slice(value.as_bytes());
                if first == 0x40 {
                    block.push(0xbe);
                }
                let mut kinds = Vec::new();
                Decoder::default().decode(&block, |f| kinds.push(f.kind)).unwrap();
                assert!(kinds.iter().all(|k| *k == want), "{name:?} {value:?}: {kinds:?}");
            }
        }
    }

    /// Whatever bytes come, they neither panic nor make the table larger than it may be.
    #[test]
    fn random_blocks_are_harmless() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut decoder = Decoder::default();
        for round in 0..20_000 {
            let len = next() % 40;
            let block: Vec<u8> = (0..len)
                .map(|_| match next() % 4 {
                    0 => 0x40 | (next() as u8 & 0x3f),
                    1 => next() as u8 & 0x0f,
                    _ => next() as u8,
                })
                .collect();
            let _ = decoder.decode(&block, |_| {});
            assert!(decoder.size <= TABLE);
            let real: usize = decoder.entries.iter().map(Entry::size).sum();
            assert_eq!(decoder.size, real);
            if round % 100 == 0 {
                decoder = Decoder::default();
            }
        }
    }
}
