//! One request, several services, over real sockets: shapes, times, failures, and who is told what.

use std::time::{Duration, Instant};

use gw_tests::canned::{Answer, Canned};
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Message, request};

struct Page {
    gateway: Gateway,
    inventory: Canned,
    pricing: Canned,
    reviews: Canned,
    users: Canned,
    _dir: Folder,
}

const PRODUCT: Answer = ("GET /stock/products/7", 40, 200, "", r#"{"name":"Lamp","seller":3,"html":"<b>"}"#);
const PRICE: Answer =
    ("GET /prices/7", 100, 200, "Cache-Control: max-age=9\r\n", r#"{"amount":19.90,"cost":7}"#);
const REVIEWS: Answer = ("GET /reviews?of=7", 10, 200, "", r#"[{"stars":5}]"#);
const USER: Answer = ("GET /users/3", 30, 200, "", r#"{"name":"Ann"}"#);

fn page() -> Page {
    let inventory = Canned::start(&[PRODUCT]);
    let pricing = Canned::start(&[PRICE]);
    let reviews = Canned::start(&[REVIEWS]);
    let users = Canned::start(&[USER]);
    let dir = Folder::new("aggregate");
    let text = format!(
        r#"
_format_version: "3.0"
services:
- {{ name: inventory, url: "http://{}/stock", retries: 0 }}
- {{ name: pricing, url: "http://{}", retries: 0 }}
- {{ name: reviews, url: "http://{}", retries: 0 }}
- {{ name: users, url: "http://{}", retries: 0 }}
consumers:
- {{ username: ann, keyauth_credentials: [{{ key: k }}] }}
routes:
- name: page
  paths: ["~/products/(?<id>[0-9]+)$"]
  plugins:
  - {{ name: key-auth }}
  - name: aggregate
    config:
      deadline: 1000
      parts:
      - {{ name: product, service: inventory, path: "/products/$(uri_captures.id)", drop: [price, reviews, seller] }}
      - {{ name: price, service: pricing, path: "/prices/$(uri_captures.id)", into: /price, select: [amount] }}
      - {{ name: reviews, service: reviews, path: "/reviews?of=$(uri_captures.id)", into: /reviews, fallback: [], timeout: 300 }}
      - {{ name: seller, service: users, path: "/users/$(parts.product.seller)", into: /seller }}
      variants:
      - {{ when: {{ header: {{ X-Client: mobile }} }}, drop: [/html, /reviews] }}
"#,
        inventory.addr(),
        pricing.addr(),
        reviews.addr(),
        users.addr()
    );
    let config = dir.write("gw.yaml", &text);
    let gateway = Gateway::start(&config, &[]);
    Page { gateway, inventory, pricing, reviews, users, _dir: dir }
}

impl Page {
    fn ask(&self, fields: &str) -> (Message, Duration) {
        let began = Instant::now();
        let fields = format!("apikey: k\r\n{fields}");
        (request(self.gateway.addr(), "GET", "/products/7", &fields), began.elapsed())
    }
}

/// The status header without times.
fn parts(answer: &Message) -> String {
    let header = answer.field("gw-parts").unwrap_or_default();
    let items = header
        .split(", ")
        .map(|i| i.split(';').filter(|p| !p.starts_with("ms=")).collect::<Vec<_>>().join(";"));
    items.collect::<Vec<_>>().join(", ")
}

#[test]
fn four_services_are_one_answer_that_takes_as_long_as_the_slowest() {
    let page = page();
    let (answer, _) = page.ask("");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let want = r#"{"name":"Lamp","html":"<b>","price":{"amount":19.90},"reviews":[{"stars":5}],"seller":{"name":"Ann"}}"#;
    assert_eq!(answer.text(), want);
    assert_eq!(answer.field("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(parts(&answer), "product;status=200, price;status=200, reviews;status=200, seller;status=200");
    // Connections are open by now. The slowest takes 100 ms; product and seller together 70.
    let best = (0..5).map(|_| page.ask("").1).min().expect("five");
    assert!(best >= Duration::from_millis(100) && best < Duration::from_millis(135), "{best:?}");
    let seen = page.users.seen();
    let asked = seen.first().expect("the seller was asked for");
    assert_eq!(asked.field("x-consumer-username"), Some("ann"), "services learn who asks");
    assert_eq!(asked.field("apikey"), None, "and get no credentials");
    let (mobile, _) = page.ask("X-Client: mobile\r\n");
    assert_eq!(mobile.text(), r#"{"name":"Lamp","price":{"amount":19.90},"seller":{"name":"Ann"}}"#);
    assert_eq!(mobile.field("vary"), Some("X-Client"));
    assert!(parts(&mobile).contains("reviews;skipped"), "{}", parts(&mobile));
}

#[test]
fn parts_that_fail_are_replaced_or_end_the_request() {
    let page = page();
    page.reviews.answer(&[("GET /reviews?of=7", 2000, 200, "", "[]")]);
    let (answer, took) = page.ask("");
    assert_eq!((answer.status(), answer.field("cache-control")), (200, Some("no-store")));
    assert!(answer.text().contains(r#""reviews":[]"#), "{}", answer.text());
    assert!(
        parts(&answer).contains("reviews;error=http_response_timeout;fallback=static"),
        "{}",
        parts(&answer)
    );
    assert!(took < Duration::from_millis(600), "{took:?}");

    page.inventory.answer(&[("GET /stock/products/7", 0, 503, "", "{}")]);
    let (answer, took) = page.ask("");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["part"], "product");
    assert_eq!(problem["error"], "http_status");
    assert_eq!(problem["detail"], "part `product` failed: it answered 503");
    assert!(took < Duration::from_millis(90), "the others are not waited for: {took:?}");

    page.inventory.answer(&[PRODUCT]);
    page.pricing.answer(&[("GET /prices/7", 3000, 200, "", "{}")]);
    let (answer, took) = page.ask("");
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1500), "{took:?}");
    page.pricing.answer(&[PRICE]);
    assert_eq!(page.ask("").0.status(), 200, "and all is well again");
}

#[test]
fn who_is_not_let_in_asks_nobody() {
    let page = page();
    let answer = request(page.gateway.addr(), "GET", "/products/7", "");
    assert_eq!(answer.status(), 401);
    assert!(page.inventory.seen().is_empty());
}

#[test]
fn answers_that_are_no_json_are_refused_in_bounded_memory() {
    let page = page();
    let deep: &'static str = Box::leak("[".repeat(1_000_000).into_boxed_str());
    let long: &'static str = Box::leak(format!("\"{}\"", "x".repeat(3 << 20)).into_boxed_str());
    for (body, error) in [
        (deep, "not_json"),
        (long, "http_response_body_size"),
        ("{\"a\":1,\"a\":2}", "not_json"),
        ("{\"a\":", "not_json"),
        ("\u{0}", "not_json"),
        ("<html>", "not_json"),
    ] {
        page.pricing.answer(&[("GET /prices/7", 0, 200, "", body)]);
        let (answer, _) = page.ask("");
        assert_eq!(answer.status(), 502, "{error}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((&problem["part"], &problem["error"]), (&"price".into(), &error.into()));
    }
}
