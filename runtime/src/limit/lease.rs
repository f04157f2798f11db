//! What a gateway knows of counters in Redis without asking: tokens that it holds, and refusals that stay true.
//!
//! A **lease** is a number of requests that were charged in Redis in advance and that this process may admit by itself,
//! all its workers together, until the lease ends. A process never holds more than [`LeaseStore::most`] of a key, and no
//! lease outlives the window in which it was charged. So calendar windows are never over-admitted; a sliding window or a
//! bucket admits, in any stretch of time, at most `most` more for each gateway, as charged requests may come a little
//! later than they were charged. What is left of a lease that ends is given back.
//!
//! A **denial** is a refusal that Redis answered with and that must stay true until a known time, because until then
//! counters only grow.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Algorithm, Cell, Key, MAX_RULES, Outcome, Rule, Rules};

const SHARDS: usize = 64;

/// Most keys that are held by default, each of about 500 bytes. Keys beyond that ask Redis every time.
const CAPACITY: usize = 1 << 16;

/// How long a lease is to last at the present rate.
const HORIZON: Duration = Duration::from_millis(250);

/// The longest life of a lease: so long may tokens lie unused in one gateway while another is refused.
const LIFE: Duration = Duration::from_secs(1);

/// Longest that a refusal is believed without asking again, so that counters that somebody deleted are noticed.
const DENIAL: Duration = Duration::from_secs(60);

/// The same where gateways may give tokens back.
const LEASED_DENIAL: Duration = Duration::from_millis(100);

/// A lease that was asked for but not answered is asked for again after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// One that was not to be had in full, after so long.
const SCARCE: Duration = Duration::from_millis(100);

/// What is held of one Redis by one process.
pub struct LeaseStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: ahash::RandomState,
    /// Keys per shard.
    capacity: usize,
    /// Share of a limit that may be held at a time; 0 where nothing is leased and only denials are remembered.
    share: f64,
    /// Keys whose lease runs low.
    low: Mutex<VecDeque<Key>>,
    /// What is left of leases that were replaced.
    replaced: Mutex<Vec<Refund>>,
    /// There is such a key.
    pub called: Notify,
    scheduled: AtomicBool,
}

#[derive(Default)]
struct Shard {
    held: HashMap<Key, Held, ahash::RandomState>,
    swept: Option<Instant>,
}

/// What is known of one key.
struct Held {
    rules: Arc<Rules>,
    /// As Redis had them after its last answer, with what was charged for us.
    cells: [Cell; MAX_RULES],
    /// The same before that.
    before: [f64; MAX_RULES],
    /// The clock of Redis at that answer, and when it was asked for.
    redis_ms: u64,
    asked: Instant,
    /// Tokens of the lease that are not spent yet, and when they end.
    left: u32,
    ends: Instant,
    denied_until: Option<Instant>,
    /// When a lease may be asked for: not while one is being asked for, and not soon after there was none to be had.
    asks_from: Instant,
    /// How many were asked for last, and how many came.
    size: u32,
    leased: u32,
    /// How many requests were admitted since when.
    spent: u32,
    since: Instant,
}

/// Redis' answer to a request.
pub struct Answered<'a> {
    pub rules: &'a Arc<Rules>,
    /// The states before the request.
    pub cells: &'a [Cell; MAX_RULES],
    pub redis_ms: u64,
    pub asked: Instant,
    pub hits: u32,
    /// How many were to be charged in advance, beyond `hits`, and how many were.
    pub asked_for: u32,
    pub leased: u32,
    pub admitted: bool,
}

/// Tokens to give back: `hits` of what was charged at `redis_ms`.
#[derive(Debug)]
pub struct Refund {
    pub key: Key,
    pub rules: Arc<Rules>,
    pub hits: u32,
    pub redis_ms: u64,
}

/// A lease to ask for.
#[derive(Debug)]
pub struct Wanted {
    pub key: Key,
    pub rules: Arc<Rules>,
    pub extra: u32,
}

impl LeaseStore {
    /// A store that may hold this share of every limit at a time, from 0 to 1.
    pub fn new(share: f64) -> Self {
        Self::with_capacity(share, CAPACITY)
    }

