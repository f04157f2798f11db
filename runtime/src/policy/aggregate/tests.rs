use std::collections::{BTreeMap, BinaryHeap};

use super::*;
use crate::diag::{Diags, Severity};
use crate::env::Env;
use crate::front::{Input, LoadOptions, load};
use crate::message::Fields;
use crate::policy::call::{Call, CallError, CallResponse, CallTo, Series};
use crate::policy::testing;
use crate::snapshot::shared::Shared;
use crate::source::Sources;

const SERVICES: [&str; 4] = ["inventory", "pricing", "reviews", "users"];

mod caching;
mod load;

/// Compiles the plugin's config; with the findings as `LINE:COLUMN severity message [labels]`.
fn compiled(config: &str, shared: &Arc<Shared>) -> (Option<Aggregate>, Vec<String>) {
    let indented: String = config.lines().map(|l| format!("    {l}\n")).collect();
    let services: String =
        SERVICES.iter().map(|s| format!("- {{name: {s}, url: 'http://{s}.test'}}\n")).collect();
    let text = format!(
        "_format_version: '3.0'\nplugins:\n- name: aggregate\n  config:\n{indented}services:\n{services}\
         - {{name: calls, url: 'grpc://calls.test'}}\nconsumer_groups: [{{name: gold, consumers: [alice]}}]\n\
         consumers: [{{username: alice, id: {}}}]\n",
        testing::ALICE
    );
    let mut sources = Sources::default();
    let (model, mut found) =
        load(&mut sources, &[Input::text("t.yaml", text.as_str())], &Env::empty(), &LoadOptions::default());
    let mut diags = Diags::new();
    let mut policy = None;
    if !crate::diag::has_errors(&found) {
        let plugin = &model.plugins[0];
        let mut cx = Cx {
            model: &model,
            plugin,
            route_id: None,
            service_id: None,
            consumer_id: None,
            shared,
            diags: &mut diags,
        };
        policy = Aggregate::compile(&plugin.config, &mut cx);
    }
    found.extend(diags);
    let at = |span| {
        let place = sources.line_col(span);
        format!("{}:{}", place.line - 4, place.col.saturating_sub(4))
    };
    let shown = found.iter().map(|d| {
        let labels: Vec<String> =
            d.secondary.iter().map(|l| format!(" [{} {}]", at(l.span), l.text)).collect();
        let severity = if d.severity == Severity::Error { "error" } else { "warning" };
        format!("{} {severity} {}{}", at(d.primary.span), d.message, labels.join(""))
    });
    (policy, shown.collect())
}

fn policy(config: &str) -> Aggregate {
    let (policy, found) = compiled(config, &Arc::default());
    policy.unwrap_or_else(|| panic!("{config}\n{found:#?}"))
}

/// What services answer: `service METHOD /path` to milliseconds, status and body (or an error's name for one).
#[derive(Clone, Default)]
struct World {
    answers: BTreeMap<String, (u64, u16, String, Vec<(String, String)>)>,
    /// `MS service METHOD /path` of every call, as it began; with ` > BODY` where it has one.
    log: Vec<String>,
}

impl World {
    /// Lines `service METHOD /path MS STATUS|ERROR BODY`; indented lines are fields of the answer.
    fn new(text: &str) -> Self {
        let mut world = Self::default();
        let mut last = String::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if let Some((name, value)) = line.strip_prefix("  ").and_then(|l| l.split_once(": ")) {
                let fields = &mut world.answers.get_mut(&last).expect("an answer before its fields").3;
                fields.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            let [service, method, path, ms, status] = words[..5] else { panic!("{line}") };
            let (status, body) = match status.parse() {
                Ok(status) => (status, words.get(5).copied().unwrap_or("")),
                Err(_) => (0, status),
            };
            last = format!("{service} {method} {path}");
            world.answers.insert(last.clone(), (ms.parse().expect("ms"), status, body.to_owned(), vec![]));
        }
        world
    }

