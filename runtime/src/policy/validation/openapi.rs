//! OpenAPI 3.0 and 3.1 documents as operations with validators.

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

use super::document::Document;
use super::params::{Parameter, Place, Shape, Style};
use super::paths::Paths;
use crate::diag::{Diagnostic, codes};
use crate::policy::{Cx, media};
use crate::source::Span;

/// What the document is called among schemas.
const URI: &str = "urn:gw:api";
/// References that lead to references.
const HOPS: usize = 16;

/// A compiled document.
pub struct Api {
    pub paths: Paths<Vec<(String, Operation)>>,
    /// The paths of its servers, without a `/` at the end.
    pub bases: Vec<String>,
}

/// What one method of a path takes and gives.
pub struct Operation {
    pub parameters: Vec<Parameter>,
    pub body: Option<Content>,
    /// By status: `200`, `4XX`, `default`.
    pub responses: Vec<(String, Content)>,
}

/// A body by media type.
pub struct Content {
    pub required: bool,
    /// Ranges such as `application/*`, in lower case; types that are no JSON have no validator.
    pub media: Vec<(String, Option<Validator>)>,
}

impl Content {
    /// The most specific entry for a media type.
    pub fn find(&self, media: &str) -> Option<&(String, Option<Validator>)> {
        let family = media.split_once('/').map(|(f, _)| format!("{f}/*"));
        [Some(media), family.as_deref(), Some("*/*")]
            .into_iter()
            .flatten()
            .find_map(|wanted| self.media.iter().find(|(range, _)| range == wanted))
    }
}

/// Compiles a document; `None` after what is wrong was reported.
pub fn compile(document: &Document, responses: bool, cx: &mut Cx<'_>) -> Option<Api> {
    let version = document.value["openapi"].as_str().unwrap_or_default();
    let old = version.starts_with("3.0");
    if !old && !version.starts_with("3.1") {
        let found = if version.is_empty() { "no `openapi` field" } else { version };
        let message = format!("only OpenAPI 3.0 and 3.1 are understood, here is {found}");
        cx.report(&codes::INVALID_VALUE, document.span("/openapi"), message);
        return None;
    }
    let mut requests = document.value.clone();
    if old {
        modernise(&mut requests);
    }
    let mut answers = if responses { requests.clone() } else { Value::Null };
    drop_required(&mut requests, "readOnly");
    drop_required(&mut answers, "writeOnly");
    let mut compiler = Compiler { document, good: true, cx };
    let api = compiler.run(&requests, &answers)?;
    compiler.good.then_some(api)
}

struct Compiler<'a, 'b> {
    document: &'a Document,
    good: bool,
    cx: &'a mut Cx<'b>,
}

/// A document whose schemas can be referred to.
struct Schemas<'a> {
    root: &'a Value,
    registry: Registry<'a>,
}

impl<'a> Schemas<'a> {
    fn new(root: &'a Value) -> Result<Self, String> {
        let registry = Registry::new()
            .draft(Draft::Draft202012)
            .add(URI, root)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .map_err(|e| e.to_string())?;
        Ok(Self { root, registry })
    }

    /// Follows references from a pointer to what is no reference.
    fn resolve(&self, pointer: &str) -> Option<(String, &'a Value)> {
        let mut pointer = pointer.to_owned();
        for _ in 0..HOPS {
            let value = self.root.pointer(&pointer)?;
            match value["$ref"].as_str() {
                Some(target) => pointer = decode_fragment(target.strip_prefix('#')?),
                None => return Some((pointer, value)),
            }
        }
        None
    }
}

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

impl Compiler<'_, '_> {
    fn fault(&mut self, pointer: &str, message: impl Into<String>) {
        self.good = false;
        let span: Span = self.document.span(pointer);
        let note = self.document.note(pointer);
        let note = note.unwrap_or_else(|| format!("at `{pointer}` in the OpenAPI document"));
        self.cx.diags.push(Diagnostic::new(&codes::INVALID_VALUE, span, message).note(note));
    }

