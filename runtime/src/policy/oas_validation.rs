//! `oas-validation`: requests and responses are what an OpenAPI document says.

use super::validation::openapi::{self, Api, Operation};
use super::validation::params::Place;
use super::validation::{self, Finding, body_value, document, findings, problem, summary};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, media, representation};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::json::Limits;
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, Record, STR, TEXT};
use crate::telemetry::Why;

static PLUGIN: Descriptor = Descriptor {
    name: "oas-validation",
    summary: "check requests and responses against an OpenAPI document",
    doc: "\
## What it does
Finds the operation of an OpenAPI 3.0 or 3.1 document that a request is about, and checks its parameters and body; and its
response, if asked to.

## Why
The document that clients read is the one that holds.

## Example
```yaml
plugins:
  - name: oas-validation
    config:
      validate_response_body: true
      notify_only_response_body_validation_failure: true
      api_spec:
        openapi: 3.1.0
        paths:
          /pets/{id}:
            get:
              parameters: [{ in: path, name: id, required: true, schema: { type: integer } }]
              responses: { \"200\": { description: a pet } }
```

## Behaviour
A path that the document does not have is answered 404, a method that the path does not have 405 with `Allow`. Parameters and bodies
that are not as the document says are answered 400, types that the operation does not take 415, with a problem document
(RFC 9457) whose `errors` name the place and what is wanted there, never the value. A response that is not as the document
says is answered 502. With a `notify_only_...` field only the access log says so; responses without a length, or too long to
hold, are then not looked at. What is not JSON is checked for its type alone. `readOnly` properties need not be in
requests, `writeOnly` ones not in responses.

The request's path is compared as it came, without the base path: `custom_base_path`, or with `include_base_path` the
path of the document's servers. Concrete paths win over templates, as OpenAPI has it; parts of segments can be parameters. Schemas
that are none are errors at load; nothing is fetched, so references must lead into the document. A file (`api_spec_file`) is read when
the config is, by `gw validate`, too, and again at a reload; errors say its line. Parameters of every style (`simple`, `form`, `label`,
`matrix`, `spaceDelimited`, `pipeDelimited`, `deepObject`) are read, as their schema means them.
",
    fields: &[
        Field::new("api_spec", Kind::Any, "The document, in place or as JSON or YAML text."),
        Field::new("api_spec_file", TEXT, "The file with the document, JSON or YAML; its path is taken from the config file's folder.")
            .extension(),
        Field::new("validate_request_body", Kind::Bool, "Whether bodies of requests are checked.").default("true"),
        Field::new("validate_request_header_params", Kind::Bool, "Whether headers and cookies are checked.")
            .default("true"),
        Field::new("validate_request_query_params", Kind::Bool, "Whether the query is checked.").default("true"),
        Field::new("validate_request_uri_params", Kind::Bool, "Whether parameters in the path are checked.")
            .default("true"),
        Field::new("validate_response_body", Kind::Bool, "Whether bodies of responses are checked.").default("false"),
        Field::new("query_parameter_check", Kind::Bool, "Whether arguments that the operation does not name are refused.")
            .default("false"),
        Field::new("notify_only_request_validation_failure", Kind::Bool, "Whether wrong requests are only logged.")
            .default("false"),
        Field::new("notify_only_response_body_validation_failure", Kind::Bool, "Whether wrong responses are only logged.")
            .default("false"),
        Field::new("include_base_path", Kind::Bool, "Whether the paths of the document's servers come first.")
            .default("false"),
        Field::new("custom_base_path", STR, "A path that comes before the document's own."),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct OasValidation {
    /// None where files are not read: nothing passes then.
    api: Option<Api>,
    body: bool,
    parts: Vec<Place>,
    unknown_arguments: bool,
    responses: bool,
    enforce: bool,
    enforce_responses: bool,
    bases: Vec<String>,
}

/// The operation that the request is about: path in the document's order, method.
struct About {
    path: String,
    method: String,
}

/// The response's body is to be looked at.
struct Looking;

impl Policy for OasValidation {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let responses = config.bool("validate_response_body");
        let api = match Self::document(config, cx)? {
            Some(document) => Some(openapi::compile(&document, responses, cx)?),
            None => None,
        };
        let mut parts = Vec::new();
        for (field, places) in [
            ("validate_request_header_params", &[Place::Header, Place::Cookie][..]),
            ("validate_request_query_params", &[Place::Query]),
            ("validate_request_uri_params", &[Place::Path]),
        ] {
            if config.bool(field) {
                parts.extend(places);
            }
        }
        let bases = match config.str("custom_base_path") {
            Some(base) if !base.is_empty() => vec![base.trim_end_matches('/').to_owned()],
            _ if config.bool("include_base_path") => {
                api.as_ref().map(|a| a.bases.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Some(Self {
            api,
            body: config.bool("validate_request_body"),
            parts,
            unknown_arguments: config.bool("query_parameter_check"),
            responses,
            enforce: !config.bool("notify_only_request_validation_failure"),
            enforce_responses: !config.bool("notify_only_response_body_validation_failure"),
            bases,
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let Some(api) = &self.api else {
            x.keep(Why("the OpenAPI document was not read".to_owned()));
            return Flow::Reply(Reply::exit(500, "An unexpected error occurred"));
        };
        let path = self.own_path(&x.request.path).unwrap_or_default().to_owned();
        let Some((operations, found)) = api.paths.find(&path) else {
            return self.wrong(x, 404, "The API has no such path", &[]);
        };
        let Some(operation) = operation(operations, &x.request.method) else {
            let allowed: Vec<&str> = operations.iter().map(|(m, _)| m.as_str()).collect();
            let allowed = allowed.join(", ");
            return match self.wrong(x, 405, "The path has no such method", &[]) {
                Flow::Reply(reply) => Flow::Reply(reply.field(FieldName::new("Allow"), allowed)),
                flow => flow,
            };
        };
        x.keep(About { path, method: x.request.method.clone() });
        let checked = operation.parameters.iter().filter(|p| self.parts.contains(&p.place));
        let mut wrong: Vec<Finding> = checked.flat_map(|p| p.check(x, &found)).collect();
        if self.unknown_arguments {
            wrong.extend(unknown_arguments(operation, x));
        }
        if !wrong.is_empty() {
            return self.wrong(x, 400, "The request's parameters are not as the API says", &wrong);
        }
        if !self.body || operation.body.is_none() {
            return Flow::Next;
        }
        let held = x.snapshot.gateway.limits.buffered_body;
        let length = x.request.fields.text(&names::CONTENT_LENGTH).and_then(|n| n.parse::<usize>().ok());
        // What is only logged must not be refused for its length.
        if !self.enforce && x.body.is_none() && length.is_none_or(|n| n > held) {
            return Flow::Next;
        }
        Flow::Await(Effect::ReadBody { limit: held })
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        let Some(content) = self.about(x).and_then(|o| o.body.as_ref()) else { return Flow::Next };
        let body = x.body.clone().unwrap_or_default();
        let absent = |detail: &str| {
            let detail = detail.to_owned();
            Finding { part: "body", name: None, pointer: String::new(), detail }
        };
        if body.is_empty() {
            return match content.required {
                true => {
                    self.wrong(x, 400, "The request's body is not as the API says", &[absent("is required")])
                }
                false => Flow::Next,
            };
        }
        let (media, charset) = media::parse(x.request.fields.text(&names::CONTENT_TYPE).unwrap_or_default());
        let encoded = representation::codings(&x.request.fields).is_none_or(|c| !c.is_empty());
        let Some((_, validator)) = content.find(&media).filter(|_| !encoded) else {
            return self.wrong(x, 415, "The operation does not take bodies of this type", &[]);
        };
        let Some(validator) = validator else { return Flow::Next };
        if !media::is_utf8(charset.as_deref()) {
            return self.wrong(x, 415, "The body's charset must be UTF-8", &[]);
        }
        let wrong = match body_value(&body, &Limits::default()) {
            Ok(value) => findings(validator, &value, "body", None),
            Err(finding) => vec![finding],
        };
        match wrong.is_empty() {
            true => Flow::Next,
            false => self.wrong(x, 400, "The request's body is not as the API says", &wrong),
        }
    }

    fn response(&self, x: &mut Exchange) {
        let plain = representation::codings(&x.response.fields).is_some_and(|c| c.is_empty());
        if self.responses && !x.local_response && plain && self.about(x).is_some() {
            x.keep(Looking);
        }
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        if x.local_response || x.kept::<Looking>().is_none() {
            return false;
        }
        let length = x.response.fields.text(&names::CONTENT_LENGTH).and_then(|n| n.parse::<usize>().ok());
        self.enforce_responses || length.is_some_and(|n| n <= x.snapshot.gateway.limits.buffered_body)
    }

    fn response_body(&self, x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        let wrong = self.about(x).map_or_else(Vec::new, |o| wrong_in_response(o, x, &body));
        validation::judge_response(x, body, &wrong, self.enforce_responses)
    }
}

impl OasValidation {
    /// The document, in place or of a file. `Some(None)` where the file may be missing; `None` if what is wrong was
    /// reported.
    fn document(config: &Record, cx: &mut Cx<'_>) -> Option<Option<document::Document>> {
        let both = "the document is either in place or in a file";
        if cx.conflict(config, "api_spec", "api_spec_file", both)
            || !cx.at_least_one_of(config, &["api_spec", "api_spec_file"])
        {
            return None;
        }
        if let Some(path) = config.spanned_str("api_spec_file") {
            return document::read_file("api_spec_file", &path, cx).ok();
        }
        match document::read(config, "api_spec", cx) {
            Ok(Some(document)) => Some(Some(document)),
            // Text that holds nothing is no document.
            Ok(None) => {
                cx.report(
                    &codes::INVALID_VALUE,
                    config.span_of("api_spec"),
                    "`api_spec`: the document is empty",
                );
                None
            }
            Err(_) => None,
        }
    }

    /// The path without the base; `None` if it does not begin with one.
    fn own_path<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.bases.is_empty() {
            return Some(path);
        }
        let rest =
            |base: &String| path.strip_prefix(base.as_str()).filter(|r| r.starts_with('/') || r.is_empty());
        let rest = self.bases.iter().find_map(rest)?;
        Some(if rest.is_empty() { "/" } else { rest })
    }

    /// The operation that the request is about.
    fn about(&self, x: &Exchange) -> Option<&Operation> {
        let about = x.kept::<About>()?;
        let (operations, _) = self.api.as_ref()?.paths.find(&about.path)?;
        operation(operations, &about.method)
    }

    fn wrong(&self, x: &mut Exchange, status: u16, title: &str, wrong: &[Finding]) -> Flow {
        if self.enforce {
            return Flow::Reply(problem(x, status, title, wrong));
        }
        x.keep(Why(summary(title, wrong)));
        Flow::Next
    }
}

/// `HEAD` is what `GET` is, unless the document says otherwise.
fn operation<'o>(operations: &'o [(String, Operation)], method: &str) -> Option<&'o Operation> {
    let find = |m: &str| operations.iter().find(|(name, _)| name == m).map(|(_, o)| o);
    find(method).or_else(|| find("GET").filter(|_| method == "HEAD"))
}

fn unknown_arguments(operation: &Operation, x: &Exchange) -> Vec<Finding> {
    let known = |name: &str| {
        let bare = name.split('[').next().unwrap_or(name);
        operation.parameters.iter().any(|p| p.place == Place::Query && (p.name == name || p.name == bare))
    };
    let pairs = crate::message::query_pairs(x.request.query.as_deref().unwrap_or(""));
    pairs
        .filter(|(name, _)| !known(name))
        .map(|(name, _)| Finding {
            part: "query",
            name: Some(name.chars().take(60).collect()),
            pointer: String::new(),
            detail: "is not a parameter of the operation".to_owned(),
        })
        .collect()
}

fn wrong_in_response(operation: &Operation, x: &Exchange, body: &[u8]) -> Vec<Finding> {
    let finding = |detail: &str| {
        vec![Finding { part: "body", name: None, pointer: String::new(), detail: detail.to_owned() }]
    };
    let (status, family) = (x.response.status.to_string(), format!("{}XX", x.response.status / 100));
    let wanted = [status.as_str(), family.as_str(), "DEFAULT"];
    let content = wanted.iter().find_map(|w| operation.responses.iter().find(|(s, _)| s == w));
    let Some((_, content)) = content else { return finding("the operation has no response of this status") };
    if body.is_empty() || content.media.is_empty() {
        return Vec::new();
    }
    let (media, _) = media::parse(x.response.fields.text(&names::CONTENT_TYPE).unwrap_or_default());
    match content.find(&media) {
        None => finding("the operation has no response of this content type"),
        Some((_, None)) => Vec::new(),
        Some((_, Some(validator))) => match body_value(body, &Limits::default()) {
            Ok(value) => findings(validator, &value, "body", None),
            Err(finding) => vec![finding],
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::testing::{check, check_proxied, refuses};

    type P = OasValidation;

    fn spec(version: &str) -> Value {
        json!({
            "openapi": version,
            "servers": [{"url": "https://api.test/v1/"}],
            "paths": {
                "/pets": {
                    "parameters": [{"$ref": "#/components/parameters/Limit"}],
                    "get": {"parameters": [{"in": "query", "name": "tags", "explode": false, "schema": {"type": "array", "items": {"type": "string"}, "maxItems": 2}}],
                            "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}}}},
                                          "4XX": {"description": ""}}},
                    "post": {"requestBody": {"$ref": "#/components/requestBodies/Pet"}, "responses": {"default": {"description": ""}}},
                },
                "/pets/{id}": {
                    "get": {"parameters": [{"in": "path", "name": "id", "required": true, "schema": {"type": "integer", "minimum": 1}},
                                           {"in": "header", "name": "X-Trace", "required": true, "schema": {"type": "string", "format": "uuid"}}],
                            "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}}}},
                },
                "/pets/mine": {"get": {"responses": {"default": {"description": ""}}}},
            },
            "components": {
                "parameters": {"Limit": {"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 100}}},
                "requestBodies": {"Pet": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}, "text/plain": {}}}},
                "schemas": {"Pet": {"type": "object", "required": ["id", "name", "secret"], "properties": {
                    "id": {"type": "integer", "readOnly": true}, "secret": {"type": "string", "writeOnly": true},
                    "name": {"type": "string", "nullable": true, "maxLength": 5}, "age": {"type": "number", "minimum": 0, "exclusiveMinimum": true}}}},
            },
        })
    }

    fn config() -> Value {
        json!({"api_spec": spec("3.0.3"), "validate_response_body": true})
    }

    #[test]
    fn requests_are_as_the_document_says() {
        for (request, want) in [
            ("GET /pets", "next"),
            ("GET /pets?limit=5&tags=a,b", "next"),
            ("GET /pets?limit=101", "400\nbody \"name\":\"limit\""),
            ("GET /pets?tags=a,b,c", "400\nbody \"name\":\"tags\""),
            ("GET /pets/7\nX-Trace: 7c2b7b5e-3d0f-4d0a-9f5b-0d2f3a1b2c3d", "next"),
            ("GET /pets/7", "400\nbody \"in\":\"header\",\"name\":\"X-Trace\",\"detail\":\"is required\""),
            (
                "GET /pets/0\nX-Trace: x",
                "400\nbody \"in\":\"path\",\"name\":\"id\"\nbody \"name\":\"X-Trace\"",
            ),
            ("GET /pets/mine", "next"),
            ("HEAD /pets/mine", "next"),
            ("GET /nowhere", "404\n< Content-Type: application/problem+json"),
            ("DELETE /pets", "405\n< Allow: GET, POST"),
            ("POST /pets", "400\nbody is required"),
            ("POST /pets\nContent-Type: text/plain\n\nx", "next"),
            ("POST /pets\nContent-Type: text/html\n\nx", "415"),
            ("POST /pets\nContent-Type: application/json\n\n{\"name\":null,\"secret\":\"s\"}", "next"),
            (
                "POST /pets\nContent-Type: application/json\n\n{\"name\":\"toolong\",\"secret\":\"s\"}",
                "400\nbody \"pointer\":\"/name\"",
            ),
            ("POST /pets\nContent-Type: application/json\n\n{\"name\":\"a\"}", "400\nbody required property"),
            (
                "POST /pets\nContent-Type: application/json\n\n{\"name\":\"a\",\"secret\":\"s\",\"age\":0}",
                "400\nbody \"pointer\":\"/age\"",
            ),
            ("POST /pets\nContent-Type: application/json\n\n{", "400\nbody line 1, column 2"),
        ] {
            check::<P>(config(), request, want);
        }
        let mut strict = config();
        strict["query_parameter_check"] = json!(true);
        check::<P>(strict, "GET /pets?limit=1&x=2", "400\nbody \"name\":\"x\"");
        let mut based = config();
        based["include_base_path"] = json!(true);
        check::<P>(based.clone(), "GET /v1/pets", "next");
        check::<P>(based, "GET /pets", "404");
        let mut lax = config();
        lax["notify_only_request_validation_failure"] = json!(true);
        check::<P>(lax.clone(), "GET /nowhere", "next");
        check::<P>(lax, "POST /pets\nContent-Type: application/json\n\n{", "next\nbody {");
    }

    #[test]
    fn responses_are_as_the_document_says() {
        for (answer, fine) in [
            ("200\nContent-Type: application/json\n\n[{\"id\":1,\"name\":\"a\"}]", true),
            ("404\nContent-Type: text/plain\n\nx", true),
            ("200\nContent-Type: application/json\n\n[{\"name\":\"a\"}]", false),
            ("200\nContent-Type: text/plain\n\nx", false),
            ("500\nContent-Type: text/plain\n\nx", false),
            ("200\nContent-Type: application/json\n\n[", false),
        ] {
            let body = answer.split_once("\n\n").unwrap().1;
            let want = match fine {
                true => format!("next\nresponse {body}"),
                false => "next\n< Content-Type: application/problem+json".to_owned(),
            };
            check_proxied::<P>(config(), "GET /pets", answer, &want);
        }
    }

    #[test]
    fn documents_are_checked_at_load() {
        refuses::<P>(json!({"api_spec": {"swagger": "2.0"}}), "only OpenAPI 3.0 and 3.1");
        refuses::<P>(json!({"api_spec": "openapi: 3.1.0\n\tx"}), "neither JSON nor YAML");
        refuses::<P>(json!({"api_spec": {"openapi": "3.1.0", "paths": {}}}), "has no paths");
        let broken = |schema: Value| {
            json!({"api_spec": {"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody":
                {"content": {"application/json": {"schema": schema}}}, "responses": {}}}}}})
        };
        refuses::<P>(broken(json!({"type": "nothing"})), "this is no JSON schema");
        refuses::<P>(broken(json!({"$ref": "#/components/schemas/Nope"})), "this is no JSON schema");
        refuses::<P>(broken(json!({"$ref": "https://127.0.0.1:9/x"})), "this is no JSON schema");
        let yaml = "openapi: 3.1.0\npaths:\n  /a/{b}.json:\n    get:\n      responses:\n        200: { description: x }\n";
        check::<P>(json!({"api_spec": yaml}), "GET /a/1.json", "next");
    }
}
