//! Virtual routes laid out for look-up: by host, then by the beginning of the path.
//!
//! Every alternative of a virtual route (a host pattern with a path) is an [`Entry`] in exactly one list, which holds
//! what shares both the host pattern and the literal beginning of the path, in order of rank. A regular expression is
//! listed under the text that everything it matches begins with. All lists are found through one hash table
//! ([`table`](super::table)); a request asks it for each host pattern that fits and each length that prefixes of that
//! pattern have, the longest first, and stops where nothing shorter can come first in order of rank.

use ahash::AHashMap;
use regex::Regex;

use super::condition::Condition;
use super::expression::Expression;
use super::pattern::HostPattern;
use super::table::{Hasher, Table, hash};
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
    /// Position in the order of virtual routes and of the alternatives of each; smaller is tried first.
    pub rank: u32,
    /// Position in the order of virtual routes.
    pub virtual_route: u32,
    pub route: u32,
    /// [`NO_CONDITIONS`] or an index into [`Parts::conditions`].
    pub conditions: u32,
    pub rule: PathRule,
    /// The port that the request must have been sent to, if any.
    pub port: Option<u16>,
}

impl Entry {
    /// See [`List::asks`].
    fn asks(&self) -> u32 {
        let plain_path = matches!(self.rule, PathRule::Any | PathRule::Prefix);
        if plain_path && self.port.is_none() { self.conditions } else { ASKS_MORE }
    }
}

/// Entries with the same host pattern and the same beginning of the path: a range of [`Index::entries`].
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub first: u32,
    pub end: u32,
    /// Rank and route of the first entry.
    pub rank: u32,
    pub route: u32,
    /// What the first entry asks for beside host and beginning: its conditions, or [`ASKS_MORE`].
    pub asks: u32,
    /// The smallest rank in this bucket under shorter beginnings.
    pub shorter: u32,
}

/// [`List::asks`] where the first entry has to be looked at.
pub(super) const ASKS_MORE: u32 = u32::MAX - 1;

/// What routes there are for a host pattern.
#[derive(Clone, Copy, Debug)]
enum Hosted {
    /// All with the same beginning, and that is empty.
    One(List),
    Several(Bucket),
}

/// Routes for a host pattern, with several beginnings.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Lengths below 64 of the beginnings of paths, a bit each: the lower half, and the upper.
    short: [u32; 2],
    /// Into [`Index::long_lengths`].
    long: u32,
    id: u32,
}

impl Bucket {
    fn new(id: u32) -> Self {
        Self { short: [0; 2], long: NO_LONG, id }
    }

    /// The lengths below 64 that a text of so many bytes has beginnings of.
    #[inline]
    fn short(&self, len: usize) -> u64 {
        let all = u64::from(self.short[0]) | u64::from(self.short[1]) << 32;
        if len < 63 { all & ((2 << len) - 1) } else { all }
    }
}

/// [`Bucket::long`] without lengths from 64 up.
const NO_LONG: u32 = u32::MAX;

/// How host patterns compare: groups of [`Index::hosts`].
mod host {
    pub(super) const EXACT: u32 = 0;
    /// By `.x`.
    pub(super) const SUFFIX: u32 = 1;
    /// By `x.`.
    pub(super) const PREFIX: u32 = 2;
}

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    pub parts: Parts,
    pub entries: Box<[Entry]>,
    /// By bucket and beginning of the path.
    lists: Table<List, 28>,
    hosts: Table<(u32, Hosted), 20>,
    /// Whether some host pattern has a wildcard.
    wildcards: bool,
    /// The bucket of any host and the smallest rank in it, if there is something in it.
    any_host: Option<(Bucket, u32)>,
    /// Lengths from 64 up, ascending, of buckets that have such.
    long_lengths: Vec<Vec<u32>>,
}

/// A list that a request's host and path fit.
#[derive(Clone, Copy)]
pub(super) struct Hit<'a> {
    pub list: &'a List,
    /// Bytes of the path that the beginning covers.
    pub len: u32,
}

