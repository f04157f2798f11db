//! The peer with the fewest requests in flight for its weight.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the next search starts, so that peers that are equally idle take turns.
#[derive(Default)]
pub struct LeastConnections(AtomicUsize);

impl LeastConnections {
    /// Among the `usable` of `n` peers the one with the lowest `(in flight + 1) / weight`; `load` gives both.
    pub fn pick(
        &self,
        n: usize,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> (u32, u32),
    ) -> Option<usize> {
        let start = self.0.fetch_add(1, Ordering::Relaxed);
        let mut best: Option<(usize, u64, u64)> = None;
        for k in 0..n {
            let i = (start.wrapping_add(k)) % n;
            if !usable(i) {
                continue;
            }
            let (in_flight, weight) = load(i);
            let (busy, weight) = (u64::from(in_flight) + 1, u64::from(weight.max(1)));
            // a/b < c/d without division.
            if best.is_none_or(|(_, b, w)| busy * w < b * weight) {
                best = Some((i, busy, weight));
            }
        }
        best.map(|(i, ..)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_for_its_weight_is_picked() {
        for (loads, out, want) in [
            (&[(3, 1), (1, 1), (2, 1)][..], None, Some(1)),
            (&[(3, 1), (1, 1), (2, 1)], Some(1), Some(2)),
            (&[(3, 100), (0, 10)], None, Some(0)),
            (&[(9, 100), (0, 10)], None, Some(0)),
            (&[(10, 100), (0, 10)], None, Some(1)),
            (&[], None, None),
        ] {
            let lc = LeastConnections::default();
            // The answer must not depend on where the search starts; the equal pair is the one exception.
            let got = lc.pick(loads.len(), |i| Some(i) != out, |i| loads[i]);
            assert_eq!(got, want, "{loads:?} {out:?}");
        }
    }

    #[test]
    fn equals_take_turns() {
        let lc = LeastConnections::default();
        let got: Vec<_> = (0..4).map(|_| lc.pick(2, |_| true, |_| (0, 1))).collect();
        assert_eq!(got, [Some(0), Some(1), Some(0), Some(1)]);
    }
}
