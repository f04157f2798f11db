//! `forward-auth`: another server decides about every request.

mod config;
mod contract;
mod iam;
mod lambda;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::config::FIELDS;
use self::contract::Verdict;
use super::call::{Call, CallError, CallResponse, CallTo};
use super::identity::{self, Anonymous, IDENTITY_HEADERS};
use super::verdicts::{self, Asking, Look, Verdicts, Waiting};
use super::{Answer, BodyError, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::clock;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::model::schema::Record;
use crate::token::claims;

static PLUGIN: Descriptor = Descriptor {
    name: "forward-auth",
    summary: "have another server decide about each request",
    doc: "\
## What it does
Describes each request to an authorization server before it is proxied, and lets it through if that server says so.

## Why
Rules that need a database or code of your own stay in a server of your own, written once for all services.

## Example
```yaml
plugins:
  - name: forward-auth
    config:
      url: http://auth.internal:9000/verify
      response_headers: [X-User, X-Roles]
      cache: { ttl: 10, by: [Authorization] }
```

## Behaviour
`contract` says how the server is spoken to:

| contract | the server gets | lets through |
|---|---|---|
| `traefik` | `GET` of the URL (with `with_body` the client's method and body), the client's headers, `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`, `-For` | any 2xx |
| `envoy` | the client's method and host, the URL's path with the client's path and query behind it, `Authorization` and the headers of `request_headers`, `X-Forwarded-For`, `-Proto` | 200 |
| `aws-lambda` | `POST` of the event that API Gateway hands a Lambda authorizer (payload 2.0) | 200 with `{\"isAuthorized\": true}`, or an IAM policy that allows the route |

`X-Forwarded-*` of clients are never passed on. What a `traefik` or `envoy` server answers instead is the client's
answer: status, headers and body (up to 64 KiB). Only the headers in `response_headers` are taken from its consent, and
replace the client's; clients cannot send them (`Authorization` and `Cookie` they can, as the server may exchange these).

It fails closed. A server that does not answer, answers late or malformed, or, for `envoy` and `aws-lambda`, answers 5xx,
is answered `status_on_error` (503 unless set). Bodies longer than `with_body.max_bytes` are 413. Redirects of the
server are the client's answer and are not followed. After five failures in a row the server is left alone for a second,
where answers are remembered.

With `cache.ttl` an answer is remembered by the headers in `cache.by` and, unless `cache.per` is `caller`, by method,
host, path and query; of requests that are alike one asks. Requests that have none of these headers are always asked
about. Refusals are remembered for `cache.negative_ttl` and displace no consent. An answer must depend on nothing else.

`aws-lambda`: the answer is remembered by the identity sources for `cache.ttl`, shared by all routes unless
`$context.routeKey` is among them; an IAM policy is judged for each request. Without an identity source 401
`Unauthorized`, without asking; refused 403 `Forbidden`; an answer that is neither form 500 `Internal Server Error`.
The authorizer's `context` becomes the claims of later policies, and headers by `claims_to_headers`.

With `anonymous` a caller whom the server refuses goes on as that consumer.
",
    fields: FIELDS,
    consumer_scope: false,
    extension: true,
    identity_headers: IDENTITY_HEADERS,
};

/// Longest answer that is taken, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// How often a request asks or waits again because whoever asked went away.
const TRIES: u8 = 3;

/// How the server is spoken to.
#[derive(Clone, Debug, PartialEq)]
enum Contract {
    Traefik,
    Envoy,
    Lambda(lambda::Settings),
}

/// What is remembered, and by what.
#[derive(Clone, Debug)]
struct Memory {
    ttl: Duration,
    negative_ttl: Duration,
    by: Vec<FieldName>,
    per_request: bool,
}

/// See the module.
pub struct ForwardAuth {
    to: CallTo,
    /// Path and query at the server.
    path: String,
    contract: Contract,
    timeout: Duration,
    /// What is sent; `None` for everything.
    request_headers: Option<Vec<FieldName>>,
    response_headers: Vec<FieldName>,
    client_headers: Vec<FieldName>,
    claims_to_headers: Vec<(String, FieldName)>,
    consumer_header: Option<FieldName>,
    body_max: Option<usize>,
    memory: Option<(Memory, Arc<Verdicts<Verdict>>)>,
    status_on_error: u16,
    anonymous: Option<Anonymous>,
    on_preflight: bool,
}

/// How often this request has asked or waited.
struct Tried(u8);

impl Policy for ForwardAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        config::compile(config, cx)
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let exempt = !self.on_preflight && x.request.method == "OPTIONS";
        if exempt || (self.anonymous.is_some() && identity::is_authenticated(x)) {
            return Flow::Next;
        }
        match self.body_max {
            Some(limit) if x.body.is_none() => Flow::Await(Effect::ReadBody { limit }),
            Some(limit) if x.body.as_ref().is_some_and(|b| b.len() > limit) => {
                Flow::Reply(Reply::unread(x, BodyError::TooLarge))
            }
            _ => self.look(x),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Ok(())) => self.look(x),
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            Answer::Call(mut results) => {
                let result = results.pop().unwrap_or(Err(CallError::Broken));
                let verdict = self.contract.read(&result, self);
                self.tell(x, &verdict, &result);
                self.decide(x, &verdict)
            }
            Answer::Landing => match x.take::<Waiting<Verdict>>().and_then(|w| w.value()) {
                Some(verdict) => self.decide(x, &verdict),
                None => self.look(x),
            },
            _ => self.no_answer(x),
        }
    }

    fn response(&self, x: &mut Exchange) {
        if let Some(ToClient(fields)) = x.take::<ToClient>() {
            for name in &self.client_headers {
                fields.all(name).for_each(|v| x.response.fields.append(name, v));
            }
        }
    }

    fn sets_headers(&self) -> Vec<String> {
        // What the server may exchange, it must first see.
        let exchanged = |name: &&FieldName| {
            !["authorization", "cookie"].iter().any(|n| name.as_str().eq_ignore_ascii_case(n))
        };
        let taken = self.response_headers.iter().filter(exchanged);
        taken.chain(self.claims_to_headers.iter().map(|(_, n)| n)).map(|n| n.as_str().to_owned()).collect()
    }
}

