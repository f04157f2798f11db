//! `gw token` as a developer meets it, beside the gateway whose answers it explains.

use std::io::Write as _;
use std::process::{Output, Stdio};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http;
use serde_json::Value;

const CONFIG: &str = r#"
_format_version: "3.0"
services:
  - name: orders
    url: http://127.0.0.1:9
    routes:
      - name: orders
        paths: [/orders]
        plugins:
          - { name: jwt, config: { claims_to_verify: [exp] } }
          - { name: acl, config: { allow: [admin] } }
      - { name: open, paths: [/open] }
plugins: [{ name: request-termination, config: { status_code: 204 } }]
consumers:
  - username: alice
    jwt_secrets: [{ key: alice-key, secret: "0123456789abcdef0123456789abcdef" }]
    acls: [{ group: admin }]
  - username: bob
    jwt_secrets: [{ key: bob-key, secret: "fedcba9876543210fedcba9876543210" }]
"#;

/// Runs `gw token ARGS` with `input` on its standard input.
fn token(args: &[&str], input: &str) -> Output {
    let mut child = gw()
        .arg("token")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gw starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("gw reads");
    child.wait_with_output().expect("gw ends")
}

/// The same; it must end with 0. Returns what it printed.
fn printed(args: &[&str], input: &str) -> String {
    let output = token(args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("gw prints UTF-8").trim().to_owned()
}

/// Asks the gateway with a token, and checks that `gw token explain` foretells status, body and challenge.
fn check(gateway: &Gateway, config: &str, token: &str, want: (u16, &str)) -> Value {
    let field = format!("Authorization: Bearer {token}\r\n");
    let response = http::request(gateway.addr(), "GET", "/orders", &field);
    let explained = self::token(&["explain", "--config", config, "--route", "orders", "--json"], token);
    let said: Value = serde_json::from_slice(&explained.stdout).expect("it is JSON");
    assert_eq!(explained.status.code(), Some(i32::from(want.0 != 204)), "{said:#}");
    assert_eq!((response.status(), said["accepted"].as_bool()), (want.0, Some(want.0 == 204)), "{said:#}");
    let failed: Vec<&Value> = said["checks"]
        .as_array()
        .expect("checks are a list")
        .iter()
        .filter(|c| c["result"] == "fail")
        .map(|c| &c["check"])
        .collect();
    assert_eq!(failed.first().and_then(|c| c.as_str()).unwrap_or(""), want.1, "{said:#}");
    if want.0 != 204 {
        assert_eq!(said["response"]["status"], response.status());
        let challenge = said["response"]["headers"].get("WWW-Authenticate").and_then(Value::as_str);
        assert_eq!(challenge, response.field("www-authenticate"));
        let body = |text: &str| -> Value {
            let mut body: Value = serde_json::from_str(text).expect("a JSON body");
            body.as_object_mut().expect("an object").remove("request_id");
            body
        };
        let told = said["response"]["body"].as_str().expect("a text");
        assert_eq!(body(told), body(&response.text()));
    }
    said
}

#[test]
fn what_is_explained_is_what_the_gateway_answers() {
    let folder = Folder::new("token");
    let path = folder.write("gw.yaml", CONFIG);
    let config = path.to_str().expect("a path");
    let gateway = Gateway::start(&path, &[]);
    let mint = |consumer: &str, more: &[&str]| {
        printed(&[&["mint", "--config", config, "--consumer", consumer], more].concat(), "")
    };
    let good = mint("alice", &[]);
    let said = check(&gateway, config, &good, (204, ""));
    assert_eq!(said["consumer"], "alice");
    assert_eq!(said["upstream_headers"]["X-Credential-Identifier"], "alice-key");
    check(&gateway, config, &mint("bob", &[]), (403, "acl"));
    check(&gateway, config, &mint("alice", &["--claim", "exp=1"]), (401, "exp"));
    check(&gateway, config, &good[..good.len() - 4], (401, "signature encoding"));
    check(&gateway, config, "a.b", (401, "parts"));
    let other = CONFIG.replace("0123456789abcdef", "0123456789abcdee");
    let other = folder.write("other.yaml", &other);
    let forged = printed(
        &["mint", "--config", other.to_str().expect("a path"), "--consumer", "alice", "--claim", "exp=1"],
        "",
    );
    let said = check(&gateway, config, &forged, (401, "signature"));
    let exp = said["checks"].as_array().and_then(|all| all.iter().find(|c| c["check"] == "exp"));
    assert_eq!(exp.expect("it is checked all the same")["result"], "fail");
}

#[test]
fn questions_without_an_answer_say_what_to_do() {
    let folder = Folder::new("token");
    let path = folder.write("gw.yaml", CONFIG);
    let config = path.to_str().expect("a path");
    for (args, code, want) in [
        (&["--route", "open"][..], 2, "route `open` has no enabled `jwt` plugin: nothing looks at the token"),
        (&["--route", "nope"], 2, "there is no route `nope`; there are `orders`, `open`"),
    ] {
        let output = token(&[&["explain", "--config", config], args].concat(), "a.b.c");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(want), "{said}");
    }
}
