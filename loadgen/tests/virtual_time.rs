//! The shared schedule in virtual time, against answers that can be worked out by hand.

use std::time::Duration;

use gw_loadgen::schedule::{Pace, Schedule};
use gw_loadgen::tally::{Class, End, NOBODY, Sample, Tally};

/// Sends what is due over `connections`, each request taking as long as `service` says for when it is sent, in ms.
fn simulate(rate: f64, seconds: u64, connections: usize, service: impl Fn(u64, f64) -> f64) -> Tally {
    let pace = Pace::Rate { from: rate, to: rate };
    let schedule = Schedule::new(&[(pace, Some(Duration::from_secs(seconds)))], None);
    let mut free = vec![0.0f64; connections];
    let mut tally = Tally::new(false);
    while let Some(job) = schedule.claim(Duration::ZERO) {
        // Whoever is free first takes the next request.
        let first =
            (0..connections).min_by(|a, b| free[*a].total_cmp(&free[*b])).expect("there are connections");
        let due = job.due.expect("the loop is open").as_secs_f64() * 1e3;
        let sent = free[first].max(due);
        let received = sent + service(job.index, sent);
        free[first] = received;
        let at = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let (due, sent, received) = (at(due), at(sent), at(received));
        tally.record(&Sample {
            consumer: NOBODY,
            target: 0,
            due,
            sent,
            received,
            end: End::Status(200),
            bytes: 0,
        });
    }
    tally
}

fn p99_ms(tally: &Tally, service: bool) -> f64 {
    let class = tally.class(Class::Success);
    let latencies = if service { &class.service } else { &class.response };
    latencies.as_ref().and_then(|l| l.quantile(0.99)).expect("there are samples") as f64 / 1e6
}

fn check(tally: &Tally, response: std::ops::Range<f64>, service: std::ops::Range<f64>) {
    let (r, s) = (p99_ms(tally, false), p99_ms(tally, true));
    assert!(response.contains(&r) && service.contains(&s), "p99 from due {r} ms, from sent {s} ms");
}

/// 10 s at 1000/s with a freeze of 1 s: the requests due in it wait 0 to 1 s, so that 1 % of all wait for more than 0.9 s.
#[test]
fn a_freeze_shows_from_due_and_hides_from_sent() {
    let freeze = |_, sent: f64| if (5000.0..6000.0).contains(&sent) { 6001.0 - sent } else { 1.0 };
    check(&simulate(1000.0, 10, 10, freeze), 890.0..930.0, 0.9..1.1);
}

/// One request in a thousand takes 1 s for reasons of its own. The others must not wait for it: with a schedule for each
/// connection they would, and the p99 would be hundreds of milliseconds that no user saw.
#[test]
fn a_slow_request_delays_no_other() {
    let slow = |index: u64, _| if index.is_multiple_of(1000) { 1000.0 } else { 1.0 };
    check(&simulate(1000.0, 30, 10, slow), 0.9..1.1, 0.9..1.1);
}

/// A target that is a tenth too slow falls behind by a tenth of the time, and every later request pays for it.
#[test]
fn a_target_that_is_too_slow_falls_ever_further_behind() {
    let steady = |_, _| 11.0;
    check(&simulate(1000.0, 10, 10, steady), 950.0..1050.0, 10.9..11.1);
}
