//! `request-termination`: an answer of the gateway in place of the upstream's.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::reply::{JSON, Reply};
use super::transform::{self, Header};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names, query_pairs, split_port};
use crate::model::schema::{Field, Kind, Record, STR, Val};

static PLUGIN: Descriptor = Descriptor {
    name: "request-termination",
    summary: "answer requests at the gateway, for maintenance, blocked clients or debugging",
    doc: "\
## What it does
Answers with a fixed status and body. The upstream is never asked.

## Why
To take a service out of operation, to ban one consumer, or to see what the gateway would forward.

## Example
```yaml
plugins:
  - name: request-termination
    config: { status_code: 503, message: back at noon }
```

## Behaviour
Runs after every other policy, so requests without valid credentials still get their 401, and policies that change
responses (`cors`, `response-transformer`) change this one too. With `trigger` only requests that have a header or query
argument of that name are answered. `message` becomes `{\"message\":...}`; `body` is sent as it is. With neither, 401,
404, 405, 500, 502 and 503 have a message of their own, other errors the gateway's usual page, the rest no body. `echo`
answers with the request itself as JSON. `headers` are further fields of the answer, for answers that stand in for a service
that is not there yet.
",
    fields: &[
        Field::new("status_code", Kind::Int { min: 100, max: 599 }, "The status of the answer.").default("503"),
        Field::new("message", STR, "The text of a JSON body `{\"message\":...}`. Excludes `body` and `content_type`."),
        Field::new("content_type", STR, "The type of `body`."),
        Field::new("body", STR, "The body, as it is sent. Excludes `message`."),
        Field::new("headers", Kind::Map(&STR), "Further headers of the answer.").extension(),
        Field::new("echo", Kind::Bool, "Whether to answer with the request as JSON. Excludes `body`.")
            .default("false"),
        Field::new(
            "trigger",
            STR,
            "Name of a header or query argument; requests without it pass. Without `trigger` none pass.",
        ),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

enum Body {
    Message(String),
    Raw {
        content_type: Option<String>,
        body: String,
    },
    /// What the status itself calls for.
    Usual,
}

/// See the module.
pub struct RequestTermination {
    status: u16,
    body: Body,
    headers: Vec<(FieldName, String)>,
    echo: bool,
    trigger: Option<(FieldName, String)>,
}

impl Policy for RequestTermination {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut conflict = false;
        for other in ["content_type", "body"] {
            let message = "message cannot be used with content_type or body";
            conflict |= cx.conflict(config, "message", other, message);
            if config.bool("echo") {
                conflict |=
                    cx.conflict(config, "echo", other, "echo cannot be used with content_type and body");
            }
        }
        if config.str("content_type").is_some() && config.str("body").is_none() {
            let span = config.span_of("content_type");
            cx.report(&crate::diag::codes::MISSING_ALTERNATIVE, span, "content_type requires a body");
            conflict = true;
        }
        if conflict {
            return None;
        }
        let headers = headers_of(config, cx)?;
        let owned = |name| config.str(name).map(str::to_owned);
        Some(Self {
            status: config.int("status_code").and_then(|n| u16::try_from(n).ok())?,
            body: match (owned("message"), owned("body")) {
                (Some(message), _) => Body::Message(message),
                (None, Some(body)) => {
                    Body::Raw { content_type: owned("content_type").map(with_charset), body }
                }
                (None, None) => Body::Usual,
            },
            headers,
            echo: config.bool("echo"),
            trigger: owned("trigger").map(|name| (FieldName::new(&name), name)),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if !self.triggered(x) {
            return Flow::Next;
        }
        if self.echo {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        let status = self.status;
        let reply = match &self.body {
            Body::Message(message) => Reply::exit(status, message),
            Body::Raw { content_type: Some(t), body } => Reply::with_body(status, t.clone(), body.clone()),
            Body::Raw { content_type: None, body } => {
                Reply { status, body: body.clone().into(), ..Reply::default() }
            }
            Body::Usual => usual(x, status),
        };
        Flow::Reply(self.with_headers(reply))
    }

    fn resume(&self, x: &mut Exchange, _answer: Answer) -> Flow {
        let message = match &self.body {
            Body::Message(message) => Some(message.as_str()),
            _ => own_message(self.status),
        };
        let reply = Reply::with_body(self.status, JSON, echo(x, message).to_string());
        Flow::Reply(self.with_headers(reply))
    }
}

impl RequestTermination {
    fn with_headers(&self, mut reply: Reply) -> Reply {
        reply.fields.extend(self.headers.iter().cloned());
        reply
    }

    fn triggered(&self, x: &Exchange) -> bool {
        self.trigger.as_ref().is_none_or(|(field, name)| {
            x.request.fields.contains(field) || x.request.query_arg(name).is_some()
        })
    }
}

/// The headers that the config gives; `None` if what is wrong was reported.
fn headers_of(config: &Record, cx: &mut Cx<'_>) -> Option<Vec<(FieldName, String)>> {
    let (mut headers, mut good) = (Vec::new(), true);
    for (name, value) in config.map("headers") {
        let Val::Str(text) = &value.value else { continue };
        if name.eq_ignore_ascii_case("content-type") {
            cx.report(&codes::INVALID_VALUE, name.span, "the type of the body is said by `content_type`");
            good = false;
        }
        if text.chars().any(char::is_control) {
            cx.report(&codes::INVALID_VALUE, value.span, "a header's value has no control characters");
            good = false;
        }
        match transform::header(name, name.span, cx) {
            Header::Known(name) => headers.push((name, text.clone())),
            Header::Framing => {}
            Header::Bad => good = false,
        }
    }
    good.then_some(headers)
}

/// Kong's nginx names a charset for the types that nginx lists.
fn with_charset(content_type: String) -> String {
    if content_type.eq_ignore_ascii_case("text/html") {
        content_type + "; charset=UTF-8"
    } else {
        content_type
    }
}

/// The messages of a termination that says nothing itself.
fn own_message(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

/// The answer for a bare status: a message, the gateway's error in the shape that the client accepts, nginx's page,
/// or nothing.
fn usual(x: &Exchange, status: u16) -> Reply {
    if let Some(message) = own_message(status) {
        return Reply::exit(status, message);
    }
    let negotiated = match status {
        400 => "Bad request",
        408 => "Request timeout",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Payload too large",
        414 => "URI too long",
        417 => "Expectation failed",
        494 => "Request header or cookie too large",
        504 => "The upstream server is timing out",
        _ => "",
    };
    if !negotiated.is_empty() {
        return Reply::gateway_error(&x.request, x.request_id, status, negotiated);
    }
    match page_title(status) {
        Some(title) => Reply::with_body(status, "text/html; charset=UTF-8", page(status, title)),
        None => Reply::empty(status),
    }
}

/// The statuses for which nginx has a page, and what it calls them.
fn page_title(status: u16) -> Option<&'static str> {
    Some(match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        402 => "Payment Required",
        403 => "Forbidden",
        406 => "Not Acceptable",
        409 => "Conflict",
        410 => "Gone",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => return None,
    })
}

fn page(status: u16, title: &str) -> String {
    format!(
        "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1></center>\
         \r\n<hr><center>gw</center>\r\n</body>\r\n</html>\r\n"
    )
}

/// The request as JSON, in the shape of Kong's `echo`.
fn echo(x: &Exchange, message: Option<&str>) -> Value {
    static NODE: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().to_string());
    let request = &x.request;
    let raw_body = x.body.as_deref().map(String::from_utf8_lossy).unwrap_or(Cow::Borrowed(""));
    let (host, port) = split_port(&request.host);
    let route = x.route.map(|id| &x.snapshot.routes[id.0 as usize]);
    let service = x.service.map(|id| &x.snapshot.services[id.0 as usize]);
    let mut query = Map::new();
    for (name, value) in query_pairs(request.query.as_deref().unwrap_or("")) {
        collect(&mut query, name, value.map_or(Value::Bool(true), Value::String));
    }
    let mut headers = headers(&request.fields);
    headers.insert("host".to_owned(), Value::from(request.host.clone()));
    let mut shown = json!({
        "matched_route": route.map(|r| json!({ "id": r.id, "name": r.name })),
        "matched_service": service.map(|s| json!({ "id": s.id, "name": s.name, "host": s.host })),
        "kong": { "node_id": *NODE, "worker_pid": std::process::id(), "hostname": hostname() },
        "request": {
            "scheme": if x.client.tls { "https" } else { "http" },
            "host": host,
            "port": port.unwrap_or(x.client.local.port()),
            "headers": headers,
            "query": query,
            "body": body_value(x, &raw_body),
            "raw_body": raw_body,
            "method": request.method,
            "path": request.path,
        },
    });
    if let Some(message) = message {
        shown["message"] = Value::from(message);
    }
    shown
}

fn headers(fields: &Fields) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in fields.iter() {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        collect(&mut map, text(name).to_ascii_lowercase(), Value::String(text(value)));
    }
    map
}

/// A second value of a name makes a list.
fn collect(map: &mut Map<String, Value>, name: String, value: Value) {
    match map.get_mut(&name) {
        Some(Value::Array(items)) => items.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => {
            map.insert(name, value);
        }
    }
}

fn body_value(x: &Exchange, raw: &str) -> Value {
    let media = x.request.fields.text(&names::CONTENT_TYPE).unwrap_or("").to_ascii_lowercase();
    if media.starts_with("application/json") {
        return serde_json::from_str(raw).unwrap_or(Value::Null);
    }
    if media.starts_with("application/x-www-form-urlencoded") {
        let mut map = Map::new();
        for (name, value) in query_pairs(raw) {
            collect(&mut map, name, value.map_or(Value::Bool(true), Value::String));
        }
        return Value::Object(map);
    }
    Value::Null
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{check, refuses};

    type P = RequestTermination;

    #[test]
    fn a_termination_answers_what_it_says() {
        let get = "GET /request";
        check::<P>(
            json!({}),
            get,
            "503\nbody {\"message\":\"Service unavailable\"}\n< Content-Type: application/json; charset=utf-8",
        );
        check::<P>(json!({"status_code": 502}), get, "502\nbody {\"message\":\"Bad Gateway\"}");
        check::<P>(json!({"status_code": 418}), get, "418\nresponse\n< Content-Type:");
        check::<P>(
            json!({"status_code": 200, "message": "ok \"then\""}),
            get,
            "200\nresponse {\"message\":\"ok \\\"then\\\"\"}",
        );
        check::<P>(json!({"body": "<p>"}), get, "503\nresponse <p>\n< Content-Type:");
        check::<P>(
            json!({"body": "<p>", "content_type": "text/html"}),
            get,
            "503\nresponse <p>\n< Content-Type: text/html; charset=UTF-8",
        );
        check::<P>(json!({"status_code": 403}), get, "403\nbody <h1>403 Forbidden</h1>");
        check::<P>(
            json!({"status_code": 413}),
            "GET /\nAccept: application/json",
            "413\nbody \"message\":\"Payload too large\"",
        );
    }

    #[test]
    fn only_triggered_requests_are_terminated() {
        let config = json!({"status_code": 404, "trigger": "X-Block"});
        check::<P>(config.clone(), "GET /request", "next");
        check::<P>(config.clone(), "GET /request\nx-block: 1", "404");
        check::<P>(config.clone(), "GET /request?X-Block", "404");
        check::<P>(config, "GET /request?x-block=1", "next");
    }

    #[test]
    fn echo_shows_the_request() {
        let want = "503\nbody \"raw_body\":\"a=1&a=2\"\nbody \"a\":[\"1\",\"2\"]\nbody \"path\":\"/p\"\nbody \"message\":\"m\"";
        let request = "POST /p?q=1\nContent-Type: application/x-www-form-urlencoded\n\na=1&a=2";
        check::<P>(json!({"echo": true, "message": "m"}), request, want);
    }

    #[test]
    fn answers_have_the_headers_that_the_config_gives() {
        let config = json!({"status_code": 200, "body": "[]", "content_type": "application/json", "headers": {"X-Mock": "yes"}});
        check::<RequestTermination>(config, "GET /", "200\nbody []\n< X-Mock: yes");
        for (headers, want) in [
            (json!({"a b": "1"}), "not a valid header name"),
            (json!({"a": "1\n2"}), "control characters"),
            (json!({"Content-Type": "text/plain"}), "`content_type`"),
        ] {
            refuses::<RequestTermination>(json!({"headers": headers}), want);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let message = "message cannot be used with content_type or body";
        refuses::<P>(json!({"message": "a", "body": "b"}), message);
        refuses::<P>(json!({"message": "a", "content_type": "b"}), message);
        refuses::<P>(json!({"echo": true, "body": "x"}), "echo cannot be used with content_type and body");
        refuses::<P>(json!({"content_type": "text/html"}), "content_type requires a body");
    }
}
