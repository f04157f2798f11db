//! `oauth2-introspection`: opaque access tokens, judged by the server that issued them (RFC 7662).

mod answer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use self::answer::{Verdict, read};
use super::call::{Call, CallTo, Endpoint, Transport};
use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::verdicts::{self, Asking, Look, Stores, Verdicts, Waiting};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::clock;
use crate::diag::codes;
use crate::exchange::{Exchange, Identity};
use crate::message::{FieldName, Fields, names};
use crate::model::schema::{Field, HEADER, Kind, MILLIS, Record, Rule, STR, TEXT};
use crate::token::claims;
use crate::token::demands::{self, Demands};
use crate::token::trace::Quiet;

static PLUGIN: Descriptor = Descriptor {
    name: "oauth2-introspection",
    summary: "let in callers whose access token the authorization server calls active",
    doc: "\
## What it does
Takes the access token from `Authorization: Bearer`, asks the authorization server about it (RFC 7662), and lets the
caller in if the token is active and has what is asked for.

## Why
Opaque tokens can be revoked at any moment, and only their server knows about them. Services behind the gateway need not
ask it, and it is asked once for many requests.

## Example
```yaml
plugins:
  - name: oauth2-introspection
    config:
      introspection_url: https://id.example.com/oauth2/introspect
      client_id: gateway
      client_secret: \"${INTROSPECTION_SECRET}\"
      scopes_all: [orders.read]
      claims_to_headers: { sub: X-User-Id }
```

## Behaviour
An active token is remembered for `ttl` seconds or until its `exp`, whichever comes first, an inactive one for
`negative_ttl`, both by their SHA-256, for all workers. Both memories are bounded, and a flood of tokens that are not
active displaces no active one. Of many requests with one unknown token a single one asks and the others wait.

Refuses with a JSON body, and `WWW-Authenticate: Bearer` as RFC 6750 says:

| case | status | `error` |
|---|---|---|
| no token | 401 `Unauthorized` | none |
| malformed `Authorization: Bearer` | 401 `Unauthorized` | `invalid_request` |
| not active, expired, other audience, a required claim missing | 401 `The access token is invalid or has expired` | `invalid_token` |
| active, without the scopes | 403 `Insufficient scope` | `insufficient_scope`, with `scope` |
| no consumer as `consumer_claim` says | 401 | `invalid_token` |

Where the server does not answer, answers late, with another status than 200, or with anything but a JSON object that
has a truth value `active`, nobody can tell: 503 `The authorization server is not available` with `Retry-After`, never
401. After five such failures in a row it is left alone for a second. Redirects are not followed.

With `anonymous` a caller without a token or with a bad one goes on as that consumer. Tells the upstream
`X-Consumer-*` where there is a consumer, `X-Credential-Identifier` (`sub`, else `username`, else `client_id`), and the
headers of `claims_to_headers`. The answer's members are the claims of later policies.
",
    fields: &[
        Field::new("introspection_url", Kind::Str(Rule::Url), "Where the server answers.").required(),
        Field::new("client_id", TEXT, "The gateway's own name at the server."),
        Field::new("client_secret", TEXT, "The gateway's secret at the server.").secret(),
        Field::new(
            "client_auth",
            Kind::Enum(&["basic", "post"]),
            "Whether `client_id` and `client_secret` go into `Authorization: Basic` or into the body.",
        )
        .default("\"basic\""),
        Field::new(
            "authorization_value",
            TEXT,
            "The whole value of `Authorization` at the server, in place of `client_id` and `client_secret`.",
        )
        .secret(),
        Field::new("token_type_hint", TEXT, "What the server is told of the kind of token."),
        Field::new(
            "timeout",
            MILLIS,
            "How long the server may take, in milliseconds; requests that wait for the same token wait as long.",
        )
        .default("5000"),
        Field::new("ttl", Kind::Num { min: 0.0, max: 86_400.0 }, "Seconds that an active token is remembered.")
            .default("30"),
        Field::new(
            "negative_ttl",
            Kind::Num { min: 0.0, max: 3600.0 },
            "Seconds that a token is remembered that is not active.",
        )
        .default("5"),
        demands::AUDIENCES,
        demands::REQUIRED_CLAIMS,
        demands::SCOPES_ANY,
        demands::SCOPES_ALL,
        Field::new(
            "consumer_claim",
            TEXT,
            "The member of the answer that has a consumer's username or id. The token is refused where there is no such \
             consumer; without this setting its bearer is nobody's consumer.",
        ),
        Field::new(
            "claims_to_headers",
            Kind::Map(&HEADER),
            "Members of the answer to hand to the upstream: name (dots descend into objects) to request header. Clients \
             cannot send these headers.",
        ),
        Field::new("hide_credentials", Kind::Bool, "Whether the token is kept from the upstream.").default("false"),
        ANONYMOUS,
        Field::new("run_on_preflight", Kind::Bool, "Whether `OPTIONS` requests need a token too.").default("true"),
        Field::new("realm", STR, "What `WWW-Authenticate` names as the realm."),
        Field::new(
            "max_token_size",
            Kind::Int { min: 64, max: 65_536 },
            "The longest token that is asked about, in bytes.",
        )
        .default("8192"),
    ],
    consumer_scope: false,
    extension: true,
    identity_headers: IDENTITY_HEADERS,
};

