//! `GET /config` and `GET /status`: what is in force, and how the process is.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::snapshot::Snapshot;
use crate::telemetry::access_log::timestamp;
use crate::telemetry::certificates::ends;
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
        "certificates": certificates(&common.publisher.current()),
    });
    format!("{document:#}\n")
}

/// Served certificates, and how ordering those goes that gw orders itself.
fn certificates(snapshot: &Snapshot) -> Vec<serde_json::Value> {
    let at = |seconds: u64| (seconds > 0).then(|| timestamp(seconds * 1000));
    let mut ends = ends(snapshot);
    let mut all = Vec::new();
    if let Some(acme) = &snapshot.acme {
        for (sni, report) in acme.certificates.report(&acme.domains) {
            let end = ends.remove(&sni).unwrap_or(0);
            all.push(json!({
                "sni": sni, "not_after": at(end), "ordered_from": acme.server,
                "next_order": at(report.next_order), "orders": report.ordered, "failures": report.failed,
                "last_error": report.last_error,
            }));
        }
    }
    all.extend(ends.into_iter().map(|(sni, end)| json!({ "sni": sni, "not_after": at(end) })));
    all
}
