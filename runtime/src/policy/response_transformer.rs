//! `response-transformer`: change what the client is answered.

use serde_json::{Map, Value};

use super::form::append_json;
use super::json_path::Target;
use super::set_cookie;
use super::transform::{self, Header, Pair};
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, names};
use crate::model::schema::{Field, Kind, Record, TEXT};

const LIST: Kind = Kind::List(&TEXT);
const TYPES: Kind = Kind::List(&Kind::Enum(&["boolean", "number", "string"]));

const NAMES: &[Field] = &[
    Field::new("headers", LIST, "Rules for headers: names, or `old:new`.").default("[]"),
    Field::new("json", LIST, "Rules for fields of a JSON body: names, or `old:new`.").default("[]"),
];

const VALUES: &[Field] = &[
    Field::new("headers", LIST, "Rules for headers, `name:value`.").default("[]"),
    Field::new("json", LIST, "Rules for fields of a JSON body, `name:value`.").default("[]"),
    Field::new("json_types", TYPES, "Types of the values of `json`, by position; text where none is given.")
        .default("[]"),
];

static PLUGIN: Descriptor = Descriptor {
    name: "response-transformer",
    summary: "change headers and JSON bodies of responses",
    doc: "\
## What it does
Removes, renames, replaces, adds and appends headers of responses and fields of JSON bodies.

## Why
To hide what services say about themselves, and to add what clients expect.

## Example
```yaml
plugins:
  - name: response-transformer
    config:
      remove: { headers: [Server, X-Powered-By] }
      add: { json: [\"version:2\"], json_types: [number] }
```

## Behaviour
Applies to every status, answers of the gateway itself included. The stages run in the order remove, rename, replace
(what is there), add (what is not there), append (another value). For headers, what is there is what came: one that was
removed is not added again. JSON bodies (`application/json`, `+json`) are changed at their top level, or where a name is a
path below it (`$.user.name`, `$.items[*].price`, `$.list[0]`, `$['odd name']`), each stage seeing the one before; a field that is `false` counts as not there for replace and add. A body that is no JSON object, or is
compressed, stays as it is. `Content-Length` is made anew.

`cookies` are rules for the cookies that a response sets, applied in order after those for headers: for one cookie or for all (`*`),
what its attributes are, what it is called, or that it is not set. Attributes that no rule speaks of stay.
",
    fields: &[
        Field::new("remove", Kind::Record(NAMES), "What is removed."),
        Field::new("rename", Kind::Record(NAMES), "`old:new` names."),
        Field::new("replace", Kind::Record(VALUES), "What is replaced where it is there."),
        Field::new("add", Kind::Record(VALUES), "What is added where it is not there."),
        Field::new("append", Kind::Record(VALUES), "What is added in any case."),
        Field::new("cookies", Kind::List(&Kind::Record(set_cookie::FIELDS)), "Rules for cookies that are set.")
            .default("[]")
            .extension(),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct ResponseTransformer {
    remove: Vec<FieldName>,
    rename: Vec<(FieldName, FieldName)>,
    replace: Vec<(FieldName, String)>,
    add: Vec<(FieldName, String)>,
    append: Vec<(FieldName, String)>,
    cookies: set_cookie::Rules,
    json: Json,
}

#[derive(Default)]
struct Json {
    remove: Vec<Target>,
    rename: Vec<(Target, String)>,
    replace: Vec<(Target, Value)>,
    add: Vec<(Target, Value)>,
    append: Vec<(Target, Value)>,
}

impl Policy for ResponseTransformer {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut good = true;
        let mut remove = Vec::new();
        for name in transform::names(config, "headers") {
            match transform::header(&name, name.span, cx) {
                Header::Known(name) => remove.push(name),
                Header::Framing => {}
                Header::Bad => good = false,
            }
        }
        let mut rename = Vec::new();
        let pairs = transform::pairs(config, "rename", "headers", cx)?;
        for (old, pair) in transform::headers(pairs, cx)? {
            match transform::header(&pair.value, pair.span, cx) {
                Header::Known(new) => rename.push((old, new)),
                Header::Framing => {}
                Header::Bad => good = false,
            }
        }
        let mut headers = |stage| {
            let pairs = transform::pairs(config, stage, "headers", cx)?;
            let named = transform::headers(pairs, cx)?;
            Some(named.into_iter().map(|(name, pair)| (name, pair.value)).collect::<Vec<_>>())
        };
        let (replace, add, append) = (headers("replace"), headers("add"), headers("append"));
        let json = Json::compile(config, cx);
        let cookies = set_cookie::Rules::compile(config, "cookies", cx);
        let (replace, add, append) = (replace?, add?, append?);
        let policy = Self { remove, rename, replace, add, append, cookies: cookies?, json: json? };
        good.then_some(policy)
    }

    fn request(&self, _x: &mut Exchange) -> Flow {
        Flow::Next
    }

    fn response(&self, x: &mut Exchange) {
        let changes_body = self.changes_body(&x.response.fields);
        let fields = &mut x.response.fields;
        let came = |names: &[(FieldName, String)], fields: &Fields| -> Vec<bool> {
            names.iter().map(|(name, _)| fields.contains(name)).collect()
        };
        let (replaced, added) = (came(&self.replace, fields), came(&self.add, fields));
        let moved: Vec<Vec<Vec<u8>>> =
            self.rename.iter().map(|(old, _)| fields.all(old).map(<[u8]>::to_vec).collect()).collect();
        for name in &self.remove {
            fields.remove(name);
        }
        for ((old, new), values) in self.rename.iter().zip(moved).filter(|(_, values)| !values.is_empty()) {
            fields.remove(new);
            for value in values {
                fields.append(new, value);
            }
            if old != new {
                fields.remove(old);
            }
        }
        for ((name, value), _) in self.replace.iter().zip(replaced).filter(|(_, came)| *came) {
            fields.set(name, value);
        }
        for ((name, value), _) in self.add.iter().zip(added).filter(|(_, came)| !*came) {
            fields.set(name, value);
        }
        for (name, value) in &self.append {
            fields.append(name, value);
        }
        self.cookies.apply(fields);
        if changes_body {
            fields.remove(&names::CONTENT_LENGTH);
        }
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        self.changes_body(&x.response.fields)
    }

    fn response_body(&self, _x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        Ok(match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(mut map)) => {
                self.json.apply(&mut map);
                serde_json::to_vec(&map).unwrap_or(body)
            }
            _ => body,
        })
    }
}

