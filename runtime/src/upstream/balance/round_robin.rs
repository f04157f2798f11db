//! Smooth weighted round robin: in every run of picks each peer gets its share, and no peer gets its share in one go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::standing::WHOLE;

/// Largest work to spend on a table of turns: turns times peers.
const TABLE_MAX: u64 = 1 << 20;

/// The turns. One per ring, shared by all workers, so that shares hold over the whole process.
pub struct RoundRobin {
    /// Whose turn it is, over and over, where everybody can take theirs; needs no lock. Empty if it would be too long.
    turns: Box<[u32]>,
    next: AtomicUsize,
    weights: Box<[u32]>,
    /// What each peer is owed, for picks among some of them.
    owed: Mutex<Vec<i64>>,
}

impl RoundRobin {
    /// For peers of these weights.
    pub fn new(weights: &[u32]) -> Self {
        let unit = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let length: u64 = weights.iter().map(|w| u64::from(w / unit)).sum();
        let rr = Self {
            turns: Box::default(),
            next: AtomicUsize::new(0),
            weights: weights.into(),
            owed: Mutex::new(vec![0; weights.len()]),
        };
        if length * weights.len() as u64 > TABLE_MAX {
            return rr;
        }
        // After one round nothing is owed any more, so the table repeats without a seam.
        let turns =
            (0..length).filter_map(|_| rr.pick_among(|_| true, |_| WHOLE)).map(|i| i as u32).collect();
        Self { turns, ..rr }
    }

    /// Whoever's turn it is, or one of the `usable` peers if that one is not.
    pub fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if !self.turns.is_empty() {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % self.turns.len();
            let peer = self.turns[at] as usize;
            if usable(peer) {
                return Some(peer);
            }
        }
        self.pick_among(usable, |_| WHOLE)
    }

    /// One of the `usable` peers, taking nobody's turn: also for what was turned away elsewhere. `share`: how much of
    /// each one's weight counts, in thousandths.
    pub fn pick_among(&self, usable: impl Fn(usize) -> bool, share: impl Fn(usize) -> u32) -> Option<usize> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in 0..owed.len() {
            if !usable(i) {
                continue;
            }
            let w = i64::from(self.weights[i]) * i64::from(share(i));
            owed[i] += w;
            total += w;
            if best.is_none_or(|b| owed[i] > owed[b]) {
                best = Some(i);
            }
        }
        if let Some(b) = best {
            owed[b] -= total;
        }
        best
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(rr: &RoundRobin, out: &[usize], n: usize) -> String {
        let pick = |_| rr.pick(|i| !out.contains(&i));
        (0..n).map(pick).map(|p| p.map_or('-', |i| char::from(b'a' + i as u8))).collect()
    }

    #[test]
    fn shares_are_exact_and_spread() {
        for (weights, out, n, want) in [
            (&[100, 100, 100][..], &[][..], 6, "abcabc"),
            (&[5, 1, 1], &[], 14, "aabacaaaabacaa"),
            (&[20, 10], &[], 6, "abaaba"),
            (&[1, 1, 1], &[1], 6, "aacacc"),
            (&[1, 1], &[0, 1], 2, "--"),
            (&[], &[], 1, "-"),
            // Too long for a table.
            (&[65535, 65534, 32768, 1], &[], 5, "abcab"),
        ] {
            assert_eq!(picks(&RoundRobin::new(weights), out, n), want, "{weights:?} {out:?}");
        }
    }

    #[test]
    fn the_share_of_one_that_is_out_goes_to_all_others_by_weight() {
        let rr = RoundRobin::new(&[3, 1, 4]);
        let got = picks(&rr, &[2], 80);
        assert_eq!((got.matches('a').count(), got.matches('b').count()), (60, 20));
    }

    #[test]
    fn a_part_of_a_weight_gets_a_part_of_the_turns() {
        let rr = RoundRobin::new(&[1, 1]);
        let part = |n| {
            let pick = || rr.pick_among(|_| true, |i| if i == 0 { n } else { WHOLE });
            (0..110).filter(|_| pick() == Some(0)).count()
        };
        assert_eq!(part(100), 10);
        assert_eq!(part(1000), 55);
    }

    #[test]
    fn a_peer_that_returns_gets_no_more_than_its_share() {
        let rr = RoundRobin::new(&[1, 1]);
        picks(&rr, &[1], 100);
        assert_eq!(picks(&rr, &[], 10).matches('b').count(), 5);
    }
}