/// Longest answer, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// How often a request asks or waits again because whoever asked went away.
const TRIES: u8 = 3;

/// What the answer depends on; its text is hashed and forgotten.
#[derive(Debug)]
struct Settings {
    url: String,
    authorization: Option<String>,
    /// The body without the token.
    form: String,
    ttl: Duration,
    negative_ttl: Duration,
}

/// See the module.
pub struct Introspection {
    settings: Settings,
    endpoint: Arc<Endpoint>,
    verdicts: Arc<Verdicts<Verdict>>,
    timeout: Duration,
    demands: Demands,
    consumer_claim: Option<String>,
    claims_to_headers: Vec<(String, FieldName)>,
    hide: bool,
    anonymous: Option<Anonymous>,
    on_preflight: bool,
    challenge: String,
    token_max: usize,
}

/// Why a caller is not let in.
enum Refusal {
    NoToken,
    Malformed,
    Invalid(&'static str),
    Scope(String),
    Unavailable,
}

/// How often this request has asked or waited.
struct Tried(u8);

impl Policy for Introspection {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if cx.conflict(
            config,
            "client_id",
            "authorization_value",
            "`authorization_value` stands in place of `client_id` and `client_secret`",
        ) {
            return None;
        }
        if config.str("client_id").is_some() != config.str("client_secret").is_some() {
            let message = "`client_id` and `client_secret` go together";
            cx.report(&codes::MISSING_ALTERNATIVE, config.span, message);
            return None;
        }
        let millis =
            |name| Duration::from_millis(config.int(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
        let seconds = |name| Duration::from_secs_f64(config.num(name).unwrap_or(0.0));
        let timeout = millis("timeout");
        let settings = settings(config, seconds("ttl"), seconds("negative_ttl"));
        let endpoint = match Transport::new(cx, true, timeout).map(|t| t.endpoint(&settings.url)) {
            Ok(Ok(endpoint)) => endpoint,
            Ok(Err(problem)) => {
                let span = config.span_of("introspection_url");
                cx.report(&codes::INVALID_VALUE, span, format!("`introspection_url`: {problem}"));
                return None;
            }
            Err(e) => {
                cx.report(&codes::INVALID_VALUE, config.span, format!("`gateway.tls.upstream_ca`: {e}"));
                return None;
            }
        };
        let verdicts = cx.shared.get::<Stores<Verdict>>().get(&format!("{settings:?}"));
        Some(Self {
            settings,
            endpoint: Arc::new(endpoint),
            verdicts,
            timeout,
            demands: Demands::of(config, false),
            consumer_claim: config.str("consumer_claim").map(str::to_owned),
            claims_to_headers: identity::claim_headers(config, "claims_to_headers"),
            hide: config.bool("hide_credentials"),
            anonymous: Anonymous::of(config),
            on_preflight: config.bool_opt("run_on_preflight").unwrap_or(true),
            challenge: identity::challenge("Bearer", config.str("realm")),
            token_max: config.int("max_token_size").map_or(8192, |n| n as usize),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let exempt = !self.on_preflight && x.request.method == "OPTIONS";
        if exempt || (self.anonymous.is_some() && identity::is_authenticated(x)) {
            return Flow::Next;
        }
        self.look(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Call(mut results) => {
                let Some(asking) = x.take::<Asking<Verdict>>() else {
                    return self.refuse(x, &Refusal::Unavailable);
                };
                let now = clock::monotonic();
                let result = results.pop().unwrap_or(Err(super::call::CallError::Broken));
                let verdict = read(asking, &result, x.now.unix_ms / 1000, now, &self.settings);
                self.decide(x, verdict)
            }
            Answer::Landing => match x.take::<Waiting<Verdict>>().and_then(|w| w.value()) {
                Some(verdict) => self.decide(x, verdict),
                None => self.look(x),
            },
            _ => self.refuse(x, &Refusal::Unavailable),
        }
    }

    fn sets_headers(&self) -> Vec<String> {
        self.claims_to_headers.iter().map(|(_, name)| name.as_str().to_owned()).collect()
    }
}

impl Introspection {
    fn look(&self, x: &mut Exchange) -> Flow {
        let token = match bearer(&x.request.fields) {
            Bearer::Token(token) if token.len() <= self.token_max => token,
            Bearer::Token(_) | Bearer::Malformed => return self.refuse(x, &Refusal::Malformed),
            Bearer::Absent => return self.refuse(x, &Refusal::NoToken),
        };
        let key = verdicts::key([token]);
        match self.verdicts.look(key, x.now.instant) {
            Look::Known(verdict) => self.decide(x, verdict),
            Look::Refuse => self.refuse(x, &Refusal::Unavailable),
            _ if !may_try(x) => self.refuse(x, &Refusal::Unavailable),
            Look::Wait(waiting) => {
                let landing = waiting.landing();
                x.keep(waiting);
                Flow::Await(Effect::Landing(landing, self.timeout))
            }
            Look::Ask(asking) => {
                let Bearer::Token(token) = bearer(&x.request.fields) else {
                    return self.refuse(x, &Refusal::Malformed);
                };
                let call = self.call(token);
                x.keep(asking);
                Flow::Await(Effect::Call(vec![call]))
            }
        }
    }

    fn call(&self, token: &[u8]) -> Call {
        let mut body = String::from("token=");
        form_encode(&mut body, token);
        body.push_str(&self.settings.form);
        let mut fields = Fields::default();
        fields.append(&names::CONTENT_TYPE, "application/x-www-form-urlencoded");
        fields.append(&names::ACCEPT, "application/json");
        if let Some(value) = &self.settings.authorization {
            fields.append(&names::AUTHORIZATION, value);
        }
        Call {
            to: CallTo::Endpoint(Arc::clone(&self.endpoint)),
            method: "POST".to_owned(),
            path: self.endpoint.path.clone(),
            fields,
            body: body.into(),
            timeout: self.timeout,
            max_body: ANSWER_MAX,
        }
    }

    fn decide(&self, x: &mut Exchange, verdict: Verdict) -> Flow {
        let claims = match verdict {
            Verdict::Active(active) if active.is_in_time(x.now.unix_ms / 1000) => active,
            Verdict::Active(_) | Verdict::Inactive => return self.refuse(x, &Refusal::Invalid(INVALID)),
            Verdict::Unknown => return self.refuse(x, &Refusal::Unavailable),
        };
        let claims = &claims.claims;
        if self.demands.check(&Value::Null, claims, &mut Quiet).is_err() {
            return self.refuse(x, &Refusal::Invalid(INVALID));
        }
        if let Err(denial) = self.demands.scopes.check(claims, &mut Quiet) {
            let scope = denial.scope.unwrap_or_default();
            return self.refuse(x, &Refusal::Scope(scope));
        }
        let text = |name: &str| claims::find(claims, name).and_then(Value::as_str);
        let consumer = match &self.consumer_claim {
            None => None,
            Some(claim) => match text(claim).and_then(|name| x.snapshot.consumer_by_name(name)) {
                Some(consumer) => Some(consumer),
                None => return self.refuse(x, &Refusal::Invalid("No consumer found for the access token")),
            },
        };
        let sound = |t: &&str| !t.is_empty() && !t.chars().any(char::is_control);
        let name = ["sub", "username", "client_id"].iter().find_map(|n| text(n).filter(sound));
        let identity = Identity {
            consumer,
            credential: name.map(str::to_owned),
            credential_id: name.map(|n| format!("{} {n}", self.settings.url)),
            claims: Some(Rc::new(claims.clone())),
            ..Identity::default()
        };
        identity::set_claim_headers(x, &self.claims_to_headers, Some(claims));
        identity::set_identity(x, identity);
        if self.hide {
            x.request.fields.remove(&names::AUTHORIZATION);
        }
        Flow::Next
    }

    fn refuse(&self, x: &mut Exchange, refusal: &Refusal) -> Flow {
        let challenge = |rest: &str| identity::with_params(&self.challenge, rest);
        let (reply, challenge) = match refusal {
            Refusal::Unavailable => {
                let reply = Reply::exit(503, "The authorization server is not available");
                return Flow::Reply(reply.field(names::RETRY_AFTER, "1"));
            }
            Refusal::Scope(scope) => {
                let scope = scope.replace(['"', '\\'], "'");
                let rest = format!("error=\"insufficient_scope\", scope=\"{scope}\"");
                (Reply::exit(403, "Insufficient scope"), challenge(&rest))
            }
            Refusal::NoToken => (Reply::exit(401, "Unauthorized"), challenge("")),
            Refusal::Malformed => (Reply::exit(401, "Unauthorized"), challenge("error=\"invalid_request\"")),
            Refusal::Invalid(message) => {
                let rest = format!("error=\"invalid_token\", error_description=\"{message}\"");
                (Reply::exit(401, message), challenge(&rest))
            }
        };
        let reply = reply.field(names::WWW_AUTHENTICATE, challenge);
        // Who lacks scopes is known, so the anonymous consumer is not meant.
        let anonymous = self.anonymous.as_ref().filter(|_| reply.status == 401);
        if anonymous.is_some() {
            identity::set_claim_headers(x, &self.claims_to_headers, None);
        }
        identity::reject(anonymous, x, reply)
    }
}

const INVALID: &str = "The access token is invalid or has expired";

/// Counts a question or a wait; false if there were too many.
fn may_try(x: &mut Exchange) -> bool {
    let tried = x.kept::<Tried>().map_or(0, |t| t.0);
    x.keep(Tried(tried + 1));
    tried < TRIES
}

enum Bearer<'a> {
    Absent,
    Malformed,
    Token(&'a [u8]),
}

/// The token in `Authorization: Bearer` (RFC 6750 2.1).
fn bearer(fields: &Fields) -> Bearer<'_> {
    let Some(value) = fields.get(&names::AUTHORIZATION) else { return Bearer::Absent };
    let scheme_end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(scheme_end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Bearer::Absent;
    }
    let token = token.trim_ascii();
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    match !token.is_empty() && token.iter().all(fits) {
        true => Bearer::Token(token),
        false => Bearer::Malformed,
    }
}

fn settings(config: &Record, ttl: Duration, negative_ttl: Duration) -> Settings {
    let mut form = String::new();
    let mut add = |name: &str, value: &str| {
        form.push('&');
        form.push_str(name);
        form.push('=');
        form_encode(&mut form, value.as_bytes());
    };
    if let Some(hint) = config.str("token_type_hint") {
        add("token_type_hint", hint);
    }
    let mut authorization = config.str("authorization_value").map(str::to_owned);
    if let (Some(id), Some(secret)) = (config.str("client_id"), config.str("client_secret")) {
        if config.str("client_auth") == Some("post") {
            add("client_id", id);
            add("client_secret", secret);
        } else {
            authorization = Some(basic(id, secret));
        }
    }
    let url = config.str("introspection_url").unwrap_or_default().to_owned();
    Settings { url, authorization, form, ttl, negative_ttl }
}

/// `Basic` credentials of an OAuth client: both parts are form-encoded first (RFC 6749 2.3.1).
pub fn basic(id: &str, secret: &str) -> String {
    let mut pair = String::new();
    form_encode(&mut pair, id.as_bytes());
    pair.push(':');
    form_encode(&mut pair, secret.as_bytes());
    format!("Basic {}", STANDARD.encode(pair))
}

/// Adds bytes as `application/x-www-form-urlencoded` reads them. A space is `%20`: servers that decode Basic credentials by
/// the rules of URLs do not take `+` for one.
pub fn form_encode(out: &mut String, bytes: &[u8]) {
    for b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(*b)),
            b => {
                let digit = |n: u8| char::from(b"0123456789ABCDEF"[usize::from(n)]);
                out.extend(['%', digit(b >> 4), digit(b & 15)]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
