//! How an answer is kept: what of it, for how long, and under which key.

use std::sync::Arc;

use bytes::Bytes;

use super::freshness::{self, Said};
use super::serve;
use crate::message::{FieldName, Fields, names};
use crate::policy::call::CallResponse;
use crate::policy::proxy_cache::NOT_KEPT;
use crate::policy::proxy_cache::store::{Entry, Key, Store};
use crate::policy::verdicts;

/// Seconds for which it is remembered under what an address's answers are kept.
const INDEX_KEPT: u64 = 7 * 86_400;
/// Seconds beyond freshness for which an answer with a validator is kept.
const STALE_KEPT: u64 = 86_400;
/// Most names in `Vary` that are followed.
const VARY_MAX: usize = 16;
/// What stands in a store's entry instead of a status: names that an address's answers vary by.
const INDEX: u16 = 0;

/// What keeping needs to know of a request that may be over.
pub struct Keeper {
    pub store: Arc<Store>,
    pub request: Fields,
    pub caller: String,
    pub asked_s: u64,
}

impl Keeper {
    pub fn entry(&self, status: u16, fields: &Fields, body: Bytes, now: u64) -> Option<(Entry, u64)> {
        entry(&self.request, status, fields, body, self.asked_s, now)
    }

    /// Keeps an answer under its address and what it varies by.
    pub fn put(&self, address: &Key, entry: Entry, keep_s: u64, now: u64) {
        let mut index = self.store.get(address, now).unwrap_or_else(|| Entry {
            status: INDEX,
            fields: Vec::new(),
            body: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            at_s: now,
            ttl_s: 0,
        });
        let vary = serve::fields_of(&entry);
        for value in vary.all(&names::VARY) {
            for name in String::from_utf8_lossy(value).split(',').map(str::trim).filter(|n| !n.is_empty()) {
                let name = FieldName::new(name);
                if index.fields.len() < VARY_MAX && !index.fields.iter().any(|(n, _)| *n == name) {
                    index.fields.push((name, String::new()));
                }
            }
        }
        index.at_s = now;
        let key = key_of(address, &index, &self.request, &self.caller);
        self.store.put(*address, index, INDEX_KEPT);
        // Counted from when it was made, which may have been before it came.
        self.store.put(key, entry, keep_s);
    }

    /// A kept answer, made fresh again by a 304.
    pub fn update(&self, key: Key, mut entry: Entry, response: &CallResponse, now: u64) -> Entry {
        const NOT_UPDATED: &[&str] = &["Content-Encoding", "Content-Type", "Content-Range", "Set-Cookie"];
        let new = kept_fields(&response.fields);
        let changes = |name: &FieldName| !NOT_UPDATED.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()));
        entry.fields.retain(|(name, _)| !changes(name) || !new.iter().any(|(n, _)| n == name));
        entry.fields.extend(new.into_iter().filter(|(name, _)| changes(name)));
        let fields = serve::fields_of(&entry);
        let lifetime = freshness::lifetime(&self.request, entry.status, &fields, now);
        entry.ttl_s = lifetime.unwrap_or(0);
        entry.at_s = now.saturating_sub(freshness::age(&response.fields, self.asked_s, now));
        if lifetime.is_some() {
            self.store.put(key, entry.clone(), entry.ttl_s.saturating_add(STALE_KEPT));
        } else {
            self.store.remove(&key);
        }
        entry
    }
}

/// An answer to keep, and for how many seconds from its making; `None` if it may not be kept or keeping it is of no use.
pub fn entry(
    request: &Fields,
    status: u16,
    fields: &Fields,
    body: Bytes,
    asked_s: u64,
    now: u64,
) -> Option<(Entry, u64)> {
    let ttl_s = freshness::lifetime(request, status, fields, now)?;
    let has_validator = fields.contains(&names::ETAG) || fields.contains(&FieldName::new("Last-Modified"));
    let said = Said::by(fields);
    let grace = ["stale-while-revalidate", "stale-if-error"].iter().filter_map(|d| said.seconds(d)).max();
    let grace = grace.unwrap_or(0).max(if has_validator || ttl_s > 0 { STALE_KEPT } else { 0 });
    if ttl_s == 0 && grace == 0 {
        return None;
    }
    let at_s = now.saturating_sub(freshness::age(fields, asked_s, now));
    let entry = Entry { status, fields: kept_fields(fields), body, at_s, ttl_s };
    Some((entry, ttl_s.saturating_add(grace)))
}

/// The fields that are kept: none of one connection, and none that say how old it is.
pub fn kept_fields(fields: &Fields) -> Vec<(FieldName, String)> {
    let named: Vec<String> = fields
        .all(&names::CONNECTION)
        .flat_map(|v| String::from_utf8_lossy(v).split(',').map(|n| n.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = fields.iter().map(|(name, value)| (FieldName::new(&text(name)), text(value)));
    all.filter(|(name, _)| {
        !NOT_KEPT.contains(name)
            && !["Age", "X-Cache-Status", "X-Cache-Key"].iter().any(|n| n.eq_ignore_ascii_case(name.as_str()))
            && !named.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()))
    })
    .collect()
}

/// What an answer is kept under: its address as it was last forgotten, the caller, and the fields that it varies by.
pub fn key_of(address: &Key, index: &Entry, request: &Fields, caller: &str) -> Key {
    let mut parts: Vec<Vec<u8>> = vec![address.to_vec(), index.body.to_vec(), caller.as_bytes().to_vec()];
    for (name, _) in &index.fields {
        // Lines of one name are one list, and spaces between its members mean nothing.
        let mut value = Vec::new();
        for line in request.all(name) {
            for member in line.split(|b| *b == b',') {
                value.extend_from_slice(member.trim_ascii());
                value.push(b',');
            }
        }
        value.push(u8::from(request.contains(name)));
        parts.push(value);
    }
    verdicts::key(parts.iter().map(Vec::as_slice))
}

pub fn pass_key(address: &Key) -> Key {
    verdicts::key([b"pass".as_slice(), address])
}
