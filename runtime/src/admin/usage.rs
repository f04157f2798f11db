//! `GET /usage`: who has used how much of which limit. `consumer`, `plan` and `route` in the query choose; each may come
//! several times. `keys` also lists so many counters of each limit that are of no consumer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::clock;
use crate::policy::Step;
use crate::usage::{self, Filter, Stores};
use crate::worker::context::Common;

/// Most counters of one limit that are of no consumer.
const MOST_KEYS: usize = 10_000;

/// Answers the request with this query.
pub(super) async fn report(query: &str, common: &Arc<Common>) -> Response<Full<Bytes>> {
    let refused =
        |status, why: &str| super::json(status, format!("{}\n", serde_json::json!({ "message": why })));
    let filter = match filter(query) {
        Ok(filter) => filter,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    let snapshot = common.publisher.current();
    if let Err(why) = filter.check(&snapshot) {
        return refused(StatusCode::BAD_REQUEST, &why);
    }
    // Reading many counters, or asking Redis, takes a while.
    let read = tokio::task::spawn_blocking(move || {
        let counters = usage::counters(&snapshot, &filter);
        let limiters = snapshot.steps.iter().filter_map(|s| match s {
            Step::RateLimiting(policy) => Some(policy),
            _ => None,
        });
        match limiters.map(|p| p.local_store()).next() {
            Some(local) => {
                let mut rows = usage::rows(&counters, Stores { local })?;
                rows.extend(usage::fullest(&snapshot, &filter, &counters, Stores { local })?);
                std::io::Result::Ok(rows)
            }
            None => Ok(Vec::new()),
        }
    });
    match read.await {
        Ok(Ok(rows)) => super::json(StatusCode::OK, format!("{}\n", usage::to_json(&rows, clock::unix_ms()))),
        Ok(Err(e)) => refused(StatusCode::BAD_GATEWAY, &format!("counters cannot be read: {e}")),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "counters cannot be read"),
    }
}

fn filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescape(value).ok_or_else(|| format!("the value of `{name}` is badly escaped"))?;
        match name {
            "consumer" => filter.consumers.push(value),
            "plan" => filter.plans.push(value),
            "route" => filter.routes.push(value),
            "keys" => match value.parse() {
                Ok(keys) if keys <= MOST_KEYS => filter.keys = keys,
                _ => return Err(format!("`keys` is no number from 0 to {MOST_KEYS}")),
            },
            _ => {
                return Err(format!(
                    "unknown parameter `{name}`: there are `consumer`, `plan`, `route` and `keys`"
                ));
            }
        }
    }
    Ok(filter)
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            b => b,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_choose() {
        let got = filter("consumer=a%20b&consumer=c&plan=%C3%A9").unwrap();
        assert_eq!(
            (got.consumers, got.plans),
            (vec!["a b".to_owned(), "c".to_owned()], vec!["é".to_owned()])
        );
        assert_eq!(filter("").unwrap(), Filter::default());
        for bad in ["user=x", "keys=x", "keys=10001", "plan=%", "plan=%zz", "route=%FF"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
