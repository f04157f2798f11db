//! `request-transformer`: change what the upstream is asked.

mod compile;

use std::cell::OnceCell;

use compile::{cookie_rules, header_rules, named_rules};

use super::form::{Args, Change, Form, Media};
use super::json_path::Target;
use super::representation;
use super::transform;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::model::schema::{Field, Kind, Record, Rule, STR, TEXT};
use crate::template::{EvalError, Lookup, Template, Value};

const LIST: Kind = Kind::List(&TEXT);

const LISTS: &[Field] = &[
    Field::new("headers", LIST, "Rules for headers, `name:value` (for `remove` names alone).").default("[]"),
    Field::new("querystring", LIST, "Rules for arguments of the query.").default("[]"),
    Field::new("body", LIST, "Rules for fields of the body.").default("[]"),
    Field::new("cookies", LIST, "Rules for cookies.").default("[]").extension(),
];

const REPLACE: &[Field] = &[
    Field::new("headers", LIST, "Rules for headers, `name:value`.").default("[]"),
    Field::new("querystring", LIST, "Rules for arguments of the query.").default("[]"),
    Field::new("body", LIST, "Rules for fields of the body.").default("[]"),
    Field::new("cookies", LIST, "Rules for cookies.").default("[]").extension(),
    Field::new("uri", STR, "The whole path that the upstream is asked for; the query stays."),
];

