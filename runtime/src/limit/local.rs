//! Counters in memory, shared by all workers and outliving snapshots.
//!
//! Check and count are one step under a shard's lock, so no two workers can both take the last request.

mod shard;
mod sync;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Cell, Key, Outcome, Rules};
pub use shard::Entry;
use shard::{Bounds, Shard};
pub use sync::{Announced, SyncStore, SyncStores, Unsettled};

/// How many locks the keys are spread over.
const SHARDS: usize = 128;

/// How many keys are kept by default. A key of a consumer takes about 300 bytes, and 32 for each limit after
/// the first: with two limits all take 350 MB (measured).
const CAPACITY: usize = 1 << 20;

/// The counters of this process.
///
/// Memory is bounded by a number of keys. When a new one finds no room, an expired key goes; without one, that of 64
/// which has used the least of its limits. So a flood of keys displaces itself: whoever wants to reset the counter of
/// somebody at 80 % of a limit must bring 64 keys to 80 % of theirs.
pub struct LocalStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: ahash::RandomState,
    /// Keys per shard.
    capacity: usize,
    /// Whether changes of long-lived counters are remembered, for [`LocalStore::take_changed`].
    tracked: AtomicBool,
}

impl Default for LocalStore {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

/// What is asked of a store under one key, together with other keys.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub rules: &'a Rules,
    pub key: &'a Key,
    pub hits: u32,
    /// Its verdict refuses nothing.
    pub dry_run: bool,
}

impl LocalStore {
    /// A store that keeps about `capacity` keys.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            capacity: capacity.div_ceil(SHARDS).max(1),
            tracked: AtomicBool::new(false),
        }
    }

    /// Asks for `hits` under all rules at once: all count, or (unless refused requests count too) none.
    pub fn take(&self, rules: &Rules, key: &Key, hits: u32, now_ms: u64) -> Outcome {
        self.shard(key).take(rules, key.as_str(), hits, now_ms, self.bounds())
    }

    /// Asks under several keys at once, in one step: all count, or none but where refused requests count. A dry run counts
    /// where it would have admitted what all others do.
    pub fn take_all(&self, parts: &[Part<'_>], now_ms: u64) -> Vec<Outcome> {
        let place = |part: &Part<'_>| self.place(part.key);
        // In order of their places, so that no two requests wait for each other.
        let mut places: Vec<usize> = parts.iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        let mut shards: Vec<_> = places.iter().map(|&p| (p, lock(&self.shards[p]))).collect();
        let mut outcomes = Vec::with_capacity(parts.len());
        for part in parts {
            let held = shards.iter().find(|(p, _)| *p == place(part));
            outcomes.extend(held.map(|(_, s)| s.look(part.rules, part.key.as_str(), part.hits, now_ms)));
        }
        let admitted = parts.iter().zip(&outcomes).all(|(part, o)| part.dry_run || o.admitted);
        for (part, outcome) in parts.iter().zip(&outcomes) {
            let counts = (admitted && outcome.admitted) || part.rules.count_rejected;
            let held = shards.iter_mut().find(|(p, _)| *p == place(part));
            if let Some((_, shard)) = held.filter(|_| counts && part.hits > 0) {
                let charge = |_: usize, rule: &super::Rule, cell| rule.charge(cell, f64::from(part.hits));
                shard.change(part.rules, part.key.as_str(), true, now_ms, self.bounds(), charge);
            }
        }
        outcomes
    }

    /// Takes back what an admitted request was charged.
    pub fn give_back(&self, rules: &Rules, key: &Key, hits: u32, now_ms: u64) {
        self.shard(key).change(rules, key.as_str(), false, now_ms, self.bounds(), |_, _, cell| Cell {
            count: (cell.count - f64::from(hits)).max(0.0),
            ..cell
        });
    }

    /// Replaces the counters of a key by what another store says, with `extra` hits on top.
    fn replace(&self, rules: &Rules, key: &Key, cells: &[Cell], extra: u32, now_ms: u64) {
        let state = |i: usize, rule: &super::Rule, held| {
            let cell = cells.get(i).map_or(held, |c| rule.advance(*c, now_ms));
            rule.charge(cell, f64::from(extra))
        };
        self.shard(key).change(rules, key.as_str(), true, now_ms, self.bounds(), state);
    }

    /// From now on remembers which keys change under limits of a day or longer.
    pub fn track(&self) {
        self.tracked.store(true, Ordering::Relaxed);
    }

    /// The counters that changed since this was last called, once [`LocalStore::track`] was.
    pub fn take_changed(&self) -> Vec<Entry> {
        self.shards.iter().flat_map(|s| lock(s).take_changed()).collect()
    }

    /// All counters that outlive the next hour.
    pub fn all_kept(&self, now_ms: u64) -> Vec<Entry> {
        self.shards.iter().flat_map(|s| lock(s).all_kept(now_ms)).collect()
    }

    /// Puts back counters that were kept elsewhere. Those that exist are left alone.
    pub fn restore(&self, entry: Entry, now_ms: u64) {
        let place = self.hasher.hash_one(&*entry.key) as usize % SHARDS;
        lock(&self.shards[place]).restore(entry, self.capacity, now_ms);
    }

    /// The keys that begin with `prefix` and mean anything at `now_ms`: those that have used most of their limits, at most
    /// `most` of them.
    pub fn under(&self, prefix: &str, most: usize, now_ms: u64) -> Vec<Key> {
        let mut all: Vec<(f32, Arc<str>)> = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).under(prefix, now_ms));
            // Now and then, so that a million keys are never held at once.
            if all.len() > 4 * most {
                keep_fullest(&mut all, most);
            }
        }
        keep_fullest(&mut all, most);
        all.into_iter().map(|(_, key)| Key::from_text(&key)).collect()
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| lock(s).len()).sum()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bounds(&self) -> Bounds {
        Bounds { capacity: self.capacity, tracked: self.tracked.load(Ordering::Relaxed) }
    }

    fn place(&self, key: &Key) -> usize {
        self.hasher.hash_one(key.as_str()) as usize % SHARDS
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.place(key)])
    }
}

