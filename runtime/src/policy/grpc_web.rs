//! `grpc-web`: let browsers call gRPC services.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::call::{CallError, CallResponse};
use super::grpc;
use super::grpc_gateway::proto::{self, Proto};
use super::grpc_gateway::transcode::{self, Mapping};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::model::schema::{Field, Kind, Record, STR, TEXT};

static PLUGIN: Descriptor = Descriptor {
    name: "grpc-web",
    summary: "let browsers call gRPC services",
    doc: "\
## What it does
Takes calls in the form that browsers can send, gRPC-Web over HTTP/1.1 or HTTP/2, and makes them to a gRPC service.

## Why
Browsers let no program see HTTP/2 trailers, in which gRPC says how a call ended. gRPC-Web puts them into the body.

## Example
```yaml
services:
  - name: greeter
    url: grpc://greeter.internal:50051
    routes:
      - name: web
        protocols: [http, https]
        paths: [/]
        plugins:
          - name: grpc-web
            config: { allow_origin_header: https://shop.example.com }
```

## Behaviour
`application/grpc-web` and `application/grpc-web-text` (base64), with or without `+proto`, are taken by `POST`; the answer
is of the same type, and ends with the trailers as a frame of their own. Other content types are answered 415. `OPTIONS` is
answered as a preflight. `Access-Control-Allow-Origin` is on every answer. The service is asked for the path of the request
(with `pass_stripped_path` for what the route leaves of it), so paths are `/package.Service/Method`.

A call is read whole before it is made, and its answer before it is given, both bounded by `gateway.limits.buffered_body`: unary
calls and short server streams work, endless streams end with the service's `read_timeout`. Where the service cannot be
reached or is too slow, the call ends with the status `UNAVAILABLE` or `DEADLINE_EXCEEDED`.

With `proto`, a description of the service, messages may be JSON, too (`application/grpc-web+json`, `-text+json`): each in a frame
of its own, by protobuf's own mapping. What is no such message ends the call with `INVALID_ARGUMENT`.
",
    fields: &[
        Field::new("proto", TEXT, "The `.proto` file that describes the service, for calls in JSON; its path is taken from the config file's folder."),
        Field::new("pass_stripped_path", Kind::Bool, "Whether the service is asked for what the route leaves of the path."),
        Field::new("allow_origin_header", STR, "The value of `Access-Control-Allow-Origin`.").default("\"*\""),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct GrpcWeb {
    stripped: bool,
    origin: String,
    /// For calls in JSON; none where they are not taken.
    pool: Option<DescriptorPool>,
    mapping: Mapping,
}

/// The form that the client speaks, kept until the answer.
struct Form {
    text: bool,
    /// The method, of calls in JSON.
    json: Option<MethodDescriptor>,
    content_type: String,
}

impl Policy for GrpcWeb {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let pool = match config.str("proto").map(|_| proto::load(config, "proto", cx)) {
            Some(None) => return None,
            Some(Some(Proto::Read(pool))) => Some(pool),
            Some(Some(Proto::Unknown)) | None => None,
        };
        Some(Self {
            pool,
            mapping: Mapping::default(),
            stripped: config.bool("pass_stripped_path"),
            origin: config.str("allow_origin_header").unwrap_or("*").to_owned(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if x.request.method == "OPTIONS" {
            return Flow::Reply(
                Reply::empty(200).field(FieldName::new("Access-Control-Allow-Methods"), "POST").field(
                    FieldName::new("Access-Control-Allow-Headers"),
                    "content-type,x-grpc-web,x-user-agent",
                ),
            );
        }
        let given = x.request.fields.text(&names::CONTENT_TYPE).unwrap_or_default();
        let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (text, json) = match kind.as_str() {
            "application/grpc-web" | "application/grpc-web+proto" => (false, false),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => (true, false),
            "application/grpc-web+json" if self.pool.is_some() => (false, true),
            "application/grpc-web-text+json" if self.pool.is_some() => (true, true),
            _ => {
                let message = "Content-Type is no gRPC-Web that this gateway takes";
                return Flow::Reply(Reply::error(&x.request, x.request_id, 415, message));
            }
        };
        if x.request.method != "POST" {
            return Flow::Reply(Reply::error(&x.request, x.request_id, 405, "Method not allowed"));
        }
        x.keep(Form { text, json: None, content_type: kind });
        if json {
            let path = self.path(x);
            let Some(method) = self.method(path) else {
                let message = "the description of the service has no such method";
                return Flow::Reply(ended(x, Vec::new(), grpc::UNIMPLEMENTED, message));
            };
            let kind = x.take::<Form>().map(|f| f.content_type).unwrap_or_default();
            x.keep(Form { text, json: Some(method), content_type: kind });
        }
        if x.body.is_none() {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.call(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Ok(())) => self.call(x),
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            Answer::Call(mut results) => match results.pop() {
                Some(Ok(response)) => Flow::Reply(self.answered(x, &response)),
                Some(Err(error)) => Flow::Reply(failed(x, error)),
                None => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
            },
            _ => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
        }
    }

    fn response(&self, x: &mut Exchange) {
        if !self.origin.is_empty() {
            x.response.fields.set(&FieldName::new("Access-Control-Allow-Origin"), &self.origin);
        }
    }
}

impl GrpcWeb {
    /// The path that the service is asked for.
    fn path<'x>(&self, x: &'x Exchange) -> &'x str {
        if self.stripped { &x.upstream.path } else { &x.request.path }
    }

    /// The method of a path `/package.Service/Method`.
    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let service = self.pool.as_ref()?.get_service_by_name(service)?;
        service.methods().find(|m| m.name() == method)
    }

    /// Messages in JSON as the service reads them.
    fn encoded(&self, method: &MethodDescriptor, frames: &[grpc::Frame<'_>]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for frame in frames {
            if frame.compressed {
                return Err("messages in JSON must not be compressed".to_owned());
            }
            let message = self.mapping.message(&method.input(), frame.message)?;
            grpc::push_frame(&mut out, &transcode::encode(&message));
        }
        Ok(out)
    }

    /// The service's messages in JSON.
    fn decoded(&self, x: &Exchange, method: &MethodDescriptor, body: &[u8]) -> Result<Vec<u8>, String> {
        let limit = x.snapshot.gateway.limits.buffered_body;
        let mut out = Vec::new();
        for frame in grpc::frames(body).ok_or("it is no sequence of gRPC messages")? {
            if frame.compressed {
                return Err("it is compressed, which nobody asked for".to_owned());
            }
            let message = transcode::decode(&method.output(), frame.message)?;
            let json = self.mapping.write(&message, None, limit.saturating_sub(out.len()))?;
            grpc::push_frame(&mut out, &json);
        }
        Ok(out)
    }

    /// The service's answer in the client's form.
    fn answered(&self, x: &Exchange, response: &CallResponse) -> Reply {
        let mut body = match x.kept::<Form>().and_then(|f| f.json.as_ref()) {
            None => response.body.to_vec(),
            Some(method) => match self.decoded(x, method, &response.body) {
                Ok(body) => body,
                Err(error) => {
                    let message = format!("the service's answer cannot be used: {error}");
                    return ended(x, Vec::new(), grpc::INTERNAL, &message);
                }
            },
        };
        let Some(trailers) = grpc::ending(response) else {
            if response.status == 200 {
                return failed(x, CallError::Broken);
            }
            let why = format!("the service answered {}", response.status);
            return ended(x, Vec::new(), grpc::status_of_http(response.status), &why);
        };
        push_trailers(&mut body, &trailers);
        let mut reply = in_form(x, body);
        reply.fields.extend(grpc::metadata(response));
        reply
    }

    fn call(&self, x: &mut Exchange) -> Flow {
        let Some(service) = x.service else {
            return Flow::Reply(Reply::error(
                &x.request,
                x.request_id,
                503,
                "no Service found with those values",
            ));
        };
        let text = x.kept::<Form>().is_some_and(|f| f.text);
        let body = x.body.clone().unwrap_or_default();
        let Some(body) = (if text { decoded(&body) } else { Some(body) }) else {
            return Flow::Reply(Reply::error(&x.request, x.request_id, 400, "the body is no base64"));
        };
        let Some(frames) = grpc::frames(&body) else {
            let message = "the body is no sequence of gRPC messages";
            return Flow::Reply(Reply::error(&x.request, x.request_id, 400, message));
        };
        let body = match x.kept::<Form>().and_then(|f| f.json.as_ref()) {
            None => body,
            Some(method) => match self.encoded(method, &frames) {
                Ok(body) => body.into(),
                Err(message) => return Flow::Reply(ended(x, Vec::new(), grpc::INVALID_ARGUMENT, &message)),
            },
        };
        let call = grpc::call(x, service, self.path(x).to_owned(), body);
        Flow::Await(Effect::Call(vec![call]))
    }
}

fn failed(x: &Exchange, error: CallError) -> Reply {
    ended(x, Vec::new(), grpc::status_of(error), &error.to_string())
}

/// An answer that ends with a status of the gateway's own.
fn ended(x: &Exchange, mut body: Vec<u8>, status: u8, message: &str) -> Reply {
    let mut trailers = Fields::default();
    trailers.push(b"grpc-status", status.to_string().as_bytes());
    trailers.push(b"grpc-message", message.as_bytes());
    push_trailers(&mut body, &trailers);
    in_form(x, body)
}

/// Appends the frame that stands for trailers.
fn push_trailers(body: &mut Vec<u8>, trailers: &Fields) {
    let mut block = Vec::new();
    for (name, value) in trailers.iter() {
        block.extend(name.iter().map(u8::to_ascii_lowercase));
        block.extend_from_slice(b": ");
        block.extend_from_slice(value);
        block.extend_from_slice(b"\r\n");
    }
    body.push(0x80);
    body.extend_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(&block);
}

fn in_form(x: &Exchange, body: Vec<u8>) -> Reply {
    let Some(form) = x.kept::<Form>() else { return Reply::exit(500, "An unexpected error occurred") };
    let body = if form.text { STANDARD.encode(body).into_bytes() } else { body };
    Reply::with_body(200, form.content_type.clone(), body)
}

/// Base64 in pieces: each may end with padding.
fn decoded(text: &[u8]) -> Option<Bytes> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        let padded = rest.iter().position(|b| *b == b'=').unwrap_or(rest.len());
        let end = rest[padded..].iter().position(|b| *b != b'=').map_or(rest.len(), |n| padded + n);
        let (piece, more) = rest.split_at(end);
        STANDARD.decode_vec(piece, &mut out).ok()?;
        rest = more;
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{check, exchange, policy};

    #[test]
    fn what_is_no_call_is_answered_at_once() {
        let c = |request: &str, want: &str| {
            check::<GrpcWeb>(json!({"allow_origin_header": "https://a.test"}), request, want)
        };
        c(
            "OPTIONS /p.S/M",
            "200\n< Access-Control-Allow-Methods: POST\n< Access-Control-Allow-Origin: https://a.test",
        );
        c(
            "POST /p.S/M\nContent-Type: application/json",
            "415\n< Access-Control-Allow-Origin: https://a.test",
        );
        c("GET /p.S/M\nContent-Type: application/grpc-web", "405");
        c("POST /p.S/M\nContent-Type: application/grpc-web\n\nxx", "503");
    }

    #[test]
    fn pieces_of_base64_are_read() {
        for (text, want) in
            [("YQ==YmM=", Some("abc")), ("YWJj", Some("abc")), ("", Some("")), ("YQ", None), ("*", None)]
        {
            assert_eq!(decoded(text.as_bytes()).as_deref(), want.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn trailers_become_a_frame() {
        let policy: GrpcWeb = policy(&json!({}));
        let mut x = exchange("POST /p.S/M\nContent-Type: application/grpc-web-text");
        x.keep(Form { text: true, json: None, content_type: "application/grpc-web-text".to_owned() });
        let mut trailers = Fields::default();
        trailers.push(b"grpc-status", b"0");
        trailers.push(b"X-More", b"y");
        let response = CallResponse {
            status: 200,
            fields: Fields::default(),
            body: Bytes::from_static(b"\0\0\0\0\x01a"),
            trailers,
            took: std::time::Duration::ZERO,
        };
        let Flow::Reply(reply) = policy.resume(&mut x, Answer::Call(vec![Ok(response)])) else {
            panic!("a reply")
        };
        let body = decoded(&reply.body).expect("base64");
        assert_eq!(&body[..], b"\0\0\0\0\x01a\x80\0\0\0\x1bgrpc-status: 0\r\nx-more: y\r\n");
        let Flow::Reply(reply) = policy.resume(&mut x, Answer::Call(vec![Err(CallError::Timeout)])) else {
            panic!("a reply")
        };
        let body = decoded(&reply.body).expect("base64");
        assert!(body.windows(16).any(|w| w == b"grpc-status: 4\r\n"), "{body:?}");
    }
}
