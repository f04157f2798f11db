//! `graphql-limits`: GraphQL operations have bounded depth, width and cost.

mod measure;
mod parse;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use measure::{Costs, Measures, measure};
use parse::{Kind as Operates, parse};

use super::validation::body_value;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, media, representation};
use crate::exchange::Exchange;
use crate::json::Limits;
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, Record, TEXT, Val};
use crate::telemetry::Why;

const COUNT: Kind = Kind::Int { min: 0, max: 1_000_000_000 };

static PLUGIN: Descriptor = Descriptor {
    name: "graphql-limits",
    summary: "refuse GraphQL operations that are too deep, too wide or too costly",
    doc: "\
## What it does
Reads GraphQL requests and refuses operations beyond limits, before the service sees them.

## Why
One small request can ask a GraphQL service for millions of objects; a limit on requests does not help against that.

## Example
```yaml
plugins:
  - name: graphql-limits
    config:
      max_depth: 8
      max_cost: 2000
      list_arguments: [first, last]
      costs: { search: 20 }
```

## Behaviour
A field costs what `costs` says, else 1; what is within a field with a list argument counts as often as the argument
says, variables included (`default_items` where one is not given). Depth, fields, aliases and cost are measured with
fragments filled in, for every operation of the document. Refused are, as GraphQL errors with `extensions.code`:
malformed documents (400, `GRAPHQL_PARSE_FAILED`), fragments that are missing or contain themselves (400,
`GRAPHQL_VALIDATION_FAILED`), excess (400, `QUERY_TOO_DEEP`, `TOO_MANY_FIELDS`, `TOO_MANY_ALIASES`,
`TOO_MANY_DIRECTIVES`, `QUERY_TOO_COSTLY`, `QUERY_TOO_LONG`, `BATCH_TOO_LARGE`), `__schema` and `__type` without
`introspection` (400, `INTROSPECTION_DISABLED`), and mutations by `GET` (405).

Requests are `GET` with `query`, or `POST` with `application/json` (one, or a list of at most `max_batch`) or
`application/graphql`; other types are answered 415, so forms of other sites cannot send any. Persisted queries are
requests with a hash (`extensions.persistedQuery.sha256Hash`) or an id (`id`, `documentId`) and no text: they pass, are
refused, or are the only ones that pass (`persisted_queries`). A hash beside a text must be the text's. Persisted operations are
measured when their text is sent, not when their hash is. WebSockets are refused: what is sent in them is not seen.
",
    fields: &[
        Field::new("max_depth", COUNT, "Most fields within each other.").default("10"),
        Field::new("max_fields", COUNT, "Most fields of a request.").default("1000"),
        Field::new("max_aliases", COUNT, "Most aliases of a request.").default("30"),
        Field::new("max_directives", COUNT, "Most directives of a document.").default("50"),
        Field::new("max_cost", COUNT, "Highest cost of a request.").default("5000"),
        Field::new("max_tokens", Kind::Int { min: 1, max: 1_000_000 }, "Most tokens of a document.").default("5000"),
        Field::new("max_batch", Kind::Int { min: 0, max: 1000 }, "Most operations in a list; 0 refuses lists.")
            .default("0"),
        Field::new("introspection", Kind::Bool, "Whether clients may ask for the schema.").default("false"),
        Field::new(
            "persisted_queries",
            Kind::Enum(&["allow", "refuse", "require"]),
            "Whether requests without a text pass, are refused, or are the only ones that pass.",
        )
        .default("\"allow\""),
        Field::new("list_arguments", Kind::Set(&TEXT), "Arguments that say how many items a field has.")
            .default(r#"["first","last","limit"]"#),
        Field::new("default_items", COUNT, "How many there are where the argument's variable is not given.")
            .default("10"),
        Field::new("costs", Kind::Map(&COUNT), "What fields cost, by name; others cost 1.").default("{}"),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Persisted {
    Allow,
    Refuse,
    Require,
}

/// See the module.
pub struct GraphqlLimits {
    most: Measures,
    directives: usize,
    tokens: usize,
    batch: usize,
    persisted: Persisted,
    costs: Costs,
}

/// Why a request is refused.
struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status: 400, code, message: message.into() })
}

