//! Every algorithm over every store against a plain sequential model, in virtual time: years of it, with window edges,
//! month ends and daylight saving. Redis runs the very script, with a clock that the test sets.

use std::collections::HashMap;

use gw_runtime::effect::redis::script::{self, Charge, States};
use gw_runtime::limit::calendar::Weekday;
use gw_runtime::limit::{Algorithm, Calendar, Identifier, Key, LocalStore, Outcome, Period, Rule, Rules};
use gw_tests::redis::RedisServer;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// One limit as the model knows it.
#[derive(Clone, Debug)]
struct Limit {
    algorithm: Algorithm,
    period: Period,
    limit: f64,
    burst: f64,
    zone: Option<&'static str>,
}

impl Limit {
    fn rule(&self, n: usize) -> Rule {
        let rule = Rule::new(self.algorithm, self.period, self.limit).with_burst(self.burst, 0.0);
        let rule = rule.named(&format!("limit-{n}"));
        match self.zone {
            Some(zone) => {
                let zone = Calendar::zone(zone).expect("a zone");
                rule.by_calendar(Calendar::new(self.period, zone, Weekday::Monday))
            }
            None => rule,
        }
    }

    fn length_ms(&self) -> u64 {
        self.period.seconds() * 1000
    }

    /// When the fixed window around `now` began.
    fn window(&self, now: u64) -> u64 {
        let zone = TimeZone::get(self.zone.unwrap_or("UTC")).expect("a zone");
        let at = zone.to_datetime(Timestamp::from_millisecond(now as i64).expect("in range")).date();
        let first: Date = match self.period {
            Period::Second | Period::Minute | Period::Hour => return now - now % self.length_ms(),
            Period::Day => at,
            Period::Week => {
                at.checked_sub((at.weekday().to_monday_zero_offset() as i64).days()).expect("in range")
            }
            Period::Month => at.first_of_month(),
            Period::Year => at.first_of_year(),
        };
        let start = zone.to_timestamp(first.at(0, 0, 0, 0)).expect("in range");
        start.as_millisecond() as u64
    }
}

/// The model: as simple as can be.
#[derive(Default)]
struct Model {
    windows: HashMap<(u64, usize, u64), f64>,
    buckets: HashMap<(u64, usize), (f64, u64)>,
}

impl Model {
    /// What is left under each limit, and whether the request is admitted.
    fn decide(&mut self, limits: &[Limit], counts: bool, key: u64, hits: u32, now: u64) -> (Vec<f64>, bool) {
        let needed = f64::from(hits.max(1));
        let mut lefts = Vec::new();
        let mut admitted = true;
        for (n, limit) in limits.iter().enumerate() {
            let length = limit.length_ms();
            let count = |start: u64| self.windows.get(&(key, n, start)).copied().unwrap_or(0.0);
            let left = match limit.algorithm {
                Algorithm::Fixed => limit.limit - count(limit.window(now)),
                Algorithm::Sliding => {
                    let start = now - now % length;
                    let share = 1.0 - (now - start) as f64 / length as f64;
                    limit.limit - (count(start) + count(start - length) * share)
                }
                Algorithm::Bucket => {
                    let (level, at) = self.buckets.get(&(key, n)).copied().unwrap_or((0.0, now));
                    let drained = (now - at) as f64 * limit.limit / length as f64;
                    limit.burst - (level - drained).max(0.0)
                }
            };
            lefts.push(left);
            // Kong admits while anything is left.
            admitted &= match limit.algorithm {
                Algorithm::Fixed => left > needed - 1.0,
                _ => left + 1e-9 >= needed,
            };
        }
        if admitted || counts {
            for (n, (limit, left)) in limits.iter().zip(&lefts).enumerate() {
                let start = match limit.algorithm {
                    Algorithm::Fixed => limit.window(now),
                    _ => now - now % limit.length_ms(),
                };
                if limit.algorithm == Algorithm::Bucket {
                    let level = (limit.burst - left + f64::from(hits)).min(limit.burst + limit.limit);
                    self.buckets.insert((key, n), (level, now));
                } else {
                    *self.windows.entry((key, n, start)).or_default() += f64::from(hits);
                }
            }
        }
        (lefts, admitted)
    }
}

/// A store in virtual time.
enum Store {
    Local(LocalStore),
    Redis(redis::Connection),
}

impl Store {
    fn decide(&mut self, rules: &Rules, key: &Key, hits: u32, now: u64) -> Outcome {
        match self {
            Self::Local(store) => store.take(rules, key, hits, now),
            Self::Redis(connection) => {
                let charge =
                    Charge { hits: hits.into(), count_rejected: rules.count_rejected, ..Charge::default() };
                let asked = script::call(false, rules, &script::stem(key), charge);
                let clock = format!("{{ '{}', '{}' }}", now / 1000, now % 1000 * 1000);
                let source = script::SOURCE.replace("redis.call('TIME')", &clock);
                let mut cmd = redis::Cmd::new();
                for argument in asked.args_iter() {
                    let redis::Arg::Simple(argument) = argument else { panic!("no cursors here") };
                    match argument == script::SOURCE.as_bytes() {
                        true => cmd.arg(&source),
                        false => cmd.arg(argument),
                    };
                }
                let answer: redis::Value = cmd.query(connection).expect("redis runs");
                States::read(rules, &answer).expect("a script's answer").outcome(rules, hits)
            }
        }
    }
}

