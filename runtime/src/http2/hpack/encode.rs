//! Blocks of fields, written. What an answer says again and again goes into the table; what it says once does not.

use std::collections::VecDeque;

use super::static_table::{self, COUNT, FIELDS};
use super::{OVERHEAD, TABLE, huffman, integer};
use crate::message::name::OTHER;
use crate::message::tags;

/// Places for fields that were seen, two for each hash, and for names.
const FIELDS_SEEN: usize = 128;
const NAMES_SEEN: usize = 64;

/// What was last seen by a hash.
#[derive(Clone, Copy, Default)]
struct Place {
    hash: u32,
    /// The count of insertions when it was inserted, 0 where it never was.
    at: u32,
}

struct Entry {
    bytes: Box<[u8]>,
    name: u32,
}

/// The encoder of one connection.
pub struct Encoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// The table was made smaller, which the next block is to say: the least it had, and what it has now.
    resized: Option<(usize, usize)>,
    inserted: u32,
    /// Made with the first answer.
    places: Option<Box<Places>>,
    /// A name in lower case.
    name: Vec<u8>,
}

struct Places {
    fields: [Place; FIELDS_SEEN],
    names: [Place; NAMES_SEEN],
}

impl Places {
    /// The place of a field, or the one of its two that it is to have; and whether it was seen.
    fn of_field(&mut self, hash: u64) -> (&mut Place, bool) {
        let short = (hash >> 32) as u32;
        let first = (hash as usize % FIELDS_SEEN) & !1;
        let both = [first, first + 1];
        if let Some(at) = both.into_iter().find(|at| self.fields[*at].hash == short) {
            return (&mut self.fields[at], true);
        }
        // What was seen once makes way before what has an entry, and the older before the newer.
        if self.fields[first].at > 0 || self.fields[first + 1].at == 0 {
            self.fields[first + 1] = self.fields[first];
        }
        self.fields[first] = Place { hash: short, at: 0 };
        (&mut self.fields[first], false)
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: TABLE,
            resized: None,
            inserted: 0,
            places: None,
            name: Vec::new(),
        }
    }
}

/// A number for some bytes, not to be relied on: what it finds is compared.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = seed ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        h = (h ^ u64::from_le_bytes(*word)).wrapping_mul(MIX).rotate_left(29);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    h = (h ^ u64::from_le_bytes(last)).wrapping_mul(MIX);
    h ^ h >> 32
}

impl Encoder {
    /// The peer allows a table of `max` bytes.
    pub fn resize(&mut self, max: u32) {
        let max = (max as usize).min(TABLE);
        if max == self.max && self.resized.is_none() {
            return;
        }
        let least = self.resized.map_or(max, |(least, _)| least.min(max));
        self.resized = Some((least, max));
        self.max = max;
        self.shrink(max);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, now)) = self.resized.take() {
            if least < now {
                integer::write(out, 0x20, 5, least);
            }
            integer::write(out, 0x20, 5, now);
        }
    }

    /// A response's status.
    pub fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let known = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => 0,
        };
        if known > 0 {
            out.push(0x80 | known);
            return;
        }
        let digits =
            [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
        self.named(out, 8, b":status", &digits, true);
    }

    /// A field, whose name has this tag.
    pub fn field(&mut self, out: &mut Vec<u8>, tag: u8, name: &[u8], value: &[u8]) {
        let mut lower = std::mem::take(&mut self.name);
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        let known = match tag {
            OTHER => static_table::number_of(&lower),
            tag => known_by_tag(tag),
        };
        if known == 55 {
            // A cookie in no table can be guessed by nobody (RFC 7541 7.1).
            integer::write(out, 0x10, 4, known);
            text(out, value);
        } else {
            // Nobody says these twice.
            let repeats = !matches!(tag, tags::X_KONG_REQUEST_ID | tags::ETAG | tags::LOCATION);
            self.named(out, known, &lower, value, repeats);
        }
        self.name = lower;
    }

    fn named(&mut self, out: &mut Vec<u8>, known: usize, name: &[u8], value: &[u8], repeats: bool) {
        let size = name.len() + value.len() + OVERHEAD;
        if size > self.max / 4 {
            return self.literal(out, 0x00, 4, known, name, value);
        }
        let name_hash = hash(name, 0);
        let mut seen = false;
        if repeats {
            let field_hash = hash(value, name_hash);
            let place;
            (place, seen) = self.places().of_field(field_hash);
            let at = place.at;
            if seen {
                if let Some(number) = self.number(at, |e| e.is(name, value)) {
                    return integer::write(out, 0x80, 7, number);
                }
                // What was said twice is worth an entry, which it gets below.
                let at = self.inserted + 1;
                self.places().of_field(field_hash).0.at = at;
            }
        }
        if known > 0 && !seen {
            return self.literal(out, 0x00, 4, known, name, value);
        }
        if known > 0 {
            self.literal(out, 0x40, 6, known, name, value);
            return self.insert(name, value, size);
        }
        let place = self.places().names[name_hash as usize % NAMES_SEEN];
        let number = match place.hash == (name_hash >> 32) as u32 {
            true => self.number(place.at, |e| &e.bytes[..e.name as usize] == name),
            false => None,
        };
        match number {
            Some(number) if !seen => self.literal(out, 0x00, 4, number, name, value),
            number => {
                self.literal(out, 0x40, 6, number.unwrap_or(0), name, value);
                self.insert(name, value, size);
                let at = self.inserted;
                self.places().names[name_hash as usize % NAMES_SEEN] =
                    Place { hash: (name_hash >> 32) as u32, at };
            }
        }
    }

    fn places(&mut self) -> &mut Places {
        self.places.get_or_insert_with(|| {
            Box::new(Places {
                fields: [Place::default(); FIELDS_SEEN],
                names: [Place::default(); NAMES_SEEN],
            })
        })
    }

    /// The number of the entry that was inserted as the `at`th, if it is there still and is the one.
    fn number(&self, at: u32, is: impl Fn(&Entry) -> bool) -> Option<usize> {
        let age = self.inserted.checked_sub(at).filter(|_| at > 0)? as usize;
        self.entries.get(age).filter(|e| is(e)).map(|_| COUNT + 1 + age)
    }

    fn literal(&self, out: &mut Vec<u8>, first: u8, prefix: u32, number: usize, name: &[u8], value: &[u8]) {
        integer::write(out, first, prefix, number);
        if number == 0 {
            text(out, name);
        }
        match first {
            0x40 => text(out, value),
            // What is said once is not worth the work.
            _ => plain(out, value),
        }
    }

    fn insert(&mut self, name: &[u8], value: &[u8], size: usize) {
        self.shrink(self.max - size);
        let mut bytes = Vec::with_capacity(size - OVERHEAD);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        self.entries.push_front(Entry { bytes: bytes.into_boxed_slice(), name: name.len() as u32 });
        self.size += size;
        self.inserted += 1;
        if self.inserted == u32::MAX {
            // After four thousand million insertions, nothing is remembered.
            (self.inserted, self.places) = (self.entries.len() as u32, None);
        }
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.bytes.len() + OVERHEAD;
        }
    }
}

