//! Handing a new snapshot to the workers: one atomic store; each worker notices at its next request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::Snapshot;

/// The snapshot in force.
#[derive(Default)]
pub struct Publisher {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    /// Every snapshot published and not known to be gone.
    alive: Mutex<Vec<Weak<Snapshot>>>,
}

impl Publisher {
    /// Publishes the first snapshot.
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        let this = Self::default();
        this.publish(snapshot);
        Arc::new(this)
    }

    /// Puts a snapshot in force. Requests under way finish with the one that they began with.
    pub fn publish(&self, mut snapshot: Snapshot) -> u64 {
        snapshot.generation = self.generation() + 1;
        let generation = snapshot.generation;
        let snapshot = Arc::new(snapshot);
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|s| s.strong_count() > 0);
        alive.push(Arc::downgrade(&snapshot));
        drop(alive);
        self.current.store(snapshot);
        self.generation.store(generation, Ordering::Release);
        generation
    }

    /// The number of the snapshot in force; cheap enough for every request.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// How many snapshots are in memory: the one in force, and those that requests under way hold.
    pub fn alive(&self) -> usize {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|s| s.strong_count() > 0);
        alive.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_snapshot_lives_as_long_as_it_is_held() {
        let publisher = Publisher::new(Snapshot::default());
        let held = publisher.current();
        assert_eq!(publisher.publish(Snapshot::default()), 2);
        assert_eq!(publisher.publish(Snapshot::default()), 3);
        assert_eq!((held.generation, publisher.alive()), (1, 2), "the second was held by nobody");
        drop(held);
        assert_eq!((publisher.current().generation, publisher.alive()), (3, 1));
    }
}