fn keep_fullest(keys: &mut Vec<(f32, Arc<str>)>, most: usize) {
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    keys.truncate(most);
}

/// A panic elsewhere leaves counters that are whole, so a poisoned lock is taken all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Identifier, Period, Rule};
    use super::*;

    const NOW: u64 = 30_000_000 * 60_000;

    fn rules(limits: &[(Period, f64)], count_rejected: bool) -> Rules {
        let rule = |&(period, limit): &(Period, f64)| Rule::new(Algorithm::Fixed, period, limit);
        Rules { rules: limits.iter().map(rule).collect(), count_rejected }
    }

    fn key(name: &str) -> Key {
        Key::new("r:s", Identifier::Text(name.as_bytes()))
    }

    fn lefts(outcome: &Outcome) -> Vec<f64> {
        outcome.usages().map(|u| u.left).collect()
    }

    #[test]
    fn a_refused_request_counts_nowhere_unless_asked_to() {
        for (count_rejected, left) in [(false, [0.0, 8.0]), (true, [-3.0, 5.0])] {
            let store = LocalStore::default();
            let r = rules(&[(Period::Minute, 2.0), (Period::Hour, 10.0)], count_rejected);
            let verdicts: Vec<_> = (0..5).map(|_| store.take(&r, &key("a"), 1, NOW).admitted).collect();
            assert_eq!(verdicts, [true, true, false, false, false]);
            assert_eq!(lefts(&store.take(&r, &key("a"), 0, NOW)), left, "count_rejected {count_rejected}");
        }
    }

    #[test]
    fn workers_together_admit_exactly_the_limit() {
        let store = LocalStore::default();
        let r = rules(&[(Period::Day, 1000.0)], false);
        let admitted = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if store.take(&r, &key("hot"), 1, NOW).admitted {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1000);
    }

    #[test]
    fn changed_limits_find_the_counters_of_periods_that_stayed() {
        let store = LocalStore::default();
        store.take(&rules(&[(Period::Minute, 5.0)], false), &key("a"), 1, NOW);
        let both = rules(&[(Period::Minute, 9.0), (Period::Hour, 9.0)], false);
        assert_eq!(lefts(&store.take(&both, &key("a"), 1, NOW)), [8.0, 9.0]);
        assert_eq!(lefts(&store.take(&rules(&[(Period::Minute, 5.0)], false), &key("a"), 1, NOW)), [3.0]);
    }

    #[test]
    fn memory_is_bounded_and_expired_keys_go_first() {
        let store = LocalStore::with_capacity(SHARDS * 8);
        let r = rules(&[(Period::Minute, 5.0)], false);
        for n in 0..20_000 {
            store.take(&r, &key(&format!("k{n}")), 1, NOW);
        }
        assert!(store.len() <= SHARDS * 8, "{}", store.len());
        let year = rules(&[(Period::Year, 5.0)], false);
        store.take(&year, &key("long"), 1, NOW);
        let later = NOW + 120_000;
        for n in 0..20_000 {
            store.take(&r, &key(&format!("m{n}")), 1, later + n);
        }
        assert_eq!(lefts(&store.take(&year, &key("long"), 0, later)), [4.0], "short-lived keys made room");
        assert!(store.len() <= SHARDS * 8);
        // Every key that is left is found, so index and slots agree.
        assert!(store.shards.iter().all(|s| lock(s).is_whole()));
    }

    #[test]
    fn a_flood_of_keys_displaces_itself_and_not_who_is_near_a_limit() {
        let store = LocalStore::with_capacity(SHARDS * 100);
        let r = rules(&[(Period::Minute, 10.0)], false);
        let heavy: Vec<Key> = (0..500).map(|n| key(&format!("honest{n}"))).collect();
        for k in &heavy {
            for _ in 0..8 {
                store.take(&r, k, 1, NOW);
            }
        }
        // Longer windows must not help the flood either.
        let flood = rules(&[(Period::Year, 10.0)], false);
        for n in 0..100_000 {
            store.take(&flood, &key(&format!("flood{n}")), 1, NOW + n / 100);
        }
        assert!(store.len() <= SHARDS * 100);
        let kept = heavy.iter().filter(|k| lefts(&store.take(&r, k, 0, NOW + 5000)) == [2.0]).count();
        assert_eq!(kept, heavy.len());
        assert!(store.shards.iter().all(|s| lock(s).is_whole()));
    }

    #[test]
    fn keys_that_are_asked_together_count_together_or_not_at_all() {
        let store = LocalStore::default();
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let (two, five, one) = (
            Rules {
                rules: vec![Rule::new(Algorithm::Fixed, Period::Minute, 2.0).named("two")],
                count_rejected: false,
            },
            rules(&[(Period::Minute, 5.0)], false),
            rules(&[(Period::Minute, 1.0)], false),
        );
        let ask = |second: &Key| {
            let part = |rules, key, dry_run| Part { rules, key, hits: 1, dry_run };
            let parts = [part(&five, &a, false), part(&two, second, false), part(&one, &c, true)];
            let outcomes = store.take_all(&parts, NOW);
            outcomes.iter().map(|o| o.admitted).collect::<Vec<_>>()
        };
        assert_eq!(ask(&b), [true, true, true]);
        assert_eq!(ask(&b), [true, true, false], "the dry run would refuse");
        assert_eq!(ask(&b), [true, false, false]);
        assert_eq!(lefts(&store.take(&five, &a, 0, NOW)), [3.0], "refused by one, charged by none");
        assert_eq!(lefts(&store.take(&one, &c, 0, NOW)), [0.0]);
        assert_eq!(ask(&a), [true, true, false], "two limits under one key");
        assert_eq!(lefts(&store.take(&five, &a, 0, NOW)), [2.0]);
        assert_eq!(lefts(&store.take(&two, &a, 0, NOW)), [1.0]);
    }

    #[test]
    fn looking_makes_no_key() {
        let store = LocalStore::default();
        let r = rules(&[(Period::Minute, 5.0)], false);
        assert_eq!(lefts(&store.take(&r, &key("a"), 0, NOW)), [5.0]);
        assert!(store.is_empty());
    }

    #[test]
    fn settling_brings_in_what_others_counted() {
        let store = Arc::new(SyncStore::new(100));
        let r = Arc::new(rules(&[(Period::Minute, 10.0)], false));
        let k = key("a");
        assert!(store.is_stale(&k, NOW));
        store.settled(&k, &r, &[Cell { at_ms: NOW, count: 4.0, previous: 0.0 }], NOW);
        assert!(!store.is_stale(&k, NOW));
        assert_eq!(lefts(&store.take(&r, &k, 1, NOW)), [6.0]);
        assert!(store.claim() && !store.claim());
        assert!(store.goes_on(), "a hit is unsettled");
        let work = store.unsettled(NOW);
        assert_eq!(work.iter().map(|u| u.hits).collect::<Vec<_>>(), [1]);
        store.take(&r, &k, 1, NOW);
        // Others added 2 meanwhile; the hit taken since is not lost.
        store.settled(&k, &r, &[Cell { at_ms: NOW, count: 7.0, previous: 0.0 }], NOW);
        assert_eq!(lefts(&store.take(&r, &k, 0, NOW)), [2.0]);
        let again = store.unsettled(NOW);
        store.unsettle(again[0].clone(), NOW);
        assert_eq!(store.unsettled(NOW)[0].hits, 1, "what failed is kept");
        let announced = store.announce();
        assert!(store.goes_on(), "a hit is announced");
        drop(announced);
        assert!(!store.goes_on() && store.claim());
        assert!(store.unsettled(NOW + 1000).is_empty());
        assert!(store.is_stale(&k, NOW + 1000));
    }

    /// What a key takes, for the documentation: `cargo test -p gw-runtime --lib million -- --ignored --nocapture`.
    #[test]
    #[ignore = "takes seconds and 400 MB"]
    fn a_million_keys_take_as_much_as_is_documented() {
        let resident = || crate::telemetry::process::resident_bytes().unwrap_or(0);
        let store = LocalStore::default();
        let r = rules(&[(Period::Minute, 60.0), (Period::Day, 1000.0)], false);
        let scope = super::super::scope(None, None);
        let before = resident();
        for n in 0..1_200_000_u64 {
            let id = format!("{:08x}-0000-4000-8000-{n:012x}", n.wrapping_mul(2_654_435_761) & 0xffff_ffff);
            store.take(&r, &Key::new(&scope, Identifier::Text(id.as_bytes())), 1, NOW);
        }
        let each = (resident() - before) / store.len() as u64;
        println!("{} keys, {each} bytes each", store.len());
        assert!(store.len() <= CAPACITY + SHARDS && each < 400, "{each}");
    }
}
