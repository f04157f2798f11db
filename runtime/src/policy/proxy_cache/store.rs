//! Where answers are kept: bounded in bytes, shared by all workers, emptied from the least recently used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::message::FieldName;

/// What an answer is kept under.
pub type Key = [u8; 32];

/// A kept answer.
#[derive(Clone, Debug)]
pub struct Entry {
    pub status: u16,
    pub fields: Vec<(FieldName, String)>,
    pub body: Bytes,
    /// When it came, in seconds since 1970.
    pub at_s: u64,
    /// For how many seconds it is fresh.
    pub ttl_s: u64,
}

/// Workers meet at a shard only if they look for neighbouring keys.
const SHARDS: usize = 16;

/// Bytes of all answers together.
const CAPACITY: usize = 128 << 20;

/// The answers of all caches of the process.
pub struct Store {
    shards: [Mutex<Shard>; SHARDS],
    /// Bytes that a shard may hold.
    shard_capacity: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Store {
    /// A store for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, shard_capacity: bytes / SHARDS }
    }

    /// The answer, unless it has to be forgotten by now.
    pub fn get(&self, key: &Key, now_s: u64) -> Option<Entry> {
        self.shard(key).get(key, now_s)
    }

    /// Keeps an answer for `keep_s` seconds. One that is larger than a shard is not kept.
    pub fn put(&self, key: Key, entry: Entry, keep_s: u64) {
        self.shard(&key).put(key, entry, keep_s, self.shard_capacity);
    }

    /// Forgets an answer; tells whether it was there.
    pub fn remove(&self, key: &Key) -> bool {
        let mut shard = self.shard(key);
        let there = shard.entries.contains_key(key);
        shard.remove(key);
        there
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[key[0] as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Kept>,
    /// Keys by the number of their last use.
    used: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

struct Kept {
    entry: Entry,
    forget_at_s: u64,
    used: u64,
    bytes: usize,
}

impl Shard {
    fn get(&mut self, key: &Key, now_s: u64) -> Option<Entry> {
        if self.entries.get(key)?.forget_at_s < now_s {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let kept = self.entries.get_mut(key)?;
        self.used.remove(&kept.used);
        kept.used = self.uses;
        self.used.insert(self.uses, *key);
        Some(kept.entry.clone())
    }

    fn put(&mut self, key: Key, entry: Entry, keep_s: u64, capacity: usize) {
        self.remove(&key);
        let fields: usize = entry.fields.iter().map(|(n, v)| n.as_str().len() + v.len() + 64).sum();
        let bytes = entry.body.len() + fields + 256;
        if bytes > capacity {
            return;
        }
        while self.bytes + bytes > capacity {
            let Some((_, oldest)) = self.used.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
        self.uses += 1;
        let forget_at_s = entry.at_s.saturating_add(keep_s);
        self.used.insert(self.uses, key);
        self.bytes += bytes;
        self.entries.insert(key, Kept { entry, forget_at_s, used: self.uses, bytes });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.entries.remove(key) {
            self.used.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(length: usize) -> Entry {
        Entry { status: 200, fields: Vec::new(), body: vec![0; length].into(), at_s: 100, ttl_s: 1 }
    }

    /// A key of shard 0.
    fn key(n: u8) -> Key {
        let mut key = [0; 32];
        key[1] = n;
        key
    }

    #[test]
    fn the_least_recently_used_gives_way() {
        let store = Store::with_capacity(SHARDS * 3000);
        for n in 0..3 {
            store.put(key(n), entry(700), 10);
        }
        assert!(store.get(&key(0), 100).is_some());
        store.put(key(3), entry(700), 10);
        let there: Vec<bool> = (0..4).map(|n| store.get(&key(n), 100).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        store.put(key(4), entry(4000), 10);
        assert!(store.get(&key(4), 100).is_none(), "larger than all the room there is");
        assert!(store.get(&key(0), 100).is_some(), "and nothing gave way to it");
    }

    #[test]
    fn answers_are_forgotten_in_time() {
        let store = Store::default();
        store.put(key(0), entry(1), 10);
        assert!(store.get(&key(0), 110).is_some());
        assert!(store.get(&key(0), 111).is_none());
        assert_eq!(store.shard(&key(0)).bytes, 0);
    }
}
