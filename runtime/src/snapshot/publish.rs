//! Handing a new snapshot to the workers: one atomic store; each worker notices at its next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::Snapshot;

/// The snapshot in force.
#[derive(Default)]
pub struct Publisher {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
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
        self.current.store(Arc::new(snapshot));
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
}
