//! Limits over any stretch of time: token buckets and sliding logs.

use std::time::Duration;

use super::maxtree::MaxTree;
use super::{Own, Row};
use crate::tally::Fate;

/// Absorbs rounding.
const EPSILON: f64 = 1e-6;

/// A token bucket: at most `burst + waiting + rate × t` in any time `t`, of which `waiting` may be refused as well.
pub fn check_bucket(own: &Own, per_second: f64, burst: f64, waiting: f64) -> (Vec<Row>, Vec<usize>) {
    let Some((first, last)) = own.span() else { return (Vec::new(), Vec::new()) };
    let rate = per_second / 1e9;
    // A limiter whose clock ticks coarsely may see a little more time pass than did.
    let slack = rate * own.setting.tolerance.as_nanos() as f64;
    let excess = bucket_excess(own, rate) - burst - waiting - slack;
    let excess = if excess > EPSILON { excess.ceil() as u64 } else { 0 };
    let allowed = (burst + waiting + rate * (last - first) as f64).floor() as u64;
    (vec![own.whole(allowed, excess)], bucket_room(own, rate, burst, slack))
}

/// The most that was certainly admitted in any stretch of time beyond what its refill allows.
///
/// Of all stretches `s..t`: those admitted that were sent at `s` or later and answered by `t`, less the refill. It is enough
/// to look at stretches from a sending to an answer. Answers come in one by one; each adds one to all stretches that
/// begin no later than its sending.
fn bucket_excess(own: &Own, rate: f64) -> f64 {
    let sent: Vec<u64> = own.admitted().map(|e| e.sent).collect();
    let mut answered: Vec<(u64, u64)> = own.admitted().map(|e| (e.received, e.sent)).collect();
    answered.sort_unstable();
    let mut tree = MaxTree::new(&sent.iter().map(|&s| rate * s as f64).collect::<Vec<_>>());
    let mut most = 0.0f64;
    for (received, begun) in answered {
        let upto = sent.partition_point(|&s| s <= begun);
        tree.add_to_first(upto, 1.0);
        most = most.max(tree.greatest_of_first(upto) - rate * received as f64);
    }
    most
}

/// Refusals at a time when the bucket certainly held a token: even if it was refilled only up to the sending, and all were
/// charged by then that may have been.
fn bucket_room(own: &Own, rate: f64, burst: f64, slack: f64) -> Vec<usize> {
    let mut refused: Vec<_> = own.rejected().copied().collect();
    refused.sort_unstable_by_key(|(_, e)| e.received);
    // By sending; what the bucket may have been charged for.
    let mut charged: Vec<(u64, u64)> = own
        .events
        .iter()
        .filter(|(_, e)| own.counts_rejected || e.fate != Fate::Rejected)
        .map(|(_, e)| (e.sent, e.received))
        .collect();
    charged.sort_unstable();
    // The bucket was last full at some moment `s`; only the moments of answers and of refused sendings matter.
    let mut moments: Vec<u64> =
        charged.iter().map(|c| c.1).chain(refused.iter().map(|(_, e)| e.sent)).collect();
    moments.push(0);
    moments.sort_unstable();
    moments.dedup();
    let mut tree =
        MaxTree::new(&moments.iter().map(|&s| rate * (s.min(u64::MAX / 2)) as f64).collect::<Vec<_>>());
    // Who knows what was in a bucket that had been used before the run: it may have been empty.
    let empty_at_start = if own.setting.fresh { f64::NEG_INFINITY } else { burst };
    let mut next = charged.iter().peekable();
    let mut charges = 0.0;
    let mut room = Vec::new();
    for (index, e) in refused {
        while let Some((_, received)) = next.next_if(|(sent, _)| *sent <= e.received) {
            tree.add_to_first(moments.partition_point(|s| s <= received), 1.0);
            charges += 1.0;
        }
        let upto = moments.partition_point(|&s| s <= e.sent);
        let refilled = rate * e.sent as f64;
        let used = (tree.greatest_of_first(upto) - refilled).max(empty_at_start + charges - refilled);
        // Where refusals are charged, this one is among the charges.
        let own_charge = if own.counts_rejected { 1.0 } else { 0.0 };
        if burst - (used - own_charge) - slack >= 1.0 + EPSILON {
            room.push(index);
        }
    }
    room
}

/// A sliding log: at most `limit` in any stretch of `window`.
pub fn check_log(own: &Own, limit: u64, window: Duration) -> (Vec<Row>, Vec<usize>) {
    let Some((first, last)) = own.span() else { return (Vec::new(), Vec::new()) };
    let tolerance = own.setting.tolerance.as_nanos() as u64;
    let window = window.as_nanos() as u64;
    let most = log_most(own, window.saturating_sub(tolerance));
    let windows = (last - first) / window.max(1) + 1;
    let row = own.whole(limit.saturating_mul(windows), most.saturating_sub(limit));
    let had_room = |sent: u64, received: u64| {
        let since = sent.saturating_sub(window.saturating_add(tolerance));
        if since == 0 && !own.setting.fresh {
            return false;
        }
        let counted = own.may_have_counted(since, received);
        counted - u64::from(own.counts_rejected).min(counted) < limit
    };
    let room =
        own.rejected().filter(|(_, e)| had_room(e.sent, e.received)).map(|(index, _)| *index).collect();
    (vec![row], room)
}

/// The most that was certainly admitted within any stretch of `window`.
fn log_most(own: &Own, window: u64) -> u64 {
    // From the last sending to the first: those sent later are in the tree by their answers.
    let admitted: Vec<_> = own.admitted().collect();
    let mut answers: Vec<u64> = admitted.iter().map(|e| e.received).collect();
    answers.sort_unstable();
    let mut counts = vec![0u64; answers.len() + 1];
    let mut most = 0;
    for e in admitted.iter().rev() {
        let mut place = answers.partition_point(|&r| r < e.received) + 1;
        while place < counts.len() {
            counts[place] += 1;
            place += place & place.wrapping_neg();
        }
        let mut upto = answers.partition_point(|&r| r <= e.sent.saturating_add(window));
        let mut sum = 0;
        while upto > 0 {
            sum += counts[upto];
            upto -= upto & upto.wrapping_neg();
        }
        most = most.max(sum);
    }
    most
}