    fn with_capacity(share: f64, capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            capacity: capacity.div_ceil(SHARDS).max(1),
            share,
            low: Mutex::default(),
            replaced: Mutex::default(),
            called: Notify::new(),
            scheduled: AtomicBool::new(false),
        }
    }

    /// How many requests a process may hold of a key at most: the share of the least limit, or burst, but 1.
    pub fn most(&self, rules: &Rules) -> u32 {
        most(self.share, rules)
    }

    /// Decides without Redis, if that is possible. `now` may be a little in the past.
    pub fn decide(&self, rules: &Arc<Rules>, key: &Key, hits: u32, now: Instant) -> Option<Outcome> {
        if hits == 0 {
            return None;
        }
        let mut shard = self.shard(key);
        let held = shard.held.get_mut(key)?;
        if !held.is_of(rules) {
            return None;
        }
        if let Some(until) = held.denied_until {
            if now < until {
                return Some(held.outcome(hits, now)).filter(|o| !o.admitted);
            }
            held.denied_until = None;
        }
        if held.left < hits || now >= held.ends {
            return None;
        }
        let outcome = held.outcome(hits, now);
        if !outcome.admitted {
            return None;
        }
        held.left -= hits;
        held.spent = held.spent.saturating_add(hits);
        if held.left < held.size.div_ceil(2) && now >= held.asks_from {
            held.asks_from = now + PATIENCE;
            lock(&self.low).push_back(key.clone());
            self.called.notify_one();
        }
        Some(outcome)
    }

    /// How many to ask for in advance, beside a request that has to ask Redis anyway.
    pub fn extra(&self, rules: &Arc<Rules>, key: &Key, now: Instant) -> u32 {
        if self.share <= 0.0 {
            return 0;
        }
        let most = self.most(rules);
        let mut shard = self.shard(key);
        match shard.held.get_mut(key) {
            Some(held) if held.is_of(rules) => {
                if now >= held.asks_from {
                    held.next(most, now)
                } else {
                    0
                }
            }
            // One that comes once is not worth a lease.
            _ => {
                shard.insert(key, Held::new(rules, now), self.capacity, now);
                0
            }
        }
    }

    /// Takes note of an answer.
    pub fn answered(&self, key: &Key, answer: &Answered<'_>, now: Instant) {
        let mut shard = self.shard(key);
        if !answer.admitted {
            let leases = self.share > 0.0;
            let Some(lasts) = lasts(answer, leases) else { return };
            // Too much was asked for at once, but a lease is there for less.
            if shard.held.get(key).is_some_and(|h| h.left > 0) {
                return;
            }
            let mut held = Held::new(answer.rules, now);
            held.learn(answer);
            held.denied_until = Some(answer.asked + lasts.min(if leases { LEASED_DENIAL } else { DENIAL }));
            shard.insert(key, held, self.capacity, now);
            return;
        }
        let Some(held) = shard.held.get_mut(key).filter(|h| h.is_of(answer.rules)) else { return };
        // What was left in another window has ended with it.
        let same_window = held.is_same_window(answer);
        if now >= held.ends || !same_window {
            let refund = held.take_rest(key, now);
            lock(&self.replaced).extend(refund.filter(|_| same_window));
        }
        held.denied_until = None;
        held.spent = held.spent.saturating_add(answer.hits);
        if answer.leased > 0 || now >= held.ends || !same_window {
            held.ends = answer.asked + life(answer);
            held.leased = answer.leased;
            held.left = held.left.saturating_add(answer.leased);
            held.spent = answer.hits;
            held.since = answer.asked;
        }
        if answer.asked_for > 0 {
            held.asks_from = if answer.leased == answer.asked_for { now } else { now + SCARCE };
        }
        held.learn(answer);
    }

    /// There was no answer to a request that asked for so many in advance.
    pub fn failed(&self, key: &Key, asked_for: u32, now: Instant) {
        if asked_for > 0
            && let Some(held) = self.shard(key).held.get_mut(key)
        {
            held.asks_from = now + SCARCE;
        }
    }

    /// Leases that have to be asked for, as they run low.
    pub fn wanted(&self, now: Instant) -> Vec<Wanted> {
        let low: Vec<Key> = lock(&self.low).drain(..).collect();
        let wanted = |key: Key| {
            let mut shard = self.shard(&key);
            let held = shard.held.get_mut(&key)?;
            let rules = Arc::clone(&held.rules);
            let extra = held.next(self.most(&rules), now);
            drop(shard);
            (extra > 0).then_some(Wanted { key, rules, extra })
        };
        low.into_iter().filter_map(wanted).collect()
    }

    /// Takes out what is left of leases that have ended.
    pub fn ended(&self, now: Instant) -> Vec<Refund> {
        let mut refunds = std::mem::take(&mut *lock(&self.replaced));
        if self.share <= 0.0 {
            return refunds;
        }
        for shard in &self.shards {
            for (key, held) in &mut lock(shard).held {
                if now >= held.ends {
                    refunds.extend(held.take_rest(key, now));
                }
            }
        }
        refunds
    }

    /// True for the one caller who now has to look after leases, while [`LeaseStore::goes_on`].
    pub fn claim(&self) -> bool {
        self.share > 0.0 && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Whether there are leases to look after. If not, the next caller of [`LeaseStore::claim`] takes over.
    pub fn goes_on(&self) -> bool {
        let busy = || {
            !lock(&self.replaced).is_empty()
                || self.shards.iter().any(|s| lock(s).held.values().any(|h| h.left > 0))
        };
        if busy() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // A lease that came before the line above found the work taken.
        busy() && self.claim()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(key.as_str()) as usize % SHARDS])
    }
}

