//! From templates to a call: data never changes where a call goes, only what it says.

use std::cell::OnceCell;
use std::fmt::Write as _;

use bytes::Bytes;

use super::plan::{Body, Part};
use crate::exchange::Exchange;
use crate::json::{Json, Members};
use crate::message::{FieldName, Fields, names};
use crate::policy::form::Args;
use crate::template::{EvalError, Lookup, Root, Template, Value};

/// What templates see of the request, kept beyond the exchange's turn.
#[derive(Debug)]
pub struct Request {
    pub fields: Fields,
    /// Those of `fields` that are the gateway's own word about the caller; every part gets them.
    own: Fields,
    host: String,
    query: Args,
    captures: Vec<(String, String)>,
    claims: OnceCell<Option<Json>>,
    raw_claims: Option<std::rc::Rc<serde_json::Value>>,
    /// The request's JSON body, where a template looks into it.
    pub body: Option<Json>,
}

impl Request {
    /// The request as it is now.
    pub fn of(x: &Exchange, body: Option<Json>) -> Self {
        let mut own = x.request.fields.clone();
        // Clients cannot have set them: theirs were removed.
        own.retain(|_, name, _| x.snapshot.stripped_headers.contains(name));
        Self {
            own,
            fields: x.request.fields.clone(),
            host: x.request.host.clone(),
            query: Args::parse(x.request.query.as_deref().unwrap_or("")),
            captures: x.captures.clone(),
            claims: OnceCell::new(),
            raw_claims: x.identity.as_ref().and_then(|i| i.claims.clone()),
            body,
        }
    }

    /// The values of an argument of the query.
    pub fn arguments(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.values(name).iter().map(|v| v.as_deref().unwrap_or(""))
    }
}

/// Everything that the templates of one call see.
pub struct View<'a> {
    pub request: &'a Request,
    /// What parts answered, by index, and their names.
    pub answers: &'a [Option<Json>],
    pub parts: &'a [Part],
    pub item: Option<&'a Json>,
}

impl Lookup for View<'_> {
    fn header(&self, name: &str) -> Value<'_> {
        if name.eq_ignore_ascii_case("host") {
            return Value::Str(self.request.host.clone());
        }
        let values = |name: &str| -> Vec<String> {
            let name = FieldName::new(name);
            self.request.fields.all(&name).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
        };
        let found = values(name);
        // `headers.x_name` is the header `X-Name`.
        listed(if found.is_empty() && name.contains('_') { values(&name.replace('_', "-")) } else { found })
    }

    fn query(&self, name: &str) -> Value<'_> {
        match self.request.query.values(name) {
            [None] => Value::Bool(true),
            values => listed(values.iter().map(|v| v.clone().unwrap_or_default()).collect()),
        }
    }

    fn capture(&self, name: &str) -> Value<'_> {
        let found = self.request.captures.iter().find(|(n, _)| n == name);
        found.map_or(Value::Nil, |(_, text)| {
            Value::Str(crate::message::form_decode(&text.replace('+', "%2B")))
        })
    }

    fn document(&self, root: Root) -> Option<&Json> {
        match root {
            Root::Item => self.item,
            Root::Body => self.request.body.as_ref(),
            Root::Claims => {
                let read = || self.request.raw_claims.as_deref().map(Json::from);
                self.request.claims.get_or_init(read).as_ref()
            }
            _ => None,
        }
    }

    fn part(&self, name: &str) -> Option<&Json> {
        let at = self.parts.iter().position(|p| p.name == name)?;
        self.answers[at].as_ref()
    }
}

fn listed(mut values: Vec<String>) -> Value<'static> {
    match values.len() {
        0 => Value::Nil,
        1 => Value::Str(values.remove(0)),
        _ => Value::List(values),
    }
}

/// Path and query of a part's call.
pub fn path(part: &Part, view: &View<'_>) -> Result<String, EvalError> {
    let mut path = part.path.render_with(view, |value, out| {
        let text = value.into_text();
        if !out.contains('?') && text.is_empty() {
            // `/users/` asks for something else than `/users/7` does.
            return Err(EvalError::new("a value in the path is empty"));
        }
        push_encoded(out, &text);
        Ok(())
    })?;
    let before_query = path.split('?').next().unwrap_or_default();
    if before_query.split('/').any(|s| matches!(s, "." | "..")) {
        return Err(EvalError::new("a value in the path is `.` or `..`"));
    }
    for (name, template) in &part.query {
        let value = template.render(view)?;
        if !value.is_empty() {
            path.push(if path.contains('?') { '&' } else { '?' });
            push_encoded(&mut path, name);
            path.push('=');
            push_encoded(&mut path, &value);
        }
    }
    Ok(path)
}

/// Everything but unreserved characters is encoded: the text cannot end a segment, an argument or the path.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            // Writing to a text does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The fields of a part's call.
pub fn fields(part: &Part, view: &View<'_>) -> Result<Fields, EvalError> {
    let mut fields = Fields::default();
    fields.append(&names::ACCEPT, "application/json");
    // What is merged must be readable.
    fields.push(b"Accept-Encoding", b"identity");
    fields.extend(&view.request.own);
    for name in part.forward.iter().filter(|n| !view.request.own.contains(n)) {
        for value in view.request.fields.all(name) {
            fields.append(name, value);
        }
    }
    if part.body.is_some() {
        fields.append(&names::CONTENT_TYPE, "application/json");
    }
    for (name, template) in &part.headers {
        let value = template.render(view)?;
        if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
            return Err(EvalError::new(format!(
                "the header `{}` would have control characters",
                name.as_str()
            )));
        }
        if !value.trim().is_empty() {
            fields.set(name, value.trim());
        }
    }
    Ok(fields)
}

/// The body of a part's call.
pub fn body(part: &Part, view: &View<'_>) -> Result<Bytes, EvalError> {
    Ok(match &part.body {
        None => Bytes::new(),
        Some(body) => fill(body, view)?.to_vec().into(),
    })
}

fn fill(body: &Body, view: &View<'_>) -> Result<Json, EvalError> {
    Ok(match body {
        Body::Plain(json) => json.clone(),
        Body::Text(template) => value(template, view)?,
        Body::List(items) => Json::List(items.iter().map(|i| fill(i, view)).collect::<Result<_, _>>()?),
        Body::Object(members) => {
            let members = members.iter().map(|(name, member)| Ok((name.clone(), fill(member, view)?)));
            Json::Object(members.collect::<Result<Members, EvalError>>()?)
        }
    })
}

/// The value of a template as JSON.
pub fn value(template: &Template, view: &View<'_>) -> Result<Json, EvalError> {
    Ok(match template.value(view)? {
        Value::Nil | Value::Table(_) => Json::Null,
        Value::Bool(b) => Json::Bool(b),
        Value::Json(json) => json.clone(),
        Value::Str(text) => Json::Text(text),
        Value::List(texts) => Json::List(texts.into_iter().map(Json::Text).collect()),
        number @ Value::Num(n) if n.is_finite() => Json::Number(number.into_text().into()),
        Value::Num(_) => Json::Null,
    })
}
