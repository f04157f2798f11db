//! Synthetic runs against exact limiters: the decision is made at a random moment between sending and answer.

use super::*;

/// A small generator of its own, so that a seed that fails can be run again anywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

const MS: u64 = 1_000_000;
/// 2024-05-01T12:00:30Z and some, so that runs cross a minute.
const STARTED: u64 = 1_714_564_830_123_456_789;

/// A limiter under test, asked in order of decision.
trait Limiter {
    fn admits(&mut self, now_ns: u64) -> bool;
}

struct Fixed {
    limit: f64,
    period: Period,
    window: u64,
    used: f64,
    counts_rejected: bool,
}

impl Limiter for Fixed {
    fn admits(&mut self, now: u64) -> bool {
        let window = self.period.around((STARTED + now) / MS).0;
        if window != self.window {
            (self.window, self.used) = (window, 0.0);
        }
        let admits = self.used + 1.0 <= self.limit;
        if admits || self.counts_rejected {
            self.used += 1.0;
        }
        admits
    }
}

struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    at: u64,
}

impl Limiter for Bucket {
    fn admits(&mut self, now: u64) -> bool {
        self.level = (self.level + (now - self.at) as f64 / 1e9 * self.rate).min(self.burst);
        self.at = now;
        let admits = self.level >= 1.0;
        if admits {
            self.level -= 1.0;
        }
        admits
    }
}

struct Log {
    limit: usize,
    window: u64,
    admitted: std::collections::VecDeque<u64>,
}

impl Limiter for Log {
    fn admits(&mut self, now: u64) -> bool {
        while self.admitted.front().is_some_and(|t| t + self.window <= now) {
            self.admitted.pop_front();
        }
        let admits = self.admitted.len() < self.limit;
        if admits {
            self.admitted.push_back(now);
        }
        admits
    }
}

/// A run of `seconds` at `rate`, with round trips of 0.1 to `rtt_ms` and one request in 200 without an answer.
fn events(
    limiter: &mut dyn Limiter,
    seconds: u64,
    rate: u64,
    rtt_ms: u64,
    random: &mut Random,
) -> Vec<Event> {
    let interval = 1_000_000_000 / rate;
    let mut asked: Vec<_> = (0..seconds * rate)
        .map(|i| {
            let sent = i * interval + random.below(interval);
            let received = sent + MS / 10 + random.below(rtt_ms * MS);
            let decided = sent + random.below(received - sent);
            (decided, sent, received)
        })
        .collect();
    asked.sort_unstable();
    let mut events: Vec<_> = asked
        .into_iter()
        .map(|(decided, sent, received)| {
            let admitted = limiter.admits(decided);
            if random.below(200) == 0 {
                return Event { consumer: 0, target: 0, sent, received: u64::MAX, fate: Fate::Unknown };
            }
            let fate = if admitted { Fate::Admitted } else { Fate::Rejected };
            Event { consumer: 0, target: 0, sent, received, fate }
        })
        .collect();
    events.sort_unstable_by_key(|e| e.sent);
    events
}

fn verdict(rule: Rule, counts_rejected: bool, events: &[Event]) -> (u64, u64) {
    let limit = Limit {
        name: "test".into(),
        rule,
        members: vec![Member { consumer: 0, target: 0 }],
        counts_rejected,
    };
    let setting = Setting { started_unix_ns: STARTED, tolerance: Duration::ZERO, fresh: true };
    let findings = check(&[limit], events, &setting);
    let rows = &findings[0].rows;
    (rows.iter().map(|r| r.excess).sum(), rows.iter().map(|r| r.wrongly_rejected).sum())
}

fn fixed(limit: f64, period: Period, counts_rejected: bool) -> Fixed {
    Fixed { limit, period, window: 0, used: 0.0, counts_rejected }
}

const ROUNDS: u64 = 20;