/// How many requests a process may hold of a key at most, if it may hold this share.
pub fn most(share: f64, rules: &Rules) -> u32 {
    let capacity = |r: &Rule| if r.algorithm == Algorithm::Bucket { r.burst } else { r.limit };
    let least = rules.rules.iter().map(capacity).fold(f64::INFINITY, f64::min);
    ((least * share).floor().min(f64::from(u32::MAX)) as u32).max(1)
}

/// A panic elsewhere leaves entries that are whole, so a poisoned lock is taken all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Keeps an entry if there is room. Those that say nothing any more are thrown out, at most once a second.
    fn insert(&mut self, key: &Key, held: Held, capacity: usize, now: Instant) {
        if self.held.len() >= capacity && !self.held.contains_key(key) {
            let due = self.swept.is_none_or(|at| now.saturating_duration_since(at) >= LIFE);
            if due {
                self.swept = Some(now);
                self.held.retain(|_, h| h.means_something(now));
            }
            if self.held.len() >= capacity {
                return;
            }
        }
        self.held.insert(key.clone(), held);
    }
}

impl Held {
    fn new(rules: &Arc<Rules>, now: Instant) -> Self {
        Self {
            rules: Arc::clone(rules),
            cells: [Cell::default(); MAX_RULES],
            before: [0.0; MAX_RULES],
            redis_ms: 0,
            asked: now,
            left: 0,
            ends: now,
            denied_until: None,
            asks_from: now,
            size: 0,
            leased: 0,
            spent: 0,
            since: now,
        }
    }

    fn is_of(&self, rules: &Arc<Rules>) -> bool {
        Arc::ptr_eq(&self.rules, rules) || *self.rules == **rules
    }

    fn means_something(&self, now: Instant) -> bool {
        self.left > 0 || self.denied_until.is_some_and(|t| now < t) || now < self.asked + LIFE
    }

    fn learn(&mut self, answer: &Answered<'_>) {
        let charged = if answer.admitted { f64::from(answer.hits) + f64::from(answer.leased) } else { 0.0 };
        for (i, rule) in self.rules.rules.iter().enumerate() {
            self.before[i] = answer.cells[i].count;
            self.cells[i] = rule.charge(answer.cells[i], charged);
        }
        self.redis_ms = answer.redis_ms;
        self.asked = answer.asked;
    }

    /// Whether what is left of the last lease was charged where this answer's is.
    fn is_same_window(&self, answer: &Answered<'_>) -> bool {
        let same = |(i, rule): (usize, &Rule)| {
            rule.algorithm == Algorithm::Bucket || self.cells[i].at_ms == answer.cells[i].at_ms
        };
        self.rules.rules.iter().enumerate().all(same)
    }

    /// How the limits stand, as far as is known here: what others were admitted since is not.
    fn outcome(&self, hits: u32, now: Instant) -> Outcome {
        let now_ms = self.redis_ms + now.saturating_duration_since(self.asked).as_millis() as u64;
        let unspent = f64::from(self.left);
        let cells = self.rules.rules.iter().zip(&self.cells).map(|(rule, cell)| {
            let mut cell = rule.advance(*cell, now_ms);
            cell.count = (cell.count - unspent).max(0.0);
            cell
        });
        Outcome::of(&self.rules, cells, hits, now_ms)
    }

