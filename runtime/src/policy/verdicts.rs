//! What another server has decided about callers: remembered for a while, asked once at a time.
//!
//! Shared by all workers and kept over reloads that do not change what it depends on. Bounded in entries and bytes.
//! Good and bad verdicts have rooms of their own, so that whoever can only bring about bad ones evicts no good one.
//! Each room has two generations: the young one fills up and becomes the old one, whose entries are dropped unless they
//! were asked for again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Notify;

/// A SHA-256: what is decided about, which may be a secret, is not kept.
pub type Key = [u8; 32];

const SHARDS: usize = 16;
/// Entries and bytes of one generation of one shard.
const GOOD_MAX: usize = 1024;
const BAD_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;
/// Questions under way in one shard.
const FLIGHTS_MAX: usize = 128;
/// Failures in a row after which the server is left alone, and for how long.
const FAILURES_MAX: u32 = 5;
const REST: Duration = Duration::from_secs(1);

/// The digest of parts, their lengths included, so that no two lists of parts are alike.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = Key::default();
    out.copy_from_slice(context.finish().as_ref());
    out
}

struct Entry<V> {
    value: V,
    until: Instant,
    bytes: usize,
}

struct Generation<V> {
    entries: HashMap<Key, Entry<V>, ahash::RandomState>,
    bytes: usize,
}

impl<V> Default for Generation<V> {
    fn default() -> Self {
        Self { entries: HashMap::default(), bytes: 0 }
    }
}

struct Room<V> {
    young: Generation<V>,
    old: Generation<V>,
    max: usize,
}

impl<V: Clone> Room<V> {
    fn new(max: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), max }
    }

    fn get(&mut self, key: &Key, now: Instant) -> Option<V> {
        if let Some(entry) = self.young.entries.get(key) {
            return (entry.until > now).then(|| entry.value.clone());
        }
        let entry = self.old.entries.remove(key)?;
        if entry.until <= now {
            return None;
        }
        let value = entry.value.clone();
        self.put(*key, entry);
        Some(value)
    }

    fn put(&mut self, key: Key, entry: Entry<V>) {
        if self.young.entries.len() >= self.max || self.young.bytes + entry.bytes > BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += entry.bytes;
        if let Some(replaced) = self.young.entries.insert(key, entry) {
            self.young.bytes -= replaced.bytes;
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.young.entries.remove(key) {
            self.young.bytes -= entry.bytes;
        }
        self.old.entries.remove(key);
    }
}

struct Shard<V> {
    good: Room<V>,
    bad: Room<V>,
    flights: HashMap<Key, Arc<Flight<V>>, ahash::RandomState>,
}

/// A question under way.
struct Flight<V> {
    value: OnceLock<V>,
    landing: Arc<Landing>,
}

/// The end of a question, without what came of it.
#[derive(Debug, Default)]
pub struct Landing {
    over: AtomicBool,
    told: Notify,
}

impl Landing {
    /// The end has come.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Waits for the end, at most so long.
    pub async fn wait(&self, most: Duration) {
        let wait = async {
            loop {
                let told = self.told.notified();
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                told.await;
            }
        };
        let _ = tokio::time::timeout(most, wait).await;
    }
}

/// What to do about a caller.
pub enum Look<V: Clone> {
    Known(V),
    /// Somebody asks already.
    Wait(Waiting<V>),
    /// Nobody knows: ask, and tell the others.
    Ask(Asking<V>),
    /// Too much is being asked, or the server does not answer: nobody can tell.
    Refuse,
}

/// A wait for somebody else's question.
pub struct Waiting<V>(Arc<Flight<V>>);

impl<V: Clone> Waiting<V> {
    /// What to wait for.
    pub fn landing(&self) -> Arc<Landing> {
        Arc::clone(&self.0.landing)
    }

    /// What came of it; `None` if whoever asked went away without an answer.
    pub fn value(&self) -> Option<V> {
        self.0.value.get().cloned()
    }
}

/// The duty to answer a question. Dropped without an answer, it lets those who wait ask themselves.
pub struct Asking<V: Clone> {
    verdicts: Arc<Verdicts<V>>,
    key: Key,
    flight: Arc<Flight<V>>,
}

/// Which room an answer is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Good,
    Bad,
}

