use super::super::{Identifier, Period};
use super::*;

/// 2026-10-18T05:20:10Z by Redis.
const REDIS_MS: u64 = 1_792_300_810_000;

fn rules(rules: Vec<Rule>, count_rejected: bool) -> Arc<Rules> {
    Arc::new(Rules { rules, count_rejected })
}

fn fixed(period: Period, limit: f64) -> Rule {
    Rule::new(Algorithm::Fixed, period, limit)
}

fn key() -> Key {
    Key::new("r:s", Identifier::Text(b"a"))
}

/// A Redis with no other clients, as far as leases can tell: it counts, and knows the time.
struct Redis {
    rules: Arc<Rules>,
    cells: [Cell; MAX_RULES],
    started: Instant,
    trips: u32,
}

impl Redis {
    fn new(rules: &Arc<Rules>, started: Instant) -> Self {
        Self { rules: Arc::clone(rules), cells: [Cell::default(); MAX_RULES], started, trips: 0 }
    }

    fn now_ms(&self, now: Instant) -> u64 {
        REDIS_MS + now.duration_since(self.started).as_millis() as u64
    }

    /// Charges and tells the store; whether the request was admitted.
    fn ask(&mut self, store: &LeaseStore, hits: u32, extra: u32, now: Instant) -> bool {
        self.trips += 1;
        let redis_ms = self.now_ms(now);
        let mut room = f64::INFINITY;
        let mut cells = [Cell::default(); MAX_RULES];
        for (i, rule) in self.rules.rules.iter().enumerate() {
            cells[i] = rule.advance(self.cells[i], redis_ms);
            room = room.min(rule.usage(cells[i], 1, redis_ms, false).left);
        }
        let admitted = room >= f64::from(hits);
        let leased = if admitted { extra.min((room - f64::from(hits)).max(0.0) as u32) } else { 0 };
        let charged = if admitted { hits + leased } else { 0 };
        for (i, rule) in self.rules.rules.iter().enumerate() {
            self.cells[i] = rule.charge(cells[i], f64::from(charged));
        }
        let rules = Arc::clone(&self.rules);
        let asked_for = extra;
        let answer = Answered {
            rules: &rules,
            cells: &cells,
            redis_ms,
            asked: now,
            hits,
            asked_for,
            leased,
            admitted,
        };
        store.answered(&key(), &answer, now);
        admitted
    }

    /// One request as a gateway handles it, with what happens in its background; whether it was admitted.
    fn request(&mut self, store: &LeaseStore, hits: u32, now: Instant) -> bool {
        let rules = Arc::clone(&self.rules);
        let admitted = match store.decide(&rules, &key(), hits, now) {
            Some(outcome) => outcome.admitted,
            None => {
                let extra = store.extra(&rules, &key(), now);
                self.ask(store, hits, extra, now)
            }
        };
        for wanted in store.wanted(now) {
            self.ask(store, 0, wanted.extra, now);
        }
        for refund in store.ended(now) {
            let at = self.now_ms(now);
            for (i, rule) in rules.rules.iter().enumerate() {
                let mut cell = rule.advance(self.cells[i], at);
                if rule.algorithm == Algorithm::Bucket || cell.at_ms <= refund.redis_ms {
                    cell.count = (cell.count - f64::from(refund.hits)).max(0.0);
                }
                self.cells[i] = cell;
            }
        }
        admitted
    }
}

/// Tokens that are not spent yet.
fn held(store: &LeaseStore) -> u32 {
    store.shards.iter().map(|s| lock(s).held.values().map(|h| h.left).sum::<u32>()).sum()
}

#[test]
fn a_share_of_the_least_limit_may_be_held() {
    for (share, limits, want) in [
        (0.05, vec![fixed(Period::Minute, 1000.0), fixed(Period::Day, 100_000.0)], 50),
        (0.05, vec![fixed(Period::Minute, 10.0)], 1),
        (0.1, vec![Rule::new(Algorithm::Bucket, Period::Minute, 1000.0).with_burst(30.0, 0.0)], 3),
        (1.0, vec![fixed(Period::Year, 1e12)], u32::MAX),
    ] {
        assert_eq!(most(share, &Rules { rules: limits.clone(), count_rejected: false }), want, "{limits:?}");
    }
}

