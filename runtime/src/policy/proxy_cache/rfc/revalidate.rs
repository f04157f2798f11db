//! Whether a kept answer that is too old still holds: the question to the service, and what its answer means.

use bytes::Bytes;

use super::freshness::Said;
use super::keep::kept_fields;
use super::{RfcCache, State, Turn, serve};
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::policy::call::{Call, CallError, CallResponse, CallTo, Done};
use crate::policy::proxy_cache::LONGEST;
use crate::policy::proxy_cache::control::Directives;
use crate::policy::proxy_cache::store::{Entry, Key};
use crate::policy::{Flow, Reply};

/// What is being asked of the service for a kept answer that is too old.
pub(super) struct Revalidating {
    pub address: Key,
    pub key: Key,
    pub entry: Entry,
}

impl RfcCache {
    /// The question whether a kept answer still holds; `None` where it has nothing to ask by or nobody to ask.
    pub(super) fn conditional(&self, x: &Exchange, entry: &Entry) -> Option<Call> {
        let service = x.service?;
        let mut fields = x.request.fields.clone();
        for name in
            ["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"]
        {
            fields.remove(&FieldName::new(name));
        }
        let kept = serve::fields_of(entry);
        if let Some(etag) = kept.text(&names::ETAG) {
            fields.push(b"If-None-Match", etag.as_bytes());
        }
        if let Some(modified) = kept.text(&FieldName::new("Last-Modified")) {
            fields.push(b"If-Modified-Since", modified.as_bytes());
        }
        let path = match &x.request.query {
            Some(query) => format!("{}?{query}", x.upstream.path),
            None => x.upstream.path.clone(),
        };
        let timeout = x.snapshot.services[service.0 as usize].read_timeout;
        // What is kept answers GET, whatever is asked now.
        Some(Call {
            to: CallTo::Exactly(service),
            method: "GET".to_owned(),
            path,
            fields,
            body: Bytes::new(),
            timeout,
            max_body: LONGEST,
        })
    }

    /// What the service says of a kept answer.
    pub(super) fn revalidated(
        &self,
        x: &mut Exchange,
        asked: Revalidating,
        result: Result<CallResponse, CallError>,
    ) -> Flow {
        let Revalidating { address, key, entry } = asked;
        let now = clock::unix_s();
        let said = Said::by(&serve::fields_of(&entry));
        let stale_for = now.saturating_sub(entry.at_s).saturating_sub(entry.ttl_s);
        let of_request = Directives::of(&x.request.fields).whole_seconds("stale-if-error");
        let sie = said.seconds("stale-if-error").or(of_request).unwrap_or(self.stale_if_error);
        let spare = stale_for <= sie && sie > 0 && !said.is_strict();
        match result {
            Ok(response) if response.status == 304 => {
                let entry = self.keeper(x).update(key, entry, &response, now);
                x.take::<Turn>();
                Flow::Reply(self.serve(x, &key, &entry, "Revalidated"))
            }
            Ok(response) if response.status >= 500 && spare => {
                x.take::<Turn>();
                Flow::Reply(self.serve(x, &key, &entry, "Stale"))
            }
            Ok(response) => {
                let fields = response.fields;
                let new = self.entry(x, response.status, &fields, response.body.clone(), now);
                match new.clone() {
                    Some((new, keep_s)) => self.put(x, &address, new, keep_s),
                    // What was kept is not what the service has now.
                    None if response.status < 500 => drop(self.store.remove(&key)),
                    None => {}
                }
                x.take::<Turn>();
                let entry = new.map_or_else(
                    || Entry {
                        status: response.status,
                        fields: kept_fields(&fields),
                        body: response.body,
                        at_s: now,
                        ttl_s: 0,
                    },
                    |(entry, _)| entry,
                );
                x.keep(State::Served);
                let mut reply = serve::reply(&x.request.fields, &entry, x.request.method == "HEAD");
                self.tell(&mut reply, &key, "Refresh");
                Flow::Reply(reply)
            }
            // Too long for the cache: the answer goes straight through.
            Err(CallError::TooLarge) => {
                x.take::<Turn>();
                x.keep(State::Bypass);
                Flow::Next
            }
            // Cut off from the service, what is known is better than nothing, unless that is forbidden.
            Err(_) if spare => {
                x.take::<Turn>();
                Flow::Reply(self.serve(x, &key, &entry, "Stale"))
            }
            Err(error) => {
                x.take::<Turn>();
                x.keep(State::Served);
                let (status, message) = match error {
                    CallError::Timeout => (504, "The upstream server is timing out"),
                    _ => (502, "An invalid response was received from the upstream server"),
                };
                Flow::Reply(Reply::gateway_error(&x.request, x.request_id, status, message))
            }
        }
    }

    /// What is done with the answer to a question that nobody waits for.
    pub(super) fn refresh_later(
        &self,
        x: &Exchange,
        address: Key,
        key: Key,
        entry: Entry,
        turn: Turn,
    ) -> Done {
        let keeper = self.keeper(x);
        Done::new(move |result| {
            let now = clock::unix_s();
            match result {
                Ok(response) if response.status == 304 => {
                    keeper.update(key, entry, &response, now);
                }
                Ok(response) => {
                    if let Some((new, keep_s)) =
                        keeper.entry(response.status, &response.fields, response.body, now)
                    {
                        keeper.put(&address, new, keep_s, now);
                    } else if response.status < 500 {
                        keeper.store.remove(&key);
                    }
                }
                // It is asked again when the next request comes.
                Err(_) => {}
            }
            drop(turn);
        })
    }
}