#[test]
fn a_correct_limiter_is_never_accused() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let rtt = 1 + random.below(160);
        let rate = 200 + random.below(800);
        let mut check = |name: &str, limiter: &mut dyn Limiter, rule: Rule, counts_rejected: bool| {
            let events = events(limiter, 6, rate, rtt, &mut random);
            let got = verdict(rule, counts_rejected, &events);
            assert_eq!(got, (0, 0), "{name}, seed {seed}, rate {rate}/s, round trips up to {rtt} ms");
        };
        for counts in [false, true] {
            let rule = Rule::FixedWindow { limit: 100, period: Period::Second };
            check("fixed", &mut fixed(100.0, Period::Second, counts), rule, counts);
        }
        let mut bucket = Bucket { rate: 150.0, burst: 20.0, level: 20.0, at: 0 };
        check("bucket", &mut bucket, Rule::TokenBucket { per_second: 150.0, burst: 20.0 }, false);
        // Five may wait; how often the limiter lets them is its own affair.
        let waiting = Rule::WaitingBucket { per_second: 150.0, burst: 20.0, waiting: 5.0 };
        for burst in [20.0, 23.0, 25.0] {
            let mut bucket = Bucket { rate: 150.0, burst, level: burst, at: 0 };
            check("queue", &mut bucket, waiting.clone(), false);
        }
        let berlin = Calendar {
            period: Period::Day,
            zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
            week_start: Weekday::Monday,
        };
        let rule = Rule::CalendarWindow { limit: 100, calendar: berlin };
        check("calendar", &mut fixed(100.0, Period::Day, false), rule, false);
        let mut log = Log { limit: 120, window: 1_000 * MS, admitted: Default::default() };
        check("log", &mut log, Rule::SlidingLog { limit: 120, window: Duration::from_secs(1) }, false);
    }
}

#[test]
fn a_limiter_that_is_two_percent_too_generous_is_always_found() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let rtt = 1 + random.below(40);
        let mut check = |name: &str, limiter: &mut dyn Limiter, seconds: u64, rule: Rule| {
            let events = events(limiter, seconds, 1000, rtt, &mut random);
            let (excess, wrong) = verdict(rule, false, &events);
            assert!(excess > 0 && wrong == 0, "{name}, seed {seed}: {excess}, {wrong}");
        };
        // Across a minute; each whole minute admits 102 % of its limit well away from its edges.
        let rule = Rule::FixedWindow { limit: 5000, period: Period::Minute };
        check("fixed", &mut fixed(5100.0, Period::Minute, false), 40, rule);
        let mut bucket = Bucket { rate: 510.0, burst: 50.0, level: 50.0, at: 0 };
        check("bucket", &mut bucket, 30, Rule::TokenBucket { per_second: 500.0, burst: 50.0 });
        let rule = Rule::WaitingBucket { per_second: 500.0, burst: 50.0, waiting: 5.0 };
        let mut bucket = Bucket { rate: 510.0, burst: 55.0, level: 55.0, at: 0 };
        check("queue", &mut bucket, 30, rule);
        let mut log = Log { limit: 510, window: 3_000 * MS, admitted: Default::default() };
        check("log", &mut log, 6, Rule::SlidingLog { limit: 500, window: Duration::from_secs(3) });
    }
}

#[test]
fn a_limiter_that_is_two_percent_too_strict_is_always_found() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut check = |name: &str, limiter: &mut dyn Limiter, seconds: u64, rule: Rule| {
            // Every answer comes: what has none counts in favour of the limiter, and one in 200 would be much of 2 %.
            let mut events = events(limiter, seconds, 1000, 5, &mut random);
            events.retain(|e| e.fate != Fate::Unknown);
            let (excess, wrong) = verdict(rule, false, &events);
            assert!(excess == 0 && wrong > 0, "{name}, seed {seed}: {excess}, {wrong}");
        };
        let rule = Rule::FixedWindow { limit: 5000, period: Period::Minute };
        check("fixed", &mut fixed(4900.0, Period::Minute, false), 20, rule);
        let mut bucket = Bucket { rate: 490.0, burst: 50.0, level: 50.0, at: 0 };
        check("bucket", &mut bucket, 30, Rule::TokenBucket { per_second: 500.0, burst: 50.0 });
        let mut log = Log { limit: 490, window: 3_000 * MS, admitted: Default::default() };
        check("log", &mut log, 6, Rule::SlidingLog { limit: 500, window: Duration::from_secs(3) });
    }
}

