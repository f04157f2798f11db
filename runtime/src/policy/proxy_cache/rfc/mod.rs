//! The cache as RFC 9111 describes a shared one: what may be kept is what the service says.

mod freshness;
mod keep;
mod revalidate;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use freshness::Said;
use keep::{Keeper, key_of, pass_key};
use revalidate::Revalidating;
pub use serve::has_tag;

use super::control::Directives;
use super::store::{Entry, Key, Store};
use super::{LONGEST, caller, hex, other_service};
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::policy::call::CallError;
use crate::policy::turn::{Guard, Role, Turns};
use crate::policy::{Answer, Effect, Flow, Reply, verdicts};

/// Seconds for which it is remembered that an address's answers are not for the cache, so that nobody waits for one.
const PASS_KEPT: u64 = 10;

/// What stands in a store's entry instead of a status: answers are not for the cache.
const PASS: u16 = 1;

/// See the module.
pub struct RfcCache {
    pub store: Arc<Store>,
    pub turns: Arc<Turns<Key>>,
    pub dictionary: String,
    pub methods: Vec<String>,
    /// Seconds, where the answers do not say.
    pub stale_while_revalidate: u64,
    pub stale_if_error: u64,
    pub age: bool,
    pub status: Option<FieldName>,
    pub key: Option<FieldName>,
}

/// What became of a request, for its later turns.
enum State {
    Bypass,
    /// It changes something: what is kept for its address is forgotten if it succeeds.
    Unsafe {
        address: Key,
    },
    /// Its answer may be kept.
    Wanted {
        address: Key,
        status: &'static str,
    },
    Keeping {
        key: Key,
        entry: Entry,
        keep_s: u64,
    },
    Served,
}

type Turn = Guard<Key>;

impl RfcCache {
    /// The request's turn.
    pub fn request(&self, x: &mut Exchange) -> Flow {
        let address = self.address(x, &x.request.path, x.request.query.as_deref());
        if !matches!(x.request.method.as_str(), "GET" | "HEAD") {
            let safe = matches!(x.request.method.as_str(), "OPTIONS" | "TRACE");
            x.keep(if safe { State::Bypass } else { State::Unsafe { address } });
            return Flow::Next;
        }
        if !self.methods.contains(&x.request.method) {
            x.keep(State::Bypass);
            return Flow::Next;
        }
        self.look(x, address, true)
    }

