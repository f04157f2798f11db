//! The last good answers of parts, for when there are no better ones.

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::policy::call::Call;
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
    /// Remembers an answer for so many seconds.
    pub fn put(&self, key: Key, body: &Bytes, now_s: u64, seconds: u64) {
        let entry =
            Entry { status: 200, fields: Vec::new(), body: body.clone(), at_s: now_s, ttl_s: seconds };
        self.0.put(key, entry, seconds);
    }

    /// The answer, if it is remembered still.
    pub fn get(&self, key: &Key, now_s: u64) -> Option<Bytes> {
        self.0.get(key, now_s).map(|e| e.body)
    }
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