    fn run(&mut self, requests: &Value, answers: &Value) -> Option<Api> {
        let made = Schemas::new(requests).and_then(|r| Ok((r, Schemas::new(answers)?)));
        let (requests, answers) = match made {
            Ok(schemas) => schemas,
            Err(what) => {
                self.fault("", format!("the document's schemas cannot be read: {what}"));
                return None;
            }
        };
        let mut all = Vec::new();
        for (path, _) in requests.root["paths"].as_object().into_iter().flatten() {
            let pointer = format!("/paths/{}", escape(path));
            let Some((pointer, item)) = requests.resolve(&pointer) else {
                self.fault(&pointer, "the path refers to what is not in the document");
                continue;
            };
            let mut operations = Vec::new();
            for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
                let operation = self.operation(&requests, &answers, &pointer, method);
                operations.push((method.to_ascii_uppercase(), operation));
            }
            all.push((path.clone(), operations));
        }
        if all.is_empty() {
            self.fault("/paths", "the document has no paths, so it would refuse every request");
        }
        let bases = requests.root["servers"].as_array().into_iter().flatten().filter_map(|s| {
            let url = s["url"].as_str()?;
            let path = match url.split_once("://") {
                Some((_, rest)) => rest.find('/').map_or("", |i| &rest[i..]),
                None => url,
            };
            Some(path.trim_end_matches('/').to_owned())
        });
        Some(Api { bases: bases.collect(), paths: Paths::new(all.into_iter()) })
    }

    fn operation(
        &mut self,
        requests: &Schemas<'_>,
        answers: &Schemas<'_>,
        item: &str,
        method: &str,
    ) -> Operation {
        let here = format!("{item}/{method}");
        let mut parameters: Vec<Parameter> = Vec::new();
        // The operation's own come last and replace those of the path.
        for list in [format!("{item}/parameters"), format!("{here}/parameters")] {
            let count = requests.root.pointer(&list).and_then(Value::as_array).map_or(0, Vec::len);
            for i in 0..count {
                if let Some(parameter) = self.parameter(requests, &format!("{list}/{i}")) {
                    parameters.retain(|p| p.place != parameter.place || p.name != parameter.name);
                    parameters.push(parameter);
                }
            }
        }
        let body = format!("{here}/requestBody");
        let body = requests.root.pointer(&body).is_some().then(|| self.content(requests, &body));
        let statuses = answers.root.pointer(&format!("{here}/responses")).and_then(Value::as_object);
        let responses = statuses
            .into_iter()
            .flatten()
            .map(|(status, _)| {
                let pointer = format!("{here}/responses/{}", escape(status));
                (status.to_ascii_uppercase(), self.content(answers, &pointer))
            })
            .collect();
        Operation { parameters, body, responses }
    }

    fn parameter(&mut self, schemas: &Schemas<'_>, pointer: &str) -> Option<Parameter> {
        let Some((pointer, value)) = schemas.resolve(pointer) else {
            self.fault(pointer, "the parameter refers to what is not in the document");
            return None;
        };
        let (Some(name), Some(place)) = (value["name"].as_str(), value["in"].as_str().and_then(Place::parse))
        else {
            self.fault(&pointer, "a parameter needs `name` and `in`");
            return None;
        };
        // OpenAPI 12.2: these are described elsewhere.
        let described = ["accept", "content-type", "authorization"];
        if place == Place::Header && described.iter().any(|n| name.eq_ignore_ascii_case(n)) {
            return None;
        }
        let default = if matches!(place, Place::Query | Place::Cookie) { "form" } else { "simple" };
        let written = value["style"].as_str().unwrap_or(default);
        let content = value["content"].as_object().and_then(|c| c.keys().next());
        let (schema, style) = match content {
            Some(media) => (format!("{pointer}/content/{}/schema", escape(media)), Some(Style::Json)),
            None => (format!("{pointer}/schema"), Style::parse(written)),
        };
        let Some(style) = style else {
            let span = self.document.span(&format!("{pointer}/style"));
            let message = format!("parameters of style `{written}` are not validated");
            self.cx.diags.push(Diagnostic::new(&codes::NO_EFFECT, span, message));
            return None;
        };
        let found = schemas.root.pointer(&schema);
        Some(Parameter {
            place,
            name: name.to_owned(),
            required: value["required"].as_bool().unwrap_or(false) || place == Place::Path,
            style,
            explode: value["explode"].as_bool().unwrap_or(written == "form"),
            shape: Shape::of(found.unwrap_or(&Value::Null), schemas.root),
            validator: found.and_then(|_| self.schema(schemas, &schema)),
        })
    }

    /// The content of a request body or a response.
    fn content(&mut self, schemas: &Schemas<'_>, pointer: &str) -> Content {
        let Some((pointer, value)) = schemas.resolve(pointer) else {
            self.fault(pointer, "this refers to what is not in the document");
            return Content { required: false, media: Vec::new() };
        };
        let mut entries = Vec::new();
        for (range, entry) in value["content"].as_object().into_iter().flatten() {
            let (name, _) = media::parse(range);
            let schema = format!("{pointer}/content/{}/schema", escape(range));
            let json = media::is_json(&name) && entry.get("schema").is_some();
            let validator = if json { self.schema(schemas, &schema) } else { None };
            entries.push((name, validator));
        }
        Content { required: value["required"].as_bool().unwrap_or(false), media: entries }
    }

    fn schema(&mut self, schemas: &Schemas<'_>, pointer: &str) -> Option<Validator> {
        let reference = json!({ "$ref": format!("{URI}#{}", encode_fragment(pointer)) });
        let options = jsonschema::options()
            .offline()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_registry(&schemas.registry);
        let built = super::build(options, &reference);
        match built {
            Ok(validator) => Some(validator),
            Err(error) => {
                self.fault(pointer, format!("this is no JSON schema: {error}"));
                None
            }
        }
    }
}