    /// The turn goes on.
    pub fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Landing => {
                let address = self.address(x, &x.request.path, x.request.query.as_deref());
                self.look(x, address, false)
            }
            Answer::Call(mut results) => {
                let Some(asked) = x.take::<Revalidating>() else { return Flow::Next };
                let result = results.pop().unwrap_or(Err(CallError::Invalid));
                self.revalidated(x, asked, result)
            }
            Answer::Begun => match x.take::<Revalidating>() {
                Some(asked) => Flow::Reply(self.serve(x, &asked.key, &asked.entry, "Stale")),
                None => Flow::Next,
            },
            _ => Flow::Next,
        }
    }

    /// Looks for an answer; `may_wait` for one that somebody else is about to get.
    fn look(&self, x: &mut Exchange, address: Key, may_wait: bool) -> Flow {
        let asked = Directives::of(&x.request.fields);
        let now = x.now.unix_ms / 1000;
        let no_cache = asked.has("no-cache")
            || (asked.is_empty()
                && x.request.fields.text(&FieldName::new("Pragma")).is_some_and(|p| p == "no-cache"));
        let found = if asked.has("no-store") { None } else { self.find(x, &address, now) };
        let Some((key, entry)) = found else {
            if asked.has("only-if-cached") {
                x.keep(State::Served);
                return Flow::Reply(Reply::empty(504));
            }
            return self.miss(x, address, "Miss", may_wait && !asked.has("no-store"));
        };
        let said = Said::by(&serve::fields_of(&entry));
        let age = now.saturating_sub(entry.at_s);
        let fresh = age < entry.ttl_s && !said.has("no-cache");
        let wanted = asked.seconds("max-age").is_none_or(|max| age <= max)
            && asked.seconds("min-fresh").is_none_or(|min| entry.ttl_s.saturating_sub(age) >= min);
        if fresh && wanted && !no_cache {
            return Flow::Reply(self.serve(x, &key, &entry, "Hit"));
        }
        let stale_for = age.saturating_sub(entry.ttl_s);
        let lenient = !said.is_strict() && !no_cache && wanted;
        if lenient && asked.seconds("max-stale").is_some_and(|most| stale_for <= most) {
            return Flow::Reply(self.serve(x, &key, &entry, "Stale"));
        }
        if asked.has("only-if-cached") {
            x.keep(State::Served);
            return Flow::Reply(Reply::empty(504));
        }
        let Some(call) = self.conditional(x, &entry) else { return self.miss(x, address, "Refresh", false) };
        let swr = said.seconds("stale-while-revalidate").unwrap_or(self.stale_while_revalidate);
        let turn = Turns::take(&self.turns, &key);
        if lenient && stale_for < swr {
            return match turn {
                Role::Leader(turn) => {
                    let done = self.refresh_later(x, address, key, entry.clone(), turn);
                    x.keep(Revalidating { address, key, entry });
                    Flow::Await(Effect::Later(Box::new(call), done))
                }
                // Somebody is at it.
                Role::Follower(_) | Role::Alone => Flow::Reply(self.serve(x, &key, &entry, "Stale")),
            };
        }
        match turn {
            Role::Follower(turn) if may_wait && !no_cache => {
                return Flow::Await(Effect::Landing(turn, self.patience(x)));
            }
            Role::Leader(turn) => x.keep::<Turn>(turn),
            _ => {}
        }
        x.keep(Revalidating { address, key, entry });
        Flow::Await(Effect::Call(vec![call]))
    }

    /// Nothing is kept: the service is asked, by one of those who want the same.
    fn miss(&self, x: &mut Exchange, address: Key, status: &'static str, may_wait: bool) -> Flow {
        let collapses = may_wait
            && x.request.method == "GET"
            && !x.request.fields.contains(&names::AUTHORIZATION)
            && !["Range", "If-None-Match", "If-Modified-Since"]
                .iter()
                .any(|n| x.request.fields.contains(&FieldName::new(n)))
            && self.store.get(&pass_key(&address), x.now.unix_ms / 1000).is_none();
        if collapses {
            match Turns::take(&self.turns, &address) {
                Role::Follower(turn) => return Flow::Await(Effect::Landing(turn, self.patience(x))),
                Role::Leader(turn) => x.keep::<Turn>(turn),
                Role::Alone => {}
            }
        }
        x.keep(State::Wanted { address, status });
        Flow::Next
    }

    /// How long to wait for somebody else: no longer than for the service.
    fn patience(&self, x: &Exchange) -> Duration {
        x.service.map_or(Duration::from_secs(10), |s| x.snapshot.services[s.0 as usize].read_timeout)
    }

    /// The response's turn.
    pub fn response(&self, x: &mut Exchange) {
        let (address, status) = match x.kept::<State>() {
            Some(State::Wanted { address, status }) => (*address, *status),
            Some(State::Unsafe { address }) => {
                let address = *address;
                return self.forget(x, &address);
            }
            Some(State::Bypass) => return self.show(&mut x.response.fields, "Bypass"),
            _ => return,
        };
        let now = clock::unix_s();
        let long = |t: &str| t.parse::<usize>().is_ok_and(|length| length > LONGEST);
        let too_long = x.response.fields.text(&names::CONTENT_LENGTH).is_some_and(long);
        let fits = x.request.method == "GET" && !x.local_response && !too_long;
        let entry =
            if fits { self.entry(x, x.response.status, &x.response.fields, Bytes::new(), now) } else { None };
        let Some((entry, keep_s)) = entry else {
            if fits || x.local_response {
                let pass =
                    Entry { status: PASS, fields: Vec::new(), body: Bytes::new(), at_s: now, ttl_s: 0 };
                self.store.put(pass_key(&address), pass, PASS_KEPT);
            }
            // Nobody need wait for what is not kept.
            x.take::<Turn>();
            x.keep(State::Bypass);
            return self.show(&mut x.response.fields, if status == "Miss" { "Miss" } else { "Bypass" });
        };
        self.show(&mut x.response.fields, status);
        if x.response.status == 204 {
            // No body comes that could be waited for.
            self.put(x, &address, entry, keep_s);
            x.take::<Turn>();
            return x.keep(State::Served);
        }
        x.keep(State::Keeping { key: address, entry, keep_s });
    }

    /// Whether the body is to be kept.
    pub fn wants_response_body(&self, x: &Exchange) -> bool {
        matches!(x.kept::<State>(), Some(State::Keeping { .. }))
    }

    /// The whole body came.
    pub fn keep_body(&self, x: &mut Exchange, body: &[u8]) {
        if let Some(State::Keeping { key: address, entry, keep_s }) = x.take::<State>() {
            if body.len() <= LONGEST {
                let entry = Entry { body: Bytes::copy_from_slice(body), ..entry };
                self.put(x, &address, entry, keep_s);
            }
            x.keep(State::Served);
        }
        x.take::<Turn>();
    }

    fn serve(&self, x: &mut Exchange, key: &Key, entry: &Entry, status: &str) -> Reply {
        x.keep(State::Served);
        let mut reply = serve::reply(&x.request.fields, entry, x.request.method == "HEAD");
        let age = clock::unix_s().saturating_sub(entry.at_s);
        if self.age {
            reply.fields.push((FieldName::new("Age"), age.to_string()));
        }
        self.tell(&mut reply, key, status);
        reply
    }

    fn tell(&self, reply: &mut Reply, key: &Key, status: &str) {
        for (name, value) in [(&self.status, status.to_owned()), (&self.key, hex(key))] {
            if let Some(name) = name {
                reply.fields.push((name.clone(), value));
            }
        }
    }

    fn show(&self, fields: &mut Fields, status: &str) {
        if let Some(name) = &self.status {
            fields.set(name, status);
        }
    }

    /// What all answers for an address are found by.
    fn address(&self, x: &Exchange, path: &str, query: Option<&str>) -> Key {
        let route = x.route.and_then(|r| x.snapshot.routes.get(r.0 as usize)).map_or("", |r| r.id.as_str());
        let host = x.request.host.to_ascii_lowercase();
        let query = query.unwrap_or("\u{1}");
        verdicts::key([
            b"rfc".as_slice(),
            self.dictionary.as_bytes(),
            route.as_bytes(),
            other_service(x).as_bytes(),
            host.as_bytes(),
            path.as_bytes(),
            query.as_bytes(),
        ])
    }

    /// A kept answer for this very request.
    fn find(&self, x: &Exchange, address: &Key, now: u64) -> Option<(Key, Entry)> {
        let index = self.store.get(address, now)?;
        let key = key_of(address, &index, &x.request.fields, &caller(x));
        let entry = self.store.get(&key, now)?;
        (entry.status >= 200).then_some((key, entry))
    }

    fn keeper(&self, x: &Exchange) -> Keeper {
        Keeper {
            store: Arc::clone(&self.store),
            request: x.request.fields.clone(),
            caller: caller(x).into_owned(),
            asked_s: x.now.unix_ms / 1000,
        }
    }

    fn entry(
        &self,
        x: &Exchange,
        status: u16,
        fields: &Fields,
        body: Bytes,
        now: u64,
    ) -> Option<(Entry, u64)> {
        keep::entry(&x.request.fields, status, fields, body, x.now.unix_ms / 1000, now)
    }

    fn put(&self, x: &Exchange, address: &Key, entry: Entry, keep_s: u64) {
        self.keeper(x).put(address, entry, keep_s, clock::unix_s());
    }

    /// A change that succeeded makes what is kept for its address, and for those that it names, wrong.
    fn forget(&self, x: &mut Exchange, address: &Key) {
        if !(200..400).contains(&x.response.status) {
            return;
        }
        self.store.remove(address);
        for name in ["Location", "Content-Location"] {
            let Some(to) = x.response.fields.text(&FieldName::new(name)) else { continue };
            let local = match to.split_once("://") {
                None => to,
                Some((_, rest)) => match rest.find('/') {
                    Some(at) if rest[..at].eq_ignore_ascii_case(&x.request.host) => &rest[at..],
                    _ => continue,
                },
            };
            if local.starts_with('/') && !local.starts_with("//") {
                let (path, query) = match local.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (local, None),
                };
                let other = self.address(x, path, query);
                self.store.remove(&other);
            }
        }
    }
}
