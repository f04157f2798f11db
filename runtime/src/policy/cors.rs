//! `cors`: which pages of other origins may read answers.

use regex::Regex;

use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names, split_port};
use crate::model::schema::{Field, HEADER, Kind, Record, TEXT};
use crate::source::Spanned;

const METHODS: Kind =
    Kind::Enum(&["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"]);

static PLUGIN: Descriptor = Descriptor {
    name: "cors",
    summary: "let pages of other origins use the API from browsers",
    doc: "\
## What it does
Answers browsers' preflight requests and adds the `Access-Control-*` fields to responses.

## Why
Without them a browser keeps the answers of an API from pages of other origins.

## Example
```yaml
plugins:
  - name: cors
    config:
      origins: [\"https://app.example.com\", 'https://[a-z-]+\\.example\\.com']
      methods: [GET, POST]
      credentials: true
      max_age: 3600
```

## Behaviour
A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered with an empty 200 before
authentication; with `preflight_continue` the upstream answers it. Other responses get their fields in any case, errors
of the gateway included.

No `origins`, or `*` alone: `Access-Control-Allow-Origin: *`. One literal origin: that one is sent, whatever the request
says. Several: the request's origin (without a default port) is sent if an entry matches, else the field is removed. An
entry with characters beyond letters, digits and `.:/-` is a regular expression; it must match the whole host, or the
whole `scheme://host:port` if it has a `:`. A bare host never matches as a literal: write `https://host`. `Vary: Origin`
is added wherever the answer depends on the origin. With `credentials`, `*` becomes the request's own origin.
",
    fields: &[
        Field::new("origins", Kind::List(&TEXT), "Origins that may read answers: literal, regular expression or `*`."),
        Field::new("headers", Kind::List(&HEADER), "`Access-Control-Allow-Headers`; else what the preflight asks for."),
        Field::new("exposed_headers", Kind::List(&HEADER), "`Access-Control-Expose-Headers`."),
        Field::new("methods", Kind::List(&METHODS), "`Access-Control-Allow-Methods`.").default(
            r#"["GET","HEAD","PUT","PATCH","POST","DELETE","OPTIONS","TRACE","CONNECT"]"#,
        ),
        Field::new(
            "max_age",
            Kind::Num { min: f64::MIN, max: f64::MAX },
            "How long browsers may keep a preflight's answer, in seconds.",
        ),
        Field::new("credentials", Kind::Bool, "Whether browsers may send cookies and authorization.").default("false"),
        Field::new("private_network", Kind::Bool, "Whether pages of public networks may ask (private network access).")
            .default("false"),
        Field::new("preflight_continue", Kind::Bool, "Whether the upstream answers preflights itself.")
            .default("false"),
        Field::new("allow_origin_absent", Kind::Bool, "Whether responses to requests without `Origin` get the fields.")
            .default("true"),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[],
};

enum Origins {
    /// `*`.
    Any,
    /// The one literal origin, sent to everyone.
    One(String),
    Several(Vec<Pattern>),
}

enum Pattern {
    Any,
    /// A whole origin, without default port.
    Literal(String),
    Host(Regex),
    Origin(Regex),
}

/// See the module.
pub struct Cors {
    origins: Origins,
    headers: Option<String>,
    exposed_headers: Option<String>,
    methods: String,
    max_age: Option<String>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
    name: Names,
}

/// The fields that this policy reads and writes.
struct Names {
    allow_origin: FieldName,
    allow_credentials: FieldName,
    allow_headers: FieldName,
    allow_methods: FieldName,
    allow_private_network: FieldName,
    max_age: FieldName,
    expose_headers: FieldName,
    request_headers: FieldName,
    request_method: FieldName,
    request_private_network: FieldName,
}

impl Names {
    fn new() -> Self {
        let name = |n: &str| FieldName::new(&format!("Access-Control-{n}"));
        Self {
            allow_origin: name("Allow-Origin"),
            allow_credentials: name("Allow-Credentials"),
            allow_headers: name("Allow-Headers"),
            allow_methods: name("Allow-Methods"),
            allow_private_network: name("Allow-Private-Network"),
            max_age: name("Max-Age"),
            expose_headers: name("Expose-Headers"),
            request_headers: name("Request-Headers"),
            request_method: name("Request-Method"),
            request_private_network: name("Request-Private-Network"),
        }
    }
}

/// Marks a preflight: its response has all its fields already, or is the upstream's affair.
struct Preflight;

impl Policy for Cors {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let joined = |field: &str| {
            let items: Vec<String> = config.strings(field).into_iter().map(|s| s.value).collect();
            (!items.is_empty()).then(|| items.join(","))
        };
        Some(Self {
            origins: origins(&config.strings("origins"), cx)?,
            headers: joined("headers"),
            exposed_headers: joined("exposed_headers"),
            methods: joined("methods")
                .unwrap_or_else(|| "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT".to_owned()),
            max_age: config.num("max_age").map(|n| n.to_string()),
            credentials: config.bool("credentials"),
            private_network: config.bool("private_network"),
            preflight_continue: config.bool("preflight_continue"),
            allow_origin_absent: config.bool("allow_origin_absent"),
            name: Names::new(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let fields = &x.request.fields;
        let preflight = x.request.method == "OPTIONS"
            && fields.contains(&names::ORIGIN)
            && fields.contains(&self.name.request_method);
        if !preflight {
            return Flow::Next;
        }
        x.keep(Preflight);
        if self.preflight_continue { Flow::Next } else { Flow::Reply(self.preflight(x)) }
    }

    fn response(&self, x: &mut Exchange) {
        let origin = x.request.fields.text(&names::ORIGIN);
        if x.kept::<Preflight>().is_some() || (origin.is_none() && !self.allow_origin_absent) {
            return;
        }
        self.allow(origin, &mut x.response.fields);
        if let Some(exposed) = &self.exposed_headers {
            x.response.fields.set(&self.name.expose_headers, exposed);
        }
    }
}

impl Cors {
    fn preflight(&self, x: &Exchange) -> Reply {
        let (request, name) = (&x.request.fields, &self.name);
        let mut fields = Fields::default();
        self.allow(request.text(&names::ORIGIN), &mut fields);
        if let Some(allowed) = self.headers.as_deref().or_else(|| request.text(&name.request_headers)) {
            fields.set(&name.allow_headers, allowed);
        }
        fields.set(&name.allow_methods, &self.methods);
        if let Some(max_age) = &self.max_age {
            fields.set(&name.max_age, max_age);
        }
        if self.private_network && request.text(&name.request_private_network) == Some("true") {
            fields.set(&name.allow_private_network, "true");
        }
        let mut reply = Reply::empty(200);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        reply.fields = fields.iter().map(|(n, v)| (FieldName::new(&text(n)), text(v))).collect();
        reply
    }

    /// Says in `fields` whether `origin` may read the answer.
    fn allow(&self, origin: Option<&str>, fields: &mut Fields) {
        let name = &self.name;
        if !matches!(self.origins, Origins::Any) {
            vary(fields);
        }
        let allowed = match &self.origins {
            Origins::Any => Some("*".to_owned()),
            Origins::One(one) => Some(one.clone()),
            Origins::Several(patterns) => origin.and_then(|o| matching(patterns, o)),
        };
        match &allowed {
            Some(value) => fields.set(&name.allow_origin, value),
            None => {
                fields.remove(&name.allow_origin);
            }
        }
        if !self.credentials {
            return;
        }
        // `*` and credentials exclude each other: the origin itself stands for it then.
        if allowed.as_deref() == Some("*") {
            let Some(origin) = origin else { return };
            vary(fields);
            fields.set(&name.allow_origin, origin);
        }
        fields.set(&name.allow_credentials, "true");
    }
}

fn vary(fields: &mut Fields) {
    if !fields.all(&names::VARY).any(|v| v.eq_ignore_ascii_case(b"Origin")) {
        fields.append(&names::VARY, "Origin");
    }
}

/// What `Access-Control-Allow-Origin` says to `origin`, if any pattern admits it.
fn matching(patterns: &[Pattern], origin: &str) -> Option<String> {
    let (whole, host) = normalise(origin);
    patterns.iter().find_map(|pattern| match pattern {
        Pattern::Any => Some("*".to_owned()),
        Pattern::Literal(literal) => (*literal == whole).then(|| whole.clone()),
        Pattern::Host(regex) => regex.is_match(host).then(|| whole.clone()),
        Pattern::Origin(regex) => regex.is_match(&whole).then(|| whole.clone()),
    })
}

/// An origin without default port, and its host. Text without a scheme is both.
fn normalise(origin: &str) -> (String, &str) {
    let Some((scheme, rest)) = origin.split_once("://") else { return (origin.to_owned(), origin) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (host, port) = split_port(authority);
    let port = port.filter(|p| !matches!((scheme, p), ("http", 80) | ("https", 443)));
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    (format!("{scheme}://{host}{port}"), host)
}

fn origins(entries: &[Spanned<String>], cx: &mut Cx<'_>) -> Option<Origins> {
    match entries {
        [] => return Some(Origins::Any),
        [one] if one.value == "*" => return Some(Origins::Any),
        [one] if is_literal(one) => return Some(Origins::One(one.value.clone())),
        _ => {}
    }
    let mut patterns = Vec::new();
    for entry in entries {
        match pattern(entry) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let message = format!("`{}` is not a valid regex", entry.value);
                let help = "write `*`, an origin such as `https://app.example.com`, or a regular expression";
                cx.diags
                    .push(Diagnostic::new(&codes::INVALID_VALUE, entry.span, message).note(error).help(help));
            }
        }
    }
    (patterns.len() == entries.len()).then_some(Origins::Several(patterns))
}

fn is_literal(entry: &str) -> bool {
    entry.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/-".contains(&b))
}

fn pattern(entry: &str) -> Result<Pattern, String> {
    if entry == "*" {
        return Ok(Pattern::Any);
    }
    if is_literal(entry) {
        return Ok(Pattern::Literal(normalise(entry).0));
    }
    // The expression stands in a group: with an alternative at its top, anchors would else bind to its ends alone.
    Regex::new(entry).map_err(|e| e.to_string())?;
    let regex = Regex::new(&format!("^(?:{entry})$")).map_err(|e| e.to_string())?;
    Ok(if entry.contains(':') { Pattern::Origin(regex) } else { Pattern::Host(regex) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::testing::{check, check_proxied, refuses};

    fn get(config: &Value, origin: &str, want: &str) {
        let request = format!("GET /\nOrigin: {origin}");
        check::<Cors>(config.clone(), &request, &format!("next\n< Access-Control-Allow-Origin: {want}"));
    }

    #[test]
    fn preflights_are_answered() {
        let preflight = "OPTIONS /\nOrigin: http://a.test\nAccess-Control-Request-Method: GET\nAccess-Control-Request-Headers: x,y";
        let all = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";
        check::<Cors>(
            json!({}),
            preflight,
            &format!(
                "200\n< Access-Control-Allow-Origin: *\n< Access-Control-Allow-Methods: {all}\n< Vary:\nresponse\n\
                 < Access-Control-Allow-Headers: x,y\n< Access-Control-Max-Age:\n< Access-Control-Allow-Credentials:"
            ),
        );
        check::<Cors>(
            json!({"origins": ["example.test"], "methods": ["GET"], "headers": ["a", "b"], "max_age": 23,
                   "exposed_headers": ["c"], "credentials": true}),
            preflight,
            "200\n< Access-Control-Allow-Origin: example.test\n< Access-Control-Allow-Methods: GET\n< Vary: Origin\n\
             < Access-Control-Allow-Headers: a,b\n< Access-Control-Max-Age: 23\n< Access-Control-Expose-Headers:\n\
             < Access-Control-Allow-Credentials: true",
        );
        check::<Cors>(json!({"preflight_continue": true}), preflight, "next\n< Access-Control-Allow-Origin:");
        check::<Cors>(
            json!({}),
            "OPTIONS /\nOrigin: http://a.test",
            "next\n< Access-Control-Allow-Origin: *",
        );
        let private = format!("{preflight}\nAccess-Control-Request-Private-Network: true");
        check::<Cors>(
            json!({"private_network": true}),
            &private,
            "200\n< Access-Control-Allow-Private-Network: true",
        );
        check::<Cors>(json!({}), &private, "200\n< Access-Control-Allow-Private-Network:");
    }

    #[test]
    fn origins_match_as_literals_and_expressions() {
        get(&json!({"origins": ["foo.test"]}), "http://evil.test", "foo.test");
        let hosts = json!({"origins": ["bar.test", r"(.*\.)?foo\.test"]});
        get(&hosts, "http://foo.test", "http://foo.test");
        get(&hosts, "https://a.foo.test:8443", "https://a.foo.test:8443");
        get(&hosts, "http://foo.test.evil.test", "");
        get(&hosts, "http://evilfoo.test", "");
        get(&hosts, "bar.test", "bar.test");
        get(&hosts, "http://bar.test", "");
        let whole = json!({"origins": ["http://my.test", "https://other.test:9000"]});
        get(&whole, "http://my.test:80", "http://my.test");
        get(&whole, "https://my.test", "");
        get(&whole, "https://other.test:9000", "https://other.test:9000");
        let ports = json!({"origins": [r"^http://(.*[.])?foo\.test(:(80|90))?$"]});
        get(&ports, "http://foo.test:80", "http://foo.test");
        get(&ports, "http://foo.test:81", "");
        get(&json!({"origins": [r"foo\.test|bar\.test"]}), "http://foo.test.evil.com", "");
        get(&json!({"origins": ["foo.bar", "*"]}), "http://any.test", "*");
    }

    #[test]
    fn actual_responses_say_who_may_read_them() {
        let one = json!({"origins": ["example.test"], "credentials": true, "exposed_headers": ["x-t"]});
        check_proxied::<Cors>(
            one,
            "GET /",
            "200\nVary: Accept-Encoding\nAccess-Control-Allow-Origin: *",
            "next\n< Vary: Accept-Encoding, Origin\n< Access-Control-Allow-Origin: example.test\n\
             < Access-Control-Expose-Headers: x-t\n< Access-Control-Allow-Credentials: true",
        );
        let star = json!({"origins": ["*"], "credentials": true});
        let want = "next\n< Access-Control-Allow-Origin: http://a.test:3000\n< Access-Control-Allow-Credentials: true\n< Vary: Origin";
        check::<Cors>(star.clone(), "GET /\nOrigin: http://a.test:3000", want);
        check::<Cors>(
            star,
            "GET /",
            "next\n< Access-Control-Allow-Origin: *\n< Access-Control-Allow-Credentials:",
        );
        check::<Cors>(json!({"allow_origin_absent": false}), "GET /", "next\n< Access-Control-Allow-Origin:");
        let nobody =
            "next\n< Access-Control-Allow-Origin:\n< Access-Control-Allow-Credentials: true\n< Vary: Origin";
        let several = json!({"origins": ["http://a.test", "http://b.test"], "credentials": true});
        check::<Cors>(several, "GET /\nOrigin: http://c.test", nobody);
    }

    #[test]
    fn a_broken_expression_is_refused() {
        refuses::<Cors>(json!({"origins": ["a(", "b"]}), "is not a valid regex");
        refuses::<Cors>(json!({"origins": ["*a"]}), "is not a valid regex");
        refuses::<Cors>(json!({"origins": ["a)(b"]}), "is not a valid regex");
    }
}
