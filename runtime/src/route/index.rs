//! Virtual routes laid out for look-up: by host, then by the beginning of the path.
//!
//! Every alternative of a virtual route (a host pattern with a path) is an [`Entry`] in exactly one list, which holds
//! what shares both the host pattern and the literal beginning of the path, in order of rank. A regular expression is
//! listed under the text that everything it matches begins with. All lists are found through one hash table; a
//! request probes it once for each host pattern that fits and each length that prefixes of that pattern have.

use std::borrow::Cow;

use ahash::AHashMap;
use regex::Regex;

use super::condition::Condition;
use super::expression::Expression;
use super::pattern::HostPattern;
use super::virtual_routes::VirtualRoute;

/// [`Entry::conditions`] of a route without any.
pub(super) const NO_CONDITIONS: u32 = u32::MAX;
/// The bucket of routes that match any host.
const ANY_HOST: u32 = 0;

/// What the path must be, beside beginning as the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathRule {
    /// The route has no paths.
    Any,
    Prefix,
    /// Into [`Parts::regexes`].
    Regex(u32),
    /// Into [`Parts::expressions`]; stands for all criteria of the route.
    Expression(u32),
}

/// What entries refer to.
#[derive(Default)]
pub(super) struct Parts {
    pub regexes: Vec<Regex>,
    pub expressions: Vec<Expression>,
    /// Conditions of a route, all of which must hold.
    pub conditions: Vec<Box<[Condition]>>,
}

/// One alternative of a virtual route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Position in the order of virtual routes; smaller is tried first.
    pub rank: u32,
    /// Order among the alternatives of a virtual route.
    pub alternative: u32,
    pub route: u32,
    /// [`NO_CONDITIONS`] or an index into [`Parts::conditions`].
    pub conditions: u32,
    pub rule: PathRule,
    /// The port that the request must have been sent to, if any.
    pub port: Option<u16>,
}

/// Entries with the same host pattern and the same beginning of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub bucket: u32,
    /// Where the beginning of the path stands in [`Index::texts`].
    text: u32,
    pub len: u32,
    /// Range of [`Index::entries`].
    pub first: u32,
    pub end: u32,
}

/// A host pattern that routes have.
#[derive(Debug, Default)]
struct Bucket {
    /// Lengths of the beginnings of paths in this bucket, ascending.
    lengths: Vec<u32>,
}

/// A place of the hash table.
#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    /// [`EMPTY`] or an index into [`Index::lists`].
    list: u32,
}

const EMPTY: u32 = u32::MAX;

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    pub parts: Parts,
    pub entries: Box<[Entry]>,
    pub lists: Box<[List]>,
    texts: String,
    buckets: Vec<Bucket>,
    hosts: HostMap,
    /// A power of two of slots, at most half of them taken.
    slots: Box<[Slot]>,
}

/// Host patterns, by what they compare. The values are buckets.
#[derive(Default)]
struct HostMap {
    exact: AHashMap<Box<str>, u32>,
    /// By `.x`.
    suffixes: AHashMap<Box<str>, u32>,
    /// By `x.`.
    prefixes: AHashMap<Box<str>, u32>,
}

impl HostMap {
    fn map(&mut self, pattern: HostPattern) -> (&mut AHashMap<Box<str>, u32>, String) {
        match pattern {
            HostPattern::Exact(text) => (&mut self.exact, text),
            HostPattern::Suffix(text) => (&mut self.suffixes, text),
            HostPattern::Prefix(text) => (&mut self.prefixes, text),
        }
    }
}