static PLUGIN: Descriptor = Descriptor {
    name: "request-transformer",
    summary: "change method, path, headers, query and body of requests",
    doc: "\
## What it does
Removes, renames, replaces, adds and appends headers, arguments of the query and fields of the body, and sets the method
and the path.

## Why
Clients and services need not agree on names, versions or credentials.

## Example
```yaml
plugins:
  - name: request-transformer
    config:
      remove: { querystring: [debug] }
      add: { headers: [\"X-Client:$(headers['x-consumer-username'] or 'nobody')\"] }
      replace: { uri: \"/v2/$(uri_captures.user)/profile\" }
```

## Behaviour
The stages run in the order path, method, headers, body, query, and in each remove, rename, replace (what is there), add
(what is not there), append (another value). `Host` can only be replaced. Bodies are changed if they are JSON objects,
forms or multipart forms (no append); values are texts; a body that is malformed stays as it is. A name in a rule for
the body is a member of the top level, or a path below it: `$.user.name`, `$.items[*].price`, `$.list[0]`,
`$['odd name']`; a `rename` keeps the object, an `add` makes objects on the way. Rules for `cookies` are about single cookies of the
`Cookie` header. The stage for cookies comes after that for headers.
Changing the query writes it anew, sorted by name. With `http_method` GET, HEAD or TRACE the fields of a form body are
added to the query.

Values are templates: `$(expression)` reads `headers`, `query_params` and `uri_captures` as they arrived, with `or` for
defaults, `and`, `not`, comparison, `..`, arithmetic, `type`, `tostring`, `tonumber` and `string.upper`, `lower`, `len`,
`sub`. A mistake is an error at load; an expression that fails in a request answers 500.
",
    fields: &[
        Field::new("http_method", Kind::Str(Rule::Method), "The method that the upstream is asked with."),
        Field::new("remove", Kind::Record(LISTS), "What is removed."),
        Field::new("rename", Kind::Record(LISTS), "`old:new` names."),
        Field::new("replace", Kind::Record(REPLACE), "What is replaced where it is there."),
        Field::new("add", Kind::Record(LISTS), "What is added where it is not there."),
        Field::new("append", Kind::Record(LISTS), "What is added in any case."),
        Field::new(
            "normalise_query",
            Kind::Bool,
            "Whether the query is written anew, sorted by name and escaped one way, so that equal queries look equal.",
        )
        .default("false")
        .extension(),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// The rules for one part of a request, with names of kind `N`.
struct Rules<N> {
    remove: Vec<N>,
    rename: Vec<(N, N)>,
    replace: Vec<(N, Template)>,
    add: Vec<(N, Template)>,
    append: Vec<(N, Template)>,
}

/// The same with the values that a request gives.
struct Values<'a, N> {
    replace: Vec<(&'a N, String)>,
    add: Vec<(&'a N, String)>,
    append: Vec<(&'a N, String)>,
}

impl<N> Rules<N> {
    fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.replace.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
    }

    fn render(&self, lookup: &dyn Lookup) -> Result<Values<'_, N>, EvalError> {
        Ok(Values {
            replace: rendered(&self.replace, lookup)?,
            add: rendered(&self.add, lookup)?,
            append: rendered(&self.append, lookup)?,
        })
    }
}

fn rendered<'a, N>(
    pairs: &'a [(N, Template)],
    lookup: &dyn Lookup,
) -> Result<Vec<(&'a N, String)>, EvalError> {
    pairs.iter().map(|(name, template)| Ok((name, template.render(lookup)?))).collect()
}

/// See the module.
pub struct RequestTransformer {
    method: Option<String>,
    uri: Option<Template>,
    headers: Rules<FieldName>,
    host: Option<Template>,
    query: Rules<Target>,
    body: Rules<Target>,
    cookies: Rules<String>,
    normalise_query: bool,
}

impl Policy for RequestTransformer {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let uri = config.record("replace").and_then(|r| r.spanned_str("uri")).filter(|u| !u.is_empty());
        let uri = uri.map(|u| transform::template(&u, u.span, 0, u.len(), cx));
        let headers = header_rules(config, cx);
        let query = named_rules(config, "querystring", cx);
        let body = named_rules(config, "body", cx);
        let cookies = cookie_rules(config, cx);
        let (headers, host) = headers?;
        Some(Self {
            method: config.str("http_method").map(str::to_owned),
            uri: match uri {
                Some(template) => Some(template?),
                None => None,
            },
            headers,
            host,
            query: query?,
            body: body?,
            cookies: cookies?,
            normalise_query: config.bool("normalise_query"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let media = Media::of(&x.request.fields);
        let needs_body = (!self.body.is_empty() && media.is_some())
            || (self.method_moves_form() && media == Some(Media::Form));
        if needs_body && x.body.is_none() {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.transform(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            _ => self.transform(x),
        }
    }
}

impl RequestTransformer {
    /// Whether the new method has no body, so that the fields of a form go to the query.
    fn method_moves_form(&self) -> bool {
        matches!(self.method.as_deref(), Some("GET" | "HEAD" | "TRACE"))
    }

    fn transform(&self, x: &mut Exchange) -> Flow {
        match self.stages(x) {
            Ok(()) => Flow::Next,
            Err(_) => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
        }
    }

    fn stages(&self, x: &mut Exchange) -> Result<(), EvalError> {
        let seen = Seen::default();
        if let Some(uri) = &self.uri {
            let path = uri.render(&seen.by(x))?;
            x.upstream.path = escape_path(&path);
        }
        self.change_method(x);
        self.change_headers(x, &seen)?;
        if !self.cookies.is_empty() {
            self.change_cookies(x, &seen)?;
        }
        if !self.body.is_empty() {
            self.change_body(x, &seen)?;
        }
        if !self.query.is_empty() {
            let values = self.query.render(&seen.by(x))?;
            let mut form = Form::Args(Args::parse(x.request.query.as_deref().unwrap_or("")));
            apply(&self.query, &values, &mut form);
            // Written anew even where no rule met: upstreams then always see one order.
            let query = String::from_utf8_lossy(&form.encode()).into_owned();
            x.request.query = Some(query).filter(|q| !q.is_empty());
        } else if self.normalise_query
            && let Some(query) = &x.request.query
        {
            x.request.query = Some(Args::parse(query).encode()).filter(|q| !q.is_empty());
        }
        Ok(())
    }

    fn change_method(&self, x: &mut Exchange) {
        let Some(method) = &self.method else { return };
        x.request.method.clone_from(method);
        if self.method_moves_form()
            && Media::of(&x.request.fields) == Some(Media::Form)
            && let Some(form) = x.body.as_deref().and_then(|b| std::str::from_utf8(b).ok())
            && !form.is_empty()
        {
            let mut args = Args::parse(x.request.query.as_deref().unwrap_or(""));
            args.extend(Args::parse(form));
            x.request.query = Some(args.encode());
        }
    }

    fn change_headers(&self, x: &mut Exchange, seen: &Seen) -> Result<(), EvalError> {
        let values = self.headers.render(&seen.by(x))?;
        if let Some(host) = &self.host {
            let host = host.render(&seen.by(x))?;
            if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(EvalError::new("`Host` would be no host name"));
            }
            x.upstream.host = Some(host);
        }
        let fields = &mut x.request.fields;
        for name in &self.headers.remove {
            fields.remove(name);
        }
        for (old, new) in &self.headers.rename {
            let moved: Vec<Vec<u8>> = fields.all(old).map(<[u8]>::to_vec).collect();
            if moved.is_empty() {
                continue;
            }
            fields.remove(new);
            fields.remove(old);
            for value in moved {
                fields.append(new, value);
            }
        }
        for (name, value) in values.replace {
            if fields.contains(name) {
                fields.set(name, value);
            }
        }
        for (name, value) in values.add {
            if !fields.contains(name) {
                fields.append(name, value);
            }
        }
        for (name, value) in values.append {
            fields.append(name, value);
        }
        Ok(())
    }

    fn change_cookies(&self, x: &mut Exchange, seen: &Seen) -> Result<(), EvalError> {
        let values = self.cookies.render(&seen.by(x))?;
        // What ends a cookie, or its line, cannot be part of one.
        let clean = |v: &str| v.chars().filter(|c| !c.is_control() && *c != ';').collect::<String>();
        let text = representation::list(&x.request.fields, &names::COOKIE);
        let pairs = text.split([';', ',']).filter_map(|c| c.trim().split_once('='));
        let mut all: Vec<(String, String)> = pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        all.retain(|(name, _)| !self.cookies.remove.contains(name));
        for (old, new) in &self.cookies.rename {
            if all.iter().any(|(n, _)| n == old) {
                all.retain(|(n, _)| n != new);
                all.iter_mut().filter(|(n, _)| n == old).for_each(|(n, _)| n.clone_from(new));
            }
        }
        for (name, value) in values.replace {
            all.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| *v = clean(&value));
        }
        for (name, value) in values.add {
            if !all.iter().any(|(n, _)| n == name) {
                all.push((name.clone(), clean(&value)));
            }
        }
        for (name, value) in values.append {
            all.push((name.clone(), clean(&value)));
        }
        let all: Vec<_> = all.iter().map(|(n, v)| format!("{n}={v}")).collect();
        match all.is_empty() {
            true => drop(x.request.fields.remove(&names::COOKIE)),
            false => x.request.fields.set(&names::COOKIE, all.join("; ")),
        }
        Ok(())
    }

    fn change_body(&self, x: &mut Exchange, seen: &Seen) -> Result<(), EvalError> {
        let Some(body) = &x.body else { return Ok(()) };
        let Some(mut form) = Form::parse(&x.request.fields, body) else { return Ok(()) };
        let values = self.body.render(&seen.by(x))?;
        if apply(&self.body, &values, &mut form) {
            x.body = Some(form.encode().into());
        }
        Ok(())
    }
}

/// Runs the stages on a form; tells whether anything was changed.
fn apply(rules: &Rules<Target>, values: &Values<'_, Target>, form: &mut Form) -> bool {
    let mut changed = false;
    for target in &rules.remove {
        changed |= match target {
            Target::Name(name) => form.remove(name),
            Target::Path(path) => form.change(path, &Change::Remove),
        };
    }
    for (old, new) in &rules.rename {
        // A new name is a name, whatever it looks like.
        let Target::Name(new) = new else { continue };
        changed |= match old {
            Target::Name(old) => form.rename(old, new),
            Target::Path(path) => form.change(path, &Change::Rename(new)),
        };
    }
    for (target, value) in &values.replace {
        changed |= match target {
            Target::Name(name) if form.has(name) => {
                form.set(name, value);
                true
            }
            Target::Name(_) => false,
            Target::Path(path) => form.change(path, &Change::Replace(value)),
        };
    }
    for (target, value) in &values.add {
        changed |= match target {
            Target::Name(name) if !form.has(name) => {
                form.set(name, value);
                true
            }
            Target::Name(_) => false,
            Target::Path(path) => form.change(path, &Change::Add(value)),
        };
    }
    for (target, value) in &values.append {
        changed |= match target {
            Target::Name(name) => form.append(name, value),
            Target::Path(path) => form.change(path, &Change::Append(value)),
        };
    }
    changed
}

/// The request as templates see it: as it was when a template first looked.
#[derive(Default)]
struct Seen {
    headers: OnceCell<(Fields, String)>,
    query: OnceCell<Args>,
}

impl Seen {
    fn by<'a>(&'a self, x: &'a Exchange) -> View<'a> {
        View { seen: self, x }
    }
}

struct View<'a> {
    seen: &'a Seen,
    x: &'a Exchange,
}

impl Lookup for View<'_> {
    fn header(&self, name: &str) -> Value<'_> {
        let request = &self.x.request;
        let (fields, host) = self.seen.headers.get_or_init(|| (request.fields.clone(), request.host.clone()));
        if name.eq_ignore_ascii_case("host") {
            return Value::Str(host.clone());
        }
        let values = |name: &str| -> Vec<String> {
            let name = FieldName::new(name);
            fields.all(&name).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
        };
        let found = values(name);
        // `headers.x_name` is the header `X-Name`.
        list(if found.is_empty() && name.contains('_') { values(&name.replace('_', "-")) } else { found })
    }

    fn query(&self, name: &str) -> Value<'_> {
        let query = || Args::parse(self.x.request.query.as_deref().unwrap_or(""));
        match self.seen.query.get_or_init(query).values(name) {
            [None] => Value::Bool(true),
            values => list(values.iter().map(|v| v.clone().unwrap_or_default()).collect()),
        }
    }

    fn capture(&self, name: &str) -> Value<'_> {
        let found = self.x.captures.iter().find(|(n, _)| n == name);
        found.map_or(Value::Nil, |(_, text)| Value::Str(text.clone()))
    }
}

fn list(mut values: Vec<String>) -> Value<'static> {
    match values.len() {
        0 => Value::Nil,
        1 => Value::Str(values.remove(0)),
        _ => Value::List(values),
    }
}

/// A path as the upstream gets it: it begins with `/`, and what no request line can hold is escaped.
fn escape_path(path: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'()*+,/:;=?@[]-_.~%".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
