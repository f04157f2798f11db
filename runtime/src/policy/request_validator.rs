//! `request-validator`: bodies and parameters are what a JSON Schema says.

use jsonschema::{Draft, Validator};

use super::config::Reported;
use super::validation::params::{Parameter, Place, Shape, Style};
use super::validation::{self, Finding, body_value, document, findings, problem, summary};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, media, representation};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::json::Limits;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, TEXT};
use crate::telemetry::Why;

const MODES: Kind = Kind::Enum(&["enforce", "log"]);

static PLUGIN: Descriptor = Descriptor {
    name: "request-validator",
    summary: "check bodies and parameters against JSON schemas",
    doc: "\
## What it does
Refuses requests whose body or parameters are not as their JSON schemas say, before the service sees them; and looks at
responses the same way, to refuse or to log them.

## Why
Services need not defend themselves against malformed input, and clients learn what is wrong and where.

## Example
```yaml
plugins:
  - name: request-validator
    config:
      body_schema:
        type: object
        required: [name]
        properties: { name: { type: string, maxLength: 50 }, price: { type: number, minimum: 0 } }
      parameter_schema:
        - { in: query, name: limit, required: false, schema: { type: integer, maximum: 100 } }
```

## Behaviour
A body that is no JSON, or not as `body_schema` says, is answered 400 with a problem document (RFC 9457) whose `errors`
name the place in the body (`pointer`) and what is wanted there, never the value. So are parameters, which `style` and
`explode` turn into JSON values first. A type that is not in `allowed_content_types`, a charset other than UTF-8 and a
`Content-Encoding` are answered 415; a body longer than `gateway.limits.buffered_body` 413. Objects must not have a name twice.
Path parameters are the named groups of the route's regular expression.

`response_schema` is about successful (2xx) JSON responses. With `response_mode: enforce` others are answered 502, with
`log` only the access log says so, and responses without a length, or too long to hold, are not looked at. `mode: log`
does the same for requests.

Schemas are drafts 4 to 2020-12, written in place or as JSON text; formats are checked; references must lead to the
schema itself, as nothing is ever fetched. Patterns run in linear time, those with look-around within a bound.
",
    fields: &[
        Field::new("body_schema", Kind::Any, "The schema of the body, in place or as JSON text."),
        Field::new("parameter_schema", Kind::List(&Kind::Record(PARAMETER)), "Schemas of parameters.")
            .default("[]"),
        Field::new(
            "version",
            Kind::Enum(&["draft4", "draft6", "draft7", "draft201909", "draft202012"]),
            "The draft that the schemas are written in, unless they say so themselves (`$schema`).",
        )
        .default("\"draft202012\""),
        Field::new("allowed_content_types", Kind::Set(&TEXT), "Types of bodies that are let in; `*` stands for any.")
            .default("[\"application/json\"]"),
        Field::new("mode", MODES, "Whether requests that are wrong are refused, or only logged.")
            .default("\"enforce\"")
            .extension(),
        Field::new("response_schema", Kind::Any, "The schema of successful responses.").extension(),
        Field::new("response_mode", MODES, "Whether responses that are wrong are refused, or only logged.")
            .default("\"log\"")
            .extension(),
        Field::new("max_depth", Kind::Int { min: 1, max: 128 }, "Deepest nesting of a body.")
            .default("64")
            .extension(),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

const PARAMETER: &[Field] = &[
    Field::new("in", Kind::Enum(&["query", "header", "path", "cookie"]), "Where the parameter stands.")
        .required(),
    Field::new("name", TEXT, "Its name.").required(),
    Field::new("required", Kind::Bool, "Whether it must be there.").default("false"),
    Field::new(
        "style",
        Kind::Enum(&["form", "simple", "label", "matrix", "spaceDelimited", "pipeDelimited", "deepObject"]),
        "How several values are written; `form` in queries and cookies, `simple` elsewhere.",
    ),
    Field::new("explode", Kind::Bool, "Whether each value stands alone; with `form` it does if not given."),
    Field::new("schema", Kind::Any, "Its schema, in place or as JSON text."),
];

/// See the module.
pub struct RequestValidator {
    body: Option<Validator>,
    parameters: Vec<Parameter>,
    types: Vec<String>,
    enforce: bool,
    response: Option<Validator>,
    enforce_response: bool,
    limits: Limits,
}

/// The response's body is to be looked at.
struct Looking;

impl Policy for RequestValidator {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let draft = match config.str("version")? {
            "draft4" => Draft::Draft4,
            "draft6" => Draft::Draft6,
            "draft7" => Draft::Draft7,
            "draft201909" => Draft::Draft201909,
            _ => Draft::Draft202012,
        };
        let body = schema(config, "body_schema", draft, cx);
        let response = schema(config, "response_schema", draft, cx);
        let mut parameters = Some(Vec::new());
        for record in config.records("parameter_schema") {
            match (parameter(record, draft, cx), &mut parameters) {
                (Some(p), Some(all)) => all.push(p),
                (None, _) => parameters = None,
                _ => {}
            }
        }
        let (body, response, parameters) = (body.ok()?, response.ok()?, parameters?);
        if body.is_none() && response.is_none() && parameters.is_empty() {
            let fields = ["body_schema", "parameter_schema", "response_schema"];
            cx.at_least_one_of(config, &fields);
            return None;
        }
        let types = config.strings("allowed_content_types");
        Some(Self {
            body: body.map(|(v, _)| v),
            parameters,
            types: types.iter().map(|t| media::parse(t).0).collect(),
            enforce: config.str("mode") == Some("enforce"),
            response: response.map(|(v, _)| v),
            enforce_response: config.str("response_mode") == Some("enforce"),
            limits: Limits {
                depth: config.int("max_depth").and_then(|n| usize::try_from(n).ok())?,
                ..Limits::default()
            },
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let wrong: Vec<Finding> = self.parameters.iter().flat_map(|p| p.check(x, &x.captures)).collect();
        if !wrong.is_empty() {
            return self.wrong(x, 400, "The request's parameters are not as the schema says", &wrong);
        }
        if self.body.is_none() {
            return Flow::Next;
        }
        let held = x.snapshot.gateway.limits.buffered_body;
        // What is only logged must not be refused for its length.
        let length = x.request.fields.text(&names::CONTENT_LENGTH).and_then(|n| n.parse::<usize>().ok());
        if !self.enforce && x.body.is_none() && length.is_none_or(|n| n > held) {
            return Flow::Next;
        }
        Flow::Await(Effect::ReadBody { limit: held })
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        let Some(validator) = &self.body else { return Flow::Next };
        let body = x.body.clone().unwrap_or_default();
        if !body.is_empty() {
            let fields = &x.request.fields;
            let (media, charset) = media::parse(fields.text(&names::CONTENT_TYPE).unwrap_or_default());
            let family = media.split_once('/').map(|(f, _)| format!("{f}/*"));
            let allowed = |t: &String| *t == media || t == "*/*" || t == "*" || Some(t) == family.as_ref();
            let title = if !self.types.iter().any(allowed) {
                Some("The body's content type is not supported")
            } else if !media::is_utf8(charset.as_deref()) {
                Some("The body's charset must be UTF-8")
            } else if representation::codings(fields).is_none_or(|c| !c.is_empty()) {
                Some("The body must not be compressed")
            } else {
                None
            };
            if let Some(title) = title {
                return self.wrong(x, 415, title, &[]);
            }
            if !media::is_json(&media) {
                return Flow::Next;
            }
        }
        let wrong = match body_value(&body, &self.limits) {
            Ok(value) => findings(validator, &value, "body", None),
            Err(finding) => vec![finding],
        };
        match wrong.is_empty() {
            true => Flow::Next,
            false => self.wrong(x, 400, "The request's body is not as the schema says", &wrong),
        }
    }

    fn response(&self, x: &mut Exchange) {
        let json = || {
            let (media, _) = media::parse(x.response.fields.text(&names::CONTENT_TYPE).unwrap_or_default());
            media::is_json(&media)
                && representation::codings(&x.response.fields).is_some_and(|c| c.is_empty())
        };
        if self.response.is_some() && !x.local_response && matches!(x.response.status, 200..=299) && json() {
            x.keep(Looking);
        }
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        if x.local_response || x.kept::<Looking>().is_none() {
            return false;
        }
        let length = x.response.fields.text(&names::CONTENT_LENGTH).and_then(|n| n.parse::<usize>().ok());
        self.enforce_response || length.is_some_and(|n| n <= x.snapshot.gateway.limits.buffered_body)
    }

    fn response_body(&self, x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        let Some(validator) = &self.response else { return Ok(body) };
        let wrong = match body_value(&body, &self.limits) {
            Ok(value) => findings(validator, &value, "body", None),
            Err(finding) => vec![finding],
        };
        validation::judge_response(x, body, &wrong, self.enforce_response)
    }
}

impl RequestValidator {
    fn wrong(&self, x: &mut Exchange, status: u16, title: &str, wrong: &[Finding]) -> Flow {
        if self.enforce {
            return Flow::Reply(problem(x, status, title, wrong));
        }
        x.keep(Why(summary(title, wrong)));
        Flow::Next
    }
}

/// The validator of a field's schema, and the schema.
fn schema(
    config: &Record,
    field: &str,
    draft: Draft,
    cx: &mut Cx<'_>,
) -> Result<Option<(Validator, serde_json::Value)>, Reported> {
    let Some(document) = document::read(config, field, cx)? else { return Ok(None) };
    if !(document.value.is_object() || document.value.is_boolean()) {
        cx.report(&codes::INVALID_VALUE, document.span(""), "a JSON schema is an object, `true` or `false`");
        return Err(Reported);
    }
    let own = document.value.get("$schema").is_some();
    match validation::validator(&document.value, (!own).then_some(draft)) {
        Ok(validator) => Ok(Some((validator, document.value))),
        Err(error) => {
            document.report("", &error, cx);
            Err(Reported)
        }
    }
}

fn parameter(record: &Record, draft: Draft, cx: &mut Cx<'_>) -> Option<Parameter> {
    let place = Place::parse(record.str("in")?)?;
    let default = if matches!(place, Place::Query | Place::Cookie) { "form" } else { "simple" };
    let written = record.str("style").unwrap_or(default);
    let schema = schema(record, "schema", draft, cx).ok()?;
    let (validator, schema) = schema.map_or((None, serde_json::Value::Null), |(v, s)| (Some(v), s));
    Some(Parameter {
        place,
        name: record.str("name")?.to_owned(),
        required: record.bool("required"),
        style: Style::parse(written)?,
        explode: record.bool_opt("explode").unwrap_or(written == "form"),
        shape: Shape::of(&schema, &schema),
        validator,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{check, check_proxied, exchange, policy, refuses, request};

    type P = RequestValidator;

    const JSON: &str = "POST /\nContent-Type: application/json\n\n";

    fn schema() -> serde_json::Value {
        json!({"body_schema": {
            "type": "object", "required": ["name"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"},
                "tags": {"type": "array", "items": {"type": "string", "format": "uuid"}},
            },
        }})
    }

    #[test]
    fn bodies_are_as_the_schema_says() {
        for (body, want) in [
            (r#"{"name":"tea"}"#, "next"),
            (r#"{"name":"tea","tags":["7c2b7b5e-3d0f-4d0a-9f5b-0d2f3a1b2c3d"]}"#, "next"),
            (
                r#"{"name":"s3cret"}"#,
                "400\nbody \"pointer\":\"/name\"\nbody \"in\":\"body\"\n< Content-Type: application/problem+json",
            ),
            (
                r#"{"name":"tea","tags":["x",1]}"#,
                "400\nbody \"pointer\":\"/tags/0\"\nbody \"pointer\":\"/tags/1\"",
            ),
            ("{}", "400\nbody \"pointer\":\"\"\nbody required property"),
            (r#"{"name":"tea""#, "400\nbody line 1, column 14"),
            (r#"{"name":"tea","name":"milk"}"#, "400\nbody the object has this name already"),
            ("", "400\nbody the document is empty"),
        ] {
            check::<P>(schema(), &format!("{JSON}{body}"), want);
        }
        let text = {
            let p = policy::<P>(&schema());
            let mut x = exchange(&format!("{JSON}{{\"name\":\"s3cret\"}}"));
            let Flow::Reply(reply) = request(&p, &mut x) else { panic!("it is wrong") };
            String::from_utf8(reply.body.to_vec()).unwrap()
        };
        assert!(!text.contains("s3cret"), "{text}");
        let deep = format!("{JSON}{}", "[".repeat(200));
        check::<P>(schema(), &deep, "400\nbody nested deeper than 64");
        for (head, status) in [
            ("Content-Type: text/plain", 415),
            ("X: y", 415),
            ("Content-Type: application/json; charset=latin1", 415),
            ("Content-Type: application/json\nContent-Encoding: gzip", 415),
        ] {
            check::<P>(
                schema(),
                &format!("POST /\n{head}\n\n{{}}"),
                &format!("{status}\n< Content-Type: application/problem+json"),
            );
        }
        let mut lax = schema();
        lax["mode"] = json!("log");
        check::<P>(lax, &format!("{JSON}{{}}"), "next\nbody {}");
        let text = json!({"body_schema": "{\"type\":\"array\"}", "version": "draft4", "allowed_content_types": ["*"]});
        check::<P>(text.clone(), "POST /\nContent-Type: application/json\n\n[]", "next");
        check::<P>(text, "POST /\nContent-Type: text/plain\n\nx", "next\nbody x");
    }

    #[test]
    fn parameters_are_as_their_schemas_say() {
        let config = json!({"parameter_schema": [
            {"in": "query", "name": "limit", "required": true, "schema": {"type": "integer", "maximum": 100}},
            {"in": "query", "name": "ids", "explode": false, "schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
            {"in": "header", "name": "X-Kind", "schema": "{\"enum\": [\"a\", \"b\"]}"},
        ]});
        for (request, want) in [
            ("GET /?limit=7", "next"),
            ("GET /?limit=7&ids=1,2\nX-Kind: b", "next"),
            ("GET /", "400\nbody \"in\":\"query\",\"name\":\"limit\",\"detail\":\"is required\""),
            ("GET /?limit=101", "400\nbody \"name\":\"limit\""),
            ("GET /?limit=x", "400\nbody \"name\":\"limit\""),
            ("GET /?limit=1&limit=2", "400\nbody is given more than once"),
            ("GET /?limit=1&ids=1,x", "400\nbody \"name\":\"ids\",\"pointer\":\"/1\""),
            ("GET /?limit=1\nX-Kind: c", "400\nbody \"in\":\"header\",\"name\":\"X-Kind\""),
        ] {
            check::<P>(config.clone(), request, want);
        }
    }

    #[test]
    fn responses_are_refused_or_logged() {
        let config = |mode: &str| json!({"response_schema": {"type": "object"}, "response_mode": mode});
        let wrong = "200\nContent-Type: application/json\nContent-Length: 2\n\n[]";
        check_proxied::<P>(
            config("log"),
            "GET /",
            wrong,
            "next\nresponse []\n< Content-Type: application/json",
        );
        check_proxied::<P>(
            config("enforce"),
            "GET /",
            wrong,
            "next\n< Content-Type: application/problem+json",
        );
        for fine in [
            "200\nContent-Type: application/json\n\n{}",
            "404\nContent-Type: application/json\n\n[]",
            "200\nContent-Type: text/plain\n\nx",
        ] {
            let body = fine.split_once("\n\n").unwrap().1;
            check_proxied::<P>(config("enforce"), "GET /", fine, &format!("next\nresponse {body}"));
        }
    }

    #[test]
    fn mistakes_are_found_at_load() {
        refuses::<P>(json!({}), "at least one of these fields must be non-empty");
        refuses::<P>(json!({"body_schema": {"type": "nothing"}}), "this is no JSON schema");
        refuses::<P>(json!({"body_schema": "{"}), "`body_schema` is neither JSON nor YAML");
        refuses::<P>(json!({"body_schema": "[]"}), "a JSON schema is an object");
        refuses::<P>(json!({"body_schema": {"$ref": "http://127.0.0.1:9/x.json"}}), "this is no JSON schema");
        refuses::<P>(json!({"body_schema": {"$ref": "#/nowhere"}}), "this is no JSON schema");
        refuses::<P>(json!({"body_schema": {"pattern": "("}}), "this is no JSON schema");
    }
}
