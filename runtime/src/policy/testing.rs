//! What the tests of policies share: records from JSON, exchanges from text, and one way to say what must come of it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::{Answer, BodyError, Cx, Effect, Flow, Policy};
use crate::diag::Diags;
use crate::exchange::{Client, Exchange, RequestId, SnapshotRef};
use crate::message::{FieldName, Fields, RequestHead};
use crate::model::schema::{Field, Kind, Record, RecordField, Val};
use crate::model::{Model, Plugin};
use crate::snapshot::shared::Shared;
use crate::snapshot::{Consumer, ConsumerId, Credential, Credentials, Snapshot};
use crate::source::{Span, Spanned};

/// The consumer `alice`, with a custom id and the groups `admin` and `users`.
pub const ALICE: &str = "11111111-1111-4111-8111-111111111111";
/// The consumer `bob`, with nothing.
pub const BOB: &str = "22222222-2222-4222-8222-222222222222";
/// The consumer `anon`.
pub const ANON: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";

/// Reads JSON against a table, with defaults. Panics where the real reader would report an error.
pub fn record(fields: &[Field], json: &Value) -> Record {
    let given = json.as_object().expect("a record is an object");
    if let Some(unknown) = given.keys().find(|k| fields.iter().all(|f| f.name != **k)) {
        panic!("unknown field `{unknown}`");
    }
    let mut record = Record::default();
    for field in fields {
        let default = || field.default.map(|d| serde_json::from_str(d).expect("a default is JSON"));
        let (json, is_given) = match given.get(field.name) {
            Some(json) => (json.clone(), true),
            None => (default().unwrap_or(Value::Null), false),
        };
        let value = match val(&field.kind, &json) {
            Val::Null => match field.kind {
                // Kong fills the defaults of nested records in even where the record itself is not given.
                Kind::Record(inner) => Val::Record(self::record(inner, &serde_json::json!({}))),
                _ => continue,
            },
            value => value,
        };
        let value = Spanned::new(value, Span::default());
        record.fields.push(RecordField { name: field.name, key: Span::default(), value, given: is_given });
    }
    record
}

fn val(kind: &Kind, json: &Value) -> Val {
    let spanned = |kind: &Kind, v: &Value| Spanned::new(val(kind, v), Span::default());
    match (kind, json) {
        (_, Value::Null) => Val::Null,
        (Kind::Str(_) | Kind::Enum(_) | Kind::Ref(_) | Kind::Any, Value::String(s)) => Val::Str(s.clone()),
        (Kind::Bool | Kind::Any, Value::Bool(b)) => Val::Bool(*b),
        (Kind::Int { .. } | Kind::Num { .. } | Kind::Any, Value::Number(n)) => match n.as_i64() {
            Some(n) => Val::Int(n),
            None => Val::Num(n.as_f64().expect("a finite number")),
        },
        (Kind::List(k) | Kind::Set(k), Value::Array(items)) => {
            Val::List(items.iter().map(|v| spanned(k, v)).collect())
        }
        (Kind::Map(k), Value::Object(map)) => Val::Map(
            map.iter().map(|(n, v)| (Spanned::new(n.clone(), Span::default()), spanned(k, v))).collect(),
        ),
        (Kind::Record(fields), Value::Object(_)) => Val::Record(record(fields, json)),
        (Kind::Any, Value::Array(items)) => Val::List(items.iter().map(|v| spanned(kind, v)).collect()),
        (Kind::Any, Value::Object(map)) => Val::Map(
            map.iter().map(|(n, v)| (Spanned::new(n.clone(), Span::default()), spanned(kind, v))).collect(),
        ),
        (kind, json) => panic!("{json} is no {kind:?}"),
    }
}

/// Compiles a policy; with it, or instead of it, everything that it reported.
pub fn compile<P: Policy>(config: &Value) -> (Option<P>, Vec<String>) {
    let config = record(P::PLUGIN.fields, config);
    let (model, plugin, shared) = (model(), Plugin::default(), Arc::new(Shared::default()));
    let mut diags = Diags::new();
    let mut cx = Cx {
        model: &model,
        plugin: &plugin,
        route_id: Some("5c2d9c9e-0000-4000-8000-000000000001"),
        service_id: Some("5c2d9c9e-0000-4000-8000-000000000002"),
        consumer_id: None,
        shared: &shared,
        diags: &mut diags,
    };
    let policy = P::compile(&config, &mut cx);
    (policy, diags.into_iter().map(|d| d.message).collect())
}