impl Index {
    /// Lays out virtual routes, which are in order of rank.
    pub(super) fn new(virtuals: Vec<VirtualRoute>, parts: Parts) -> Self {
        let mut known: AHashMap<(u32, Box<str>), u32> = AHashMap::with_capacity(virtuals.len());
        let mut hosts = Hosts::default();
        let mut placed: Vec<(u32, Entry)> = Vec::with_capacity(virtuals.len());
        let mut next_rank = 0;
        for (virtual_route, described) in virtuals.into_iter().enumerate() {
            let VirtualRoute { route, hosts: patterns, paths, conditions, .. } = described;
            let buckets: Vec<_> = match patterns.is_empty() {
                true => vec![(ANY_HOST, None)],
                false => patterns.into_iter().map(|(host, port)| (hosts.bucket(host), port)).collect(),
            };
            for (bucket, port) in buckets {
                for (rank, path) in (next_rank..).zip(&paths) {
                    let next = known.len() as u32;
                    let list = *known.entry((bucket, path.prefix.clone())).or_insert(next);
                    let (virtual_route, rule) = (virtual_route as u32, path.rule);
                    placed.push((list, Entry { rank, virtual_route, route, conditions, rule, port }));
                }
            }
            next_rank += paths.len() as u32;
        }
        // Entries came in order of rank for each host, and are put in order within their list.
        placed.sort_by_key(|&(list, entry)| (list, entry.rank));
        let mut lists = vec![None; known.len()];
        for (at, &(list, entry)) in placed.iter().enumerate() {
            let (first, asks) = (at as u32, entry.asks());
            let Entry { rank, route, .. } = entry;
            let new = List { first, end: first, rank, route, asks, shorter: u32::MAX };
            lists[list as usize].get_or_insert(new).end = at as u32 + 1;
        }
        let mut index = Self { parts, wildcards: hosts.wildcards, ..Self::default() };
        index.entries = placed.into_iter().map(|(_, entry)| entry).collect();
        index.fill(known, lists, hosts);
        index
    }

    /// Makes the two tables.
    fn fill(&mut self, known: AHashMap<(u32, Box<str>), u32>, lists: Vec<Option<List>>, hosts: Hosts) {
        // Every list has an entry.
        let mut items: Vec<(u32, Box<str>, List)> = known
            .into_iter()
            .filter_map(|((bucket, text), list)| Some((bucket, text, lists[list as usize]?)))
            .collect();
        items.sort_unstable_by_key(|(bucket, text, _)| (*bucket, text.len()));
        let mut hosted = vec![Hosted::Several(Bucket::new(ANY_HOST)); hosts.count as usize + 1];
        for items in items.chunk_by_mut(|a, b| a.0 == b.0) {
            let mut bucket = Bucket::new(items[0].0);
            let mut smallest = u32::MAX;
            for items in items.chunk_by_mut(|a, b| a.1.len() == b.1.len()) {
                self.note_length(&mut bucket, items[0].1.len());
                let shorter = smallest;
                for (_, _, list) in items {
                    list.shorter = shorter;
                    smallest = smallest.min(list.rank);
                }
            }
            if bucket.id == ANY_HOST {
                self.any_host = Some((bucket, smallest));
            }
            hosted[bucket.id as usize] = match items {
                [(_, text, list)] if text.is_empty() => Hosted::One(*list),
                _ => Hosted::Several(bucket),
            };
        }
        self.lists = Table::new(items.iter().map(|(bucket, text, list)| (*bucket, &**text, *list)));
        let hosts = hosts.known.iter();
        self.hosts =
            Table::new(hosts.map(|((kind, text), &id)| (*kind, text.as_str(), (id, hosted[id as usize]))));
    }

    /// Notes a length, which is longer than all that the bucket has.
    fn note_length(&mut self, bucket: &mut Bucket, len: usize) {
        if len < 64 {
            bucket.short[len / 32] |= 1 << (len % 32);
            return;
        }
        if bucket.long == NO_LONG {
            bucket.long = self.long_lengths.len() as u32;
            self.long_lengths.push(Vec::new());
        }
        self.long_lengths[bucket.long as usize].push(len as u32);
    }

    /// Goes through the lists whose host pattern and beginning the request fits, but for those that begin with a
    /// greater rank than `each` has returned last: it says of which rank the best is that was found.
    #[inline]
    pub(super) fn lists_for<'a>(&'a self, host: &str, path: &str, mut each: impl FnMut(Hit<'a>) -> u32) {
        let (mut settled, path) = (u32::MAX, path.as_bytes());
        self.hosted_for(host, |hosted| match hosted {
            Hosted::One(list) if list.rank < settled => settled = each(Hit { list, len: 0 }),
            Hosted::One(_) => {}
            Hosted::Several(bucket) => self.lists_in(bucket, path, &mut settled, &mut each),
        });
        if let Some((bucket, _)) = self.any_host.as_ref().filter(|(_, rank)| *rank < settled) {
            self.lists_in(bucket, path, &mut settled, &mut each);
        }
    }