/// Headers of a consent that the client gets with its answer.
struct ToClient(Fields);

impl ForwardAuth {
    fn look(&self, x: &mut Exchange) -> Flow {
        if let Contract::Lambda(settings) = &self.contract
            && settings.sources(x).is_none()
        {
            return self.refuse(x, Reply::exit(401, "Unauthorized"));
        }
        let key = self.memory.as_ref().and_then(|(memory, verdicts)| Some((self.key(x, memory)?, verdicts)));
        let Some((key, verdicts)) = key else {
            let call = self.call(x);
            return Flow::Await(Effect::Call(vec![call]));
        };
        match verdicts.look(key, x.now.instant) {
            Look::Known(verdict) => self.decide(x, &verdict),
            Look::Refuse => self.no_answer(x),
            _ if !may_try(x) => self.no_answer(x),
            Look::Wait(waiting) => {
                let landing = waiting.landing();
                x.keep(waiting);
                Flow::Await(Effect::Landing(landing, self.timeout))
            }
            Look::Ask(asking) => {
                let call = self.call(x);
                x.keep(asking);
                Flow::Await(Effect::Call(vec![call]))
            }
        }
    }

    /// By what the answer is remembered; `None` where the request has nothing of it.
    fn key(&self, x: &Exchange, memory: &Memory) -> Option<verdicts::Key> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let sources;
        if let Contract::Lambda(settings) = &self.contract {
            sources = settings.sources(x)?;
            parts.extend(sources.iter().map(|s| s.as_bytes()));
            return Some(verdicts::key(parts));
        }
        let mut any = false;
        for name in &memory.by {
            let before = parts.len();
            parts.extend(x.request.fields.all(name));
            any |= parts.len() > before;
            // Between the names, so that the values of one are not taken for those of another.
            parts.push(b"\n");
        }
        if !any {
            return None;
        }
        let request = &x.request;
        if memory.per_request {
            let scheme = if x.client.tls { "https" } else { "http" };
            let query = request.query.as_deref();
            let has_query = if query.is_some() { "?" } else { "" };
            let all =
                [&request.method, scheme, &request.host, &request.raw_path, has_query, query.unwrap_or("")];
            parts.extend(all.iter().map(|p| p.as_bytes()));
        }
        parts.extend(self.body_max.and(x.body.as_deref()));
        Some(verdicts::key(parts))
    }

    fn call(&self, x: &Exchange) -> Call {
        let (method, path, fields, body) = self.contract.ask(x, self);
        Call { to: self.to.clone(), method, path, fields, body, timeout: self.timeout, max_body: ANSWER_MAX }
    }

    /// Tells those who wait for the same answer.
    fn tell(&self, x: &mut Exchange, verdict: &Verdict, result: &Result<CallResponse, CallError>) {
        let Some(asking) = x.take::<Asking<Verdict>>() else { return };
        let Some((memory, _)) = &self.memory else { return };
        let now = clock::monotonic();
        let size = result.as_ref().map_or(0, |a| a.body.len() + 64 * a.fields.len());
        let (kind, ttl) = match verdict {
            Verdict::Unknown => return asking.fail(verdict.clone(), now),
            Verdict::Invalid => return asking.answer(verdict.clone(), None, 0),
            Verdict::Refused(_) => (verdicts::Kind::Bad, memory.negative_ttl),
            Verdict::Authorizer(answer) if !answer.may_allow() => (verdicts::Kind::Bad, memory.ttl),
            Verdict::Allowed(_) | Verdict::Authorizer(_) => (verdicts::Kind::Good, memory.ttl),
        };
        let keep = (!ttl.is_zero()).then(|| (kind, now + ttl));
        asking.answer(verdict.clone(), keep, size * 2);
    }

    fn decide(&self, x: &mut Exchange, verdict: &Verdict) -> Flow {
        match verdict {
            Verdict::Allowed(fields) => {
                if let Some(consumer) = &self.consumer_header {
                    let named = fields.text(consumer).and_then(|name| x.snapshot.consumer_by_name(name));
                    let Some(named) = named else {
                        return self.refuse(x, Reply::exit(401, "Unauthorized"));
                    };
                    let mut identity = x.identity.take().unwrap_or_default();
                    identity.consumer = Some(named);
                    identity.anonymous = false;
                    identity::set_identity(x, identity);
                }
                for name in &self.response_headers {
                    x.request.fields.remove(name);
                    fields.all(name).for_each(|v| x.request.fields.append(name, v));
                }
                if !self.client_headers.is_empty() {
                    x.keep(ToClient(Fields::clone(fields)));
                }
                Flow::Next
            }
            Verdict::Refused(reply) => self.refuse(x, Reply::clone(reply)),
            Verdict::Authorizer(answer) => {
                let Contract::Lambda(settings) = &self.contract else { return self.no_answer(x) };
                if !answer.allows(&settings.route_arn(x)) {
                    return self.refuse(x, Reply::exit(403, "Forbidden"));
                }
                self.authorized(x, answer);
                Flow::Next
            }
            Verdict::Invalid => Flow::Reply(Reply::exit(500, "Internal Server Error")),
            Verdict::Unknown => self.no_answer(x),
        }
    }

    /// Takes over what a Lambda authorizer says of the caller.
    fn authorized(&self, x: &mut Exchange, answer: &lambda::Answer) {
        let mut identity = x.identity.take().unwrap_or_default();
        if let Some(principal) = &answer.principal {
            identity.credential.get_or_insert_with(|| principal.clone());
        }
        identity::set_claim_headers(x, &self.claims_to_headers, Some(&answer.context));
        identity.claims = Some(std::rc::Rc::new(answer.context.clone()));
        identity::set_identity(x, identity);
    }

    fn refuse(&self, x: &mut Exchange, reply: Reply) -> Flow {
        let anonymous = self.anonymous.as_ref().filter(|_| matches!(reply.status, 401 | 403));
        if anonymous.is_some() {
            for name in &self.response_headers {
                x.request.fields.remove(name);
            }
            identity::set_claim_headers(x, &self.claims_to_headers, None);
        }
        identity::reject(anonymous, x, reply)
    }

    /// Nobody can tell whether the request may pass, so it may not.
    fn no_answer(&self, x: &Exchange) -> Flow {
        let message = "The authorization server is not available";
        let reply = Reply::error(&x.request, x.request_id, self.status_on_error, message);
        Flow::Reply(match self.status_on_error {
            503 => reply.field(names::RETRY_AFTER, "1"),
            _ => reply,
        })
    }
}

/// Counts a question or a wait; false if there were too many.
fn may_try(x: &mut Exchange) -> bool {
    let tried = x.kept::<Tried>().map_or(0, |t| t.0);
    x.keep(Tried(tried + 1));
    tried < TRIES
}

/// A member of a JSON object as text: texts, numbers and truth values have one.
fn text_of(value: &Value) -> Option<String> {
    claims::as_field_value(value).map(|v| v.into_owned())
}

#[cfg(test)]
mod tests;