#[test]
fn most_requests_of_a_busy_key_ask_nobody_and_the_limit_holds_exactly() {
    let start = Instant::now();
    for (limit, share) in [(1000.0, 0.05), (1000.0, 1.0), (50_000.0, 0.05), (7.0, 0.5)] {
        let r = rules(vec![fixed(Period::Minute, limit)], false);
        let (store, mut redis) = (LeaseStore::new(share), Redis::new(&r, start));
        // A request every 0.1 ms for four seconds of a window that lasts fifty.
        let admitted =
            (0..40_000).filter(|i| redis.request(&store, 1, start + Duration::from_micros(i * 100))).count();
        assert_eq!(admitted as f64, limit.min(40_000.0), "limit {limit}, share {share}");
        let trips = f64::from(redis.trips);
        assert!(
            trips < 200.0 + limit.min(40_000.0) / (limit * share).max(1.0) * 2.5,
            "{trips} of {limit} {share}"
        );
    }
}

#[test]
fn a_slow_key_takes_no_more_than_it_needs() {
    let start = Instant::now();
    let r = rules(vec![fixed(Period::Minute, 100.0)], false);
    let (store, mut redis) = (LeaseStore::new(0.5), Redis::new(&r, start));
    for i in 0..20 {
        assert!(redis.request(&store, 1, start + Duration::from_secs(i)));
        assert_eq!(redis.cells[0].count, (i + 1) as f64, "nothing was charged in advance");
    }
}

#[test]
fn what_is_left_is_given_back_to_the_window_that_it_came_from_or_to_none() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    for (rule, share) in
        [(fixed(Period::Minute, 1000.0), 0.1), (Rule::new(Algorithm::Sliding, Period::Minute, 1000.0), 0.1)]
    {
        let r = rules(vec![rule], false);
        let (store, mut redis) = (LeaseStore::new(share), Redis::new(&r, start));
        let burst = |redis: &mut Redis, from: u64| {
            (0..100).filter(|i| redis.request(&store, 1, at(from + i))).count() as f64
        };
        assert_eq!(burst(&mut redis, 0), 100.0);
        assert!(redis.cells[0].count > 100.0, "some were charged in advance");
        assert!(redis.cells[0].count <= 200.0);
        // A second later all but what was admitted has come back; the look itself is one request.
        assert!(redis.request(&store, 1, at(1500)));
        assert_eq!(redis.cells[0].count - f64::from(held(&store)), 101.0);

        // The minute ends at 50 s. A lease of its last moments ends with it, and goes back to nobody.
        assert_eq!(burst(&mut redis, 49_850), 100.0);
        let before = redis.cells[0].count;
        assert!(before > 201.0, "{before}");
        assert!(redis.request(&store, 1, at(50_000)));
        assert_eq!(
            redis.cells[0].count - f64::from(held(&store)),
            1.0,
            "the new window knows of nothing else"
        );
    }
}

#[test]
fn a_bucket_gets_back_no_more_than_is_still_in_it() {
    let start = Instant::now();
    // 10 a second drain; leases are of 50 at most.
    let r = rules(vec![Rule::new(Algorithm::Bucket, Period::Second, 10.0).with_burst(500.0, 0.0)], false);
    let (store, mut redis) = (LeaseStore::new(0.1), Redis::new(&r, start));
    for i in 0..20 {
        assert!(redis.request(&store, 1, start + Duration::from_millis(i)));
    }
    let charged = redis.cells[0].count;
    assert!(charged > 25.0, "{charged}");
    let end = start + Duration::from_millis(1500);
    let back: u32 = store.ended(end).iter().map(|r| r.hits).sum();
    // 20 were spent of what drained by 15; a bucket without leases would hold 5.
    let level = (charged - 15.0 - f64::from(back)).max(0.0);
    assert!((4.8..=20.0).contains(&level), "{charged} charged, {back} given back");
}

#[test]
fn no_process_ever_holds_more_than_the_bound_and_no_rate_of_admission_breaks_it() {
    let start = Instant::now();
    let mut state = 7_u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for round in 0..6 {
        let (limit, burst) = (200.0, 100.0);
        let rule = Rule::new(Algorithm::Bucket, Period::Second, limit).with_burst(burst, 0.0);
        let r = rules(vec![rule], false);
        let mut redis = Redis::new(&r, start);
        let stores: Vec<_> = (0..3).map(|_| LeaseStore::new(0.1)).collect();
        let bound = f64::from(stores[0].most(&r)) * 3.0;
        let (mut now, mut admitted) = (start, Vec::new());
        for _ in 0..4000 {
            now += Duration::from_micros(random(if round % 2 == 0 { 2000 } else { 20_000 }));
            let store = &stores[random(3) as usize];
            if redis.request(store, 1, now) {
                admitted.push(now.duration_since(start).as_secs_f64());
            }
            for store in &stores {
                assert!(held(store) <= store.most(&r), "{}", held(store));
            }
        }
        for (i, from) in admitted.iter().enumerate() {
            for (j, to) in admitted.iter().enumerate().skip(i) {
                let allowed = burst + limit * (to - from) + bound;
                assert!(
                    (j - i + 1) as f64 <= allowed + 1e-6,
                    "round {round}: {} in {}",
                    j - i + 1,
                    to - from
                );
            }
        }
    }
}