/// Numbers that look random and are always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

fn limits(random: &mut Random, zones: bool) -> Vec<Limit> {
    let count = 1 + random.below(3);
    (0..count)
        .map(|_| {
            let algorithm =
                random.of(&[Algorithm::Fixed, Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket]);
            let period = random.of(&Period::ALL);
            let calendar = zones && algorithm == Algorithm::Fixed && period >= Period::Day;
            Limit {
                algorithm,
                period,
                limit: random.of(&[1.0, 2.0, 2.5, 7.0, 30.0]),
                burst: random.of(&[1.0, 3.0, 9.0]),
                zone: if calendar {
                    Some(random.of(&["Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
                } else {
                    None
                },
            }
        })
        .collect()
}

/// The next request's time: soon, or at the edge of a window, or a moment before one.
fn later(random: &mut Random, limits: &[Limit], now: u64) -> u64 {
    let limit = random.of(limits);
    let edge = || {
        let mut at = now;
        let start = limit.window(now);
        while limit.window(at) == start {
            at += (limit.length_ms() / 40).max(1);
        }
        limit.window(at)
    };
    match random.below(12) {
        0 => edge(),
        1 => (edge() - 1).max(now),
        2 => now + random.below(2 * limit.length_ms()),
        3..=5 => now,
        _ => now + random.below(limit.length_ms() / 20 + 2),
    }
}

fn check(seed: u64, store: &mut Store, zones: bool, steps: usize) {
    let mut random = Random(seed);
    let limits = limits(&mut random, zones);
    let counts = random.below(3) == 0;
    let rules =
        Rules { rules: limits.iter().enumerate().map(|(n, l)| l.rule(n)).collect(), count_rejected: counts };
    let mut model = Model::default();
    // From some day of 2026 or the years after.
    let mut now = 1_767_225_600_000 + random.below(120_000_000_000);
    let mut admitted = 0;
    for step in 0..steps {
        now = later(&mut random, &limits, now);
        let key = random.below(3);
        let hits = random.of(&[1, 1, 1, 1, 0, 2, 3]);
        let want = model.decide(&limits, counts, key, hits, now);
        let name = Key::new("m:m", Identifier::Text(format!("{seed}-{key}").as_bytes()));
        let got = store.decide(&rules, &name, hits, now);
        let lefts: Vec<f64> = got.usages().map(|u| u.left).collect();
        let what =
            format!("seed {seed}, step {step}, {hits} of key {key} at {now}: {limits:#?}, counts {counts}");
        assert_eq!(got.admitted, want.1, "{what}\ngot {lefts:?}, want {:?}", want.0);
        for (got, want) in lefts.iter().zip(&want.0) {
            assert!((got - want).abs() < 1e-6, "{what}\ngot {lefts:?}, want {want}");
        }
        admitted += u32::from(got.admitted);
    }
    assert!(admitted > 0, "seed {seed} proves nothing");
}

#[test]
fn memory_counts_as_the_model() {
    for seed in 0..300 {
        check(seed, &mut Store::Local(LocalStore::default()), true, 400);
    }
}

#[test]
fn redis_counts_as_the_model_and_every_key_expires_without_being_negative() {
    let server = RedisServer::start();
    let mut store = Store::Redis(server.client());
    for seed in 1000..1060 {
        check(seed, &mut store, false, 150);
    }
    let mut client = server.client();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).expect("redis runs");
    assert!(keys.len() > 50, "{}", keys.len());
    for key in keys {
        let (ttl, values): (i64, Vec<String>) =
            redis::pipe().cmd("TTL").arg(&key).cmd("HVALS").arg(&key).query(&mut client).expect("redis runs");
        // -2: it has expired since it was listed.
        assert!(ttl >= 0 || ttl == -2, "{key} never expires");
        assert!(values.iter().all(|v| v.split(' ').all(|n| !n.starts_with('-'))), "{key} is negative");
    }
}

/// A clock that is set may never let a caller through for free beyond one window's worth, nor lock anybody out for longer
/// than a window.
#[test]
fn clocks_that_step_cost_one_window_at_most() {
    const MINUTE: u64 = 60_000;
    let base = 30_000_000 * MINUTE;
    for algorithm in [Algorithm::Fixed, Algorithm::Sliding, Algorithm::Bucket] {
        let rules = Rules { rules: vec![Rule::new(algorithm, Period::Minute, 10.0)], count_rejected: false };
        for step in [-86_400_000_i64, -3_600_000, -61_000, -900, 900, 61_000, 3_600_000, 86_400_000] {
            let store = LocalStore::default();
            let key = Key::new("r:s", Identifier::Text(b"a"));
            let take = |now: u64| u32::from(store.take(&rules, &key, 1, now).admitted);
            let before: u32 = (0..30).map(|i| take(base + i)).sum();
            assert_eq!(before, 10, "{algorithm:?}");
            let set = base.saturating_add_signed(step);
            let after: u32 = (0..30).map(|i| take(set + i)).sum();
            assert!(after <= 10, "{algorithm:?} after a step of {step} ms: {after}");
            // Two windows later by the new clock everything is as if nothing had been.
            let later: u32 = (0..30).map(|i| take(set + 3 * MINUTE + i)).sum();
            assert_eq!(later, 10, "{algorithm:?} after a step of {step} ms");
        }
    }
}
