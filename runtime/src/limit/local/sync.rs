//! Counters of this process that are settled with a shared store now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{CAPACITY, LocalStore, lock};
use crate::limit::{Cell, Key, Outcome, RedisSettings, Rules};

/// Counters that are kept here and settled with a shared store every so often (`sync_rate`).
///
/// A key is decided on by a state that is at most two intervals old. So with N gateways it admits its limit and, on top,
/// at most what the others let through meanwhile: `2 × (N − 1) × rate × sync_rate`. What could not be settled is kept.
///
/// Hits are charged to the window in which they are settled, so up to `rate × sync_rate` of a window's last hits count in
/// the next one. The clocks of the gateways and of Redis should agree to much less than a window.
///
/// As many keys await settlement as counters are kept. What comes on top is counted here alone: a flood of distinct keys
/// costs bounded memory, and nobody can use it to be let through more often than this process allows.
pub struct SyncStore {
    local: LocalStore,
    pending: Mutex<HashMap<Key, Pending, ahash::RandomState>>,
    /// Most keys in `pending`.
    capacity: usize,
    scheduled: AtomicBool,
    announced: AtomicUsize,
    /// Milliseconds between settlements.
    pub interval_ms: u64,
}

/// What is not settled yet of a key.
#[derive(Clone, Debug)]
struct Pending {
    rules: Arc<Rules>,
    hits: u32,
    settled_ms: u64,
}

/// A key to settle: run `rules` with `hits` in the shared store, then [`SyncStore::settled`].
#[derive(Clone, Debug)]
pub struct Unsettled {
    pub key: Key,
    pub rules: Arc<Rules>,
    pub hits: u32,
}

impl SyncStore {
    /// A store to settle every `interval_ms`.
    pub fn new(interval_ms: u64) -> Self {
        Self::with_capacity(interval_ms, CAPACITY)
    }

    fn with_capacity(interval_ms: u64, capacity: usize) -> Self {
        Self {
            local: LocalStore::with_capacity(capacity),
            pending: Mutex::default(),
            capacity,
            scheduled: AtomicBool::new(false),
            announced: AtomicUsize::new(0),
            interval_ms,
        }
    }

    /// Whether the shared store must be read before this key can be decided on.
    pub fn is_stale(&self, key: &Key, now_ms: u64) -> bool {
        let pending = lock(&self.pending);
        pending.get(key).is_none_or(|p| p.hits == 0 && p.settled_ms + 2 * self.interval_ms <= now_ms)
    }

    /// Decides here.
    pub fn take(&self, rules: &Arc<Rules>, key: &Key, hits: u32, now_ms: u64) -> Outcome {
        let mut pending = lock(&self.pending);
        let outcome = self.local.take(rules, key, hits, now_ms);
        let counted = if outcome.admitted || rules.count_rejected { hits } else { 0 };
        let full = pending.len() >= self.capacity;
        match pending.get_mut(key) {
            Some(p) => p.hits = p.hits.saturating_add(counted),
            None if full => {}
            None => {
                let entry = Pending { rules: Arc::clone(rules), hits: counted, settled_ms: now_ms };
                pending.insert(key.clone(), entry);
            }
        }
        outcome
    }

    /// Takes back what an admitted request was charged. What was settled already stays charged in the shared store.
    pub fn give_back(&self, rules: &Rules, key: &Key, hits: u32, now_ms: u64) {
        let mut pending = lock(&self.pending);
        if let Some(p) = pending.get_mut(key).filter(|p| p.hits >= hits) {
            p.hits -= hits;
            self.local.give_back(rules, key, hits, now_ms);
        }
    }