impl ResponseTransformer {
    fn changes_body(&self, fields: &Fields) -> bool {
        !self.json.is_empty() && is_json(fields) && !fields.contains(&names::CONTENT_ENCODING)
    }
}

/// Whether any of the content types (a list is allowed) is JSON.
fn is_json(fields: &Fields) -> bool {
    fields.text(&names::CONTENT_TYPE).is_some_and(|text| {
        text.split(',').any(|media| {
            let media = media.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            media == "application/json" || media.ends_with("+json")
        })
    })
}

impl Json {
    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let rename = transform::pairs(config, "rename", "json", cx);
        let mut stage = |stage: &str| {
            let types = config.record(stage).map(|s| s.strings("json_types")).unwrap_or_default();
            let pairs = transform::pairs(config, stage, "json", cx)?;
            let kind = |i: usize| types.get(i).map_or("string", |t| t.value.as_str());
            let typed = pairs.into_iter().enumerate();
            let mut rules = Vec::new();
            for (i, pair) in typed {
                let target = transform::target(&pair.name, pair.span, "json", cx)?;
                rules.extend(cast(&pair, kind(i)).map(|value| (target, value)));
            }
            Some(rules)
        };
        let (replace, add, append): (Option<Vec<_>>, Option<Vec<_>>, Option<Vec<_>>) =
            (stage("replace"), stage("add"), stage("append"));
        let mut remove = Vec::new();
        for name in transform::names(config, "json") {
            remove.push(transform::target(&name, name.span, "json", cx)?);
        }
        let mut renamed = Vec::new();
        for p in rename? {
            renamed.push((transform::target(&p.name, p.span, "json", cx)?, p.value));
        }
        Some(Self { remove, rename: renamed, replace: replace?, add: add?, append: append? })
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.replace.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
    }

    fn apply(&self, map: &mut Map<String, Value>) {
        let there =
            |map: &Map<String, Value>, name: &str| map.get(name).is_some_and(|v| *v != Value::Bool(false));
        for target in &self.remove {
            match target {
                Target::Name(name) => drop(map.shift_remove(name)),
                Target::Path(path) => drop(path.remove(map)),
            }
        }
        for (old, new) in &self.rename {
            match old {
                Target::Name(old) => {
                    if let Some(value) = map.shift_remove(old) {
                        map.insert(new.clone(), value);
                    }
                }
                Target::Path(path) => drop(path.rename(map, new)),
            }
        }
        for (target, value) in &self.replace {
            match target {
                Target::Name(name) if there(map, name) => drop(map.insert(name.clone(), value.clone())),
                Target::Name(_) => {}
                Target::Path(path) => drop(path.replace(map, value)),
            }
        }
        for (target, value) in &self.add {
            match target {
                Target::Name(name) if !there(map, name) => drop(map.insert(name.clone(), value.clone())),
                Target::Name(_) => {}
                Target::Path(path) => drop(path.add(map, value)),
            }
        }
        for (target, value) in &self.append {
            match target {
                Target::Name(name) => append_json(map, name, value.clone()),
                Target::Path(path) => drop(path.append(map, value)),
            }
        }
    }
}

