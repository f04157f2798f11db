//! `/proxy-cache`: the cache of the plugin of that name, with Kong's endpoints.
//!
//! `GET /proxy-cache/KEY` shows what is kept under a key (`X-Cache-Key`), `DELETE` forgets it, and `DELETE /proxy-cache`
//! forgets everything. Emptying a cache sends all its load to the services, so it is allowed from this machine only.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::{json, message};
use crate::clock;
use crate::policy::proxy_cache::store::{Key, Store};
use crate::snapshot::shared::Shared;

/// Answers a request for the cache.
pub fn answer(method: &Method, path: &str, peer: SocketAddr, shared: &Shared) -> Response<Full<Bytes>> {
    let store = shared.get::<Store>();
    let name = path.trim_start_matches("/proxy-cache").trim_matches('/');
    let deletes = *method == Method::DELETE;
    if deletes && !peer.ip().to_canonical().is_loopback() {
        return message(StatusCode::FORBIDDEN, "the cache is emptied from this machine only");
    }
    if name.is_empty() {
        if !deletes {
            return message(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        store.clear();
        return empty();
    }
    let Some(key) = key(name) else {
        return message(
            StatusCode::NOT_FOUND,
            "no such key: keys are 64 hexadecimal digits, as in X-Cache-Key",
        );
    };
    match *method {
        Method::DELETE if store.remove(&key) => empty(),
        Method::GET | Method::HEAD => match store.get(&key, clock::unix_s()) {
            Some(entry) if entry.status >= 100 => {
                let headers: serde_json::Map<String, serde_json::Value> =
                    entry.fields.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_str().into())).collect();
                let shown = serde_json::json!({
                    "status": entry.status, "headers": headers, "body_len": entry.body.len(),
                    "timestamp": entry.at_s, "ttl": entry.ttl_s,
                });
                json(StatusCode::OK, format!("{shown}\n"))
            }
            _ => message(StatusCode::NOT_FOUND, "nothing is kept under this key"),
        },
        Method::DELETE => message(StatusCode::NOT_FOUND, "nothing is kept under this key"),
        _ => message(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
    }
}

fn key(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

fn empty() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