impl<V: Clone> Asking<V> {
    /// Answers. With `keep` it is remembered as this kind until then; `bytes` is about its size.
    pub fn answer(self, value: V, keep: Option<(Kind, Instant)>, bytes: usize) {
        self.verdicts.failures.store(0, Ordering::Relaxed);
        let mut shard = self.verdicts.shard(&self.key);
        // A verdict replaces the one of the other kind.
        shard.good.remove(&self.key);
        shard.bad.remove(&self.key);
        if let Some((kind, until)) = keep {
            let entry = Entry { value: value.clone(), until, bytes: bytes + size_of::<Entry<V>>() };
            match kind {
                Kind::Good => shard.good.put(self.key, entry),
                Kind::Bad => shard.bad.put(self.key, entry),
            }
        }
        drop(shard);
        let _ = self.flight.value.set(value);
    }

    /// The server could not say. Those who wait are told `value`; it is not remembered.
    pub fn fail(self, value: V, now: Instant) {
        let failures = self.verdicts.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES_MAX {
            *self.verdicts.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REST);
        }
        let _ = self.flight.value.set(value);
    }
}

impl<V: Clone> Drop for Asking<V> {
    fn drop(&mut self) {
        self.verdicts.shard(&self.key).flights.remove(&self.key);
        self.flight.landing.end();
    }
}

/// See the module.
pub struct Verdicts<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    /// In a row.
    failures: AtomicU32,
    rests_until: Mutex<Option<Instant>>,
    /// Questions that were really asked.
    pub asked: AtomicU64,
}

impl<V: Clone> Default for Verdicts<V> {
    fn default() -> Self {
        let shard =
            || Shard { good: Room::new(GOOD_MAX), bad: Room::new(BAD_MAX), flights: HashMap::default() };
        Self {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            failures: AtomicU32::new(0),
            rests_until: Mutex::new(None),
            asked: AtomicU64::new(0),
        }
    }
}