/// A policy whose config is right.
pub fn policy<P: Policy>(config: &Value) -> P {
    let (policy, findings) = compile(config);
    policy.unwrap_or_else(|| panic!("{config} was refused: {findings:?}"))
}

/// Asserts that a config is refused with a message that contains `want`.
pub fn refuses<P: Policy>(config: Value, want: &str) {
    let (policy, findings) = compile::<P>(&config);
    assert!(policy.is_none(), "{config} was accepted");
    assert!(findings.iter().any(|m| m.contains(want)), "{config}: no `{want}` in {findings:?}");
}

fn consumers() -> Vec<Consumer> {
    let text = |s: &str| Some(s.to_owned());
    let of = |id: &str, username, custom_id, groups: &[&str]| Consumer {
        id: id.to_owned(),
        username,
        custom_id,
        acl_groups: groups.iter().map(|&g| g.to_owned()).collect(),
        class: None,
    };
    vec![
        of(ALICE, text("alice"), text("cust-1"), &["admin", "users"]),
        of(BOB, text("bob"), None, &[]),
        of(ANON, text("anon"), None, &[]),
    ]
}

fn model() -> Model {
    let spanned = |s: String| Spanned::new(s, Span::default());
    let consumers = consumers().into_iter().map(|c| crate::model::Consumer {
        id: c.id,
        username: c.username.map(spanned),
        custom_id: c.custom_id.map(spanned),
        ..Default::default()
    });
    Model { consumers: consumers.collect(), ..Default::default() }
}

/// Three consumers and no routes. Alice has the key `kong`, as `alice-login` the password `kong:s`, and as
/// `alice-hmac` the secret `s3cret`.
pub fn snapshot() -> Snapshot {
    let mut credentials = Credentials::default();
    credentials.key_auth.insert(super::key_auth::fingerprint("kong"), alices("key-alice", None));
    let secret = super::basic_auth::secret("kong:s", ALICE);
    credentials.basic_auth.insert("alice-login".to_owned(), alices("basic-alice", secret));
    credentials.hmac_auth.insert("alice-hmac".to_owned(), alices("hmac-alice", b"s3cret".to_vec()));
    Snapshot { consumers: consumers().into(), credentials, ..Snapshot::default() }
}

fn alices<T>(id: &str, data: T) -> Credential<T> {
    Credential { id: id.to_owned(), consumer: ConsumerId(0), data }
}

struct Pending(Vec<u8>);

/// A request in flight from `METHOD TARGET`, `name: value` lines, and after an empty line the body, whose
/// `Content-Length` is added unless the request is chunked. `Host` is `api.test` and the client 127.0.0.1 where a
/// line does not say otherwise (`client-ip: 10.0.0.1`).
pub fn exchange(text: &str) -> Exchange {
    exchange_in(snapshot(), text)
}

/// The same, in another snapshot.
pub fn exchange_in(snapshot: Snapshot, text: &str) -> Exchange {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, target) =
        lines.next().and_then(|l| l.trim().split_once(' ')).expect("a method and a target");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut request = RequestHead {
        method: method.to_owned(),
        raw_path: path.to_owned(),
        path: path.to_owned(),
        query,
        host: "api.test".to_owned(),
        ..Default::default()
    };
    let peer: SocketAddr = "127.0.0.1:40000".parse().expect("an address");
    let mut ip = peer.ip();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a field line");
        let (name, value) = (name.trim(), value.trim());
        match name.to_ascii_lowercase().as_str() {
            "host" => request.host = value.to_owned(),
            "client-ip" => ip = value.parse().expect("an address"),
            _ => request.fields.push(name.as_bytes(), value.as_bytes()),
        }
    }
    let chunked = request.fields.contains(&crate::message::names::TRANSFER_ENCODING);
    if !body.is_empty() && !chunked && !request.fields.contains(&crate::message::names::CONTENT_LENGTH) {
        request.fields.push(b"Content-Length", body.len().to_string().as_bytes());
    }
    let client = Client { ip, ..Client::plain(peer, "127.0.0.1:8000".parse().expect("an address")) };
    let mut x = Exchange::new(SnapshotRef::new(Arc::new(snapshot)), client, RequestId(7));
    x.request = request;
    x.upstream.path = path.to_owned();
    x.keep(Pending(body.as_bytes().to_vec()));
    x
}

