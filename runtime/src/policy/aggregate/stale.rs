//! The last good answers of parts: for when there are no better ones, and for parts that may be answered from what is kept.

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::message::{FieldName, Fields};
use crate::policy::call::{Call, CallResponse};
use crate::policy::proxy_cache::control::Directives;
use crate::policy::proxy_cache::store::{Entry, Store};

pub use crate::policy::proxy_cache::store::Key;

/// Bytes of all remembered answers together.
const CAPACITY: usize = 32 << 20;

/// The answers, of all aggregates of the process.
pub struct Stale(Store);

impl Default for Stale {
    fn default() -> Self {
        Self(Store::with_capacity(CAPACITY))
    }
}

impl std::fmt::Debug for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stale")
    }
}

impl Stale {
    /// Remembers an answer: for `stale_s` seconds for when there is no better one, and to answer with for `fresh_s`.
    pub fn put(&self, key: Key, response: &CallResponse, now_s: u64, stale_s: u64, fresh_s: u64) {
        let fresh_s = if may_be_kept(&response.fields) { fresh_s } else { 0 };
        if stale_s == 0 && fresh_s == 0 {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = response.fields.iter().map(|(n, v)| (FieldName::new(&text(n)), text(v)));
        let entry = Entry {
            status: response.status,
            fields: if fresh_s > 0 { fields.collect() } else { Vec::new() },
            body: response.body.clone(),
            at_s: now_s,
            ttl_s: fresh_s,
        };
        self.0.put(key, entry, stale_s.max(fresh_s));
    }

    /// An answer that is fresh still, with its age among its fields.
    pub fn fresh(&self, key: &Key, now_s: u64) -> Option<(u16, Fields, Bytes)> {
        let entry = self.0.get(key, now_s)?;
        let age = now_s.saturating_sub(entry.at_s);
        if age >= entry.ttl_s {
            return None;
        }
        let mut fields = Fields::default();
        entry.fields.iter().for_each(|(name, value)| fields.append(name, value));
        let before =
            fields.text(&FieldName::new("Age")).and_then(|a| a.trim().parse::<u64>().ok()).unwrap_or(0);
        fields.set(&FieldName::new("Age"), before.saturating_add(age).to_string());
        Some((entry.status, fields, entry.body))
    }

    /// The answer, if it is remembered still.
    pub fn get(&self, key: &Key, now_s: u64) -> Option<Bytes> {
        self.0.get(key, now_s).map(|e| e.body)
    }
}

/// Whether a service lets its answer be given again.
fn may_be_kept(fields: &Fields) -> bool {
    let said = Directives::of(fields);
    !["no-store", "no-cache", "private"].iter().any(|d| said.has(d))
        && !fields.contains(&FieldName::new("Set-Cookie"))
}

/// What an answer is remembered by: the service's id and everything that was sent, so that what one caller may see is shown to no other.
pub fn key(service: &str, call: &Call) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(service.as_bytes());
    part(call.method.as_bytes());
    part(call.path.as_bytes());
    part(&call.body);
    for (name, value) in call.fields.iter() {
        // A trace's ids are never the same twice.
        if !name.eq_ignore_ascii_case(b"traceparent") && !name.eq_ignore_ascii_case(b"tracestate") {
            part(name);
            part(value);
        }
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