impl<V: Clone> Verdicts<V> {
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard<V>> {
        self.shards[usize::from(key[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, or what to do.
    pub fn look(self: &Arc<Self>, key: Key, now: Instant) -> Look<V> {
        let mut shard = self.shard(&key);
        if let Some(value) = shard.good.get(&key, now).or_else(|| shard.bad.get(&key, now)) {
            return Look::Known(value);
        }
        self.join(shard, key, now)
    }

    /// The same for what is never remembered.
    pub fn ask(self: &Arc<Self>, key: Key, now: Instant) -> Look<V> {
        self.join(self.shard(&key), key, now)
    }

    fn join(self: &Arc<Self>, mut shard: MutexGuard<'_, Shard<V>>, key: Key, now: Instant) -> Look<V> {
        if let Some(flight) = shard.flights.get(&key) {
            return Look::Wait(Waiting(Arc::clone(flight)));
        }
        if shard.flights.len() >= FLIGHTS_MAX || self.rests(now) {
            return Look::Refuse;
        }
        let flight = Arc::new(Flight { value: OnceLock::new(), landing: Arc::default() });
        shard.flights.insert(key, Arc::clone(&flight));
        self.asked.fetch_add(1, Ordering::Relaxed);
        Look::Ask(Asking { verdicts: Arc::clone(self), key, flight })
    }

    fn rests(&self, now: Instant) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return false;
        }
        // After its rest one failure more makes the server rest again.
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

/// The verdicts in use, by what they depend on.
pub struct Stores<V>(Mutex<HashMap<Key, Weak<Verdicts<V>>>>);

impl<V> Default for Stores<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Stores<V> {
    /// Those that depend on these settings, whose text may hold secrets: it is not kept.
    pub fn get(&self, settings: &str) -> Arc<Verdicts<V>> {
        let key = key([settings.as_bytes()]);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, v| v.strong_count() > 0);
        let made = Arc::new(Verdicts::default());
        all.insert(key, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> Key {
        key([&n.to_be_bytes()[..]])
    }

    fn put(v: &Arc<Verdicts<u32>>, n: u32, kind: Kind, until: Instant) {
        match v.look(number(n), until - Duration::from_secs(1)) {
            Look::Ask(asking) => asking.answer(n, Some((kind, until)), 10),
            _ => panic!("{n} is known"),
        }
    }

    fn known(v: &Arc<Verdicts<u32>>, n: u32, now: Instant) -> bool {
        matches!(v.look(number(n), now), Look::Known(_))
    }

    #[test]
    fn verdicts_last_as_long_as_they_may_and_bad_ones_evict_no_good_one() {
        let (v, now) = (Arc::new(Verdicts::default()), crate::clock::monotonic());
        let until = now + Duration::from_secs(60);
        put(&v, 0, Kind::Good, until);
        assert!(known(&v, 0, now) && !known(&v, 0, until));
        for n in 1..100_000 {
            put(&v, n, Kind::Bad, until);
        }
        assert!(known(&v, 0, now), "a flood of bad ones evicts no good one");
        let count = |v: &Verdicts<u32>| -> usize {
            let of = |r: &Room<u32>| r.young.entries.len() + r.old.entries.len();
            v.shards.iter().map(|s| s.lock().unwrap()).map(|s| of(&s.good) + of(&s.bad)).sum()
        };
        assert!(count(&v) <= 1 + SHARDS * 2 * BAD_MAX, "{}", count(&v));
        for n in 100_000..200_000 {
            put(&v, n, Kind::Good, until);
            if n % 100 == 0 {
                assert!(known(&v, 0, now), "what is used stays, after {n}");
            }
        }
        assert!(count(&v) <= SHARDS * 2 * (BAD_MAX + GOOD_MAX), "{}", count(&v));
        match v.ask(number(0), now) {
            Look::Ask(asking) => asking.answer(0, Some((Kind::Bad, until)), 10),
            _ => panic!("nobody asks"),
        }
        let shard = v.shard(&number(0));
        assert!(!shard.good.young.entries.contains_key(&number(0)), "the last word counts");
    }

    #[test]
    fn memory_is_bounded_in_bytes_too() {
        let (v, now) = (Arc::new(Verdicts::<u32>::default()), crate::clock::monotonic());
        for n in 0..2000 {
            match v.look(number(n), now) {
                Look::Ask(a) => a.answer(n, Some((Kind::Good, now + REST)), BYTES_MAX / 10),
                _ => panic!("{n} is known"),
            }
        }
        for shard in &v.shards {
            let shard = shard.lock().unwrap();
            let sum = |g: &Generation<u32>| g.entries.values().map(|e| e.bytes).sum::<usize>();
            assert_eq!(sum(&shard.good.young), shard.good.young.bytes);
            assert!(shard.good.young.bytes <= BYTES_MAX && shard.good.old.bytes <= BYTES_MAX);
        }
    }

    #[test]
    fn one_asks_and_the_others_wait() {
        let (v, now) = (Arc::new(Verdicts::default()), crate::clock::monotonic());
        let Look::Ask(asking) = v.look(number(1), now) else { panic!("nobody asks") };
        let Look::Wait(waiting) = v.look(number(1), now) else { panic!("somebody asks") };
        assert_eq!(waiting.value(), None);
        asking.answer(7, None, 0);
        assert_eq!(waiting.value(), Some(7));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(waiting.landing().wait(Duration::from_secs(5)));

        let Look::Ask(asking) = v.look(number(1), now) else { panic!("it was not to be kept") };
        let Look::Wait(waiting) = v.look(number(1), now) else { panic!("somebody asks") };
        drop(asking);
        assert_eq!(waiting.value(), None);
        assert!(matches!(v.look(number(1), now), Look::Ask(_)), "who waited may ask");
    }

    #[test]
    fn a_server_that_fails_is_left_alone_for_a_moment_and_questions_are_bounded() {
        let (v, now) = (Arc::new(Verdicts::default()), crate::clock::monotonic());
        put(&v, 99, Kind::Good, now + Duration::from_secs(60));
        for n in 0..FAILURES_MAX {
            let Look::Ask(asking) = v.look(number(n), now) else { panic!("{n}") };
            asking.fail(0, now);
        }
        assert!(matches!(v.look(number(50), now), Look::Refuse));
        assert!(known(&v, 99, now), "what is known stays known");
        assert!(matches!(v.look(number(50), now + REST), Look::Ask(_)));

        let v: Arc<Verdicts<u32>> = Arc::default();
        let asked: Vec<_> = (0..100_000).map(|n| v.look(number(n), now)).collect();
        let under_way = asked.iter().filter(|l| matches!(l, Look::Ask(_))).count();
        assert_eq!(under_way, SHARDS * FLIGHTS_MAX);
    }
}
