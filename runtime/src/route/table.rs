//! A hash table that is made once: from a group and a text to a small value.
//!
//! What a look-up costs in a large table is the memory that it waits for. So a place holds all that is needed to decide,
//! text and value, in one cache line; and a directory, small enough to stay in the caches, says where the places of a
//! hash stand and, in most cases, that there are none.

/// See the module. `N` bytes of a text are in its place, with which it fills a cache line; of longer texts it holds
/// where they stand.
pub(super) struct Table<T, const N: usize> {
    /// For each value of the hash's upper bits: where its places begin (upper half) and which values the hash's lowest
    /// five bits have there (one bit each, lower half). One more at the end, so that the next one is always the end.
    directory: Box<[u64]>,
    /// How far a hash is shifted to become an index into the directory.
    shift: u32,
    places: Box<[Place<T, N>]>,
    /// Texts that are too long for their places.
    texts: String,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Place<T, const N: usize> {
    /// Lower half of the hash.
    tag: u32,
    group: u32,
    len: u32,
    text: [u8; N],
    value: T,
}

impl<T, const N: usize> Default for Table<T, N> {
    fn default() -> Self {
        Self { directory: Box::default(), shift: 0, places: Box::default(), texts: String::new() }
    }
}

impl<T: Copy, const N: usize> Table<T, N> {
    /// Lays out groups, texts and values; no text is twice in a group.
    pub(super) fn new<'a>(items: impl Iterator<Item = (u32, &'a str, T)>) -> Self {
        const { assert!(size_of::<Place<T, N>>() == 64, "a place fills a cache line") };
        let mut texts = String::new();
        let mut hashed: Vec<(u64, Place<T, N>)> = items
            .map(|(group, text, value)| {
                let hash = hash(group, text.as_bytes());
                let mut inline = [0; N];
                match inline.get_mut(..text.len()) {
                    Some(room) => room.copy_from_slice(text.as_bytes()),
                    None => {
                        inline[..4].copy_from_slice(&(texts.len() as u32).to_le_bytes());
                        texts.push_str(text);
                    }
                }
                let (tag, len) = (hash as u32, text.len() as u32);
                (hash, Place { tag, group, len, text: inline, value })
            })
            .collect();
        hashed.sort_unstable_by_key(|(hash, _)| *hash);

        let bits = hashed.len().max(2).next_power_of_two().trailing_zeros();
        let shift = u64::BITS - bits;
        let mut directory = vec![0_u64; (1 << bits) + 1];
        for (hash, _) in &hashed {
            let at = (hash >> shift) as usize;
            directory[at] |= 1 << (hash & 31);
            directory[at + 1] += 1 << 32;
        }
        let mut begin = 0;
        for entry in &mut directory {
            begin += *entry >> 32;
            *entry = begin << 32 | *entry & u64::from(u32::MAX);
        }
        let places = hashed.into_iter().map(|(_, place)| place).collect();
        Self { directory: directory.into(), shift, places, texts }
    }

    /// Whether there may be something under this hash. No is certain.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.directory.get((hash >> self.shift) as usize).is_some_and(|entry| entry >> (hash & 31) & 1 == 1)
    }

    /// The value of a text, whose hash this is.
    #[inline]
    pub(super) fn get(&self, hash: u64, group: u32, text: &[u8]) -> Option<&T> {
        let at = (hash >> self.shift) as usize;
        let [entry, next] = self.directory.get(at..)?.first_chunk()?;
        if entry >> (hash & 31) & 1 == 0 {
            return None;
        }
        let places = self.places.get((entry >> 32) as usize..(next >> 32) as usize)?;
        let fits = |p: &&Place<T, N>| p.tag == hash as u32 && p.group == group && self.text(p) == text;
        places.iter().find(fits).map(|p| &p.value)
    }

    /// Everything: group, text, value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, &T)> {
        self.places.iter().map(|p| (p.group, std::str::from_utf8(self.text(p)).unwrap_or(""), &p.value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    #[inline]
    fn text<'a>(&'a self, place: &'a Place<T, N>) -> &'a [u8] {
        let len = place.len as usize;
        place.text.get(..len).unwrap_or_else(|| {
            let begin = place.text.first_chunk().map_or(0, |begin| u32::from_le_bytes(*begin)) as usize;
            &self.texts.as_bytes()[begin..begin + len]
        })
    }
}

/// The hash of a text in a group.
#[inline]
pub(super) fn hash(group: u32, text: &[u8]) -> u64 {
    Hasher::new(group, text).at(text.len())
}

/// The hashes of a text's beginnings, for ascending lengths, at the cost of one pass over the text.
#[derive(Clone, Copy)]
pub(super) struct Hasher<'a> {
    text: &'a [u8],
    /// Of the whole words that the last length has.
    state: u64,
    done: usize,
}