    /// True for the one caller who now has to settle every interval, while [`SyncStore::goes_on`].
    pub fn claim(&self) -> bool {
        !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Whether there is, or will be, more to settle. If not, the next caller of [`SyncStore::claim`] takes over.
    pub fn goes_on(&self) -> bool {
        let busy =
            || self.announced.load(Ordering::Acquire) > 0 || lock(&self.pending).values().any(|p| p.hits > 0);
        if busy() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // Hits that came before the line above found the work taken.
        busy() && self.claim()
    }

    /// Announces hits to come, so that somebody is there to settle them.
    pub fn announce(self: &Arc<Self>) -> Announced {
        self.announced.fetch_add(1, Ordering::AcqRel);
        Announced(Arc::clone(self))
    }

    /// Takes out everything that is to be settled, and forgets keys that nobody asked for lately.
    pub fn unsettled(&self, now_ms: u64) -> Vec<Unsettled> {
        let mut pending = lock(&self.pending);
        pending.retain(|_, p| p.hits > 0 || p.settled_ms + 4 * self.interval_ms > now_ms);
        let dirty = pending.iter_mut().filter(|(_, p)| p.hits > 0);
        dirty
            .map(|(key, p)| Unsettled {
                key: key.clone(),
                rules: Arc::clone(&p.rules),
                hits: std::mem::take(&mut p.hits),
            })
            .collect()
    }

    /// The shared store's state of a key, hits sent to it included.
    pub fn settled(&self, key: &Key, rules: &Arc<Rules>, cells: &[Cell], now_ms: u64) {
        let mut pending = lock(&self.pending);
        let full = pending.len() >= self.capacity;
        let waiting = match pending.get_mut(key) {
            Some(p) => {
                p.settled_ms = now_ms;
                p.hits
            }
            // It is counted here alone, and what is counted must not be forgotten for what others know.
            None if full => return,
            None => {
                let entry = Pending { rules: Arc::clone(rules), hits: 0, settled_ms: now_ms };
                pending.insert(key.clone(), entry);
                0
            }
        };
        self.local.replace(rules, key, cells, waiting, now_ms);
    }

    /// Puts back what could not be settled.
    pub fn unsettle(&self, item: Unsettled, now_ms: u64) {
        let mut pending = lock(&self.pending);
        if pending.len() >= self.capacity && !pending.contains_key(&item.key) {
            return;
        }
        let entry = pending.entry(item.key).or_insert_with(|| Pending {
            rules: item.rules,
            hits: 0,
            settled_ms: now_ms,
        });
        entry.hits = entry.hits.saturating_add(item.hits);
    }
}

/// See [`SyncStore::announce`].
pub struct Announced(Arc<SyncStore>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.announced.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for SyncStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SyncStore every {} ms", self.interval_ms)
    }
}

/// All stores that settle, by what they settle with and how often; they outlive snapshots.
#[derive(Default)]
pub struct SyncStores(Mutex<HashMap<Terms, Arc<SyncStore>>>);

/// Whom to settle with, and every how many milliseconds.
type Terms = (Arc<RedisSettings>, u64);

impl SyncStores {
    /// The store for these settings and this interval in ms, made on first use.
    pub fn get(&self, redis: &Arc<RedisSettings>, interval_ms: u64) -> Arc<SyncStore> {
        let mut stores = lock(&self.0);
        let entry = stores.entry((Arc::clone(redis), interval_ms));
        Arc::clone(entry.or_insert_with(|| Arc::new(SyncStore::new(interval_ms))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Algorithm, Identifier, Period, Rule};

    #[test]
    fn a_flood_of_keys_is_bounded_and_lets_nobody_through_more_often() {
        let store = SyncStore::with_capacity(1_000, 64);
        let rules = Arc::new(Rules {
            rules: vec![Rule::new(Algorithm::Fixed, Period::Hour, 3.0)],
            count_rejected: false,
        });
        let key = |name: &str| Key::new("r:s", Identifier::Text(name.as_bytes()));
        for n in 0..1_000 {
            store.take(&rules, &key(&format!("flood{n}")), 1, 0);
        }
        assert_eq!(lock(&store.pending).len(), 64);
        let late = key("late");
        let admitted = (0..10).filter(|_| {
            // As a gateway does with a key that it knows nothing of: asks what others have counted, nothing here.
            store.settled(&late, &rules, &[], 0);
            store.take(&rules, &late, 1, 0).admitted
        });
        assert_eq!(admitted.count(), 3);
        assert_eq!(lock(&store.pending).len(), 64);
        for item in store.unsettled(0) {
            store.settled(&item.key, &item.rules, &[], 0);
        }
        assert!(store.unsettled(10_000).is_empty());
        assert_eq!(lock(&store.pending).len(), 0, "keys that nobody asks for make room");
    }
}