impl Entry {
    fn is(&self, name: &[u8], value: &[u8]) -> bool {
        let (n, v) = self.bytes.split_at(self.name as usize);
        n == name && v == value
    }
}

/// The number of a tagged name in the static table.
fn known_by_tag(tag: u8) -> usize {
    static NUMBERS: std::sync::LazyLock<[u8; 64]> = std::sync::LazyLock::new(|| {
        let mut numbers = [0; 64];
        let tagged = FIELDS.iter().zip(static_table::tags()).enumerate().skip(14).rev();
        for (i, (_, tag)) in tagged.filter(|(_, (_, tag))| **tag != OTHER) {
            numbers[usize::from(*tag)] = i as u8 + 1;
        }
        numbers
    });
    usize::from(NUMBERS[usize::from(tag)])
}

/// A text, in the form that is shorter.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let coded = huffman::encoded_len(text);
    if coded >= text.len() {
        return plain(out, text);
    }
    integer::write(out, 0x80, 7, coded);
    huffman::encode(text, out);
}

fn plain(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use crate::message::name::tag_of;

    fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.status(&mut out, 200);
        for (name, value) in fields {
            encoder.field(&mut out, tag_of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        out
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        decoder.decode(block, |f| all.push((text(f.name), text(f.value)))).expect("our own block");
        all.remove(0);
        all
    }

    #[test]
    fn what_repeats_becomes_a_byte_and_what_does_not_stays_out() {
        let (mut e, mut d) = (Encoder::default(), Decoder::default());
        let mut sizes = Vec::new();
        for n in 0..5 {
            let id = format!("{n:032x}");
            let fields = [
                ("Content-Type", "text/plain"),
                ("X-Own", "same"),
                ("Date", "now"),
                ("X-Kong-Request-Id", &id),
            ];
            let block = block(&mut e, &fields);
            let want: Vec<_> =
                fields.iter().map(|(n, v)| (n.to_ascii_lowercase(), (*v).to_owned())).collect();
            assert_eq!(decoded(&mut d, &block), want);
            sizes.push(block.len());
        }
        // Status, three known fields, a name of two bytes and 33 bytes of value.
        assert_eq!((sizes[3], sizes[4]), (39, 39), "{sizes:?}");
        assert_eq!(e.entries.len(), 5, "each repeated field, and the names that had no number");
    }

    #[test]
    fn a_decoder_follows_whatever_is_said() {
        let (mut e, mut d) = (Encoder::default(), Decoder::default());
        let mut state = 1_u32;
        let mut next = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        const NAMES: &[&str] =
            &["Server", "set-cookie", "X-A", "x-b", "Cache-Control", "ETag", "Via", "X-Long"];
        for round in 0..3000 {
            if round % 500 == 499 {
                for _ in 0..=next(2) {
                    e.resize(next(5000));
                }
            }
            let fields: Vec<(&str, String)> = (0..next(8))
                .map(|_| {
                    let name = NAMES[next(8) as usize];
                    let long = if name == "X-Long" { 900 } else { 20 };
                    (name, "v".repeat(next(long) as usize) + &next(6).to_string())
                })
                .collect();
            let refs: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let block = block(&mut e, &refs);
            let want: Vec<_> = fields.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
            assert_eq!(decoded(&mut d, &block), want, "round {round}");
            assert!(e.size <= e.max);
        }
    }
}