impl<'a> Hasher<'a> {
    const MULTIPLIERS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

    #[inline]
    pub(super) fn new(group: u32, text: &'a [u8]) -> Self {
        let state = u64::from(group).wrapping_add(1).wrapping_mul(Self::MULTIPLIERS[0]);
        Self { text, state, done: 0 }
    }

    /// The hash of the first `len` bytes. `len` is not below that of an earlier call, nor beyond the text.
    #[inline]
    pub(super) fn at(&mut self, len: usize) -> u64 {
        while self.done + 8 <= len {
            self.state = fold(self.state ^ self.word(), Self::MULTIPLIERS[0]);
            self.done += 8;
        }
        let tail = match len - self.done {
            0 => 0,
            n => self.word() & (u64::MAX >> (64 - 8 * n)),
        };
        fold(self.state ^ tail ^ (len as u64).rotate_right(8), Self::MULTIPLIERS[1])
    }

    /// The eight bytes after what is done, or as many as there are, with zeros for the others.
    #[inline]
    fn word(&self) -> u64 {
        if let Some(word) = self.text.get(self.done..).and_then(<[u8]>::first_chunk) {
            return u64::from_le_bytes(*word);
        }
        let missing = self.done + 8 - self.text.len();
        if let Some(word) = self.text.last_chunk() {
            return u64::from_le_bytes(*word) >> (8 * missing);
        }
        let mut word = [0; 8];
        let rest = &self.text[self.done..];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(word)
    }
}

#[inline]
fn fold(word: u64, multiplier: u64) -> u64 {
    let product = u128::from(word) * u128::from(multiplier);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_hash_as_the_texts_that_they_are() {
        let text: Vec<u8> = (0..=255).collect();
        for end in 0..text.len() {
            let mut hasher = Hasher::new(7, &text[..end]);
            for len in (0..=end).step_by(1 + end % 5) {
                assert_eq!(hasher.at(len), hash(7, &text[..len]), "{len} of {end}");
            }
        }
        assert_ne!(hash(0, b"a"), hash(1, b"a"));
        assert_ne!(hash(0, b"a"), hash(0, b"a\0"));
    }

    #[test]
    fn finds_what_it_was_made_of_and_nothing_else() {
        type Texts = Table<[u32; 6], 28>;
        for count in [0, 1, 2, 3, 100, 5_000] {
            let texts: Vec<String> = (0..count).map(|i| format!("{i}").repeat(1 + i % 12)).collect();
            let items =
                || texts.iter().enumerate().map(|(i, text)| (i as u32 % 3, text.as_str(), [i as u32; 6]));
            let table = Texts::new(items());
            assert_eq!(table.iter().count(), count);
            for (group, text, i) in items() {
                let at = hash(group, text.as_bytes());
                assert!(table.may_have(at));
                assert_eq!(table.get(at, group, text.as_bytes()), Some(&i));
                let other = hash(group + 1, text.as_bytes());
                assert_eq!(table.get(other, group + 1, text.as_bytes()), None);
                assert_eq!(table.get(at, group, b"x"), None, "the same hash for another text");
            }
        }
        assert!(!Texts::default().may_have(u64::MAX));
        assert_eq!(Texts::default().get(0, 0, b""), None);
    }
}