/// A rule's value in the type that is asked for; a text that is no number makes the rule void, as under Kong.
fn cast(pair: &Pair, kind: &str) -> Option<Value> {
    match kind {
        "number" => match pair.value.trim().parse::<i64>() {
            Ok(n) => Some(Value::from(n)),
            Err(_) => {
                let number = pair.value.trim().parse::<f64>().ok()?;
                serde_json::Number::from_f64(number).map(Value::Number)
            }
        },
        "boolean" => Some(Value::Bool(pair.value == "true")),
        _ => Some(Value::from(pair.value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{check_proxied, refuses};

    fn check(config: Value, upstream: &str, want: &str) {
        check_proxied::<ResponseTransformer>(config, "GET /", upstream, &format!("next\n{want}"));
    }

    #[test]
    fn headers_are_transformed() {
        let upstream = "200\nh1: v1\nh2: a\nh2: b\nh3: c";
        check(json!({"remove": {"headers": ["h1", "H2"]}}), upstream, "< h1:\n< h2:\n< h3: c");
        check(json!({"rename": {"headers": ["h2:h3", "none:h1"]}}), upstream, "< h2:\n< h3: a, b\n< h1: v1");
        check(json!({"replace": {"headers": ["h2:x", "h9:y"]}}), upstream, "< h2: x\n< h9:");
        check(json!({"add": {"headers": ["h1:new", "h9:a:b"]}}), upstream, "< h1: v1\n< h9: a:b");
        check(json!({"append": {"headers": ["h1:v2", "h9:x"]}}), upstream, "< h1: v1, v2\n< h9: x");
        let both = json!({"remove": {"headers": ["h1"]}, "add": {"headers": ["h1:new"]}});
        check(both, upstream, "< h1:");
    }

    #[test]
    fn json_bodies_are_transformed() {
        let upstream =
            |body: &str| format!("200\nContent-Type: application/json\nContent-Length: 9\n\n{body}");
        for (config, body, want) in [
            (json!({"add": {"json": ["p1:v1"]}}), r#"{"p1":false}"#, r#"{"p1":"v1"}"#),
            (json!({"replace": {"json": ["p1:v1"]}}), r#"{"p1":false}"#, r#"{"p1":false}"#),
            (json!({"add": {"json": ["n:5"]}}), "{}", r#"{"n":"5"}"#),
            (
                json!({"add": {"json": ["n:5", "x:y"], "json_types": ["number", "number"]}}),
                "{}",
                r#"{"n":5}"#,
            ),
            (
                json!({"append": {"json": ["p1:v1", "p3:\"v1\"", "p4:-1", "p5:false"],
                                  "json_types": ["string", "string", "number", "boolean"]}}),
                r#"{"p1":"v2","p4":1}"#,
                r#"{"p1":["v2","v1"],"p4":[-1],"p3":["\"v1\""],"p5":[false]}"#,
            ),
            (
                json!({"rename": {"json": ["p1:k1", "p4:k4", "p9:k9"]}}),
                r#"{"p1":"v1","p4":false}"#,
                r#"{"k1":"v1","k4":false}"#,
            ),
            (
                json!({"remove": {"json": ["p1"]}, "rename": {"json": ["p4:p2"]}, "replace": {"json": ["p2:v2"]},
                       "add": {"json": ["p3:v1"]}, "append": {"json": ["p3:v2"]}}),
                r#"{"p1":"v1","p4":"v1"}"#,
                r#"{"p2":"v2","p3":["v1","v2"]}"#,
            ),
            (
                json!({"remove": {"json": ["$.user.password", "$.items[*].cost"]}, "add": {"json": ["$.meta.version:2"], "json_types": ["number"]}}),
                r#"{"user":{"name":"a","password":"b"},"items":[{"cost":1,"id":2},{"id":3}]}"#,
                r#"{"user":{"name":"a"},"items":[{"id":2},{"id":3}],"meta":{"version":2}}"#,
            ),
            (json!({"add": {"json": ["p:v"]}}), "not json", "not json"),
            (json!({"add": {"json": ["p:v"]}}), "", ""),
            (json!({"add": {"json": ["p:v"]}}), "[1]", "[1]"),
        ] {
            check(config, &upstream(body), &format!("response {want}\n< Content-Length:"));
        }
    }

    #[test]
    fn only_json_is_touched() {
        let config = json!({"add": {"json": ["p:v"]}});
        for (content_type, changed) in [
            ("application/problem+json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/html, application/json", true),
            ("text/plain", false),
            ("application/jsonp", false),
        ] {
            let want = if changed { r#"{"a":1,"p":"v"}"# } else { r#"{"a":1}"# };
            let upstream = format!("500\nContent-Type: {content_type}\n\n{{\"a\":1}}");
            check(config.clone(), &upstream, &format!("response {want}"));
        }
        let compressed =
            "200\nContent-Type: application/json\nContent-Encoding: gzip\nContent-Length: 7\n\n{\"a\":1}";
        check(config, compressed, "response {\"a\":1}\n< Content-Length: 7");
    }

    #[test]
    fn cookies_are_set_as_the_rules_say() {
        let config = json!({"cookies": [
            {"name": "*", "secure": true, "http_only": true, "same_site": "Lax", "domain": ""},
            {"name": "old", "rename": "new", "path": "/app"},
            {"name": "new", "max_age": 60},
            {"name": "track", "remove": true},
            {"name": "open", "http_only": false},
        ]});
        for (came, want) in [
            ("a=1", "a=1; Secure; HttpOnly; SameSite=Lax"),
            (
                "a=1=2;secure ; samesite=None; Domain=x.test; Priority=High",
                "a=1=2; Priority=High; Secure; HttpOnly; SameSite=Lax",
            ),
            (
                "old=1; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
                "new=1; Secure; HttpOnly; SameSite=Lax; Path=/app; Max-Age=60",
            ),
            ("track=1", ""),
            ("open=", "open=; Secure; SameSite=Lax"),
        ] {
            let upstream = format!("200\nSet-Cookie: {came}");
            let want = format!("next\n< Set-Cookie: {want}");
            check_proxied::<ResponseTransformer>(config.clone(), "GET /", &upstream, &want);
        }
        for (rule, want) in [
            (json!({"name": "a b"}), "not a valid cookie name"),
            (json!({"name": "*", "rename": "x"}), "the same name"),
            (json!({"name": "a", "path": "/;x"}), "without `;`"),
        ] {
            refuses::<ResponseTransformer>(json!({"cookies": [rule]}), want);
        }
    }

    #[test]
    fn mistakes_are_found_at_load() {
        refuses::<ResponseTransformer>(json!({"add": {"headers": ["a"]}}), "key 'a' has no value");
        refuses::<ResponseTransformer>(json!({"add": {"json": ["a:"]}}), "key 'a:' has no value");
        refuses::<ResponseTransformer>(json!({"remove": {"json": ["$.a["]}}), "is no path such as");
        refuses::<ResponseTransformer>(
            json!({"rename": {"headers": ["a:b c"]}}),
            "is not a valid header name",
        );
    }
}
