//! Panics: a bug in the handling of one request must neither end the gateway nor go unnoticed.
//!
//! The runtime ends the task that panicked, which is one connection or one HTTP/2 stream. The hook below counts it and
//! says where it was, but not the message, for which anything of the request may have been used.

use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts and reports panics of this process from now on.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        eprintln!(
            "bug: panic in thread `{name}` at {place}; what it was doing has ended, everything else goes on; please \
             report this"
        );
    }));
}

/// How many panics there were.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Panics where a test of a debug build wants it: at requests for the path that `GW_PANIC_AT` names.
#[cfg(debug_assertions)]
pub fn on_purpose(path: &str) {
    static AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let at = AT.get_or_init(|| std::env::var("GW_PANIC_AT").ok());
    assert!(at.as_deref() != Some(path), "asked for by a test");
}