impl Policy for GraphqlLimits {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let count = |field: &str| config.int(field).and_then(|n| u64::try_from(n).ok());
        let size = |field: &str| config.int(field).and_then(|n| usize::try_from(n).ok());
        let cost = |value: &Val| match value {
            Val::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        Some(Self {
            most: Measures {
                depth: count("max_depth")?,
                fields: count("max_fields")?,
                aliases: count("max_aliases")?,
                cost: count("max_cost")?,
                introspects: config.bool("introspection"),
            },
            directives: size("max_directives")?,
            tokens: size("max_tokens")?,
            batch: size("max_batch")?,
            persisted: match config.str("persisted_queries")? {
                "refuse" => Persisted::Refuse,
                "require" => Persisted::Require,
                _ => Persisted::Allow,
            },
            costs: Costs {
                fields: (config.map("costs").iter())
                    .filter_map(|(name, n)| Some((name.value.clone(), cost(&n.value)?)))
                    .collect(),
                list_arguments: config.strings("list_arguments").into_iter().map(|t| t.value).collect(),
                default_items: count("default_items")?,
            },
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        match x.request.method.as_str() {
            "OPTIONS" => Flow::Next,
            "GET" | "HEAD" => {
                let result = self.get(x);
                answer(x, result)
            }
            "POST" => Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body }),
            _ => answer(x, Err(not_allowed("GraphQL is asked by GET or POST"))),
        }
    }

    fn resume(&self, x: &mut Exchange, read: Answer) -> Flow {
        if let Answer::Body(Err(error)) = read {
            return Flow::Reply(Reply::unread(x, error));
        }
        let result = self.post(x);
        answer(x, result)
    }
}

fn not_allowed(message: &str) -> Refusal {
    Refusal { status: 405, code: "METHOD_NOT_ALLOWED", message: message.to_owned() }
}

fn answer(x: &mut Exchange, result: Result<(), Refusal>) -> Flow {
    let Err(refusal) = result else { return Flow::Next };
    x.keep(Why(format!("{}: {}", refusal.code, refusal.message)));
    let body = json!({ "errors": [{ "message": refusal.message, "extensions": { "code": refusal.code } }] });
    let accept = representation::list(&x.request.fields, &names::ACCEPT);
    let media = match accept.contains("application/graphql-response+json") {
        true => "application/graphql-response+json; charset=utf-8",
        false => super::reply::JSON,
    };
    let reply = Reply::with_body(refusal.status, media, body.to_string());
    Flow::Reply(match refusal.status {
        405 => reply.field(FieldName::new("Allow"), "POST"),
        415 => reply.field(names::ACCEPT, "application/json, application/graphql"),
        _ => reply,
    })
}

impl GraphqlLimits {
    fn get(&self, x: &Exchange) -> Result<(), Refusal> {
        let mut request = json!({});
        let pairs = crate::message::query_pairs(x.request.query.as_deref().unwrap_or(""));
        for (name, value) in pairs {
            let value = value.unwrap_or_default();
            let value = match name.as_str() {
                "query" | "id" | "documentId" | "operationName" => Value::from(value),
                "variables" | "extensions" if value.is_empty() => continue,
                "variables" | "extensions" => match body_value(value.as_bytes(), &Limits::default()) {
                    Ok(value) => value,
                    Err(_) => return refuse("BAD_REQUEST", format!("`{name}` is no JSON")),
                },
                _ => continue,
            };
            // Two readers may each take another one.
            if request.get(&name).is_some() {
                return refuse("BAD_REQUEST", format!("`{name}` is given more than once"));
            }
            request[name] = value;
        }
        let mut sum = Measures::default();
        self.one(&request, true, &mut sum)
    }

