//! Smooth weighted round robin: in every run of picks each peer gets its share, and no peer gets its share in one go.

use std::sync::{Mutex, PoisonError};

/// What each peer is owed. One per ring, shared by all workers, so that shares hold over the whole process.
pub struct RoundRobin(Mutex<Vec<i64>>);

impl RoundRobin {
    /// Nothing is owed to any of `peers` peers.
    pub fn new(peers: usize) -> Self {
        Self(Mutex::new(vec![0; peers]))
    }

    /// The next of the peers that are `usable`. `weight` is asked for usable peers only.
    pub fn pick(&self, usable: impl Fn(usize) -> bool, weight: impl Fn(usize) -> u32) -> Option<usize> {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in 0..owed.len() {
            if !usable(i) {
                continue;
            }
            let w = i64::from(weight(i));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(rr: &RoundRobin, weights: &[u32], out: &[usize], n: usize) -> String {
        let pick = |_| rr.pick(|i| !out.contains(&i), |i| weights[i]);
        (0..n).map(pick).map(|p| p.map_or('-', |i| char::from(b'a' + i as u8))).collect()
    }

    #[test]
    fn shares_are_exact_and_spread() {
        for (weights, out, n, want) in [
            (&[1, 1, 1][..], &[][..], 6, "abcabc"),
            (&[5, 1, 1], &[], 7, "aabacaa"),
            (&[2, 1], &[], 6, "abaaba"),
            (&[1, 1, 1], &[1], 4, "acac"),
            (&[1, 1], &[0, 1], 2, "--"),
            (&[], &[], 1, "-"),
        ] {
            assert_eq!(picks(&RoundRobin::new(weights.len()), weights, out, n), want, "{weights:?} {out:?}");
        }
    }

    #[test]
    fn a_peer_that_returns_gets_no_more_than_its_share() {
        let rr = RoundRobin::new(2);
        picks(&rr, &[1, 1], &[1], 100);
        assert_eq!(picks(&rr, &[1, 1], &[], 10).matches('b').count(), 5);
    }
}