    fn answer(&self, call: &Call, name: &str) -> (u64, Result<CallResponse, CallError>) {
        let unknown = (0, 404, "{}".to_owned(), Vec::new());
        let (ms, status, body, given) = self.answers.get(name).unwrap_or(&unknown);
        if u128::from(*ms) >= call.timeout.as_millis() {
            return (call.timeout.as_millis() as u64, Err(CallError::Timeout));
        }
        let mut fields = Fields::default();
        for (name, value) in given {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let result = match (status, body.as_str()) {
            (0, "unreachable") => Err(CallError::Unreachable),
            (0, "unresolved") => Err(CallError::Unresolved),
            (0, "too-large") => Err(CallError::TooLarge),
            (0, other) => panic!("no such error: {other}"),
            _ => Ok(CallResponse {
                status: *status,
                fields,
                body: body.clone().into(),
                trailers: Fields::default(),
                took: std::time::Duration::from_millis(*ms),
            }),
        };
        (*ms, result)
    }

    /// Runs a series in a time of its own; returns when it was over.
    fn drive(&mut self, series: &mut dyn Series) -> u64 {
        let mut now = 0;
        let mut under_way = BinaryHeap::new();
        let mut results = BTreeMap::new();
        while let Some(calls) = series.next() {
            for (number, call) in calls {
                let CallTo::Service(id) = &call.to else { panic!("only services are asked") };
                let name = format!("{} {} {}", SERVICES[id.0 as usize], call.method, call.path);
                let body = String::from_utf8_lossy(&call.body);
                let body = if body.is_empty() { String::new() } else { format!(" > {body}") };
                self.log.push(format!("{now} {name}{body}"));
                let (ms, result) = self.answer(&call, &name);
                under_way.push(std::cmp::Reverse((now + ms, number)));
                assert!(results.insert(number, result).is_none(), "a number is used once");
            }
            let Some(std::cmp::Reverse((at, number))) = under_way.pop() else { return now };
            now = at;
            let result = results.remove(&number).expect("a call under way");
            series.answered(number, result);
        }
        now
    }
}

/// What came of a request: `STATUS BODY`, the answer's fields, and the time it took.
fn ask(policy: &Aggregate, world: &mut World, request: &str) -> (String, Vec<(String, String)>, u64) {
    let mut x = testing::exchange(request);
    ask_with(policy, world, &mut x)
}

fn ask_with(policy: &Aggregate, world: &mut World, x: &mut Exchange) -> (String, Vec<(String, String)>, u64) {
    x.captures = vec![("id".to_owned(), "7".to_owned()), ("odd".to_owned(), "a%2Fb c".to_owned())];
    let mut took = 0;
    let mut flow = testing::request(policy, x);
    let reply = loop {
        flow = match flow {
            Flow::Await(Effect::Series(mut series)) => {
                took = world.drive(&mut *series);
                policy.resume(x, Answer::Series(series))
            }
            Flow::Reply(reply) => break reply,
            other => panic!("{other:?}"),
        };
    };
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    let fields = reply.fields.iter().map(|(n, v)| (n.as_str().to_owned(), v.clone())).collect();
    (format!("{} {body}", reply.status), fields, took)
}

/// The status header without times.
fn parts(fields: &[(String, String)]) -> String {
    let header = fields.iter().find(|(n, _)| n == "GW-Parts").map_or("", |(_, v)| v.as_str());
    let items = header
        .split(", ")
        .map(|item| item.split(';').filter(|p| !p.starts_with("ms=")).collect::<Vec<_>>().join(";"));
    items.collect::<Vec<_>>().join(", ")
}

const PAGE: &str = r#"
deadline: 800
parts:
- { name: product, service: inventory, path: "/products/$(uri_captures.id)", drop: [price, reviews, seller] }
- { name: price, service: pricing, path: "/prices/$(uri_captures.id)", into: /price, select: [amount, currency] }
- { name: reviews, service: reviews, path: "/reviews?of=$(uri_captures.id)", into: /reviews, fallback: [], timeout: 300 }
- { name: seller, service: users, path: "/users/$(parts.product.seller_id)", into: /seller, rename: { display_name: name } }
variants:
- { when: { header: { X-Client: mobile } }, drop: [/html, /reviews] }
- { when: { consumer_group: [gold] }, select: [/name, /price/amount] }
fields: [name, /price/amount, seller]
"#;

const WORLD: &str = r#"
inventory GET /products/7 40 200 {"name":"Lamp","seller_id":3,"html":"<b>"}
  Cache-Control: max-age=60
pricing GET /prices/7 100 200 {"amount":19.90,"currency":"EUR","cost":7}
  Cache-Control: max-age=30
reviews GET /reviews?of=7 20 200 [{"stars":5}]
  Cache-Control: public, max-age=600
users GET /users/3 30 200 {"display_name":"Ann","id":3}
  Cache-Control: private, max-age=60
"#;

#[test]
fn parts_are_asked_as_soon_as_they_can_be_and_merged_in_order() {
    let (policy, found) = compiled(PAGE, &Arc::default());
    assert_eq!(found, Vec::<String>::new());
    let policy = policy.expect("a good config");
    let mut world = World::new(WORLD);
    let (answer, fields, took) = ask(&policy, &mut world, "GET /");
    assert_eq!(
        answer,
        "200 {\"name\":\"Lamp\",\"seller_id\":3,\"html\":\"<b>\",\"price\":{\"amount\":19.90,\"currency\":\"EUR\"},\
         \"reviews\":[{\"stars\":5}],\"seller\":{\"name\":\"Ann\",\"id\":3}}"
    );
    let log = [
        "0 inventory GET /products/7",
        "0 pricing GET /prices/7",
        "0 reviews GET /reviews?of=7",
        "40 users GET /users/3",
    ];
    assert_eq!(world.log, log, "the seller waits for the product and for nothing slower");
    assert_eq!(took, 100);
    assert_eq!(parts(&fields), "product;status=200, price;status=200, reviews;status=200, seller;status=200");
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(field("Cache-Control"), Some("private, max-age=30"));
    assert_eq!(field("Vary"), Some("X-Client"));
}

#[test]
fn variants_and_fields_leave_things_out_and_spare_calls() {
    let policy = policy(PAGE);
    for (request, want, calls) in [
        (
            "GET /\nX-Client: mobile",
            r#"200 {"name":"Lamp","seller_id":3,"price":{"amount":19.90,"currency":"EUR"},"seller":{"name":"Ann","id":3}}"#,
            3,
        ),
        ("GET /?fields=price/amount", r#"200 {"price":{"amount":19.90}}"#, 1),
        ("GET /?fields=seller,/name", r#"200 {"name":"Lamp","seller":{"name":"Ann","id":3}}"#, 2),
        ("GET /?fields=", "200 {\"name\"", 4),
        (
            "GET /?fields=cost",
            "400 {\n  \"message\":\"`fields` may not name `cost`; there are name, price/amount, seller\"",
            0,
        ),
    ] {
        let mut world = World::new(WORLD);
        let (answer, ..) = ask(&policy, &mut world, request);
        assert!(answer.starts_with(want), "{request}: {answer}");
        assert_eq!(world.log.len(), calls, "{request}: {:?}", world.log);
    }
    let mut x = testing::exchange("GET /");
    x.identity = Some(crate::exchange::Identity {
        consumer: Some(crate::snapshot::ConsumerId(0)),
        ..Default::default()
    });
    let mut world = World::new(WORLD);
    let (answer, fields, _) = ask_with(&policy, &mut world, &mut x);
    assert_eq!(answer, r#"200 {"name":"Lamp","price":{"amount":19.90}}"#);
    assert_eq!(parts(&fields), "product;status=200, price;status=200, reviews;skipped, seller;skipped");
}

#[test]
fn failures_end_the_request_or_leave_a_mark() {
    let policy = policy(PAGE);
    let line = |service: &str, new: &str| {
        WORLD.lines().map(|l| if l.starts_with(service) { new } else { l }).collect::<Vec<_>>().join("\n")
    };
    for (world, want, header, most) in [
        (
            line("reviews", "reviews GET /reviews?of=7 400 200 []"),
            "200 {\"name\":\"Lamp\",\"seller_id\":3,\"html\":\"<b>\",\"price\":{\"amount\":19.90,\"currency\":\"EUR\"},\"reviews\":[],",
            "product;status=200, price;status=200, reviews;error=http_response_timeout;fallback=static, seller;status=200",
            300,
        ),
        (
            line("reviews", "reviews GET /reviews?of=7 5 503 {}"),
            "200 ",
            "product;status=200, price;status=200, reviews;status=503;fallback=static, seller;status=200",
            100,
        ),
        (
            line("reviews", "reviews GET /reviews?of=7 5 200 {\"a\":1,\"a\":2}"),
            "200 ",
            "product;status=200, price;status=200, reviews;error=not_json;fallback=static, seller;status=200",
            100,
        ),
        (
            line("inventory", "inventory GET /products/7 10 unreachable"),
            "502 {\"type\":\"about:blank\",\"title\":\"A part of the answer is not available\",\"status\":502,\"detail\":\"part \
             `product` failed: no connection came about\",\"part\":\"product\",\"error\":\"destination_unavailable\",\"parts\":\
             {\"product\":\"destination_unavailable\",\"price\":\"cancelled\",\"reviews\":\"cancelled\",\"seller\":\"cancelled\"},",
            "product;error=destination_unavailable, price;error=cancelled, reviews;error=cancelled, seller;error=cancelled",
            10,
        ),
        (
            line("pricing", "pricing GET /prices/7 900 200 {}"),
            "504 {\"type\":\"about:blank\",\"title\":\"A part of the answer took too long\",\"status\":504,",
            "product;status=200, price;error=http_response_timeout, reviews;status=200, seller;status=200",
            800,
        ),
        (
            line("inventory", "inventory GET /products/7 10 200 {\"name\":\"x\"}"),
            "502 {\"type\":\"about:blank\",\"title\":\"A part of the answer is not available\",\"status\":502,\"detail\":\"part \
             `seller` failed: a value in the path is empty\"",
            "product;status=200, price;error=cancelled, reviews;error=cancelled, seller;error=no_value",
            10,
        ),
        (
            line("inventory", "inventory GET /products/7 10 200 [1]"),
            "502 ",
            "product;status=200, price;error=cancelled, reviews;error=cancelled, seller;error=no_value",
            10,
        ),
    ] {
        let (answer, fields, took) = ask(&policy, &mut World::new(&world), "GET /");
        assert!(answer.starts_with(want), "{world}\n{answer}\nis not\n{want}");
        let header =
            header.split(", ").map(|h| h.split(";ms").next().unwrap_or("")).collect::<Vec<_>>().join(", ");
        assert_eq!(parts(&fields), header, "{world}");
        assert!(took <= most, "{took} ms\n{world}");
        let no_store = fields.iter().any(|(n, v)| n == "Cache-Control" && v == "no-store");
        assert!(no_store, "{world}: what lacks a part is not kept");
    }
}

/// One part called `a` of `/a`, with these fields, and what the request comes to.
fn one(fields: &str, body: &str, want: &str) {
    let config = format!("parts:\n- {{ name: a, service: users, path: /a, into: /x, {fields} }}\n");
    let mut world = World::new(&format!("users GET /a 1 {body}"));
    let (answer, ..) = ask(&policy(&config), &mut world, "GET /");
    assert!(answer.starts_with(want), "{fields} of {body}: {answer} is not {want}");
}

#[test]
fn parts_are_shaped() {
    let list = r#"200 {"d":[{"id":1,"n":"a","p":{"q":1,"r":2}},{"id":2,"n":"b"}],"t":2}"#;
    one("from: /d, select: [n]", list, r#"200 {"x":[{"n":"a"},{"n":"b"}]}"#);
    one("from: /d, drop: [/p/q, id]", list, r#"200 {"x":[{"n":"a","p":{"r":2}},{"n":"b"}]}"#);
    one("from: /d, index_by: id, select: [id]", list, r#"200 {"x":{"1":{"id":1},"2":{"id":2}}}"#);
    one(
        "from: /d, rename: { n: name, /p/q: s }, drop: [id]",
        list,
        r#"200 {"x":[{"name":"a","p":{"s":1,"r":2}},{"name":"b"}]}"#,
    );
    one("select: [/d/n, t]", list, r#"200 {"x":{"d":[{"n":"a"},{"n":"b"}],"t":2}}"#);
    one("from: /none", list, "502 ");
    one("from: /none, fallback: omit", list, "200 {}");
    one("from: /none, fallback: null", list, r#"200 {"x":null}"#);
    one("from: /none, required: false", list, "200 {}");
    one("index_by: id", list, "502 ");
    one("from: /d, index_by: p", list, "502 ");
    one("fallback: { a: [1, 2.5, true] }", "500 x", r#"200 {"x":{"a":[1,2.5,true]}}"#);
    one(
        "fallback: fail, pass_status: [404]",
        "404 {}",
        "404 {\"type\":\"about:blank\",\"title\":\"A part of the answer was refused\"",
    );
    one("select: [a]", "204", r#"200 {"x":null}"#);
    one("max_bytes: 5", "too-large", "502 ");
}

#[test]
fn values_cannot_change_where_a_call_goes() {
    for (path, header, want) in [
        ("/u/$(headers.x)", "a/../b?c#d", "users GET /u/a%2F..%2Fb%3Fc%23d"),
        ("/u?q=$(headers.x)", "a&b=c d", "users GET /u?q=a%26b%3Dc%20d"),
        ("/u/$(headers.x)/z", "..", "a value in the path is `.` or `..`"),
        ("/u/.$(headers.x)/z", ".", "a value in the path is `.` or `..`"),
        ("/u/$(headers.x)", "%2e%2e", "users GET /u/%252e%252e"),
        ("/u/$(headers.none)", "", "a value in the path is empty"),
        ("/u?q=$(headers.none)", "", "users GET /u?q="),
        ("/u/$(uri_captures.odd)", "", "users GET /u/a%2Fb%20c"),
        ("/u/$(headers.x or 'me')", "ü", "users GET /u/%C3%BC"),
    ] {
        let config = format!("parts: [{{ name: a, service: users, path: \"{path}\", into: /x }}]");
        let mut world = World::default();
        let (answer, ..) = ask(&policy(&config), &mut world, &format!("GET /\nX: {header}"));
        let log = world.log.join(" ");
        let got = if log.is_empty() { answer } else { log };
        assert!(got.contains(want), "{path} {header}: {got}");
    }
}

#[test]
fn lists_are_asked_for_item_by_item() {
    let config = |more: &str| {
        format!(
            "max_calls: 6\nparts:\n- {{ name: cart, service: users, path: /cart, into: /cart }}\n\
             - {{ name: lines, service: inventory, path: \"/p/$(item.id)\", for_each: \"$(parts.cart.lines)\", into: /lines, \
             concurrency: 2, max_items: 5 {more} }}\n"
        )
    };
    let world = |lines: &str, third: &str| {
        World::new(&format!(
            "users GET /cart 10 200 {{\"lines\":{lines}}}\ninventory GET /p/1 30 200 {{\"n\":1}}\n\
             inventory GET /p/2 10 200 {{\"n\":2}}\ninventory GET /p/3 10 {third}\n"
        ))
    };
    let three = r#"[{"id":1},{"id":2},{"id":3}]"#;
    let mut all = world(three, "200 {\"n\":3}");
    let (answer, _, took) = ask(&policy(&config("")), &mut all, "GET /");
    assert!(answer.ends_with(r#""lines":[{"n":1},{"n":2},{"n":3}]}"#), "{answer}");
    assert_eq!(all.log[1..], ["10 inventory GET /p/1", "10 inventory GET /p/2", "20 inventory GET /p/3"]);
    assert_eq!(took, 40);
    for (more, lines, third, want) in [
        ("", three, "500 x", "502 "),
        (", fallback: omit", three, "500 x", r#""lines":[{"n":1},{"n":2}]}"#),
        (", fallback: null", three, "500 x", r#""lines":[{"n":1},{"n":2},null]}"#),
        (", fallback: []", three, "500 x", r#""lines":[]}"#),
        ("", "[]", "", r#""lines":[]}"#),
        ("", "7", "", "`for_each` needs a list, not a number"),
        ("", "[1,2,3,4,5,6]", "", "there are more than 5 items to ask it for"),
        (", index_by: n", three, "200 {\"n\":\"c\"}", r#""lines":{"1":{"n":1},"2":{"n":2},"c":{"n":"c"}}}"#),
        (
            ", select: [m], max_items: 9",
            "[{\"id\":1},{\"id\":1},{\"id\":1},{\"id\":1},{\"id\":1},{\"id\":1}]",
            "",
            "more calls than `max_calls`",
        ),
    ] {
        let more = more.replace(", max_items: 9", "");
        let config = config(&more)
            .replace("max_items: 5", if lines.len() > 45 { "max_items: 9" } else { "max_items: 5" });
        let mut world = world(lines, if third.is_empty() { "200 {}" } else { third });
        let (answer, ..) = ask(&policy(&config), &mut world, "GET /");
        assert!(answer.contains(want), "{more} {lines} {third}: {answer} lacks {want}");
    }
}

#[test]
fn bodies_headers_and_claims_are_sent() {
    let config = r#"
parts:
- name: batch
  service: inventory
  method: POST
  unsafe: true
  path: /batch
  headers: { X-User: "$(claims.sub)", X-None: "$(claims.none)" }
  body: { ids: "$(body.ids)", note: "for $(claims.sub or 'nobody')", n: 1, ok: true, nested: ["$(body.ids[1])"] }
  into: /items
"#;
    let mut world = World::new("inventory POST /batch 1 200 [1]");
    let policy = policy(config);
    let mut x = testing::exchange("POST /\n\n{\"ids\":[1.0,2]}");
    x.identity = Some(crate::exchange::Identity {
        claims: Some(std::rc::Rc::new(serde_json::json!({"sub": "ann"}))),
        ..Default::default()
    });
    let (answer, ..) = ask_with(&policy, &mut world, &mut x);
    assert_eq!(answer, r#"200 {"items":[1]}"#);
    let body = r#"{"ids":[1.0,2],"note":"for ann","n":1,"ok":true,"nested":[1.0]}"#;
    assert_eq!(world.log, [format!("0 inventory POST /batch > {body}")]);
    let (answer, ..) = ask(&policy, &mut world, "POST /\n\n{\"ids\":");
    assert!(answer.starts_with("400 "), "{answer}");
}

#[test]
fn the_last_good_answer_stands_in_for_the_same_call_alone() {
    let config = "parts: [{ name: a, service: users, path: /a, into: /x, fallback: stale, forward_headers: [X-User] }]";
    let policy = policy(config);
    let request = |user: &str| format!("GET /\nX-User: {user}");
    let good = "users GET /a 1 200 {\"of\":1}";
    let (answer, ..) = ask(&policy, &mut World::new(good), &request("ann"));
    assert_eq!(answer, r#"200 {"x":{"of":1}}"#);
    let (answer, fields, _) = ask(&policy, &mut World::new("users GET /a 1 500 x"), &request("ann"));
    assert_eq!(answer, r#"200 {"x":{"of":1}}"#);
    assert_eq!(parts(&fields), "a;status=500;fallback=stale");
    let (answer, fields, _) = ask(&policy, &mut World::new("users GET /a 1 500 x"), &request("bob"));
    assert_eq!((answer.as_str(), parts(&fields).as_str()), ("200 {}", "a;status=500;fallback=omit"));
}

#[test]
fn conflicts_answer_as_the_config_says() {
    for (more, want) in [
        ("", "502 "),
        ("on_conflict: first", r#"200 {"x":1,"o":{"a":1},"y":2}"#),
        ("on_conflict: last", r#"200 {"x":9,"o":{"b":2},"y":2}"#),
        ("on_conflict: deep", r#"200 {"x":9,"o":{"a":1,"b":2},"y":2}"#),
        ("fallback: omit", r#"200 {"x":1,"o":{"a":1}}"#),
    ] {
        let config = format!(
            "parts:\n- {{ name: a, service: users, path: /a }}\n- {{ name: b, service: users, path: /b, {more} }}\n"
        );
        let mut world = World::new(
            "users GET /a 9 200 {\"x\":1,\"o\":{\"a\":1}}\nusers GET /b 1 200 {\"x\":9,\"o\":{\"b\":2},\"y\":2}",
        );
        let (answer, ..) = ask(&policy(&config), &mut world, "GET /");
        assert!(answer.starts_with(want), "{more}: {answer} is not {want}");
    }
    let config = "parts:\n- { name: a, service: users, path: /a, into: /l }\n\
                  - { name: b, service: users, path: /b, into: /l, concat: true }\n";
    let mut world = World::new("users GET /a 9 200 [1]\nusers GET /b 1 200 [2,3]");
    assert_eq!(ask(&policy(config), &mut world, "GET /").0, r#"200 {"l":[1,2,3]}"#);
}

#[test]
fn headers_are_combined_by_rule() {
    let config = |combine: &str| {
        format!(
            "response_headers: [{{ name: X-N, combine: {combine} }}]\nparts:\n\
             - {{ name: a, service: users, path: /a, into: /a }}\n- {{ name: b, service: users, path: /b, into: /b }}\n"
        )
    };
    for (combine, want) in [("first", "2"), ("last", "10"), ("append", "2 10"), ("min", "2"), ("max", "10")] {
        let mut world = World::new("users GET /a 1 200 1\n  X-N: 2\nusers GET /b 1 200 2\n  X-N: 10");
        let (_, fields, _) = ask(&policy(&config(combine)), &mut world, "GET /");
        let got: Vec<&str> = fields.iter().filter(|(n, _)| n == "X-N").map(|(_, v)| v.as_str()).collect();
        assert_eq!(got.join(" "), want, "{combine}");
    }
}

/// Whatever the order of the answers, the answer is the same: every order of delays of the page's four services.
#[test]
fn the_answer_does_not_depend_on_who_is_faster() {
    let policy = policy(PAGE);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..256_u64 {
        let delays = [n % 4, n / 4 % 4, n / 16 % 4, n / 64 % 4].map(|d| (d * 50 + 1).to_string());
        let world = WORLD
            .replace("products/7 40", &format!("products/7 {}", delays[0]))
            .replace("prices/7 100", &format!("prices/7 {}", delays[1]))
            .replace("of=7 20", &format!("of=7 {}", delays[2]))
            .replace("users/3 30", &format!("users/3 {}", delays[3]));
        seen.insert(ask(&policy, &mut World::new(&world), "GET /").0);
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}