    fn post(&self, x: &Exchange) -> Result<(), Refusal> {
        let body = x.body.as_deref().unwrap_or_default();
        let fields = &x.request.fields;
        let (media, charset) = media::parse(fields.text(&names::CONTENT_TYPE).unwrap_or_default());
        let plain = representation::codings(fields).is_some_and(|c| c.is_empty());
        let known = media::is_json(&media) || media == "application/graphql";
        if !known || !plain || !media::is_utf8(charset.as_deref()) {
            let message =
                "The body must be application/json or application/graphql, in UTF-8, not compressed";
            return Err(Refusal { status: 415, code: "UNSUPPORTED_MEDIA_TYPE", message: message.to_owned() });
        }
        // Some servers take the text from the query, too.
        if x.request.query_arg("query").is_some() {
            return refuse("BAD_REQUEST", "`query` belongs in the body of a POST request");
        }
        let mut sum = Measures::default();
        if media == "application/graphql" {
            let Ok(text) = std::str::from_utf8(body) else {
                return refuse("GRAPHQL_PARSE_FAILED", "The document is not UTF-8");
            };
            return self.one(&json!({ "query": text }), false, &mut sum);
        }
        match body_value(body, &Limits::default()) {
            Err(finding) => refuse("BAD_REQUEST", format!("The body is no JSON: {}", finding.detail)),
            Ok(Value::Array(all)) if all.len() > self.batch => {
                refuse("BATCH_TOO_LARGE", format!("More than {} operations in a list", self.batch))
            }
            Ok(Value::Array(all)) => all.iter().try_for_each(|one| self.one(one, false, &mut sum)),
            Ok(one) => self.one(&one, false, &mut sum),
        }
    }

    /// Judges one request; `sum` is what the others of its list come to.
    fn one(&self, request: &Value, by_get: bool, sum: &mut Measures) -> Result<(), Refusal> {
        if !request.is_object() {
            return refuse("BAD_REQUEST", "A request must be an object");
        }
        let hash = request["extensions"]["persistedQuery"]["sha256Hash"].as_str();
        let named = hash.is_some() || ["id", "documentId"].iter().any(|n| request[n].is_string());
        let text = match &request["query"] {
            Value::String(text) if !text.is_empty() => text,
            Value::Null | Value::String(_) if named && self.persisted != Persisted::Refuse => return Ok(()),
            Value::Null | Value::String(_) if named => {
                return refuse("PERSISTED_QUERY_NOT_SUPPORTED", "Persisted queries are not supported");
            }
            Value::Null | Value::String(_) => return refuse("BAD_REQUEST", "There is no `query`"),
            _ => return refuse("BAD_REQUEST", "`query` must be a string"),
        };
        if self.persisted == Persisted::Require {
            return refuse("PERSISTED_QUERY_REQUIRED", "Only persisted queries are accepted");
        }
        if let Some(hash) = hash {
            let of_text = digest::digest(&digest::SHA256, text.as_bytes());
            let of_text: String = of_text.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            if !of_text.eq_ignore_ascii_case(hash) {
                return refuse("PERSISTED_QUERY_HASH_MISMATCH", "The hash is not that of the query");
            }
        }
        let document = match parse(text, self.tokens) {
            Ok(document) => document,
            Err(fault) => {
                let code = if fault.excessive { "QUERY_TOO_LONG" } else { "GRAPHQL_PARSE_FAILED" };
                let kind = crate::body::Kind::Malformed;
                return refuse(
                    code,
                    crate::body::Fault::at(text.as_bytes(), fault.at, kind, fault.what).to_string(),
                );
            }
        };
        if document.directives > self.directives {
            return refuse("TOO_MANY_DIRECTIVES", format!("More than {} directives", self.directives));
        }
        let none = Value::Null;
        let variables = request.get("variables").unwrap_or(&none);
        let mut highest = Measures::default();
        for operation in &document.operations {
            if by_get && operation.kind != Operates::Query {
                return Err(not_allowed("Only queries can be asked by GET"));
            }
            let m = match measure(&document, operation, variables, &self.costs) {
                Ok(measures) => measures,
                Err(message) => return refuse("GRAPHQL_VALIDATION_FAILED", message),
            };
            highest = Measures {
                depth: highest.depth.max(m.depth),
                fields: highest.fields.max(m.fields),
                aliases: highest.aliases.max(m.aliases),
                cost: highest.cost.max(m.cost),
                introspects: highest.introspects || m.introspects,
            };
        }
        *sum = Measures {
            depth: highest.depth,
            fields: sum.fields.saturating_add(highest.fields),
            aliases: sum.aliases.saturating_add(highest.aliases),
            cost: sum.cost.saturating_add(highest.cost),
            introspects: highest.introspects,
        };
        self.within(sum)
    }

