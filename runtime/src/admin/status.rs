//! `GET /config` and `GET /status`: what is in force, and how the process is.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::telemetry::access_log::timestamp;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::process;
use crate::worker::context::Common;

/// About the config, never the config itself: it holds credentials.
pub(super) fn config(common: &Common) -> String {
    let state = common.reloads.state();
    let last_error = state
        .last_error
        .map(|e| json!({ "at": timestamp(e.at_ms), "message": e.message, "report": e.report }));
    let document = json!({
        "schema": "gw.config-status",
        "version": 1,
        "generation": common.publisher.generation(),
        "hash": state.hash,
        "origin": state.origin,
        "loaded_at": timestamp(state.loaded_ms),
        "reloads": { "ok": state.succeeded, "failed": state.failed },
        "last_error": last_error,
    });
    format!("{document:#}\n")
}

/// About the process.
pub(super) fn process(metrics: &Metrics, draining: bool) -> String {
    let common = &metrics.common;
    let document = json!({
        "schema": "gw.status",
        "version": 1,
        "gw_version": env!("CARGO_PKG_VERSION"),
        "draining": draining,
        "uptime_seconds": metrics.started.elapsed().as_secs(),
        "workers": metrics.slabs.len(),
        "connections": common.connections.load(Ordering::Relaxed),
        "configuration_hash": common.reloads.state().hash,
        "generation": common.publisher.generation(),
        "live_snapshots": common.publisher.alive(),
        "memory_resident_bytes": process::resident_bytes(),
        "open_files": process::open_files(),
        "panics": crate::panics::count(),
    });
    format!("{document:#}\n")
}
