//! `grpc-gateway`: call gRPC services with JSON.

pub mod proto;
mod rules;
mod status;
mod template;
pub mod transcode;

use bytes::Bytes;
use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions, Value};

use self::proto::Proto;
use self::rules::{BodyRule, Found, Rule, Rules};
use self::status::Status;
use self::transcode::Mapping;
use super::call::CallResponse;
use super::reply::{self, JSON};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, grpc, media, representation};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::{FieldName, names, query_pairs};
use crate::model::schema::{Field, Kind, Record, TEXT};
use crate::telemetry::Why;

static PLUGIN: Descriptor = Descriptor {
    name: "grpc-gateway",
    summary: "call gRPC services with JSON over HTTP",
    doc: r#"
## What it does
Takes requests with paths, query arguments and JSON as a service's description says (`google.api.http`), makes the calls to the
gRPC service, and answers in JSON.

## Why
One service, one description: clients that speak gRPC use it as it is, all others as an ordinary HTTP API.

## Example
```yaml
services:
  - name: library
    url: grpc://library.internal:50051
    routes:
      - name: library
        protocols: [http, https]
        paths: [/v1]
        plugins:
          - name: grpc-gateway
            config: { proto: library.proto }
```
```proto
rpc GetBook(GetBookRequest) returns (Book) {
  option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}" };
}
```

## Behaviour
The file is read when the config is, by `gw validate`, too, and again at a reload; its path is taken from where the config file
stands. What it imports is looked for in its own folder and those above it, up to the config's; `google/protobuf/*.proto`,
`google/api/annotations.proto`, `http.proto`, `httpbody.proto` and `google/rpc/status.proto` need not be there.

A rule is chosen by the method and the whole path of the request (the route's `strip_path` does not matter): literal segments
come before `*`, and `*` before `**`. `get`, `put`, `post`, `delete`, `patch`, `custom` (with `*` for any method),
`additional_bindings`, `body` and `response_body` are known. Variables of the path fill their fields, the body is the message
(`*`) or a field of it, and query arguments fill the other fields: `?filter.author=x&tags=a&tags=b`, by their names in the
description or in JSON. A path that no rule has is 404, another method 405 with `Allow`, a value that does not fit its field 400,
a body that is not JSON 415. A native gRPC call over HTTP/2 on the same route passes as it is.

JSON is protobuf's own mapping: names in `lowerCamelCase` (both forms are read), 64-bit numbers as texts, bytes in base64, enums
by name, `Timestamp`, `Duration`, `FieldMask`, `Struct`, `Any` and the wrappers in their own forms, and fields with default
values are there. `google.api.HttpBody` is answered as it is, with its own type.

A method that takes a stream takes one JSON document a line; one that gives a stream is answered so, as `application/x-ndjson`,
and if it fails after the first message the last line is `{"error":{...}}`. Calls and answers are held, bounded by
`gateway.limits.buffered_body` each, so endless streams end with the service's `read_timeout`.

A call that fails is answered with `{"code":5,"message":"...","details":[]}` and the status for its code: 1 is 499, 2 500, 3 400,
4 504, 5 404, 6 409, 7 403, 8 429, 9 400, 10 409, 11 400, 12 500, 13 500, 14 503, 15 500, 16 401. A service that cannot be
reached is code 14, one that is too slow code 4.
"#,
    fields: &[
        Field::new("proto", TEXT, "The `.proto` file that describes the service; its path is taken from the config file's folder.")
            .required(),
        Field::new("names", Kind::Enum(&["json", "proto"]), "Whether fields are called as in JSON (`userId`) or as in the file (`user_id`). Requests may use both.")
            .default("\"json\"")
            .extension(),
        Field::new("defaults", Kind::Bool, "Whether fields that have their default value are in answers.")
            .default("true")
            .extension(),
        Field::new("unknown", Kind::Enum(&["ignore", "reject"]), "What becomes of members of the body and arguments of the query that are no fields, and of names in the body that an enum does not have.")
            .default("\"ignore\"")
            .extension(),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[],
};

/// What a sequence of documents is labelled with.
const LINES: &str = "application/x-ndjson";
/// A message that is any body at all.
const HTTP_BODY: &str = "google.api.HttpBody";

/// See the module.
pub struct GrpcGateway {
    /// None where files are not read: nothing passes then.
    rules: Option<Rules>,
    mapping: Mapping,
}

/// The rule of the request, by its number, and the texts of its variables.
struct Asked {
    rule: usize,
    captures: Vec<String>,
}

impl Policy for GrpcGateway {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let rules = match proto::load(config, "proto", cx)? {
            Proto::Unknown => None,
            Proto::Read(pool) => {
                let span = config.span_of("proto");
                let rules = match Rules::read(&pool) {
                    Ok(rules) => rules,
                    Err(error) => {
                        cx.report(&codes::INVALID_VALUE, span, format!("`proto`: {error}"));
                        return None;
                    }
                };
                if rules.is_empty() {
                    let message = "`proto`: no method of the file has the option `google.api.http`";
                    cx.report(&codes::INVALID_VALUE, span, message);
                    return None;
                }
                Some(rules)
            }
        };
        let strict = config.str("unknown") == Some("reject");
        let mapping = Mapping {
            write: SerializeOptions::new()
                .use_proto_field_name(config.str("names") == Some("proto"))
                .skip_default_fields(!config.bool("defaults")),
            read: DeserializeOptions::new().deny_unknown_fields(strict),
            strict,
        };
        Some(Self { rules, mapping })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if reply::calls_grpc(&x.request) {
            return Flow::Next;
        }
        let Some(rules) = &self.rules else {
            x.keep(Why("the description of the service was not read".to_owned()));
            return Flow::Reply(Reply::exit(500, "An unexpected error occurred"));
        };
        let (number, rule, captures) = match rules.find(&x.request.method, &x.request.path) {
            Found::Rule(number, rule, captures) => (number, rule, captures),
            Found::OtherMethods(verbs) => {
                let reply = Reply::error(&x.request, x.request_id, 405, "Method not allowed");
                return Flow::Reply(reply.field(FieldName::new("Allow"), verbs.join(", ")));
            }
            Found::Nothing => {
                let message = "the service has no method for this path";
                return Flow::Reply(Reply::error(&x.request, x.request_id, 404, message));
            }
        };
        x.keep(Asked { rule: number, captures });
        if rule.body == BodyRule::Unused {
            return self.call(x);
        }
        if x.body.is_none() {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.call(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        let oops = || Flow::Reply(Reply::exit(500, "An unexpected error occurred"));
        match answer {
            Answer::Body(Ok(())) => self.call(x),
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            Answer::Call(mut results) => match results.pop() {
                Some(Ok(response)) => Flow::Reply(self.answered(x, &response)),
                Some(Err(error)) => Flow::Reply(
                    Status::own(grpc::status_of(error), format!("the service did not answer: {error}"))
                        .reply(),
                ),
                None => oops(),
            },
            _ => oops(),
        }
    }
}

impl GrpcGateway {
    fn call(&self, x: &mut Exchange) -> Flow {
        let Some(service) = x.service else {
            let message = "no Service found with those values";
            return Flow::Reply(Reply::error(&x.request, x.request_id, 503, message));
        };
        let Some((rule, captures)) = self.asked(x) else {
            return Flow::Reply(Reply::exit(500, "An unexpected error occurred"));
        };
        let body = x.body.clone().unwrap_or_default();
        if rule.body != BodyRule::Unused && !body.is_empty() && !is_any_body(rule) && !is_json(x, rule) {
            let message = "the body must be JSON, in UTF-8 and without a content coding";
            return Flow::Reply(Reply::error(&x.request, x.request_id, 415, message));
        }
        let query = x.request.query.as_deref().unwrap_or("");
        let given = x.request.fields.text(&names::CONTENT_TYPE).unwrap_or_default();
        let messages = match rule.method.input() {
            input if is_any_body(rule) => Ok(vec![any_body(&input, given, &body)]),
            _ => self.messages(rule, captures, query, &body),
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(message) => {
                return Flow::Reply(Status::own(3, message).reply());
            }
        };
        let mut framed = Vec::new();
        for message in &messages {
            grpc::push_frame(&mut framed, &transcode::encode(message));
        }
        let mut call = grpc::call(x, service, rule.path.clone(), Bytes::from(framed));
        // Codings and types were the JSON's.
        call.fields.remove(&FieldName::new("Content-Encoding"));
        Flow::Await(Effect::Call(vec![call]))
    }

    fn asked<'s>(&'s self, x: &'s Exchange) -> Option<(&'s Rule, &'s [String])> {
        let asked = x.kept::<Asked>()?;
        Some((self.rules.as_ref()?.get(asked.rule)?, &asked.captures))
    }

    /// The messages that a request is.
    fn messages(
        &self,
        rule: &Rule,
        captures: &[String],
        query: &str,
        body: &[u8],
    ) -> Result<Vec<DynamicMessage>, String> {
        let input = rule.method.input();
        let whole = rule.body == BodyRule::Whole;
        let mut messages = match &rule.body {
            BodyRule::Whole if rule.method.is_client_streaming() => self.mapping.messages(&input, body)?,
            BodyRule::Whole if !body.is_empty() => vec![self.mapping.message(&input, body)?],
            _ => vec![DynamicMessage::new(input.clone())],
        };
        for message in &mut messages {
            if let BodyRule::Field(field) = &rule.body
                && !body.is_empty()
            {
                self.mapping.set(message, field, body)?;
            }
            if !whole {
                self.arguments(message, rule, query)?;
            }
            for (way, text) in rule.captures.iter().zip(captures) {
                self.mapping.set_text(message, way, std::slice::from_ref(text))?;
            }
        }
        Ok(messages)
    }

    /// Fills fields from the query, but those that the path fills.
    fn arguments(&self, message: &mut DynamicMessage, rule: &Rule, query: &str) -> Result<(), String> {
        let mut found: Vec<(Vec<prost_reflect::FieldDescriptor>, Vec<String>)> = Vec::new();
        for (name, value) in query_pairs(query) {
            let Some(way) = rules::way(&rule.method.input(), &name) else {
                if self.mapping.strict {
                    let name: String = name.chars().take(60).collect();
                    return Err(format!("the method has no field `{name}`"));
                }
                continue;
            };
            let bodys = matches!(&rule.body, BodyRule::Field(field) if way.first() == Some(field));
            if bodys || rule.captures.contains(&way) {
                continue;
            }
            let value = value.unwrap_or_default();
            match found.iter_mut().find(|(w, _)| *w == way) {
                Some((_, values)) => values.push(value),
                None => found.push((way, vec![value])),
            }
        }
        found.iter().try_for_each(|(way, values)| self.mapping.set_text(message, way, values))
    }

    fn answered(&self, x: &Exchange, response: &CallResponse) -> Reply {
        let Some((rule, _)) = self.asked(x) else { return Reply::exit(500, "An unexpected error occurred") };
        let pool = rule.method.parent_pool();
        let Some(ending) = grpc::ending(response) else {
            let (code, message) = match response.status {
                200 => (reply::UNAVAILABLE, "the service's answer has no gRPC status".to_owned()),
                status => (grpc::status_of_http(status), format!("the service answered {status}")),
            };
            return Status::own(code, message).reply();
        };
        let status = Status::read(&ending, pool);
        let streams = rule.method.is_server_streaming();
        if status.code != grpc::OK && (!streams || response.body.is_empty()) {
            return with_metadata(status.written(&self.mapping).reply(), response);
        }
        let reply = match self.written(x, rule, response, &status) {
            Ok(reply) => reply,
            // The service's fault, of which the client can do nothing.
            Err(error) => {
                Status::own(grpc::INTERNAL, format!("the service's answer cannot be used: {error}"))
                    .reply_as(502)
            }
        };
        with_metadata(reply, response)
    }

    fn written(
        &self,
        x: &Exchange,
        rule: &Rule,
        response: &CallResponse,
        status: &Status,
    ) -> Result<Reply, String> {
        let limit = x.snapshot.gateway.limits.buffered_body;
        let frames = grpc::frames(&response.body).ok_or("it is no sequence of gRPC messages")?;
        if frames.iter().any(|f| f.compressed) {
            return Err("it is compressed, which nobody asked for".to_owned());
        }
        let (output, field) = (rule.method.output(), rule.response_body.as_ref());
        if rule.method.is_server_streaming() {
            let mut body = Vec::new();
            for frame in frames {
                let message = transcode::decode(&output, frame.message)?;
                body.extend(self.mapping.write(&message, field, limit.saturating_sub(body.len()))?);
                body.push(b'\n');
            }
            if status.code != grpc::OK {
                body.extend_from_slice(b"{\"error\":");
                body.extend(status.clone().written(&self.mapping).json());
                body.extend_from_slice(b"}\n");
            }
            return Ok(Reply::with_body(200, LINES, body));
        }
        let [frame] = frames.as_slice() else { return Err(format!("it has {} messages", frames.len())) };
        let message = transcode::decode(&output, frame.message)?;
        if output.full_name() == HTTP_BODY {
            let text = |name: &str| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
            let kind = text("content_type").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let data = text("data").and_then(|v| v.as_bytes().cloned()).unwrap_or_default();
            let fits = !kind.is_empty() && kind.bytes().all(|b| (0x20..0x7f).contains(&b));
            let kind = if fits { kind } else { "application/octet-stream".to_owned() };
            return Ok(Reply::with_body(200, kind, data));
        }
        Ok(Reply::with_body(200, JSON, self.mapping.write(&message, field, limit)?))
    }
}

fn with_metadata(mut reply: Reply, response: &CallResponse) -> Reply {
    reply.fields.extend(grpc::metadata(response));
    reply
}

/// Whether the method takes bodies as they are.
fn is_any_body(rule: &Rule) -> bool {
    rule.body == BodyRule::Whole && rule.method.input().full_name() == HTTP_BODY
}

/// A body as it is, in a message.
fn any_body(input: &prost_reflect::MessageDescriptor, kind: &str, body: &Bytes) -> DynamicMessage {
    let mut message = DynamicMessage::new(input.clone());
    // The type has these fields, or, if somebody's own has not, they are left out.
    let _ = message.try_set_field_by_name("content_type", Value::String(kind.to_owned()));
    let _ = message.try_set_field_by_name("data", Value::Bytes(body.clone()));
    message
}

/// Whether the body is what the rule needs.
fn is_json(x: &Exchange, rule: &Rule) -> bool {
    let given = x.request.fields.text(&names::CONTENT_TYPE).unwrap_or_default();
    let (kind, charset) = media::parse(given);
    let lines = rule.method.is_client_streaming() && matches!(kind.as_str(), LINES | "application/jsonl");
    let encoded = representation::codings(&x.request.fields).is_none_or(|c| !c.is_empty());
    !encoded && (kind.is_empty() || media::is_json(&kind) || lines) && media::is_utf8(charset.as_deref())
}

#[cfg(test)]
mod tests;
