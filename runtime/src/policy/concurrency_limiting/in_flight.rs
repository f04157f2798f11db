//! Who is in flight, and who waits to be: by key, over all workers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::verdicts::Landing;

/// How many locks the keys are spread over.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Count, ahash::RandomState>;

/// Requests in flight by key, over all workers. Outlives snapshots.
pub struct InFlight {
    shards: Box<[Mutex<Shard>]>,
    hasher: ahash::RandomState,
}

#[derive(Default)]
struct Count {
    taken: usize,
    /// Who waits, first come first; each is in here until it has a place or gives up.
    queue: VecDeque<Arc<Waiter>>,
}

/// A request that waits.
struct Waiter {
    /// How many may be in flight for it to be among them.
    most: usize,
    /// It has a place.
    admitted: AtomicBool,
    landing: Arc<Landing>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: ahash::RandomState::new() }
    }
}

/// A place among those in flight. Kept in the exchange, so that it is given back whatever becomes of the request.
pub struct Place {
    key: Arc<str>,
    of: Arc<InFlight>,
}

/// A place in the queue; left when it is dropped, and with it the place in flight that it may have become.
pub struct Queued {
    key: Arc<str>,
    of: Arc<InFlight>,
    waiter: Arc<Waiter>,
}

/// What became of a request that asked for a place.
pub enum Entered {
    /// It has one, and so many were taken before.
    In(Place, usize),
    /// It may wait for one.
    Waits(Queued),
    /// Neither.
    Full,
}

impl InFlight {
    /// Takes a place if fewer than `most` are taken, else one of `waiters` places in the queue.
    pub fn enter(this: &Arc<Self>, key: &str, most: usize, waiters: usize) -> Entered {
        let mut counts = this.lock(key);
        let known =
            counts.get_key_value(key).map(|(k, count)| (Arc::clone(k), count.taken, count.queue.len()));
        let (key, taken, queued) = known.unwrap_or_else(|| (Arc::from(key), 0, 0));
        if taken < most {
            counts.entry(Arc::clone(&key)).or_default().taken += 1;
            return Entered::In(Place { key, of: Arc::clone(this) }, taken);
        }
        if queued >= waiters {
            return Entered::Full;
        }
        let waiter = Arc::new(Waiter { most, admitted: AtomicBool::new(false), landing: Arc::default() });
        counts.entry(Arc::clone(&key)).or_default().queue.push_back(Arc::clone(&waiter));
        Entered::Waits(Queued { key, of: Arc::clone(this), waiter })
    }

    fn lock(&self, key: &str) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place back, or on to who has waited longest.
    fn leave(&self, key: &Arc<str>) {
        let mut counts = self.lock(key);
        let Some(count) = counts.get_mut(key) else { return };
        count.taken = count.taken.saturating_sub(1);
        while count.queue.front().is_some_and(|w| count.taken < w.most) {
            let Some(waiter) = count.queue.pop_front() else { break };
            count.taken += 1;
            waiter.admitted.store(true, Ordering::Release);
            waiter.landing.end();
        }
        if count.taken == 0 && count.queue.is_empty() {
            counts.remove(key);
        }
    }

    /// How many keys have requests in flight.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nothing is in flight.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Queued {
    /// What ends when the request has its place.
    pub fn landing(&self) -> Arc<Landing> {
        Arc::clone(&self.waiter.landing)
    }

    /// The place, if the request has one by now; else it waits no longer.
    pub fn end(self) -> Option<Place> {
        let has_one = {
            // Under the lock, so that nobody gives it one meanwhile.
            let mut counts = self.of.lock(&self.key);
            let has_one = self.waiter.admitted.swap(false, Ordering::AcqRel);
            if !has_one {
                self.forget(&mut counts);
            }
            has_one
        };
        has_one.then(|| Place { key: Arc::clone(&self.key), of: Arc::clone(&self.of) })
    }

    fn forget(&self, counts: &mut Shard) {
        if let Some(count) = counts.get_mut(&self.key) {
            count.queue.retain(|w| !Arc::ptr_eq(w, &self.waiter));
            if count.taken == 0 && count.queue.is_empty() {
                counts.remove(&self.key);
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut counts = self.of.lock(&self.key);
        if self.waiter.admitted.swap(false, Ordering::AcqRel) {
            drop(counts);
            self.of.leave(&self.key);
        } else {
            self.forget(&mut counts);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.leave(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn place(entered: Entered) -> Option<Place> {
        match entered {
            Entered::In(place, _) => Some(place),
            _ => None,
        }
    }

    fn queued(entered: Entered) -> Option<Queued> {
        match entered {
            Entered::Waits(queued) => Some(queued),
            _ => None,
        }
    }

    #[test]
    fn workers_together_never_exceed_the_limit() {
        let all = Arc::new(InFlight::default());
        let (now, most, waited) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    for i in 0..1000 {
                        let place = match InFlight::enter(&all, "k", 3, 4) {
                            Entered::In(place, _) => Some(place),
                            Entered::Waits(queued) if i % 7 == 0 => {
                                drop(queued);
                                None
                            }
                            Entered::Waits(queued) => {
                                waited.fetch_add(1, Ordering::SeqCst);
                                runtime.block_on(queued.landing().wait(Duration::from_micros(300)));
                                queued.end()
                            }
                            Entered::Full => None,
                        };
                        let Some(place) = place else { continue };
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert!(all.is_empty(), "{} keys are left; {} waited", all.len(), waited.into_inner());
    }

    #[test]
    fn who_has_waited_longest_comes_next() {
        let all = Arc::new(InFlight::default());
        let ask = || InFlight::enter(&all, "k", 1, 2);
        let first = place(ask()).unwrap();
        let (second, third) = (queued(ask()).unwrap(), queued(ask()).unwrap());
        assert!(matches!(ask(), Entered::Full), "the queue has two places");
        drop(first);
        assert!(
            second.waiter.admitted.load(Ordering::Acquire) && !third.waiter.admitted.load(Ordering::Acquire)
        );
        assert!(matches!(ask(), Entered::Waits(_)), "nobody overtakes");
        let second = second.end().unwrap();
        // One that was given a place and went away hands it on.
        let fourth = queued(ask()).unwrap();
        drop(second);
        drop(third);
        assert!(fourth.end().is_some());
        assert!(all.is_empty());
    }

    #[test]
    fn who_waited_in_vain_leaves_nothing_behind() {
        let all = Arc::new(InFlight::default());
        let ask = || InFlight::enter(&all, "k", 1, 9);
        let first = place(ask()).unwrap();
        let (second, third) = (queued(ask()).unwrap(), queued(ask()).unwrap());
        assert!(second.end().is_none());
        drop(third);
        drop(first);
        assert!(all.is_empty());
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let all = Arc::new(InFlight::default());
        let inside = Arc::clone(&all);
        let result = std::thread::spawn(move || {
            let _place = place(InFlight::enter(&inside, "k", 1, 0));
            panic!("on purpose");
        })
        .join();
        assert!(result.is_err() && all.is_empty());
    }
}
