//! Whether a run can be believed at all. A number from a run that failed at its own job is worse than none.

use std::time::Duration;

use crate::run::Outcome;
use crate::tally::{Class, Failure};
use crate::units::{show_count, show_ns, show_rate};

/// The verdict on a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Why the run is invalid; empty if it is valid.
    pub reasons: Vec<String>,
    /// What a reader should know beside the numbers.
    pub warnings: Vec<String>,
}

impl Validity {
    /// Whether the numbers can be believed.
    pub fn is_valid(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Less of the offered load than this is another experiment than the one that was asked for.
const LEAST_ACHIEVED: f64 = 0.99;
/// A thread that is busier than this is the bottleneck.
const MOST_CPU: f64 = 0.9;
/// Lateness of the generator that is worth mentioning, and that spoils the result if it makes up half of the p99.
const NOTABLE_LAG: Duration = Duration::from_millis(1);
const SPOILING_LAG: Duration = Duration::from_millis(5);
/// With fewer samples not even the median means anything.
const FEWEST_SAMPLES: u64 = 8;

/// Judges a run. `threads` is the number of the generator's threads.
pub fn judge(outcome: &Outcome, open: bool, threads: usize) -> Validity {
    let mut verdict = Validity::default();
    let tally = &outcome.tally;
    let busy = cpu_share(outcome, threads);
    if tally.answered() == 0 {
        let why = Failure::ALL.iter().zip(&tally.examples).find_map(|(_, e)| e.as_deref());
        let why = why.map_or(String::new(), |text| format!(" ({text})"));
        verdict.reasons.push(format!("no request was answered{why}"));
    } else if open {
        judge_open(outcome, busy, &mut verdict);
    } else if busy > MOST_CPU {
        verdict.warnings.push(format!(
            "the generator used {:.0} % of its processor time: the target may be able to do more than {}",
            busy * 100.0,
            show_rate(tally.answered() as f64 / outcome.duration.as_secs_f64().max(1e-9)),
        ));
    }
    warn(outcome, &mut verdict.warnings);
    verdict
}

fn judge_open(outcome: &Outcome, busy: f64, verdict: &mut Validity) {
    let tally = &outcome.tally;
    let achieved = achieved(outcome);
    let unsent = outcome.offered.saturating_sub(tally.sent);
    if achieved < LEAST_ACHIEVED && !outcome.interrupted {
        let why = match busy > MOST_CPU {
            true => "the generator itself had no processor time left; lower the rate or give it more cores",
            false => {
                "all connections were busy; the target is slower than the rate, or `--connections` is too low"
            }
        };
        verdict.reasons.push(format!(
            "only {:.1} % of the offered requests were sent ({} never were): {why}",
            achieved * 100.0,
            show_count(unsent)
        ));
    } else if busy > MOST_CPU {
        verdict.reasons.push(format!(
            "the generator used {:.0} % of its processor time, so latencies are its own; lower the rate or give it more cores",
            busy * 100.0
        ));
    }
    let lag = tally.lag.quantile(0.99).unwrap_or(0);
    let quantile = |q| tally.class(Class::Success).response.as_ref().and_then(|l| l.quantile(q)).unwrap_or(0);
    let (p50, p99) = (quantile(0.5), quantile(0.99));
    // A handful of late requests is chance, and the percentile that they would spoil is not shown either.
    let enough = tally.lag.supports(0.99);
    if enough && lag > SPOILING_LAG.as_nanos() as u64 && lag > p99 / 2 && p99 > 0 {
        verdict.reasons.push(format!(
            "the generator woke up late (p99 {}), which makes up most of the latency; is this machine busy with other things?",
            show_ns(lag)
        ));
    } else if lag > (NOTABLE_LAG.as_nanos() as u64).max(p50 / 10) {
        verdict.warnings.push(format!("the generator woke up late for some requests (p99 {})", show_ns(lag)));
    }
}

fn warn(outcome: &Outcome, warnings: &mut Vec<String>) {
    let tally = &outcome.tally;
    let unresolved = tally.failures[Failure::Unresolved as usize];
    if outcome.interrupted {
        warnings.push("interrupted before its end; the numbers are those until then".to_owned());
    }
    if unresolved > 0 {
        warnings.push(format!(
            "{} requests had no answer when the run ended; high percentiles may be higher",
            show_count(unresolved)
        ));
    }
    if (1..FEWEST_SAMPLES).contains(&tally.answered()) {
        warnings.push(format!("{} answers are too few for any percentile", tally.answered()));
    }
    if tally.events_lost > 0 {
        warnings.push(format!(
            "too many requests to keep them all: {} are missing from the proofs about limits, which accuse nobody of refusing too much then",
            show_count(tally.events_lost)
        ));
    }
}

/// Sent requests as a share of those that were due.
pub fn achieved(outcome: &Outcome) -> f64 {
    if outcome.offered == 0 { 1.0 } else { outcome.tally.sent as f64 / outcome.offered as f64 }
}

/// Processor time of the generator's threads, as a share of what they could have used.
pub fn cpu_share(outcome: &Outcome, threads: usize) -> f64 {
    let all = outcome.tally.last.max(outcome.duration).as_secs_f64() * threads as f64;
    if all > 0.0 { outcome.tally.cpu.as_secs_f64() / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{End, NOBODY, Sample, Tally};

    fn outcome(sent: u64, offered: u64, change: &dyn Fn(&mut Tally)) -> Outcome {
        let mut tally = Tally::new(false);
        for i in 0..sent {
            let at = Duration::from_millis(i);
            let received = at + Duration::from_millis(2);
            let end = End::Status(200);
            tally.record(&Sample { consumer: NOBODY, target: 0, due: at, sent: at, received, end, bytes: 0 });
        }
        change(&mut tally);
        let duration = Duration::from_secs(10);
        Outcome { tally, duration, offered, interrupted: false, started_unix_ns: 0 }
    }

    #[test]
    fn a_run_that_did_not_do_its_job_is_called_invalid() {
        let check =
            |open: bool, sent: u64, offered: u64, change: &dyn Fn(&mut Tally), reason: Option<&str>| {
                let verdict = judge(&outcome(sent, offered, change), open, 1);
                match reason {
                    None => assert!(verdict.is_valid(), "{verdict:?}"),
                    Some(part) => {
                        assert!(verdict.reasons.iter().any(|r| r.contains(part)), "{part}: {verdict:?}")
                    }
                }
            };
        check(true, 1000, 1000, &|_| {}, None);
        check(true, 991, 1000, &|_| {}, None);
        check(true, 980, 1000, &|_| {}, Some("98.0 %"));
        check(true, 980, 1000, &|t| t.cpu = Duration::from_millis(9_900), Some("no processor time left"));
        check(true, 1000, 1000, &|t| t.cpu = Duration::from_millis(9_900), Some("99 %"));
        check(false, 1000, 1000, &|t| t.cpu = Duration::from_millis(9_900), None);
        check(true, 0, 1000, &|_| {}, Some("no request was answered"));
        let late = |t: &mut Tally| (0..1000).for_each(|_| t.lag.record(20_000_000));
        check(true, 1000, 1000, &late, Some("woke up late"));
        check(true, 1000, 1000, &|t| (0..100).for_each(|_| t.lag.record(20_000_000)), None);
        let late_but_slow_target = |t: &mut Tally| {
            late(t);
            let response = t.classes[Class::Success as usize].response.as_mut().expect("there are successes");
            (0..1000).for_each(|_| response.record(500_000_000));
        };
        check(true, 1000, 1000, &late_but_slow_target, None);
    }

    #[test]
    fn warnings_say_what_numbers_do_not() {
        let check = |sent: u64, change: &dyn Fn(&mut Outcome), part: &str| {
            let mut outcome = outcome(sent, sent, &|_| {});
            change(&mut outcome);
            let verdict = judge(&outcome, true, 1);
            assert!(verdict.warnings.iter().any(|w| w.contains(part)), "{part}: {verdict:?}");
        };
        check(100, &|o| o.interrupted = true, "interrupted");
        check(5, &|_| {}, "too few");
        check(100, &|o| o.tally.failures[Failure::Unresolved as usize] = 3, "no answer");
        check(100, &|o| o.tally.events_lost = 3, "missing from the proofs");
    }
}
