//! The product page of `fixtures/storefront`: every command of its README, and what that README promises.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gw_tests::binary::{gw, repository};
use gw_tests::dev::bash;
use gw_tests::http::Message;
use gw_tests::readme::Readme;
use gw_tests::redis::free_port;

const README: &str = include_str!("../../fixtures/storefront/README.md");
const FOLDER: &str = "fixtures/storefront";

fn commands(start: &str) -> Vec<String> {
    Readme::new(README).commands(start).into_iter().map(str::to_owned).collect()
}

/// Runs the README's `curl` with `part` in it.
fn page(addr: SocketAddr, parts: &[&str]) -> (Message, serde_json::Value, Duration) {
    let began = Instant::now();
    let answer = Readme::new(README).curl(addr, parts, "");
    let took = began.elapsed();
    let json = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{parts:?}: {e}: {answer:?}"));
    (answer, json, took)
}

#[test]
fn the_commands_of_the_readme_show_what_it_says() {
    let (dev, addr) = Readme::new(README).serve(&[]);
    assert!(dev.shows(&["inventory.internal:80"]), "{:#?}", dev.shown);
    let (answer, json, _) = page(addr, &["products/7 ", "ann", "key'"]);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.text().contains(r#""price":{"amount":19.90,"currency":"EUR"}"#), "{}", answer.text());
    assert_eq!(json["seller"]["name"], "Ann's Lamps");
    assert_eq!(json["related"], serde_json::json!([{"name": "Shade"}, {"name": "Bulb"}]));
    assert_eq!(json["reviews"].as_array().map(Vec::len), Some(2));
    assert!(json.get("seller_id").is_none() && json["price"].get("cost").is_none(), "{json}");
    for part in ["product", "price", "reviews", "seller", "related"] {
        let header = answer.field("gw-parts").unwrap_or_default();
        assert!(header.contains(&format!("{part};status=200;ms=")), "{header}");
    }

    let (answer, json, _) = page(addr, &["mobile"]);
    assert!(json.get("reviews").is_none() && json.get("description_html").is_none(), "{json}");
    assert!(answer.field("gw-parts").unwrap_or_default().contains("reviews;skipped"));
    assert_eq!(answer.field("vary"), Some("x-client"));

    let (_, json, _) = page(addr, &["pat-"]);
    assert_eq!(json, serde_json::json!({"title": "Lamp", "price": {"amount": 19.9, "currency": "EUR"}}));
    let (_, json, _) = page(addr, &["fields="]);
    assert_eq!(json, serde_json::json!({"name": "Lamp", "price": {"amount": 19.9}}));

    let (answer, json, took) = page(addr, &["products/8"]);
    assert_eq!((answer.status(), &json["reviews"]), (200, &serde_json::json!([])));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let parts = answer.field("gw-parts").unwrap_or_default();
    assert!(parts.contains("reviews;error=http_response_timeout"), "{parts}");
    assert!(took < Duration::from_millis(1500), "{took:?}");

    let (answer, json, _) = page(addr, &["products/9"]);
    assert_eq!((answer.status(), &json["part"]), (502, &"price".into()), "{json}");
    let (answer, json, _) = page(addr, &["products/10"]);
    assert_eq!((answer.status(), &json["part"]), (404, &"product".into()), "{json}");
}

#[test]
fn the_graph_is_explained() {
    let text = bash(&commands("gw explain")[0], "");
    for part in [
        "route     `product-page` (fixtures/storefront/kong.yaml:",
        "because   path `~/v1/products/(?<id>[0-9]+)$`",
        "capture   id = 7",
        "plugins   1. key-auth (of the route, fixtures/storefront/kong.yaml:",
        "          2. aggregate (of the route, fixtures/storefront/kong.yaml:",
        "parts     product inventory, there after at most 800 ms, required",
        "          price   pricing, there after at most 500 ms, required",
        "          reviews reviews, there after at most 300 ms, else a fixed value",
        "          seller  users, waits for product, there after at most 800 ms, else its last good answer",
        "          related inventory, waits for product, up to 4 items, 5 at a time",
        "at most   800 ms for all parts (deadline 800 ms)",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[test]
fn no_page_fails_when_a_service_is_killed_under_load() {
    let (kill, serve) = (commands("gw echo").remove(0), commands("gw serve --dev").remove(1));
    let reviews = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let words = kill.replace("127.0.0.1:9001", &reviews.to_string());
    let mut echo = Running(start(&words.split(' ').skip(1).collect::<Vec<_>>()));
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(reviews).is_err() {
        assert!(Instant::now() < until, "gw echo listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    let resolve =
        serve.split(' ').next_back().expect("a word").replace("127.0.0.1:9001", &reviews.to_string());
    let (_dev, addr) = Readme::new(README).serve(&["--resolve", &resolve]);
    let (before, _, _) = page(addr, &["products/7 ", "ann", "key'"]);
    assert!(before.field("gw-parts").unwrap_or_default().contains("reviews;status=200"), "{before:?}");

    let bench = commands("gw bench")[0]
        .replace("127.0.0.1:8000", &addr.to_string())
        .replace("--duration 10s", "--duration 3s")
        .replace("--rate 50/s", "--rate 20/s");
    let bench = std::thread::spawn(move || bash(&bench, "--no-progress"));
    std::thread::sleep(Duration::from_millis(1200));
    let _ = echo.0.kill();
    // A failed assertion is an exit code that `bash` does not take.
    let report = bench.join().expect("every page came");
    assert!(report.contains("errors==0"), "{report}");
    let (after, json, _) = page(addr, &["products/7 ", "ann", "key'"]);
    let parts = after.field("gw-parts").unwrap_or_default();
    assert!(parts.contains("reviews;error=destination_unavailable"), "{parts}");
    assert_eq!(json["reviews"], serde_json::json!([]));
}

#[test]
fn the_config_has_no_findings() {
    let config = format!("{FOLDER}/kong.yaml");
    assert!(repository().join(Path::new(&config)).is_file());
    let out = gw().args(["validate", &config]).current_dir(repository()).output().expect("gw runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && !text.contains("warning"), "{text}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(args: &[&str]) -> Child {
    gw().args(args)
        .current_dir(repository())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gw starts")
}