impl Index {
    /// Lays out virtual routes, which are in order of rank.
    pub(super) fn new(virtuals: Vec<VirtualRoute<'_>>, parts: Parts) -> Self {
        let mut index = Self { parts, buckets: vec![Bucket::default()], ..Self::default() };
        let mut known: AHashMap<(u32, Cow<'_, str>), u32> = AHashMap::with_capacity(virtuals.len());
        let mut lists = Vec::new();
        let mut placed: Vec<(u32, Entry)> = Vec::with_capacity(virtuals.len());
        for (rank, virtual_route) in virtuals.into_iter().enumerate() {
            let VirtualRoute { route, hosts, paths, conditions, .. } = virtual_route;
            let buckets: Vec<_> = match hosts.is_empty() {
                true => vec![(ANY_HOST, None)],
                false => hosts.into_iter().map(|(host, port)| (index.bucket_of(host), port)).collect(),
            };
            for (bucket, port) in buckets {
                for (alternative, path) in paths.iter().enumerate() {
                    let list = *known.entry((bucket, path.prefix.clone())).or_insert_with(|| {
                        lists.push(index.list(bucket, &path.prefix));
                        lists.len() as u32 - 1
                    });
                    let (rank, alternative, rule) = (rank as u32, alternative as u32, path.rule);
                    placed.push((list, Entry { rank, alternative, route, conditions, rule, port }));
                }
            }
        }
        // Entries came in order of rank and keep it within their list.
        placed.sort_by_key(|&(list, _)| list);
        for (at, &(list, _)) in placed.iter().enumerate() {
            let list: &mut List = &mut lists[list as usize];
            if list.end == 0 {
                list.first = at as u32;
            }
            list.end = at as u32 + 1;
        }
        index.entries = placed.into_iter().map(|(_, entry)| entry).collect();
        index.lists = lists.into();
        index.fill_table();
        index
    }

    /// The bucket of a host pattern, made on first use.
    fn bucket_of(&mut self, pattern: HostPattern) -> u32 {
        let (map, text) = self.hosts.map(pattern);
        if let Some(&bucket) = map.get(text.as_str()) {
            return bucket;
        }
        let bucket = self.buckets.len() as u32;
        map.insert(text.into(), bucket);
        self.buckets.push(Bucket::default());
        bucket
    }

    /// A new, empty list.
    fn list(&mut self, bucket: u32, prefix: &str) -> List {
        let (text, len) = (self.texts.len() as u32, prefix.len() as u32);
        self.texts.push_str(prefix);
        let lengths = &mut self.buckets[bucket as usize].lengths;
        if let Err(at) = lengths.binary_search(&len) {
            lengths.insert(at, len);
        }
        List { bucket, text, len, first: 0, end: 0 }
    }

    fn fill_table(&mut self) {
        let empty = Slot { tag: 0, list: EMPTY };
        let mut slots = vec![empty; (self.lists.len() * 2).next_power_of_two()].into_boxed_slice();
        for (i, list) in self.lists.iter().enumerate() {
            let mut hash = PathHash::new(list.bucket);
            let text = self.text(list).as_bytes();
            for &len in &self.buckets[list.bucket as usize].lengths {
                hash.extend(&text[hash.len..(len as usize).min(text.len())]);
                if len >= list.len {
                    break;
                }
            }
            let (tag, mut at) = hash.finish(slots.len());
            while slots[at].list != EMPTY {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = Slot { tag, list: i as u32 };
        }
        self.slots = slots;
    }

    /// The beginning of the path that a list's entries share.
    pub(super) fn text(&self, list: &List) -> &str {
        &self.texts[list.text as usize..(list.text + list.len) as usize]
    }

    /// Calls `each` with every list whose host pattern and beginning the request fits.
    #[inline]
    pub(super) fn lists_for<'a>(&'a self, host: &str, path: &str, mut each: impl FnMut(&'a List)) {
        self.buckets_for(host, |bucket| self.lists_in(bucket, path.as_bytes(), &mut each));
    }

    fn buckets_for(&self, host: &str, mut each: impl FnMut(u32)) {
        each(ANY_HOST);
        if let Some(&bucket) = self.hosts.exact.get(host) {
            each(bucket);
        }
        let (suffixes, prefixes) = (&self.hosts.suffixes, &self.hosts.prefixes);
        if suffixes.is_empty() && prefixes.is_empty() {
            return;
        }
        for dot in memchr::memchr_iter(b'.', host.as_bytes()) {
            suffixes.get(&host[dot..]).into_iter().for_each(|&bucket| each(bucket));
            prefixes.get(&host[..=dot]).into_iter().for_each(|&bucket| each(bucket));
        }
    }

    fn lists_in<'a>(&'a self, bucket: u32, path: &[u8], each: &mut impl FnMut(&'a List)) {
        let Some(Bucket { lengths }) = self.buckets.get(bucket as usize) else { return };
        let mut hash = PathHash::new(bucket);
        for &len in lengths {
            let Some(part) = path.get(hash.len..len as usize) else { return };
            hash.extend(part);
            let (tag, mut at) = hash.finish(self.slots.len());
            while self.slots[at].list != EMPTY {
                let slot = self.slots[at];
                let list = &self.lists[slot.list as usize];
                if slot.tag == tag && list.bucket == bucket && self.text(list).as_bytes() == &path[..hash.len]
                {
                    each(list);
                    break;
                }
                at = (at + 1) & (self.slots.len() - 1);
            }
        }
    }

    /// The host pattern of every bucket, for people; none for any host.
    pub(super) fn host_patterns(&self) -> Vec<Option<HostPattern>> {
        let mut patterns = vec![None; self.buckets.len()];
        let mut note = |map: &AHashMap<Box<str>, u32>, make: fn(String) -> HostPattern| {
            map.iter().for_each(|(text, &bucket)| patterns[bucket as usize] = Some(make(text.to_string())));
        };
        note(&self.hosts.exact, HostPattern::Exact);
        note(&self.hosts.suffixes, HostPattern::Suffix);
        note(&self.hosts.prefixes, HostPattern::Prefix);
        patterns
    }
}

/// A hash of a bucket and the beginning of a path that grows with it: the parts between the bucket's lengths are fed
/// one by one, so that all beginnings of a path cost one pass over it.
#[derive(Clone, Copy)]
struct PathHash {
    state: u64,
    len: usize,
}

impl PathHash {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(bucket: u32) -> Self {
        Self { state: u64::from(bucket).wrapping_add(1).wrapping_mul(Self::MULTIPLIER), len: 0 }
    }

    #[inline]
    fn extend(&mut self, part: &[u8]) {
        self.len += part.len();
        let (words, tail) = part.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        if !tail.is_empty() {
            let mut word = [0; 8];
            word[..tail.len()].copy_from_slice(tail);
            self.mix(u64::from_le_bytes(word) ^ (tail.len() as u64) << 56);
        }
    }

    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(Self::MULTIPLIER);
        self.state = (product as u64) ^ (product >> 64) as u64;
    }

    /// A tag and a place in a table of so many slots, a power of two.
    #[inline]
    fn finish(&self, slots: usize) -> (u32, usize) {
        let mixed = self.state.wrapping_mul(Self::MULTIPLIER);
        ((mixed >> 32) as u32, (mixed ^ mixed >> 29) as usize & (slots - 1))
    }
}
