//! Parameters as JSON values: the texts of paths, queries, headers and cookies, read by `style` and `explode` (OpenAPI
//! 3.x) into what their schema speaks of.

use jsonschema::Validator;
use serde_json::{Map, Number, Value};

use super::{Finding, findings};
use crate::exchange::Exchange;
use crate::message::{FieldName, form_decode, names};
use crate::policy::representation::list;

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

impl Place {
    /// The place with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Path, Self::Query, Self::Header, Self::Cookie].into_iter().find(|p| p.name() == name)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }
}

/// How several values are written in one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `a,b` in a path or header.
    Simple,
    /// `name=a,b`, or `name=a&name=b` exploded.
    Form,
    SpaceDelimited,
    PipeDelimited,
    /// `name[key]=a`.
    DeepObject,
    /// `.a,b` in a path, or `.a.b` exploded.
    Label,
    /// `;name=a,b` in a path, or `;name=a;name=b` exploded.
    Matrix,
    /// A JSON text.
    Json,
}

impl Style {
    /// The style with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "form" => Self::Form,
            "spaceDelimited" => Self::SpaceDelimited,
            "pipeDelimited" => Self::PipeDelimited,
            "deepObject" => Self::DeepObject,
            "label" => Self::Label,
            "matrix" => Self::Matrix,
            _ => return None,
        })
    }
}

/// Which JSON types a value may have, as far as a schema's outside tells.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    types: Vec<String>,
    items: Option<Box<Shape>>,
    properties: Vec<(String, Shape)>,
}

/// References that are followed after each other, and alternatives within each other.
const DEPTH: u8 = 8;

impl Shape {
    /// The shape of a schema; references are to `root`.
    pub fn of(schema: &Value, root: &Value) -> Self {
        let mut shape = Self::default();
        shape.add(schema, root, DEPTH);
        shape
    }