    #[inline]
    fn hosted_for<'a>(&'a self, host: &str, mut each: impl FnMut(&'a Hosted)) {
        if self.hosts.is_empty() {
            return;
        }
        let mut look = |kind, text: &[u8]| {
            if let Some((_, hosted)) = self.hosts.get(hash(kind, text), kind, text) {
                each(hosted);
            }
        };
        let host = host.as_bytes();
        look(host::EXACT, host);
        if self.wildcards {
            for dot in memchr::memchr_iter(b'.', host) {
                look(host::SUFFIX, &host[dot..]);
                look(host::PREFIX, &host[..=dot]);
            }
        }
    }

    #[inline]
    fn lists_in<'a>(
        &'a self,
        bucket: &Bucket,
        path: &[u8],
        settled: &mut u32,
        each: &mut impl FnMut(Hit<'a>) -> u32,
    ) {
        // First all that may be there, which waits for nothing, then the places, the longest first.
        let mut likely = Few::<(u64, u32)>::default();
        let mut hasher = Hasher::new(bucket.id, path);
        let mut note = |len: u32| {
            let hash = hasher.at(len as usize);
            if self.lists.may_have(hash) {
                likely.push((hash, len));
            }
        };
        let mut short = bucket.short(path.len());
        while short != 0 {
            note(short.trailing_zeros());
            short &= short - 1;
        }
        if let Some(lengths) = self.long_lengths.get(bucket.long as usize) {
            lengths.iter().take_while(|&&len| len as usize <= path.len()).for_each(|&len| note(len));
        }
        while let Some((hash, len)) = likely.pop() {
            if let Some(list) = self.lists.get(hash, bucket.id, &path[..len as usize]) {
                if list.rank < *settled {
                    *settled = each(Hit { list, len });
                }
                if list.shorter >= *settled {
                    return;
                }
            }
        }
    }

    /// Every list, for people: its bucket, the beginning of the path that its entries share, and itself.
    pub(super) fn all_lists(&self) -> impl Iterator<Item = (u32, &str, &List)> {
        self.lists.iter()
    }

    /// The host pattern of every bucket, for people; none for any host.
    pub(super) fn host_patterns(&self) -> Vec<Option<HostPattern>> {
        let count = self.hosts.iter().map(|(_, _, (id, _))| *id).max().unwrap_or(ANY_HOST);
        let mut patterns = vec![None; count as usize + 1];
        for (kind, text, (id, _)) in self.hosts.iter() {
            let text = text.to_owned();
            patterns[*id as usize] = Some(match kind {
                host::EXACT => HostPattern::Exact(text),
                host::SUFFIX => HostPattern::Suffix(text),
                _ => HostPattern::Prefix(text),
            });
        }
        patterns
    }
}

/// Host patterns while the index is made.
#[derive(Default)]
struct Hosts {
    /// By kind and text.
    known: AHashMap<(u32, String), u32>,
    count: u32,
    wildcards: bool,
}

impl Hosts {
    /// The bucket of a host pattern, made on first use.
    fn bucket(&mut self, pattern: HostPattern) -> u32 {
        let key = match pattern {
            HostPattern::Exact(text) => (host::EXACT, text),
            HostPattern::Suffix(text) => (host::SUFFIX, text),
            HostPattern::Prefix(text) => (host::PREFIX, text),
        };
        self.wildcards |= key.0 != host::EXACT;
        *self.known.entry(key).or_insert_with(|| {
            self.count += 1;
            self.count
        })
    }
}

/// A stack that takes memory only for what is more than a look-up ordinarily has.
#[derive(Default)]
pub(super) struct Few<T> {
    inline: [T; 16],
    count: usize,
    more: Vec<T>,
}

impl<T: Copy> Few<T> {
    #[inline]
    pub(super) fn push(&mut self, item: T) {
        match self.inline.get_mut(self.count) {
            Some(place) => {
                *place = item;
                self.count += 1;
            }
            None => self.more.push(item),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<T> {
        if let Some(item) = self.more.pop() {
            return Some(item);
        }
        self.count = self.count.checked_sub(1)?;
        self.inline.get(self.count).copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.inline[..self.count].iter_mut().chain(&mut self.more)
    }
}