    fn within(&self, m: &Measures) -> Result<(), Refusal> {
        let most = &self.most;
        if m.introspects && !most.introspects {
            return refuse("INTROSPECTION_DISABLED", "The schema cannot be asked for");
        }
        for (code, what, is, may) in [
            ("QUERY_TOO_DEEP", "depth", m.depth, most.depth),
            ("TOO_MANY_FIELDS", "number of fields", m.fields, most.fields),
            ("TOO_MANY_ALIASES", "number of aliases", m.aliases, most.aliases),
            ("QUERY_TOO_COSTLY", "cost", m.cost, most.cost),
        ] {
            if is > may {
                return refuse(code, format!("The query's {what} is {is}, at most {may} is allowed"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{check, exchange, policy, request};

    type P = GraphqlLimits;

    fn ask(config: &Value, body: &Value, want: &str) {
        check::<P>(config.clone(), &format!("POST /graphql\nContent-Type: application/json\n\n{body}"), want);
    }

    fn query(config: &Value, text: &str, want: &str) {
        ask(config, &json!({ "query": text }), want);
    }

    #[test]
    fn operations_are_measured() {
        let config = json!({"max_depth": 3, "max_fields": 6, "max_aliases": 1, "max_cost": 50, "max_directives": 1,
            "max_tokens": 60, "costs": {"search": 40}});
        for (text, want) in [
            ("{a{b{c}}}", "next"),
            ("{a{b{c{d}}}}", "400\nbody QUERY_TOO_DEEP\nbody depth is 4, at most 3"),
            ("{a{...F}} fragment F on T{b{c{d}}}", "400\nbody QUERY_TOO_DEEP"),
            ("{a{...on T{...{b{c{d}}}}}}", "400\nbody QUERY_TOO_DEEP"),
            ("{a b c d e f}", "next"),
            ("{a b c d e f g}", "400\nbody TOO_MANY_FIELDS"),
            ("{...F ...F} fragment F on T{a b c d}", "400\nbody TOO_MANY_FIELDS"),
            ("{x:a}", "next"),
            ("{x:a y:a}", "400\nbody TOO_MANY_ALIASES"),
            ("{a(first:9){b c d e f}}", "next"),
            ("{a(first:10){b c d e f}}", "400\nbody QUERY_TOO_COSTLY\nbody cost is 51, at most 50"),
            ("{a(first:99999999999999999999){b(last:99999999999){c}}}", "400\nbody QUERY_TOO_COSTLY"),
            ("{search b}", "next"),
            ("{search(limit:2){search}}", "400\nbody cost is 120"),
            ("{a @x @y}", "400\nbody TOO_MANY_DIRECTIVES"),
            ("{a} {b{c{d{e}}}}", "400\nbody QUERY_TOO_DEEP"),
            ("{__typename}", "next"),
            ("{__schema{types{name}}}", "400\nbody INTROSPECTION_DISABLED"),
            ("{...F} fragment F on Query{__type(name:\"A\"){name}}", "400\nbody INTROSPECTION_DISABLED"),
            (
                "{a(x:[1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5])}",
                "400\nbody QUERY_TOO_LONG",
            ),
            ("{a", "400\nbody GRAPHQL_PARSE_FAILED\nbody line 1, column 3: expected a name"),
            ("{...F}", "400\nbody there is no fragment `F`"),
            (
                "{...F} fragment F on T{a{...G}} fragment G on T{...F}",
                "400\nbody the fragment `F` contains itself",
            ),
        ] {
            query(&config, text, want);
        }
        let open = json!({"introspection": true});
        query(&open, "{__schema{types{name}}}", "next");
        let deep = format!("{{a{}{}", "{a".repeat(5000), "}".repeat(5001));
        query(&open, &deep, "400\nbody QUERY_TOO_LONG");
        // Each fragment uses the next one twice: 2^40 fields.
        let mut laughs = String::from("{...F0}");
        for i in 0..40 {
            laughs += &format!(" fragment F{i} on T{{...F{0} ...F{0}}}", i + 1);
        }
        query(&open, &format!("{laughs} fragment F40 on T{{a b}}"), "400\nbody TOO_MANY_FIELDS");
    }

    #[test]
    fn variables_count() {
        let config = json!({"max_cost": 50});
        let text = "query($n:Int=60){a(first:$n){b}}";
        ask(&config, &json!({"query": text, "variables": {"n": 49}}), "next");
        ask(&config, &json!({"query": text, "variables": {"n": 50}}), "400\nbody cost is 51");
        ask(&config, &json!({"query": text}), "400\nbody cost is 61");
        ask(&config, &json!({"query": "query($n:Int){a(first:$n){b}}"}), "next");
        ask(&config, &json!({"query": "query($n:Int){a(first:$n){b}}", "variables": {"n": "x"}}), "next");
    }

    #[test]
    fn batches_and_persisted_queries() {
        let one = json!({"query": "{a b c}"});
        ask(&json!({}), &json!([one]), "400\nbody BATCH_TOO_LARGE");
        let batch = json!({"max_batch": 2, "max_fields": 5});
        ask(&batch, &json!([{"query": "{a b}"}, one]), "next");
        ask(&batch, &json!([one, one]), "400\nbody TOO_MANY_FIELDS");
        ask(&batch, &json!([one, one, one]), "400\nbody BATCH_TOO_LARGE");
        let hash = "b6d2f3b1f8b1f5a6a0a1f5e8c8d2f0d4f4c4e9f7e4d2b0c8a6f4e2d0c8b6a4f2";
        let known = json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}});
        ask(&json!({}), &known, "next");
        ask(&json!({}), &json!({"id": "q1"}), "next");
        ask(&json!({"persisted_queries": "refuse"}), &known, "400\nbody PERSISTED_QUERY_NOT_SUPPORTED");
        ask(&json!({"persisted_queries": "require"}), &known, "next");
        ask(&json!({"persisted_queries": "require"}), &one, "400\nbody PERSISTED_QUERY_REQUIRED");
        let mut lying = known.clone();
        lying["query"] = json!("{a}");
        ask(&json!({}), &lying, "400\nbody PERSISTED_QUERY_HASH_MISMATCH");
        let of_text: String =
            digest::digest(&digest::SHA256, b"{a}").as_ref().iter().map(|b| format!("{b:02x}")).collect();
        lying["extensions"]["persistedQuery"]["sha256Hash"] = json!(of_text);
        ask(&json!({}), &lying, "next");
    }

    #[test]
    fn requests_come_in_few_forms() {
        let config = json!({});
        for (text, want) in [
            ("GET /graphql?query=%7Ba%7D", "next"),
            ("GET /graphql?query=%7Ba%7D&query=%7Bb%7D", "400\nbody given more than once"),
            ("GET /graphql?query=mutation%7Ba%7D", "405\n< Allow: POST"),
            (
                "GET /graphql?query=query(%24n:Int)%7Ba(first:%24n)%7Bb%7D%7D&variables=%7B%22n%22:5001%7D",
                "400\nbody QUERY_TOO_COSTLY",
            ),
            ("GET /graphql?query=%7Ba%7D&variables=%7B", "400\nbody `variables` is no JSON"),
            ("GET /graphql", "400\nbody There is no `query`"),
            ("PUT /graphql", "405"),
            ("OPTIONS /graphql", "next"),
            ("POST /graphql\nContent-Type: application/graphql\n\n{a}", "next"),
            ("POST /graphql\nContent-Type: application/graphql\n\n{a", "400\nbody GRAPHQL_PARSE_FAILED"),
            (
                "POST /graphql?query=%7Bb%7D\nContent-Type: application/json\n\n{\"query\":\"{a}\"}",
                "400\nbody belongs in the body",
            ),
            (
                "POST /graphql\nContent-Type: text/plain\n\n{\"query\":\"{a}\"}",
                "415\n< Accept: application/json, application/graphql",
            ),
            (
                "POST /graphql\nContent-Type: application/json\n\n{\"query\":\"{a}\",\"query\":\"{b}\"}",
                "400\nbody has this name already",
            ),
            ("POST /graphql\nContent-Type: application/json\n\n7", "400\nbody must be an object"),
            ("POST /graphql\nContent-Type: application/json\n\n{\"query\":7}", "400\nbody must be a string"),
            (
                "POST /graphql\nContent-Type: application/json\nAccept: application/graphql-response+json\n\n{}",
                "400\n< Content-Type: application/graphql-response+json; charset=utf-8",
            ),
        ] {
            check::<P>(config.clone(), text, want);
        }
        let p = policy::<P>(&config);
        let mut x = exchange("POST /\nContent-Type: application/json\n\n{\"query\":\"{a}\"}");
        assert!(matches!(request(&p, &mut x), Flow::Next));
    }
}