    fn add(&mut self, schema: &Value, root: &Value, depth: u8) {
        if depth == 0 {
            return;
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?)) {
            self.add(target, root, depth - 1);
        }
        match &schema["type"] {
            Value::String(t) => self.types.push(t.clone()),
            Value::Array(all) => self.types.extend(all.iter().filter_map(|t| t.as_str().map(str::to_owned))),
            _ => {}
        }
        for value in schema["enum"].as_array().into_iter().flatten().chain(schema.get("const")) {
            self.types.push(type_of(value).to_owned());
        }
        for alternative in ["allOf", "anyOf", "oneOf"].iter().filter_map(|k| schema[k].as_array()).flatten() {
            self.add(alternative, root, depth - 1);
        }
        if let Some(items) = schema.get("items") {
            let mut inner = Self::default();
            inner.add(items, root, depth - 1);
            self.items = Some(Box::new(inner));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let mut inner = Self::default();
            inner.add(property, root, depth - 1);
            self.properties.push((name.clone(), inner));
        }
    }

    fn is(&self, name: &str) -> bool {
        self.types.iter().any(|t| t == name)
    }

    fn is_array(&self) -> bool {
        self.is("array") || (self.types.is_empty() && self.items.is_some())
    }

    fn is_object(&self) -> bool {
        self.is("object") || (self.types.is_empty() && !self.properties.is_empty())
    }

    /// A text as the value that the schema may mean.
    fn scalar(&self, text: &str) -> Value {
        if self.is("integer") || self.is("number") {
            let exact = crate::json::number_length(text.as_bytes()) == Ok(text.len());
            if let Some(number) = exact.then(|| text.parse::<Number>().ok()).flatten() {
                return Value::Number(number);
            }
        }
        match text {
            "true" | "false" if self.is("boolean") => Value::Bool(text == "true"),
            "" if self.is("null") && !self.is("string") => Value::Null,
            _ => Value::from(text),
        }
    }

    fn items(&self, texts: impl Iterator<Item = String>) -> Value {
        let any = Self::default();
        let items = self.items.as_deref().unwrap_or(&any);
        texts.map(|t| items.scalar(&t)).collect()
    }

    fn property(&self, name: &str, text: &str) -> Value {
        match self.properties.iter().find(|(n, _)| n == name) {
            Some((_, shape)) => shape.scalar(text),
            None => Value::from(text),
        }
    }

    fn object(&self, pairs: impl Iterator<Item = (String, String)>) -> Value {
        Value::Object(pairs.map(|(n, v)| (n.clone(), self.property(&n, &v))).collect::<Map<_, _>>())
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A parameter and its schema.
pub struct Parameter {
    pub place: Place,
    pub name: String,
    pub required: bool,
    pub style: Style,
    pub explode: bool,
    pub shape: Shape,
    /// Without one only presence is checked.
    pub validator: Option<Validator>,
}

impl Parameter {
    /// What is wrong with the parameter in this request; `path` are the texts that the path's template gave.
    pub fn check(&self, x: &Exchange, path: &[(String, String)]) -> Vec<Finding> {
        let finding = |detail: &str| Finding {
            part: self.place.name(),
            name: Some(self.name.clone()),
            pointer: String::new(),
            detail: detail.to_owned(),
        };
        match self.value(x, path) {
            Ok(None) if self.required => vec![finding("is required")],
            Ok(None) => Vec::new(),
            Ok(Some(value)) => self
                .validator
                .as_ref()
                .map_or_else(Vec::new, |v| findings(v, &value, self.place.name(), Some(&self.name))),
            Err(detail) => vec![finding(detail)],
        }
    }

    fn value(&self, x: &Exchange, path: &[(String, String)]) -> Result<Option<Value>, &'static str> {
        let text = match self.place {
            Place::Path => path.iter().find(|(n, _)| *n == self.name).map(|(_, v)| v.clone()),
            Place::Query => return self.query(x.request.query.as_deref().unwrap_or("")),
            Place::Header => {
                let name = FieldName::new(&self.name);
                x.request.fields.contains(&name).then(|| list(&x.request.fields, &name))
            }
            Place::Cookie => {
                let all = list(&x.request.fields, &names::COOKIE);
                all.split(';').find_map(|c| {
                    let (name, value) = c.trim().split_once('=')?;
                    (name == self.name).then(|| value.trim_matches('"').to_owned())
                })
            }
        };
        let Some(text) = text else { return Ok(None) };
        let decode = |t: &str| match self.place {
            Place::Path => percent_decode(t),
            _ => t.trim().to_owned(),
        };
        if self.style == Style::Json {
            return json(&decode(&text)).map(Some);
        }
        let (text, separator) = match self.style {
            Style::Label => {
                let rest = text.strip_prefix('.').ok_or("does not begin with `.`")?;
                (rest.to_owned(), if self.explode { '.' } else { ',' })
            }
            Style::Matrix => (self.unprefixed(&text).ok_or("is not of the style `matrix`")?, ','),
            _ => (text, ','),
        };
        Ok(Some(if self.shape.is_array() {
            let parts = text.split(separator).filter(|_| !text.is_empty());
            self.shape.items(parts.map(decode))
        } else if self.shape.is_object() {
            let parts: Vec<String> = text.split(separator).map(decode).collect();
            match self.explode {
                true => self.shape.object(
                    parts.iter().filter_map(|p| p.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))),
                ),
                false => self.shape.object(parts.chunks(2).filter_map(|p| match p {
                    [n, v] => Some((n.clone(), v.clone())),
                    _ => None,
                })),
            }
        } else {
            self.shape.scalar(&decode(&text))
        }))
    }

    /// A text of the style `matrix` as one of the style `simple`: its values with commas between them.
    fn unprefixed(&self, text: &str) -> Option<String> {
        let parts: Vec<&str> = text.strip_prefix(';')?.split(';').collect();
        if self.explode && self.shape.is_object() {
            return Some(parts.join(","));
        }
        // A name without a value has the empty one.
        let value = |part: &&str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (percent_decode(name) == self.name).then(|| value.to_owned())
        };
        let values: Vec<String> = parts.iter().map(value).collect::<Option<_>>()?;
        (values.len() == 1 || (self.explode && self.shape.is_array())).then(|| values.join(","))
    }

    fn query(&self, query: &str) -> Result<Option<Value>, &'static str> {
        let pairs = || {
            query.split('&').filter(|p| !p.is_empty()).map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (form_decode(name), value)
            })
        };
        if self.style == Style::DeepObject {
            let inner = |name: &str| {
                Some(name.strip_prefix(&self.name)?.strip_prefix('[')?.strip_suffix(']')?.to_owned())
            };
            let members: Vec<_> = pairs().filter_map(|(n, v)| Some((inner(&n)?, form_decode(v)))).collect();
            return Ok((!members.is_empty()).then(|| self.shape.object(members.into_iter())));
        }
        if self.style == Style::Form && self.explode && self.shape.is_object() {
            // Its members stand in the query themselves.
            let known = |n: &str| self.shape.properties.iter().any(|(p, _)| p == n);
            let members: Vec<_> =
                pairs().filter(|(n, _)| known(n)).map(|(n, v)| (n, form_decode(v))).collect();
            return Ok((!members.is_empty()).then(|| self.shape.object(members.into_iter())));
        }
        let values: Vec<&str> = pairs().filter(|(n, _)| *n == self.name).map(|(_, v)| v).collect();
        let [first, rest @ ..] = &values[..] else { return Ok(None) };
        if self.style == Style::Json {
            return json(&form_decode(first)).map(Some);
        }
        if self.shape.is_array() {
            let split: &[&str] = match self.style {
                Style::SpaceDelimited => &["%20", "+", " "],
                Style::PipeDelimited => &["|", "%7C", "%7c"],
                _ => &[","],
            };
            return Ok(Some(if self.explode {
                self.shape.items(values.iter().map(|v| form_decode(v)))
            } else {
                self.shape.items(split_any(first, split).filter(|_| !first.is_empty()).map(form_decode))
            }));
        }
        if !rest.is_empty() {
            return Err("is given more than once");
        }
        if self.shape.is_object() {
            let parts: Vec<String> = first.split(',').map(form_decode).collect();
            let members = parts.chunks(2).filter_map(|p| match p {
                [n, v] => Some((n.clone(), v.clone())),
                _ => None,
            });
            return Ok(Some(self.shape.object(members)));
        }
        Ok(Some(self.shape.scalar(&form_decode(first))))
    }
}