    /// How many to ask for now: what the present rate needs, and if the last ones were soon spent, two to eight times as many
    /// as those.
    fn next(&mut self, most: u32, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.since);
        let needed = f64::from(self.spent) * HORIZON.as_secs_f64() / passed.as_secs_f64().max(0.001);
        let size = if passed < HORIZON {
            (needed as u32).clamp(self.size.saturating_mul(2).max(2), self.size.saturating_mul(8).max(2))
        } else {
            needed as u32
        };
        self.size = size.min(most);
        let valid = if now < self.ends { self.left } else { 0 };
        let extra = self.size.min(most - valid.min(most));
        self.asks_from = if extra > 0 { now + PATIENCE } else { now };
        extra
    }

    /// Ends the lease; what is to be given back of it.
    fn take_rest(&mut self, key: &Key, now: Instant) -> Option<Refund> {
        let hits = self.refund(now);
        self.left = 0;
        let refund =
            || Refund { key: key.clone(), rules: Arc::clone(&self.rules), hits, redis_ms: self.redis_ms };
        (hits > 0).then(refund)
    }

    /// How many of the lease's tokens can be given back without a trace. A bucket may have drained to its bottom
    /// meanwhile, where what was charged in advance has drained, too.
    fn refund(&self, now: Instant) -> u32 {
        let passed_s = now.saturating_duration_since(self.asked).as_secs_f64();
        let remains = |(i, rule): (usize, &Rule)| match rule.algorithm {
            Algorithm::Bucket => {
                let drained = passed_s * rule.limit / rule.period.seconds() as f64;
                f64::from(self.leased) - (drained - self.before[i]).max(0.0)
            }
            _ => f64::INFINITY,
        };
        let least = self.rules.rules.iter().enumerate().map(remains).fold(f64::from(self.left), f64::min);
        least.max(0.0) as u32
    }
}

/// How long the tokens of a lease may be spent: not beyond the windows that they were charged in. The clock of Redis is known
/// to the ms below, so the last ms belongs to nobody.
fn life(answer: &Answered<'_>) -> Duration {
    let end = |rule: &Rule| match rule.algorithm {
        Algorithm::Bucket => u64::MAX,
        _ => rule.window_end_ms(answer.redis_ms),
    };
    let end = answer.rules.rules.iter().map(end).min().unwrap_or(u64::MAX);
    LIFE.min(Duration::from_millis(end.saturating_sub(answer.redis_ms + 1)))
}

/// How long a refusal stays true for every request of the key; none where it cannot be known.
///
/// Where refused requests count, those that are refused here are not counted in Redis. That makes no difference only if
/// the exhausted window ends last, as all other counters that they would have raised have begun anew by then.
fn lasts(answer: &Answered<'_>, leases: bool) -> Option<Duration> {
    let rules = answer.rules;
    let (mut longest, mut others) = (0, 0);
    for (rule, cell) in rules.rules.iter().zip(answer.cells) {
        let usage = rule.usage(*cell, 1, answer.redis_ms, false);
        if usage.exhausted {
            longest = longest.max(usage.retry_ms.unwrap_or(u64::MAX));
        } else {
            others = others.max(rule.window_end_ms(answer.redis_ms).saturating_sub(answer.redis_ms));
        }
        if rules.count_rejected && rule.algorithm != Algorithm::Fixed {
            return None;
        }
    }
    let exact = !rules.count_rejected || (!leases && others <= longest);
    // Waits are rounded up to a ms; whoever comes within that one asks.
    (exact && longest > 1).then(|| Duration::from_millis(longest - 1))
}

/// All stores, by what they hold tokens of and how much of it; they outlive snapshots.
#[derive(Default)]
pub struct LeaseStores(Mutex<HashMap<Terms, Arc<LeaseStore>>>);

/// Which Redis, and the share in thousandths.
type Terms = (Arc<super::RedisSettings>, u32);

impl LeaseStores {
    /// The store for these settings and this share, from 0 to 1; made on first use.
    pub fn get(&self, redis: &Arc<super::RedisSettings>, share: f64) -> Arc<LeaseStore> {
        let mut stores = lock(&self.0);
        let entry = stores.entry((Arc::clone(redis), (share * 1000.0).round() as u32));
        Arc::clone(entry.or_insert_with(|| Arc::new(LeaseStore::new(share))))
    }
}

impl std::fmt::Debug for LeaseStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LeaseStore of {}", self.share)
    }
}

#[cfg(test)]
mod tests;
