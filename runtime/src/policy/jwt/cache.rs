//! Tokens whose signature a worker has already checked. Times are checked on every request all the same.
//!
//! One cache a thread, so nothing is locked. Only tokens that carried a good signature get in, so whoever lacks a key
//! can evict nothing. It has two generations: the young one fills up and becomes the old one, whose entries are
//! dropped unless they were asked for again. A holder of a key who sends ever new tokens makes others' entries
//! be checked again at worst once a generation.

use std::cell::RefCell;
use std::rc::Rc;

use ahash::{AHashMap, RandomState};

use super::Verified;

/// Entries of one generation.
const MAX_ENTRIES: usize = 2048;
/// Bytes of tokens of one generation.
const MAX_BYTES: usize = 2 << 20;

/// Under what a token was verified: the policy (its settings) and the snapshot (its credentials).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub policy: u64,
    pub snapshot: u64,
}

struct Entry {
    scope: Scope,
    token: Box<[u8]>,
    verified: Rc<Verified>,
}

#[derive(Default)]
struct Generation {
    entries: AHashMap<u64, Entry>,
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub struct Cache {
    hasher: RandomState,
    /// The newest snapshot seen: entries of older ones are of no use.
    snapshot: u64,
    young: Generation,
    old: Generation,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// Runs `work` with this worker's cache.
pub fn with<R>(work: impl FnOnce(&mut Cache) -> R) -> R {
    CACHE.with_borrow_mut(work)
}

impl Cache {
    /// What is known of `token`. The whole token is compared, not only its hash.
    pub fn get(&mut self, scope: Scope, token: &[u8]) -> Option<Rc<Verified>> {
        let hash = self.hasher.hash_one((scope, token));
        let is = |e: &&Entry| e.scope == scope && *e.token == *token;
        if let Some(entry) = self.young.entries.get(&hash).filter(is) {
            return Some(Rc::clone(&entry.verified));
        }
        self.old.entries.get(&hash).filter(is)?;
        let entry = self.old.entries.remove(&hash)?;
        let verified = Rc::clone(&entry.verified);
        self.insert(hash, entry);
        Some(verified)
    }

    /// Remembers a token whose signature is good.
    pub fn put(&mut self, scope: Scope, token: &[u8], verified: Rc<Verified>) {
        if scope.snapshot > self.snapshot {
            self.snapshot = scope.snapshot;
            self.young = Generation::default();
            self.old = Generation::default();
        }
        let hash = self.hasher.hash_one((scope, token));
        self.insert(hash, Entry { scope, token: token.into(), verified });
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        let size = entry.token.len();
        if self.young.entries.len() >= MAX_ENTRIES || self.young.bytes + size > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += size;
        if let Some(replaced) = self.young.entries.insert(hash, entry) {
            self.young.bytes -= replaced.token.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified() -> Rc<Verified> {
        Rc::new(Verified::default())
    }

    #[test]
    fn entries_belong_to_a_policy_and_a_snapshot() {
        let mut cache = Cache::default();
        let scope = Scope { policy: 1, snapshot: 1 };
        cache.put(scope, b"t", verified());
        assert!(cache.get(scope, b"t").is_some());
        assert!(cache.get(scope, b"u").is_none());
        assert!(cache.get(Scope { policy: 2, snapshot: 1 }, b"t").is_none());
        assert!(cache.get(Scope { policy: 1, snapshot: 2 }, b"t").is_none());
        cache.put(Scope { policy: 1, snapshot: 2 }, b"t", verified());
        assert!(cache.get(scope, b"t").is_none(), "a new snapshot drops what older ones left");
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        let scope = Scope { policy: 1, snapshot: 1 };
        cache.put(scope, b"used", verified());
        cache.put(scope, b"unused", verified());
        for i in 0..3 * MAX_ENTRIES as u32 {
            cache.put(scope, &i.to_be_bytes(), verified());
            assert!(cache.get(scope, b"used").is_some(), "after {i}");
        }
        assert!(cache.get(scope, b"unused").is_none());
        assert!(cache.young.entries.len() <= MAX_ENTRIES && cache.old.entries.len() <= MAX_ENTRIES);
        for i in 0..64_u8 {
            cache.put(scope, &vec![i; MAX_BYTES / 16], verified());
        }
        assert!(cache.young.bytes <= MAX_BYTES && cache.old.bytes <= MAX_BYTES);
    }
}