/// Makes the schemas of OpenAPI 3.0 those of JSON Schema 2020-12.
fn modernise(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(modernise),
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                if let Some(Value::String(t)) = map.get("type").cloned() {
                    map.insert("type".to_owned(), json!([t, "null"]));
                }
                if let Some(Value::Array(values)) = map.get_mut("enum")
                    && !values.contains(&Value::Null)
                {
                    values.push(Value::Null);
                }
            }
            for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
                match map.get(flag) {
                    Some(Value::Bool(true)) => {
                        if let Some(n) = map.shift_remove(bound) {
                            map.insert(flag.to_owned(), n);
                        } else {
                            map.shift_remove(flag);
                        }
                    }
                    Some(Value::Bool(false)) => {
                        map.shift_remove(flag);
                    }
                    _ => {}
                }
            }
            for (name, inner) in map.iter_mut() {
                if !matches!(name.as_str(), "example" | "examples" | "enum" | "default" | "const") {
                    modernise(inner);
                }
            }
        }
        _ => {}
    }
}

/// Properties that one direction does not have cannot be required in it.
fn drop_required(value: &mut Value, flag: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| drop_required(v, flag)),
        Value::Object(map) => {
            let absent: Vec<String> = map
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .filter(|(_, p)| p[flag] == Value::Bool(true))
                .map(|(n, _)| n.clone())
                .collect();
            if let Some(Value::Array(required)) = map.get_mut("required") {
                required.retain(|r| !absent.iter().any(|a| r == a));
            }
            map.values_mut().for_each(|v| drop_required(v, flag));
        }
        _ => {}
    }
}

fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// A pointer as the fragment of a URI.
fn encode_fragment(pointer: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(pointer.len());
    for b in pointer.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

fn decode_fragment(fragment: &str) -> String {
    crate::message::form_decode(&fragment.replace('+', "%2B"))
}
