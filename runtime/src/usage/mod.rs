//! Who has used how much of which limit: the counters of `rate-limiting`, by consumer, plan and route.
//!
//! Which counters there are follows from the config; so nothing needs to be searched for, neither in memory nor in Redis.
//! Counters by address, header or claim belong to nobody whom a config knows; they are searched for only where asked.

mod find;
mod keys;
mod read;

use std::sync::Arc;

pub use find::{Filter, counters};
pub use keys::fullest;
pub use read::{Stores, rows};
use serde_json::{Value, json};

use crate::limit::{Key, RedisSettings, Rules};

/// The counters of one consumer under limits that are counted together.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Username, else custom id, else id; empty for a counter of no consumer.
    pub consumer: String,
    /// The consumer group whose plugin limits the consumer, if it is one.
    pub plan: Option<String>,
    /// What the counter is about: the route's name, several of them, or all.
    pub route: String,
    pub rules: Arc<Rules>,
    pub key: Key,
    /// Where it lives, if not in the gateway's memory.
    pub redis: Option<Arc<RedisSettings>>,
}

/// One limit and how much of it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Empty for a counter of no consumer.
    pub consumer: String,
    /// Whose counter it is otherwise: an address, the value of a header or of a claim.
    pub key: Option<String>,
    pub plan: Option<String>,
    pub route: String,
    /// The limit's name.
    pub limit: String,
    pub period: &'static str,
    /// Requests that may come in the period; of a bucket, at once.
    pub allowed: f64,
    pub used: f64,
    pub left: f64,
    /// Whole percent.
    pub used_percent: u32,
    /// Seconds until there is more.
    pub more_in_s: u64,
}

/// The name of the JSON form, and its version.
const SCHEMA: &str = "gw.usage";
const VERSION: u64 = 1;

/// Rows as JSON.
pub fn to_json(rows: &[Row], now_ms: u64) -> Value {
    let row = |r: &Row| {
        json!({
            "consumer": r.consumer, "plan": r.plan, "route": r.route, "limit": r.limit, "period": r.period,
            "allowed": number(r.allowed), "used": number(r.used), "left": number(r.left), "used_percent": r.used_percent,
            "more_in_s": r.more_in_s, "key": r.key,
        })
    };
    json!({
        "schema": SCHEMA,
        "version": VERSION,
        "at": crate::telemetry::access_log::timestamp(now_ms),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

/// Rows from JSON; None if it is none of this version.
pub fn from_json(document: &Value) -> Option<Vec<Row>> {
    if document.get("schema")? != SCHEMA || document.get("version")? != VERSION {
        return None;
    }
    let row = |r: &Value| {
        let text = |name: &str| r.get(name)?.as_str().map(str::to_owned);
        let number = |name: &str| r.get(name)?.as_f64();
        Some(Row {
            consumer: text("consumer")?,
            key: text("key"),
            plan: text("plan"),
            route: text("route")?,
            limit: text("limit")?,
            period: crate::limit::Period::named(&text("period")?)?.name(),
            allowed: number("allowed")?,
            used: number("used")?,
            left: number("left")?,
            used_percent: r.get("used_percent")?.as_u64()? as u32,
            more_in_s: r.get("more_in_s")?.as_u64()?,
        })
    };
    document.get("rows")?.as_array()?.iter().map(row).collect()
}

/// Whole numbers without a point; levels of buckets with as much of a fraction as means anything.
fn number(n: f64) -> Value {
    let rounded = (n * 1000.0).round() / 1000.0;
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { json!(rounded as i64) } else { json!(rounded) }
}
