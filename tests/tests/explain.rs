//! `gw explain` of requests and settings says what the gateway does.

use gw_tests::binary::gw;
use gw_tests::folder::Folder;

const CONFIG: &str = r#"
_format_version: "3.0"
gateway:
  trusted_ips: [10.0.0.0/8]
  limits: { uri: 4096 }
  access_log: "${LOG_FILE}"
services:
- name: orders
  url: http://orders.internal:81/base
  read_timeout: 1000
  routes:
  - { name: one, paths: ["~/orders/(?<id>\\d+)$"], methods: [GET], plugins: [{ name: key-auth }] }
  - { name: all, paths: [/orders], strip_path: false }
  - { name: secure, paths: [/secure], protocols: [https] }
consumers:
- { username: ann, keyauth_credentials: [{ key: "${KEY}" }], plugins: [{ name: rate-limiting, config: { minute: 5 } }] }
"#;

/// Runs `gw explain` with the config, and asserts an exit code and lines.
fn check(args: &[&str], code: i32, want: &[&str]) {
    let folder = Folder::new("explain");
    let config = folder.write("gw.yaml", CONFIG);
    let out = gw()
        .arg("explain")
        .args(args)
        .env("KEY", "s3cr3t")
        .env("LOG_FILE", "/tmp/hidden.log")
        .current_dir(folder.path())
        .output()
        .expect("gw runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    for line in want {
        assert!(text.contains(line), "{args:?}: no `{line}` in\n{text}");
    }
    assert!(!text.contains("s3cr3t") && !text.contains("hidden"), "{text}");
    assert!(config.is_file());
}

#[test]
fn requests_are_explained() {
    check(
        &["GET", "/orders/7?x=1", "--config", "gw.yaml", "--consumer", "ann"],
        0,
        &[
            "route     `one` (gw.yaml:12)\n",
            "because   path `~/orders/(?<id>\\d+)$`\n",
            "capture   id = 7\n",
            "plugins   1. key-auth (of the route, gw.yaml:12)\n",
            "          2. rate-limiting (of the consumer, gw.yaml:16)\n",
            "service   orders (http://orders.internal:81)\n",
            "asked     GET /base?x=1, Host: orders.internal:81",
            "patience  connect 60000 ms, write 60000 ms, read 1000 ms; 5 retries\n",
        ],
    );
    check(
        &["POST", "http://a.test/orders/../orders/7", "--config", "gw.yaml", "-H", "X-Consumer-Id: 1"],
        0,
        &[
            "removed   X-Consumer-Id",
            "path      /orders/7 (in normal form)",
            "route     `all`",
            "not `one`: method `POST`",
        ],
    );
    check(&["GET", "/secure", "--config", "gw.yaml"], 0, &["answer    426: the route takes https alone"]);
    check(&["GET", "/nope", "--config", "gw.yaml"], 0, &["route     none", "answer    404"]);
    check(&["GET", "/a%00", "--config", "gw.yaml"], 0, &["answer    400"]);
    check(&["get", "/", "--config", "gw.yaml"], 2, &["`get` is no method"]);
    check(&["GET", "nope", "--config", "gw.yaml"], 2, &["`nope` is no URL"]);
    check(&["GET", "/", "--config", "gw.yaml", "-H", "x"], 2, &["`x` is no header"]);
    check(&["GET", "/orders", "--config", "gw.yaml", "--consumer", "bob"], 2, &["no consumer `bob`"]);
    check(&["GET", "/"], 2, &["needs `--config FILE`"]);
    check(&["GET", "/", "--config", "none.yaml"], 2, &["there is no such file"]);
}

#[test]
fn settings_say_who_set_them() {
    let flat = |args: &[&str], want: &[&str]| check(args, 0, want);
    flat(
        &["config", "--config", "gw.yaml", "--", "--workers", "3"],
        &[
            "10.0.0.0/8                                            gw.yaml:4",
            "4096                                                  gw.yaml:5",
            "LOG_FILE",
            "3                                                     flag",
            "32768                                                 default",
            "1000 ms                                               gw.yaml:8",
        ],
    );
}
