//! Consistent hashing: each peer owns places on a ring; a key goes to the owner of its place. When a peer leaves, only
//! its own keys move.

use std::net::SocketAddr;

/// Places of a peer of average weight.
const POINTS: f64 = 160.0;
/// Smallest ring.
const SLOTS_MIN: u32 = 1000;

/// Who owns each place, by index of the peer.
pub struct HashRing(Box<[u32]>);

impl HashRing {
    /// The ring of these peers. The order of `peers` does not matter.
    pub fn new(slots: u32, peers: &[(SocketAddr, u32)]) -> Self {
        if peers.is_empty() {
            return Self(Box::default());
        }
        let slots = slots.max(SLOTS_MIN) as usize;
        let total: f64 = peers.iter().map(|(_, w)| f64::from(*w)).sum();
        // Per place: the full hash of the point that won it, so that collisions end the same way in any order.
        let mut owner: Vec<Option<(u32, SocketAddr, u32)>> = vec![None; slots];
        for (i, (addr, weight)) in peers.iter().enumerate() {
            let share = f64::from(*weight) * peers.len() as f64 / total.max(1.0);
            for n in 0..(POINTS * share).round().max(1.0) as u32 {
                let hash = xxhash32(format!("{addr} {n}").as_bytes());
                let place = &mut owner[hash as usize % slots];
                if place.is_none_or(|(h, a, _)| (hash, *addr) < (h, a)) {
                    *place = Some((hash, *addr, i as u32));
                }
            }
        }
        // A place without a point belongs to the next one that has one.
        let mut next = owner.iter().flatten().next().map_or(0, |(.., i)| *i);
        let mut ring = vec![0; slots];
        for s in (0..slots).rev() {
            if let Some((.., i)) = owner[s] {
                next = i;
            }
            ring[s] = next;
        }
        Self(ring.into())
    }

    /// The owner of the key's place, or of the next place whose owner is `usable`.
    pub fn pick(&self, key: u32, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let n = self.0.len();
        let start = key as usize % n.max(1);
        let mut last = None;
        for k in 0..n {
            let peer = self.0[(start + k) % n];
            if last != Some(peer) {
                last = Some(peer);
                if usable(peer as usize) {
                    return Some(peer as usize);
                }
            }
        }
        None
    }
}

const P: [u32; 5] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F, 0x1656_67B1];

/// The 32-bit xxHash with seed 0.
pub fn xxhash32(bytes: &[u8]) -> u32 {
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let mut hash;
    let mut rest = bytes;
    if bytes.len() >= 16 {
        let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, 0_u32.wrapping_sub(P[0])];
        let mut stripes = bytes.chunks_exact(16);
        for stripe in &mut stripes {
            for (lane, b) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane.wrapping_add(word(b).wrapping_mul(P[1])).rotate_left(13).wrapping_mul(P[0]);
            }
        }
        rest = stripes.remainder();
        hash = [1, 7, 12, 18].iter().zip(lanes).fold(0_u32, |h, (r, l)| h.wrapping_add(l.rotate_left(*r)));
    } else {
        hash = P[4];
    }
    hash = hash.wrapping_add(bytes.len() as u32);
    let mut words = rest.chunks_exact(4);
    for b in &mut words {
        hash = hash.wrapping_add(word(b).wrapping_mul(P[2])).rotate_left(17).wrapping_mul(P[3]);
    }
    for b in words.remainder() {
        hash = hash.wrapping_add(u32::from(*b).wrapping_mul(P[4])).rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(P[2]);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxhash32() {
        for (text, want) in [
            ("", 0x02CC_5D05),
            ("a", 0x550D_7456),
            ("abc", 0x32D1_53FF),
            ("Nobody inspects the spammish repetition", 0xE229_3B2F),
        ] {
            assert_eq!(xxhash32(text.as_bytes()), want, "{text:?}");
        }
    }

    fn peers(n: u8, weight: u32) -> Vec<(SocketAddr, u32)> {
        (1..=n).map(|i| (SocketAddr::from(([10, 0, 0, i], 80)), weight)).collect()
    }

    fn keys() -> impl Iterator<Item = u32> {
        (0..10_000).map(|i: u32| xxhash32(&i.to_le_bytes()))
    }

    #[test]
    fn only_the_keys_of_a_peer_that_left_move() {
        let all = peers(5, 100);
        let (before, after) = (HashRing::new(10_000, &all), HashRing::new(10_000, &all[..4]));
        let (mut moved, mut own) = (0, 0);
        for key in keys() {
            let (a, b) = (before.pick(key, |_| true), after.pick(key, |_| true));
            match a {
                Some(4) => own += 1,
                _ => moved += usize::from(a != b),
            }
        }
        assert!((1_000..3_000).contains(&own), "{own}");
        assert!(moved < 300, "places shared by collision may move, no others: {moved}");
    }

    #[test]
    fn a_peer_that_is_down_hands_over_its_keys_alone() {
        let ring = HashRing::new(10_000, &peers(5, 100));
        for key in keys() {
            let up = ring.pick(key, |_| true);
            let down = ring.pick(key, |i| i != 2);
            assert!(up == Some(2) || up == down);
            assert_ne!(down, Some(2));
        }
        assert_eq!(ring.pick(7, |_| false), None);
        assert_eq!(HashRing::new(1000, &[]).pick(7, |_| true), None);
    }

    #[test]
    fn shares_follow_weights_and_order_does_not_matter() {
        let mut all = peers(2, 100);
        all[1].1 = 300;
        let ring = HashRing::new(10_000, &all);
        let heavy = keys().filter(|k| ring.pick(*k, |_| true) == Some(1)).count();
        assert!((6_000..9_000).contains(&heavy), "{heavy}");
        all.reverse();
        let reversed = HashRing::new(10_000, &all);
        for key in keys() {
            assert_eq!(ring.pick(key, |_| true), reversed.pick(key, |_| true).map(|i| 1 - i));
        }
    }
}