#[test]
fn refusals_are_remembered_only_where_they_stay_true() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let exhausted = |rule: &Rule| {
        let at_ms = rule.window_start_ms(REDIS_MS);
        Cell { at_ms, count: rule.limit, previous: 0.0 }
    };
    let sliding = Rule::new(Algorithm::Sliding, Period::Minute, 6.0);
    let bucket = Rule::new(Algorithm::Bucket, Period::Minute, 6.0);
    let (minute, hour) = (fixed(Period::Minute, 6.0), fixed(Period::Hour, 6.0));
    // Limits, which of them are exhausted, whether refused requests count, and how many ms it stays true.
    for (limits, spent, count_rejected, want) in [
        (vec![minute.clone()], vec![true], false, 50_000),
        (vec![minute.clone()], vec![true], true, 50_000),
        (vec![minute.clone(), hour.clone()], vec![true, false], false, 50_000),
        // The hour would go on counting.
        (vec![minute.clone(), hour.clone()], vec![true, false], true, 0),
        // Longer than anything is believed.
        (vec![minute.clone(), hour.clone()], vec![false, true], true, 60_001),
        (vec![sliding.clone()], vec![true], false, 60_000),
        (vec![sliding], vec![true], true, 0),
        (vec![bucket.clone()], vec![true], false, 10_000),
        (vec![bucket], vec![true], true, 0),
    ] {
        let r = rules(limits, count_rejected);
        let store = LeaseStore::new(0.0);
        let mut cells = [Cell::default(); MAX_RULES];
        for (i, rule) in r.rules.iter().enumerate() {
            cells[i] = Cell { at_ms: rule.window_start_ms(REDIS_MS), ..Cell::default() };
            if spent[i] {
                cells[i] = exhausted(rule);
            }
        }
        let answer = Answered {
            rules: &r,
            cells: &cells,
            redis_ms: REDIS_MS,
            asked: start,
            hits: 1,
            asked_for: 0,
            leased: 0,
            admitted: false,
        };
        store.answered(&key(), &answer, start);
        let refused =
            |ms: u64, hits: u32| store.decide(&r, &key(), hits, at(ms)).map(|o| o.admitted) == Some(false);
        assert_eq!(refused(0, 1), want > 0, "{:?}", r.rules);
        if want > 0 {
            assert!(refused(want - 2, 1) && refused(want - 2, 3), "{:?}", r.rules);
            assert!(!refused(want - 1, 1), "{:?}: a ms early, as waits are rounded up", r.rules);
        }
        let raised = rules(vec![fixed(Period::Minute, 7.0)], count_rejected);
        assert!(store.decide(&raised, &key(), 1, start).is_none(), "other limits, other verdicts");
    }
}

#[test]
fn memory_is_bounded_and_keys_beyond_it_ask_every_time() {
    let start = Instant::now();
    let r = rules(vec![fixed(Period::Minute, 100.0)], false);
    let store = LeaseStore::with_capacity(0.1, SHARDS * 16);
    for i in 0..10_000 {
        let key = Key::new("r:s", Identifier::Text(format!("{i}").as_bytes()));
        store.extra(&r, &key, start);
    }
    let keys = store.shards.iter().map(|s| lock(s).held.len()).sum::<usize>();
    assert_eq!(keys, SHARDS * 16);
    let later = start + LIFE * 2;
    for i in 0..SHARDS {
        let key = Key::new("r:s", Identifier::Text(format!("new {i}").as_bytes()));
        store.extra(&r, &key, later);
        assert!(
            lock(&store.shards[store.hasher.hash_one(key.as_str()) as usize % SHARDS])
                .held
                .contains_key(&key)
        );
    }
    assert!(size_of::<Held>() + 150 <= 600, "{}", size_of::<Held>());
}