#[test]
fn a_refusal_is_right_when_any_limit_of_the_consumer_was_reached() {
    let mut random = Random(3);
    // Ten a second are refused long before a thousand a minute are reached.
    let events = events(&mut fixed(10.0, Period::Second, false), 5, 100, 2, &mut random);
    let rule = |limit, period| Limit {
        name: String::new(),
        rule: Rule::FixedWindow { limit, period },
        members: vec![Member { consumer: 0, target: 0 }],
        counts_rejected: false,
    };
    let setting = Setting { started_unix_ns: STARTED, tolerance: Duration::ZERO, fresh: true };
    let wrong = |limits: &[Limit]| {
        let findings = check(limits, &events, &setting);
        findings.iter().flat_map(|f| &f.rows).map(|r| r.wrongly_rejected).sum::<u64>()
    };
    assert_eq!(wrong(&[rule(10, Period::Second), rule(1000, Period::Minute)]), 0);
    let findings = check(&[rule(10, Period::Second), rule(1000, Period::Minute)], &events, &setting);
    assert!(findings[0].rows.iter().any(|r| r.verdict() == Verdict::Held));
    assert!(findings[1].rows.iter().all(|r| r.verdict() == Verdict::NotReached));
    assert!(wrong(&[rule(1000, Period::Minute)]) > 0);
    // Nor is the longer one taken to have refused anything where nobody knows what was used before the run.
    let setting = Setting { fresh: false, ..setting };
    let findings = check(&[rule(10, Period::Second), rule(1000, Period::Minute)], &events, &setting);
    assert!(findings[1].rows.iter().all(|r| r.partial && r.verdict() == Verdict::NotReached));
}

#[test]
fn what_happened_before_the_run_counts_in_favour_of_the_limiter() {
    let refused = |ms: u64| Event {
        consumer: 0,
        target: 0,
        sent: ms * MS,
        received: (ms + 1) * MS,
        fate: Fate::Rejected,
    };
    let limit = |rule| Limit {
        name: String::new(),
        rule,
        members: vec![Member { consumer: 0, target: 0 }],
        counts_rejected: false,
    };
    let check = |rule: &Rule, fresh: bool, events: &[Event], want: u64| {
        let setting = Setting { started_unix_ns: STARTED, tolerance: Duration::ZERO, fresh };
        let findings = check(&[limit(rule.clone())], events, &setting);
        let got: u64 = findings[0].rows.iter().map(|r| r.wrongly_rejected).sum();
        assert_eq!(got, want, "{rule:?}, fresh {fresh}");
    };
    let minute = Rule::FixedWindow { limit: 100, period: Period::Minute };
    check(&minute, false, &[refused(5)], 0);
    check(&minute, true, &[refused(5)], 1);
    // The next minute began within the run, and nothing was admitted in it.
    check(&minute, false, &[refused(40_000)], 1);
    let bucket = Rule::TokenBucket { per_second: 10.0, burst: 20.0 };
    check(&bucket, false, &[refused(5)], 0);
    check(&bucket, false, &[refused(500)], 1);
    check(&bucket, true, &[refused(5)], 1);
}

#[test]
fn each_calendar_window_of_a_run_has_its_row() {
    let mut random = Random(1);
    let events = events(&mut fixed(50.0, Period::Minute, false), 40, 100, 3, &mut random);
    let limit = Limit {
        name: String::new(),
        rule: Rule::FixedWindow { limit: 50, period: Period::Minute },
        members: vec![Member { consumer: 0, target: 0 }],
        counts_rejected: false,
    };
    let setting = Setting { started_unix_ns: STARTED, tolerance: Duration::ZERO, fresh: false };
    let rows = &check(&[limit], &events, &setting)[0].rows;
    assert_eq!(rows.len(), 2);
    assert!(rows[0].partial && !rows[1].partial);
    assert!(rows.iter().all(|r| r.verdict() == Verdict::Held), "{rows:?}");
    assert_eq!(rows.iter().map(|r| r.offered).sum::<u64>(), 4000);
    assert!(rows.iter().all(|r| r.admitted <= 50 && r.admitted + 1 >= 49));
}

#[test]
fn clocks_that_may_be_apart_prove_nothing_about_short_windows() {
    let limit = Limit {
        name: String::new(),
        rule: Rule::FixedWindow { limit: 1, period: Period::Second },
        members: vec![Member { consumer: 0, target: 0 }],
        counts_rejected: false,
    };
    let admitted = |ms: u64| Event {
        consumer: 0,
        target: 0,
        sent: ms * MS,
        received: (ms + 1) * MS,
        fate: Fate::Admitted,
    };
    let events: Vec<_> = (0..20).map(|i| admitted(2_000 + i)).collect();
    let excess = |tolerance: u64| {
        let tolerance = Duration::from_millis(tolerance);
        let setting = Setting { started_unix_ns: STARTED, tolerance, fresh: true };
        let rows = &check(std::slice::from_ref(&limit), &events, &setting)[0].rows;
        (rows[0].excess, rows[0].verdict())
    };
    assert_eq!(excess(0), (19, Verdict::OverAdmitted));
    assert_eq!(excess(600), (0, Verdict::Unknown));
}
