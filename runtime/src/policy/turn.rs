//! Taking turns: of requests that would all do the same, one does it and the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::verdicts::Landing;

/// Things that are being done now, by what they are.
pub struct Turns<K>(Mutex<HashMap<K, Arc<Landing>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What a request that asks is to do.
pub enum Role<K: Hash + Eq + Clone> {
    /// Do it: the others wait until this is dropped.
    Leader(Guard<K>),
    /// Somebody does it: this is its end.
    Follower(Arc<Landing>),
    /// So many things are being done that nobody waits.
    Alone,
}

/// Things done at the same time that are kept account of.
const MOST: usize = 65_536;

impl<K: Hash + Eq + Clone> Turns<K> {
    /// Asks for the turn.
    pub fn take(this: &Arc<Self>, key: &K) -> Role<K> {
        let mut all = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = all.get(key) {
            return Role::Follower(Arc::clone(under_way));
        }
        if all.len() >= MOST {
            return Role::Alone;
        }
        let landing = Arc::new(Landing::default());
        all.insert(key.clone(), Arc::clone(&landing));
        Role::Leader(Guard { turns: Arc::clone(this), key: key.clone(), landing })
    }
}

/// The turn, until it is dropped.
pub struct Guard<K: Hash + Eq + Clone> {
    turns: Arc<Turns<K>>,
    key: K,
    landing: Arc<Landing>,
}

impl<K: Hash + Eq + Clone> Drop for Guard<K> {
    fn drop(&mut self) {
        self.turns.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.landing.end();
    }
}
