//! The cache as RFC 9111 describes a shared one: what may be kept is what the service says.

mod freshness;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use freshness::Said;

use super::control::Directives;
use super::store::{Entry, Key, Store};
use super::{LONGEST, NOT_KEPT, caller, hex, other_service};
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::policy::call::{Call, CallError, CallResponse, CallTo, Done};
use crate::policy::turn::{Guard, Role, Turns};
use crate::policy::{Answer, Effect, Flow, Reply, verdicts};

/// Seconds for which it is remembered under what an address's answers are kept.
const INDEX_KEPT: u64 = 7 * 86_400;
/// Seconds for which it is remembered that an address's answers are not for the cache, so that nobody waits for one.
const PASS_KEPT: u64 = 10;
/// Seconds beyond freshness for which an answer with a validator is kept.
const STALE_KEPT: u64 = 86_400;
/// Most names in `Vary` that are followed.
const VARY_MAX: usize = 16;

/// What stands in a store's entry instead of a status: names that an address's answers vary by.
const INDEX: u16 = 0;
/// Answers are not for the cache.
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

/// What is being asked of the service for a kept answer that is too old.
struct Revalidating {
    address: Key,
    key: Key,
    entry: Entry,
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

    /// The question whether a kept answer still holds; `None` where it has nothing to ask by or nobody to ask.
    fn conditional(&self, x: &Exchange, entry: &Entry) -> Option<Call> {
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
    fn revalidated(
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
                let entry = self.update(x, key, entry, &response, now);
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
                    Some((new, keep_s)) => drop(self.put(x, &address, new, keep_s)),
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
    fn refresh_later(&self, x: &Exchange, address: Key, key: Key, entry: Entry, turn: Turn) -> Done {
        let later = Later {
            store: Arc::clone(&self.store),
            request: x.request.fields.clone(),
            caller: caller(x).into_owned(),
            asked_s: x.now.unix_ms / 1000,
        };
        Done::new(move |result| {
            let now = clock::unix_s();
            match result {
                Ok(response) if response.status == 304 => {
                    later.update(key, entry, &response, now);
                }
                Ok(response) => {
                    if let Some((new, keep_s)) =
                        later.entry(response.status, &response.fields, response.body, now)
                    {
                        later.put(&address, new, keep_s, now);
                    } else if response.status < 500 {
                        later.store.remove(&key);
                    }
                }
                // It is asked again when the next request comes.
                Err(_) => {}
            }
            drop(turn);
        })
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

    fn later_of(&self, x: &Exchange) -> Later {
        Later {
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
        entry_of(&x.request.fields, status, fields, body, x.now.unix_ms / 1000, now)
    }

    fn put(&self, x: &Exchange, address: &Key, entry: Entry, keep_s: u64) -> Key {
        self.later_of(x).put(address, entry, keep_s, clock::unix_s())
    }

    fn update(&self, x: &Exchange, key: Key, entry: Entry, response: &CallResponse, now: u64) -> Entry {
        self.later_of(x).update(key, entry, response, now)
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

/// What keeping needs to know of a request that may be over.
struct Later {
    store: Arc<Store>,
    request: Fields,
    caller: String,
    asked_s: u64,
}

impl Later {
    fn entry(&self, status: u16, fields: &Fields, body: Bytes, now: u64) -> Option<(Entry, u64)> {
        entry_of(&self.request, status, fields, body, self.asked_s, now)
    }

    /// Keeps an answer under its address and what it varies by.
    fn put(&self, address: &Key, entry: Entry, keep_s: u64, now: u64) -> Key {
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
        key
    }

    /// A kept answer, made fresh again by a 304.
    fn update(&self, key: Key, mut entry: Entry, response: &CallResponse, now: u64) -> Entry {
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
fn entry_of(
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
fn kept_fields(fields: &Fields) -> Vec<(FieldName, String)> {
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
fn key_of(address: &Key, index: &Entry, request: &Fields, caller: &str) -> Key {
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

fn pass_key(address: &Key) -> Key {
    verdicts::key([b"pass".as_slice(), address])
}