/// The request's turn of a policy, with the body handed to it where it asks.
pub fn request<P: Policy>(policy: &P, x: &mut Exchange) -> Flow {
    let mut flow = policy.request(x);
    while let Flow::Await(Effect::ReadBody { limit }) = flow {
        let body = x.kept::<Pending>().map(|p| p.0.clone()).unwrap_or_default();
        let answer = if body.len() > limit {
            Err(BodyError::TooLarge)
        } else {
            x.body = Some(body.into());
            Ok(())
        };
        flow = policy.resume(x, Answer::Body(answer));
    }
    flow
}

/// The response's turn, for an upstream's answer written as `STATUS`, field lines, empty line and body. Returns the
/// body.
pub fn response<P: Policy>(policy: &P, x: &mut Exchange, text: &str) -> String {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    x.response.status = lines.next().and_then(|l| l.trim().parse().ok()).expect("a status");
    for line in lines {
        let (name, value) = line.split_once(':').expect("a field line");
        x.response.fields.push(name.trim().as_bytes(), value.trim().as_bytes());
    }
    finish(policy, x, body.as_bytes().to_vec())
}

fn finish<P: Policy>(policy: &P, x: &mut Exchange, body: Vec<u8>) -> String {
    policy.response(x);
    let body = match policy.wants_response_body(x) {
        true => policy.response_body(x, body).unwrap_or_else(|reply| {
            x.response.status = reply.status;
            x.response.fields.clear();
            reply.write_fields(&mut x.response.fields);
            reply.body.to_vec()
        }),
        false => body,
    };
    String::from_utf8(body).expect("tests speak UTF-8")
}

/// Asserts what a policy does with a request. The first line of `want` is `next` or a status; then in any order:
///
/// - `> Name: value`: a field of the upstream request (all values joined by `, `), absent if the value is;
/// - `< Name: value`: the same of the response, after the response's turn;
/// - `path P`, `query Q`, `method M`, `host H`: of the upstream request;
/// - `body TEXT`: the request's body after `next`, else a part of the answer's.
pub fn check<P: Policy>(config: Value, request_text: &str, want: &str) {
    check_proxied::<P>(config, request_text, "200", want);
}

/// [`check`] with the upstream's answer (see [`response`]). Its body is compared by `response TEXT`.
pub fn check_proxied<P: Policy>(config: Value, request_text: &str, upstream: &str, want: &str) {
    let policy = policy::<P>(&config);
    let mut x = exchange(request_text);
    let flow = request(&policy, &mut x);
    let (turn, body) = match flow {
        Flow::Next => ("next".to_owned(), response(&policy, &mut x, upstream)),
        Flow::Reply(reply) => {
            x.local_response = true;
            x.response.status = reply.status;
            reply.write_fields(&mut x.response.fields);
            (reply.status.to_string(), finish(&policy, &mut x, reply.body.to_vec()))
        }
        Flow::Await(effect) => panic!("{effect:?} is not performed here"),
    };
    let proxied = turn == "next";
    for (i, line) in want.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let what =
            format!("config {config}\nrequest {request_text}\nexpected `{line}`; answer {turn} {body}");
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            _ if i == 0 => assert_eq!(turn, line, "{what}"),
            ">" => assert_field(&x.request.fields, value, &what),
            "<" => assert_field(&x.response.fields, value, &what),
            "path" => assert_eq!(x.upstream.path, value, "{what}"),
            "query" => assert_eq!(x.request.query.as_deref().unwrap_or(""), value, "{what}"),
            "method" => assert_eq!(x.request.method, value, "{what}"),
            "host" => assert_eq!(x.upstream.host.as_deref().unwrap_or(""), value, "{what}"),
            "body" if proxied => {
                let pending = x.kept::<Pending>().map(|p| p.0.clone()).unwrap_or_default();
                let sent = x.body.as_deref().unwrap_or(&pending);
                assert_eq!(String::from_utf8_lossy(sent), value, "{what}");
            }
            "body" => assert!(body.contains(value), "{what}"),
            "response" => assert_eq!(body, value, "{what}"),
            _ => panic!("no such expectation: {line}"),
        }
    }
}

fn assert_field(fields: &Fields, expected: &str, what: &str) {
    let (name, value) = expected.split_once(':').unwrap_or((expected, ""));
    let name = FieldName::new(name.trim());
    let all: Vec<_> = fields.all(&name).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
    assert_eq!(all.join(", "), value.trim(), "{what}");
}