fn json(text: &str) -> Result<Value, &'static str> {
    super::body_value(text.as_bytes(), &crate::json::Limits::default()).map_err(|_| "is no JSON")
}

/// Splits at any of the separators.
fn split_any<'a>(text: &'a str, separators: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        let next = separators.iter().filter_map(|s| Some((now.find(s)?, s.len()))).min();
        match next {
            Some((at, length)) => {
                rest = Some(&now[at + length..]);
                Some(&now[..at])
            }
            None => {
                rest = None;
                Some(now)
            }
        }
    })
}

/// Decodes `%XX` alone: in a path `+` is itself.
fn percent_decode(text: &str) -> String {
    form_decode(&text.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::exchange;

    fn value(place: Place, style: Style, explode: bool, schema: &Value, request: &str) -> Option<Value> {
        let shape = Shape::of(schema, &Value::Null);
        let p = Parameter {
            place,
            name: "p".to_owned(),
            required: false,
            style,
            explode,
            shape,
            validator: None,
        };
        p.value(&exchange(request), &[("p".to_owned(), "a%2Cb,3".to_owned())]).unwrap()
    }

    #[test]
    fn texts_become_what_the_schema_speaks_of() {
        use Place::{Cookie, Header, Path, Query};
        use Style::{DeepObject, Form, Json, PipeDelimited, Simple, SpaceDelimited};
        let (int, text) = (json!({"type": "integer"}), json!({"type": "string"}));
        let ints = json!({"type": "array", "items": {"type": "integer"}});
        let texts = json!({"type": "array", "items": {"type": "string"}});
        let object = json!({"type": "object", "properties": {"r": {"type": "integer"}, "g": {}}});
        for (place, style, explode, schema, request, want) in [
            (Query, Form, true, &int, "GET /?p=12", json!(12)),
            (Query, Form, true, &int, "GET /?p=1x", json!("1x")),
            (Query, Form, true, &int, "GET /?p=", json!("")),
            (Query, Form, true, &text, "GET /?p=12", json!("12")),
            (Query, Form, true, &json!({"type": "boolean"}), "GET /?p=true", json!(true)),
            (Query, Form, true, &json!({"enum": [1, 2]}), "GET /?p=2", json!(2)),
            (
                Query,
                Form,
                true,
                &json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
                "GET /?p",
                json!(null),
            ),
            (Query, Form, true, &ints, "GET /?p=1&q=2&p=x", json!([1, "x"])),
            (Query, Form, false, &texts, "GET /?p=a,b%2Cc", json!(["a", "b,c"])),
            (Query, SpaceDelimited, false, &texts, "GET /?p=a%20b+c", json!(["a", "b", "c"])),
            (Query, PipeDelimited, false, &ints, "GET /?p=1|2%7C3", json!([1, 2, 3])),
            (Query, DeepObject, true, &object, "GET /?p[r]=1&p%5Bg%5D=x&q[r]=2", json!({"r": 1, "g": "x"})),
            (Query, Form, true, &object, "GET /?r=1&x=2", json!({"r": 1})),
            (Query, Form, false, &object, "GET /?p=r,1,g,x", json!({"r": 1, "g": "x"})),
            (Query, Json, true, &object, "GET /?p=%7B%22r%22%3A1%7D", json!({"r": 1})),
            (Header, Simple, false, &ints, "GET /\np: 1, 2\np: 3", json!([1, 2, 3])),
            (Header, Simple, true, &object, "GET /\np: r=1,g=2", json!({"r": 1, "g": "2"})),
            (Cookie, Form, true, &int, "GET /\nCookie: a=1; p=7", json!(7)),
            (Path, Simple, false, &texts, "GET /", json!(["a,b", "3"])),
            (Path, Simple, false, &text, "GET /", json!("a,b,3")),
        ] {
            assert_eq!(value(place, style, explode, schema, request), Some(want), "{request} {schema}");
        }
        assert_eq!(value(Query, Form, true, &int, "GET /?q=1"), None);
    }

    #[test]
    fn paths_have_styles_of_their_own() {
        use Style::{Label, Matrix};
        let int = json!({"type": "integer"});
        let ints = json!({"type": "array", "items": {"type": "integer"}});
        let object = json!({"type": "object", "properties": {"r": {"type": "integer"}, "g": {}}});
        let rg = json!({"r": 1, "g": "x"});
        for (style, explode, schema, text, want) in [
            (Label, false, &int, ".5", Some(json!(5))),
            (Label, false, &ints, ".3,4", Some(json!([3, 4]))),
            (Label, true, &ints, ".3.4", Some(json!([3, 4]))),
            (Label, false, &object, ".r,1,g,x", Some(rg.clone())),
            (Label, true, &object, ".r=1.g=x", Some(rg.clone())),
            (Label, false, &int, "5", None),
            (Matrix, false, &int, ";p=5", Some(json!(5))),
            (Matrix, false, &ints, ";p=3,4", Some(json!([3, 4]))),
            (Matrix, true, &ints, ";p=3;p=4", Some(json!([3, 4]))),
            (Matrix, false, &object, ";p=r,1,g,x", Some(rg.clone())),
            (Matrix, true, &object, ";r=1;g=x", Some(rg.clone())),
            (Matrix, false, &json!({"type": "string"}), ";p", Some(json!(""))),
            (Matrix, false, &ints, ";p=3;p=4", None),
            (Matrix, false, &int, ";q=5", None),
            (Matrix, false, &int, "5", None),
        ] {
            let p = Parameter {
                place: Place::Path,
                name: "p".to_owned(),
                required: true,
                style,
                explode,
                shape: Shape::of(schema, &Value::Null),
                validator: None,
            };
            let got = p.value(&exchange("GET /"), &[("p".to_owned(), text.to_owned())]);
            assert_eq!(got.ok().flatten(), want, "{style:?} {explode} {text}");
        }
    }
}
