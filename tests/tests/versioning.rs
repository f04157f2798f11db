//! `fixtures/versioning`: every command of its README, and what that README promises.

use gw_tests::binary::{gw, repository};
use gw_tests::readme::Readme;

const README: &str = include_str!("../../fixtures/versioning/README.md");

#[test]
fn old_contracts_hold_and_new_versions_are_tried() {
    let readme = Readme::new(README);
    let (_dev, addr) = readme.serve(&[]);
    let curl = |parts: &[&str]| readme.curl(addr, parts, "");

    let v2 = curl(&["/v2/orders/7"]);
    assert!(v2.text().contains(r#""order_id":7"#) && v2.text().contains("links"), "{}", v2.text());
    assert_eq!(v2.field("deprecation"), None);

    let v1 = curl(&["/v1/orders/7"]);
    let json: serde_json::Value = serde_json::from_slice(&v1.body).expect("JSON");
    assert_eq!(
        (v1.status(), &json["id"], &json["customer_name"], &json["version"]),
        (200, &7.into(), &"Ann".into(), &1.into())
    );
    assert!(json.get("links").is_none() && json.get("order_id").is_none(), "{json}");
    assert_eq!(v1.field("x-api-version"), Some("1"));
    assert_eq!(v1.field("deprecation"), Some("@1772323200"));
    assert_eq!(v1.field("sunset"), Some("Mon, 31 Dec 2096 00:00:00 GMT"));
    assert!(v1.field("link").is_some_and(|l| l.contains("rel=\"deprecation\"")), "{:?}", v1.fields);

    let posted = curl(&["-d"]);
    assert_eq!(posted.status(), 201, "{}", posted.text());
    assert!(posted.text().contains(r#""id":8"#), "{}", posted.text());

    let gone = curl(&["/v0/"]);
    assert_eq!((gone.status(), gone.field("deprecation")), (410, Some("@1577836800")));

    assert!(curl(&["vnd.shop.v2"]).text().contains(r#""version":2"#));
    let third = curl(&["version=3"]);
    assert!(third.text().contains(r#""version":3"#), "{}", third.text());
    assert_eq!(third.field("x-served-by"), Some("orders-v3"));
    assert_eq!(third.field("vary"), Some("x-version"));
    assert_eq!(curl(&["x-version: 2"]).field("x-served-by"), Some("orders-v2"));
}

#[test]
fn clients_keep_the_side_that_they_are_on() {
    let readme = Readme::new(README);
    let (_dev, addr) = readme.serve(&[]);
    let last = readme.commands("curl ").into_iter().next_back().expect("commands");
    assert!(last.ends_with("8000/orders"), "{last}");
    let mut sides = std::collections::BTreeMap::new();
    for _ in 0..60 {
        let out = gw_tests::http::get(addr, "/orders");
        let side = out.field("x-served-by").expect("a side").to_owned();
        let cookie = out.field("set-cookie").expect("a cookie").to_owned();
        assert!(cookie.starts_with("side=") && cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        let again = gw_tests::http::request(addr, "GET", "/orders", &format!("Cookie: {cookie}\r\n"));
        assert_eq!(again.field("x-served-by"), Some(side.as_str()));
        assert_eq!(again.field("set-cookie"), None);
        *sides.entry(side).or_insert(0) += 1;
    }
    assert!(sides.get("orders-v2").is_some_and(|n| *n > 30), "{sides:?}");
}

#[test]
fn the_config_has_no_findings() {
    let out = gw()
        .args(["validate", "fixtures/versioning/kong.yaml"])
        .current_dir(repository())
        .output()
        .expect("gw runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && !text.contains("warning"), "{text}");
}
