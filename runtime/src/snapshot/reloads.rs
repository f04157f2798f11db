//! What became of the attempts to put a config in force.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;

/// The history of one process, as far as it is told.
#[derive(Default)]
pub struct Reloads(Mutex<State>);

/// See [`Reloads::state`].
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Reloads that succeeded; the start is none.
    pub succeeded: u64,
    pub failed: u64,
    /// Hash of the config in force.
    pub hash: String,
    /// Where it came from: `files` or `admin`.
    pub origin: &'static str,
    /// When it was put in force, in ms since 1970.
    pub loaded_ms: u64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<Failed>,
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When, in ms since 1970.
    pub at_ms: u64,
    pub message: String,
    /// The findings, as `gw validate --format json` writes them; null where it did not come to that.
    pub report: serde_json::Value,
}

impl Reloads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The config that the process began with.
    pub fn started(&self, hash: String) {
        let mut state = self.lock();
        (state.hash, state.origin, state.loaded_ms) = (hash, "files", clock::unix_ms());
    }

    /// A new config is in force.
    pub fn succeeded(&self, hash: String, origin: &'static str) {
        let mut state = self.lock();
        (state.hash, state.origin, state.loaded_ms) = (hash, origin, clock::unix_ms());
        state.succeeded += 1;
        state.last_error = None;
    }

    /// A config was refused; the one in force stays.
    pub fn failed(&self, message: String, report: serde_json::Value) {
        let mut state = self.lock();
        state.failed += 1;
        state.last_error = Some(Failed { at_ms: clock::unix_ms(), message, report });
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }
}
