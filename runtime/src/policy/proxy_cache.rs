//! `proxy-cache`: answers of upstreams, kept in memory and given again.

pub mod control;
mod rfc;
pub mod store;

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;

use control::{Directives, Media};
use rfc::RfcCache;
pub use rfc::has_tag;
use store::{Entry, Key, Store};

use super::form::Args;
use super::{Answer, Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::model::schema::{Field, HEADER, Kind, Record, TEXT};

const SECONDS: Kind = Kind::Int { min: 1, max: i64::MAX };

static PLUGIN: Descriptor = Descriptor {
    name: "proxy-cache",
    summary: "keep answers of upstreams in memory and give them again",
    doc: "\
## What it does
Keeps answers in memory and gives them to the next request for the same thing without asking the upstream.

## Why
The cheapest request is one that the upstream never sees.

## Example
```yaml
plugins:
  - name: proxy-cache
    config:
      strategy: memory
      cache_ttl: 30
      content_type: [application/json, \"application/json; charset=utf-8\"]
      vary_headers: [Accept-Language]
```

## Behaviour
An answer is kept if method, status and content type (its parameters included; `*` stands for any) are listed. What
tells requests apart is consumer (or credential), route, service, host, method, path, the arguments of the query in any order (or
those in `vary_query_params`), and the headers in `vary_headers`; `Vary` of the answer is ignored. A GET or HEAD with a body
bypasses the cache. `X-Cache-Status` says `Hit`,
`Miss`, `Refresh` (kept, but too old) or `Bypass` (not for the cache), `X-Cache-Key` what the answer is kept under, and
`Age` how old it is in seconds. Answers that set cookies, are longer than 8 MiB or have no body to keep (to `HEAD`) are
never kept.

With `cache_control` requests with `Authorization`, `no-store` or `no-cache` bypass the cache, so do answers with
`private`, `no-store` or `no-cache` or without a lifetime (`s-maxage`, `max-age`, `Expires`); `max-age`, `max-stale` and
`min-fresh` of a request are honoured, and `only-if-cached` is answered 504 where nothing is kept. The cache holds
128 MiB in all and gives up what was least recently used. It is each process's own, and is empty after a restart.
`DELETE /proxy-cache/KEY` and `DELETE /proxy-cache` of the admin listener make it forget.

With `mode: rfc9111` what is kept, and for how long, is what services say, as RFC 9111 has it for a shared cache:
`Cache-Control` (or `CDN-Cache-Control`), `Expires`, `Age`, `Vary`, a guess from `Last-Modified`, `Authorization`; the lists of
statuses and types and `cache_ttl` do not count. Consumers still share nothing. A kept answer that is too old is asked about
with `If-None-Match` and `If-Modified-Since` (`Revalidated`, or `Refresh` for a new one); conditions and single ranges of
clients are answered from what is kept; a method that changes something makes its address, `Location` and `Content-Location`
forgotten. `stale-while-revalidate` gives an old answer at once and asks later, `stale-if-error` gives it where the service fails
or cannot be reached (`Stale`), both by the answer's word or else the plugin's. Of requests for the same thing that is not
kept one goes to the service, and the others wait for it; what turns out not to be for the cache is waited for once in ten
seconds. Partial answers and answers with `Set-Cookie` are not kept.
",
    fields: &[
        Field::new("strategy", Kind::Enum(&["memory"]), "Where answers are kept.").required(),
        Field::new("response_code", Kind::List(&Kind::Int { min: 100, max: 900 }), "Statuses that are kept.")
            .default("[200,301,404]"),
        Field::new(
            "request_method",
            Kind::List(&Kind::Enum(&["HEAD", "GET", "POST", "PATCH", "PUT"])),
            "Methods whose answers are kept.",
        )
        .default(r#"["GET","HEAD"]"#),
        Field::new("content_type", Kind::List(&TEXT), "Content types that are kept, with their parameters.")
            .default(r#"["text/plain","application/json"]"#),
        Field::new("cache_ttl", SECONDS, "How long an answer is given again, in seconds.").default("300"),
        Field::new("storage_ttl", SECONDS, "How long an answer is kept, in seconds; else as long as it is given."),
        Field::new("cache_control", Kind::Bool, "Whether `Cache-Control` of requests and answers is heeded.")
            .default("false"),
        Field::new("ignore_uri_case", Kind::Bool, "Whether paths are the same in any case.").default("false"),
        Field::new("vary_query_params", Kind::List(&TEXT), "The arguments that tell requests apart; else all."),
        Field::new("vary_headers", Kind::List(&HEADER), "Headers that tell requests apart."),
        Field::new("mode", Kind::Enum(&["kong", "rfc9111"]), "Whether the fields above say what is kept, or the answers themselves.")
            .default("\"kong\"")
            .extension(),
        Field::new("stale_while_revalidate", Kind::Int { min: 0, max: 86_400 }, "Seconds beyond freshness for which an answer is given while a new one is got, where the answer does not say; of `rfc9111`.")
            .default("0")
            .extension(),
        Field::new("stale_if_error", Kind::Int { min: 0, max: 86_400 }, "Seconds beyond freshness for which an answer is given where there is no better one, where the answer does not say; of `rfc9111`.")
            .default("0")
            .extension(),
        Field::new("memory", Kind::Record(MEMORY), "Settings of the strategy `memory`."),
        Field::new("response_headers", Kind::Record(SHOWN), "Which headers tell the client of the cache."),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

const MEMORY: &[Field] = &[Field::new("dictionary_name", TEXT, "Caches of different names share nothing.")
    .default("\"kong_db_cache\"")];

const SHOWN: &[Field] = &[
    Field::new("age", Kind::Bool, "`Age`.").default("true"),
    Field::new("X-Cache-Status", Kind::Bool, "`X-Cache-Status`.").default("true"),
    Field::new("X-Cache-Key", Kind::Bool, "`X-Cache-Key`.").default("true"),
];

/// Longer answers are not kept; bytes.
const LONGEST: usize = 8 << 20;

/// Fields of one connection or one transfer, which are not kept.
const NOT_KEPT: &[FieldName] = &[
    names::CONNECTION,
    names::KEEP_ALIVE,
    names::PROXY_CONNECTION,
    names::TRANSFER_ENCODING,
    names::TE,
    names::TRAILER,
    names::UPGRADE,
    names::CONTENT_LENGTH,
];

/// See the module.
pub struct ProxyCache {
    store: Arc<Store>,
    dictionary: String,
    statuses: Vec<i64>,
    methods: Vec<String>,
    types: Vec<Media>,
    /// Seconds, as the next.
    ttl: u64,
    storage_ttl: Option<u64>,
    cache_control: bool,
    ignore_case: bool,
    vary_query: Vec<String>,
    vary_headers: Vec<FieldName>,
    /// The headers for the client, where they are wanted.
    age: Option<FieldName>,
    status: Option<FieldName>,
    key: Option<FieldName>,
    /// The other mode, which then does everything.
    rfc: Option<RfcCache>,
}

/// What became of a request at the cache, for the response's turn.
enum State {
    Bypass,
    /// To be kept under this key, unless the answer is not for the cache.
    Wanted {
        key: Key,
        status: &'static str,
    },
    /// An answer to keep: its fields are final, its body is still to come.
    Keeping {
        key: Key,
        entry: Entry,
        keep_s: u64,
    },
    Served,
}

impl Policy for ProxyCache {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let texts = |field| config.strings(field).into_iter().map(|t| t.value).collect::<Vec<_>>();
        let seconds = |field| config.int(field).and_then(|n| u64::try_from(n).ok());
        let mut types = Vec::new();
        for text in config.strings("content_type") {
            match Media::parse(&text) {
                Some(media) => types.push(media),
                None => {
                    let message = format!("`{}` is no content type", text.value);
                    cx.report(&codes::INVALID_VALUE, text.span, message);
                    return None;
                }
            }
        }
        let shown = |name: &str| {
            let wanted = config.record("response_headers").and_then(|r| r.bool_opt(name)).unwrap_or(true);
            wanted.then(|| FieldName::new(if name == "age" { "Age" } else { name }))
        };
        let rfc = config.str("mode") == Some("rfc9111");
        if rfc && config.given("cache_control") {
            let message = "`cache_control` has no effect: `rfc9111` always heeds it";
            cx.report(&codes::NO_EFFECT, config.span_of("cache_control"), message);
        }
        let dictionary = config.record("memory").and_then(|m| m.str("dictionary_name"));
        Some(Self {
            store: cx.shared.get(),
            dictionary: dictionary.unwrap_or_default().to_owned(),
            statuses: config
                .list("response_code")
                .iter()
                .filter_map(|v| match v.value {
                    crate::model::schema::Val::Int(n) => Some(n),
                    _ => None,
                })
                .collect(),
            methods: texts("request_method"),
            types,
            ttl: seconds("cache_ttl")?,
            storage_ttl: seconds("storage_ttl"),
            cache_control: config.bool("cache_control"),
            ignore_case: config.bool("ignore_uri_case"),
            vary_query: texts("vary_query_params"),
            vary_headers: texts("vary_headers").iter().map(|n| FieldName::new(n)).collect(),
            age: shown("age"),
            status: shown("X-Cache-Status"),
            key: shown("X-Cache-Key"),
            rfc: rfc.then(|| RfcCache {
                store: cx.shared.get(),
                turns: cx.shared.get(),
                dictionary: dictionary.unwrap_or_default().to_owned(),
                methods: texts("request_method"),
                stale_while_revalidate: seconds("stale_while_revalidate").unwrap_or(0),
                stale_if_error: seconds("stale_if_error").unwrap_or(0),
                age: shown("age").is_some(),
                status: shown("X-Cache-Status"),
                key: shown("X-Cache-Key"),
            }),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if let Some(rfc) = &self.rfc {
            return rfc.request(x);
        }
        let asked = Directives::of(&x.request.fields);
        let heeded = self.cache_control.then_some(&asked);
        let refuses = |d: &Directives| {
            d.has("no-store") || d.has("no-cache") || x.request.fields.contains(&names::AUTHORIZATION)
        };
        if !self.methods.contains(&x.request.method) || has_stray_body(x) || heeded.is_some_and(refuses) {
            x.keep(State::Bypass);
            return Flow::Next;
        }
        let key = self.key_of(x);
        let now = x.now.unix_ms / 1000;
        let Some(entry) = self.store.get(&key, now) else {
            x.keep(State::Wanted { key, status: "Miss" });
            return match heeded {
                Some(d) if d.has("only-if-cached") => {
                    x.keep(State::Served);
                    Flow::Reply(Reply::empty(504))
                }
                _ => Flow::Next,
            };
        };
        if !self.may_serve(&entry, now, heeded) {
            x.keep(State::Wanted { key, status: "Refresh" });
            return Flow::Next;
        }
        x.keep(State::Served);
        Flow::Reply(self.hit(entry, &key, now))
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        self.rfc.as_ref().map_or(Flow::Next, |rfc| rfc.resume(x, answer))
    }

    fn response(&self, x: &mut Exchange) {
        if let Some(rfc) = &self.rfc {
            return rfc.response(x);
        }
        let (key, status) = match x.kept::<State>() {
            Some(State::Wanted { key, status }) => (*key, *status),
            Some(State::Bypass) => return self.tell(&self.status, &mut x.response.fields, "Bypass"),
            _ => return,
        };
        self.tell(&self.key, &mut x.response.fields, &hex(&key));
        let Some(ttl) = self.lifetime(x) else {
            x.keep(State::Bypass);
            return self.tell(&self.status, &mut x.response.fields, "Bypass");
        };
        let kept = |name: &[u8]| {
            let name = FieldName::new(&String::from_utf8_lossy(name));
            let own = [&self.age, &self.status, &self.key].into_iter().flatten().any(|n| *n == name);
            !own && !NOT_KEPT.contains(&name)
        };
        let fields = x.response.fields.iter().filter(|(name, _)| kept(name));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entry = Entry {
            status: x.response.status,
            fields: fields.map(|(n, v)| (FieldName::new(&text(n)), text(v))).collect(),
            body: Bytes::new(),
            at_s: x.now.unix_ms / 1000,
            ttl_s: ttl,
        };
        self.tell(&self.status, &mut x.response.fields, status);
        x.keep(State::Keeping { key, entry, keep_s: self.storage_ttl.unwrap_or(ttl) });
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        match &self.rfc {
            Some(rfc) => rfc.wants_response_body(x),
            None => matches!(x.kept::<State>(), Some(State::Keeping { .. })),
        }
    }

    fn response_body(&self, x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        if let Some(rfc) = &self.rfc {
            rfc.keep_body(x, &body);
        } else if body.len() <= LONGEST
            && let Some(State::Keeping { key, entry, keep_s }) = x.kept()
        {
            let entry = Entry { body: Bytes::copy_from_slice(&body), ..entry.clone() };
            self.store.put(*key, entry, *keep_s);
        }
        Ok(body)
    }
}

/// Whether a request that needs no body has one: it is not part of the key, and the answer may depend on it.
fn has_stray_body(x: &Exchange) -> bool {
    let request = &x.request;
    let none = |length: &str| length.bytes().all(|b| b == b'0');
    matches!(request.method.as_str(), "GET" | "HEAD")
        && (request.fields.contains(&names::TRANSFER_ENCODING)
            || !request.fields.text(&names::CONTENT_LENGTH).is_none_or(none))
}

impl ProxyCache {
    fn key_of(&self, x: &Exchange) -> Key {
        let request = &x.request;
        let mut context = digest::Context::new(&digest::SHA256);
        // Every part ends with a byte that none of them can contain, so no two requests run together.
        let mut part = |text: &[u8]| {
            context.update(text);
            context.update(&[0]);
        };
        part(self.dictionary.as_bytes());
        part(caller(x).as_bytes());
        part(other_service(x).as_bytes());
        part(
            x.route
                .and_then(|r| x.snapshot.routes.get(r.0 as usize))
                .map_or("", |r| r.id.as_str())
                .as_bytes(),
        );
        // Not part of Kong's key. What a service answers may depend on the host that it is told of, and whoever may choose
        // the host must not choose what others get.
        part(request.host.to_ascii_lowercase().as_bytes());
        part(request.method.as_bytes());
        if self.ignore_case {
            part(request.path.to_lowercase().as_bytes());
        } else {
            part(request.path.as_bytes());
        }
        let mut args = Args::parse(request.query.as_deref().unwrap_or(""));
        if !self.vary_query.is_empty() {
            args.retain(|name| self.vary_query.iter().any(|v| v == name));
        }
        part(args.encode().as_bytes());
        for name in &self.vary_headers {
            for value in request.fields.all(name) {
                part(value);
            }
            part(b"");
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// Whether a kept answer is fresh enough for this request.
    fn may_serve(&self, entry: &Entry, now: u64, heeded: Option<&Directives>) -> bool {
        let age = now.saturating_sub(entry.at_s);
        let Some(asked) = heeded else { return age <= self.ttl };
        let stale = age.saturating_sub(entry.ttl_s);
        let left = entry.ttl_s.saturating_sub(age);
        asked.seconds("max-age").is_none_or(|max| age <= max)
            && stale <= asked.seconds("max-stale").unwrap_or(0)
            && asked.seconds("min-fresh").is_none_or(|min| left >= min)
    }

    fn hit(&self, entry: Entry, key: &Key, now: u64) -> Reply {
        let age = now.saturating_sub(entry.at_s).to_string();
        let mut reply =
            Reply { status: entry.status, body: entry.body, fields: entry.fields, ..Reply::default() };
        for (name, value) in [(&self.age, age), (&self.status, "Hit".to_owned()), (&self.key, hex(key))] {
            if let Some(name) = name {
                reply.fields.push((name.clone(), value));
            }
        }
        reply
    }

    /// For how many seconds the answer may be given again; `None` if it is not for the cache.
    fn lifetime(&self, x: &Exchange) -> Option<u64> {
        let (response, fields) = (&x.response, &x.response.fields);
        let too_long = fields
            .text(&names::CONTENT_LENGTH)
            .is_some_and(|t| t.parse::<usize>().is_ok_and(|length| length > LONGEST));
        let media = Media::parse(fields.text(&names::CONTENT_TYPE)?)?;
        let listed = self.statuses.contains(&i64::from(response.status))
            && self.types.iter().any(|listed| listed.admits(&media));
        if x.local_response || too_long || !listed || fields.contains(&FieldName::new("Set-Cookie")) {
            return None;
        }
        if !self.cache_control {
            return Some(self.ttl);
        }
        let said = Directives::of(fields);
        if ["private", "no-store", "no-cache"].iter().any(|d| said.has(d)) {
            return None;
        }
        control::lifetime(&said, fields, x.now.unix_ms / 1000).filter(|ttl| *ttl > 0)
    }

    fn tell(&self, name: &Option<FieldName>, fields: &mut Fields, value: &str) {
        if let Some(name) = name {
            fields.set(name, value);
        }
    }
}

/// Who shares kept answers: a consumer's requests, or those of one credential where it belongs to no consumer. Nobody's are
/// everybody's.
fn caller(x: &Exchange) -> Cow<'_, str> {
    if let Some(consumer) = x.consumer() {
        return Cow::Borrowed(&consumer.id);
    }
    let Some(identity) = x.identity.as_ref().filter(|i| !i.anonymous) else { return Cow::Borrowed("") };
    let said = identity.credential_id.as_deref().or(identity.credential.as_deref()).unwrap_or_default();
    let claims = identity.claims.as_ref().map(|c| c.to_string()).unwrap_or_default();
    Cow::Owned(format!("{said}\n{claims}\n{}", identity.groups.join("\n")))
}

/// The service that a policy chose instead of the route's own: its answers are not the other's.
fn other_service(x: &Exchange) -> &str {
    let own = x.route.and_then(|r| x.snapshot.routes.get(r.0 as usize)).and_then(|r| r.service);
    let chosen = x.service.filter(|s| Some(*s) != own && x.route.is_some());
    chosen.and_then(|s| x.snapshot.services.get(s.0 as usize)).map_or("", |s| s.id.as_str())
}

fn hex(key: &Key) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
