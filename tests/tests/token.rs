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
    // 41 characters are no length that base64 can have, whatever they are.
    check(&gateway, config, &good[..good.len() - 2], (401, "signature encoding"));
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

/// A config with consumers' credentials and an issuer, as strict as it can be.
fn strict(jwks: &str) -> String {
    let jwks = jwks.replace('\'', "''");
    format!(
        r#"
_format_version: "3.0"
services: [{{ name: s, url: "http://127.0.0.1:9", routes: [{{ name: r, paths: [/orders] }}] }}]
plugins:
  - name: jwt
    config:
      strict: true
      audiences: [api]
      issuers: [{{ issuer: "https://issuer.test", audiences: [api], scopes_any: [read], algorithms: [ES256], jwks: '{jwks}' }}]
  - {{ name: request-termination, config: {{ status_code: 204 }} }}
consumers: [{{ username: alice, jwt_secrets: [{{ key: alice-key, secret: "0123456789abcdef0123456789abcdef" }}] }}]
"#
    )
}

#[test]
fn broken_tokens_are_refused_for_the_reason_that_they_were_broken_for() {
    let folder = Folder::new("token");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (key, jwks) = (at("k"), at("jwks.json"));
    printed(&["rotate", "--jwks", &jwks, "--alg", "es256", "--out", &key], "");
    let set = std::fs::read_to_string(&jwks).expect("it was written");
    assert!(!set.contains("\"d\""), "a published set has no private parts: {set}");
    let path = folder.write("gw.yaml", &strict(&set));
    let config = path.to_str().expect("a path");
    let key_file = format!("{key}-key.pem");
    let gateway = Gateway::start(&path, &[]);
    let roads = [
        vec!["mint", "--config", config, "--consumer", "alice"],
        vec!["mint", "--config", config, "--issuer", "https://issuer.test", "--key-file", &key_file],
    ];
    for road in &roads {
        let good = printed(road, "");
        let field = format!("Authorization: Bearer {good}\r\n");
        assert_eq!(http::request(gateway.addr(), "GET", "/orders", &field).status(), 204, "{road:?}");
    }
    for (kind, own, issuers) in [
        ("expired", "exp", "exp"),
        ("nbf", "nbf", "nbf"),
        ("aud", "aud", "aud"),
        ("iss", "credential", "credential"),
        ("sig", "signature", "signature"),
        ("alg-none", "alg", "alg"),
        ("hs-confusion", "", "algorithm"),
        ("kid", "", "key"),
        ("typ", "typ", "typ"),
        ("crit", "crit", "crit"),
        ("no-exp", "exp", "exp"),
    ] {
        for (road, want) in roads.iter().zip([own, issuers]) {
            // A shared secret has no public key to be confused with, and no `kid`.
            if want.is_empty() {
                continue;
            }
            let broken = printed(&[road.as_slice(), &["--broken", kind]].concat(), "");
            let field = format!("Authorization: Bearer {broken}\r\n");
            let response = http::request(gateway.addr(), "GET", "/orders", &field);
            assert_eq!(response.status(), 401, "{kind} {road:?}");
            let challenge = response.field("www-authenticate").unwrap_or_default().to_owned();
            assert!(challenge.contains("error=\"invalid_token\", error_description="), "{kind}: {challenge}");
            let said = token(&["explain", "--config", config, "--json"], &broken);
            let said: Value = serde_json::from_slice(&said.stdout).expect("it is JSON");
            let mut checks = said["checks"].as_array().into_iter().flatten();
            let first = checks.find(|c| c["result"] == "fail").expect("a check fails");
            assert_eq!(first["check"], want, "{kind} {road:?}: {first}");
        }
    }
}

#[test]
fn tokens_come_in_numbers_and_sets_rotate() {
    let folder = Folder::new("token");
    let config = folder.write("gw.yaml", CONFIG);
    let config = config.to_str().expect("a path");
    let csv =
        printed(&["mint", "--config", config, "--consumer", "alice", "--count", "50", "--format", "csv"], "");
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("consumer,token"));
    let tokens: std::collections::HashSet<&str> = lines.filter_map(|l| l.strip_prefix("alice,")).collect();
    assert_eq!(tokens.len(), 50, "each is another");

    let at = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let jwks = at("jwks.json");
    let old = printed(&["rotate", "--jwks", &jwks, "--alg", "EdDSA", "--out", &at("old")], "");
    let new = printed(&["rotate", "--jwks", &jwks, "--alg", "RS256", "--out", &at("new")], "");
    let kids = || -> Vec<String> {
        let text = std::fs::read_to_string(&jwks).expect("it is there");
        let set: Value = serde_json::from_str(&text).expect("it is JSON");
        set["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(|k| k["kid"].as_str().expect("kid").to_owned())
            .collect()
    };
    assert_eq!(kids(), [old.clone(), new.clone()]);
    printed(&["rotate", "--jwks", &jwks, "--retire", &old], "");
    assert_eq!(kids(), std::slice::from_ref(&new));
    for args in [&["--retire", old.as_str()][..], &["--retire", new.as_str()]] {
        let output = token(&[&["rotate", "--jwks", &jwks], args].concat(), "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let public = printed(&["jwks", &at("new-key.pem")], "");
    let private = printed(&["jwks", "--private", &at("new-key.pem")], "");
    assert!(!public.contains("\"d\"") && private.contains("\"d\""));
    let hash = printed(&["hash-key"], "hello\n");
    assert_eq!(hash, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

/// `gw token serve`, killed when dropped.
struct Issuer(std::process::Child, std::net::SocketAddr);

impl Issuer {
    fn start() -> Self {
        use std::io::BufRead as _;
        let mut child = gw()
            .args(["token", "serve", "--secret-env", "SECRET", "--audience", "api"])
            .env("SECRET", "s3cret")
            .stderr(Stdio::piped())
            .spawn()
            .expect("gw starts");
        let mut line = String::new();
        let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
        stderr.read_line(&mut line).expect("it says where it is");
        let addr = line.trim().rsplit('/').next().and_then(|a| a.parse().ok());
        Self(child, addr.unwrap_or_else(|| panic!("no address in `{line}`")))
    }

    fn post(&self, path: &str, form: &str, secret: &str) -> (u16, Value) {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("dev:{secret}"));
        let mut connection = http::Connection::open(self.1);
        connection.send(format!(
            "POST {path} HTTP/1.1\r\nHost: i.test\r\nConnection: close\r\nAuthorization: Basic {basic}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ));
        let response = connection.response();
        (response.status(), serde_json::from_str(&response.text()).expect("it is JSON"))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn explaining_asks_the_issuer_as_the_gateway_does() {
    let (issuer, folder) = (Issuer::start(), Folder::new("token"));
    let name = format!("http://{}", issuer.1);
    let issuers = format!(
        "issuers: [{{issuer: '{name}', discovery: true, audiences: [api], scopes_all: [read], claims_to_headers: {{sub: X-User-Id}}}}]"
    );
    let text = CONFIG
        .replace("claims_to_verify: [exp]", &issuers)
        .replace("- { name: acl, config: { allow: [admin] } }", "");
    let path = folder.write("gw.yaml", &text);
    let config = path.to_str().expect("a path");
    let gateway = Gateway::start(&path, &["--workers", "1"]);
    let token_with = |scope: &str| {
        let (_, granted) =
            issuer.post("/token", &format!("grant_type=client_credentials&scope={scope}"), "s3cret");
        granted["access_token"].as_str().expect("a token").to_owned()
    };
    let (good, weak) = (token_with("read"), token_with("write"));
    let said = check(&gateway, config, &good, (204, ""));
    assert_eq!(said["upstream_headers"]["X-User-Id"], "dev");
    check(&gateway, config, &weak, (403, "scope"));
    let said =
        self::token(&["explain", "--config", config, "--route", "orders", "--offline", "--json"], &good);
    assert_eq!(said.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert!(said["accepted"].is_null() && said["response"].is_null(), "{said:#}");

    drop((gateway, issuer));
    let gateway = Gateway::start(&path, &["--workers", "1"]);
    let said = check(&gateway, config, &good, (503, "issuer keys"));
    let keys = said["checks"].as_array().and_then(|all| all.iter().find(|c| c["check"] == "issuer keys"));
    assert_eq!(keys.expect("it is told")["actual"], "no connection came about");
    let text = self::token(&["explain", "--config", config, "--route", "orders"], &good);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("refused with 503; `issuer keys` fails: no connection came about"), "{text}");
}

#[test]
fn the_small_issuer_issues_publishes_introspects_and_rotates() {
    let issuer = Issuer::start();
    let get = |path: &str| -> Value {
        serde_json::from_str(&http::get(issuer.1, path).text()).expect("it is JSON")
    };
    let metadata = get("/.well-known/openid-configuration");
    assert_eq!(metadata["issuer"], format!("http://{}", issuer.1));
    assert_eq!(metadata["jwks_uri"], format!("http://{}/jwks.json", issuer.1));
    let grant = "grant_type=client_credentials&scope=read+write";
    assert_eq!(issuer.post("/token", grant, "wrong").0, 401);
    assert_eq!(issuer.post("/token", "grant_type=password", "s3cret").0, 400);
    let (status, granted) = issuer.post("/token", grant, "s3cret");
    assert_eq!(status, 200, "{granted}");
    let token_text = granted["access_token"].as_str().expect("a token");

    let folder = Folder::new("token");
    let first = folder.write("jwks.json", &get("/jwks.json").to_string());
    let name = format!("http://{}", issuer.1);
    let verify = |set: &std::path::Path, audience: &str, text: &str| {
        let set = set.to_str().expect("a path");
        token(&["verify", "--jwks", set, "--issuer", &name, "--audience", audience], text).status.code()
    };
    assert_eq!(verify(&first, "api", token_text), Some(0));
    assert_eq!(verify(&first, "other", token_text), Some(1));

    let form = format!("token={token_text}");
    let (_, said) = issuer.post("/introspect", &form, "s3cret");
    assert_eq!(
        (said["active"].as_bool(), said["scope"].as_str()),
        (Some(true), Some("read write")),
        "{said}"
    );
    assert_eq!(issuer.post("/introspect", "token=x", "s3cret").1["active"], false);
    issuer.post("/rotate", "", "s3cret");
    let (_, newer) = issuer.post("/token", grant, "s3cret");
    let newer = newer["access_token"].as_str().expect("a token");
    let second = folder.write("jwks2.json", &get("/jwks.json").to_string());
    assert_eq!(verify(&first, "api", newer), Some(1), "signed by a key that the old set does not have");
    assert_eq!((verify(&second, "api", newer), verify(&second, "api", token_text)), (Some(0), Some(0)));
    issuer.post("/revoke", &form, "s3cret");
    assert_eq!(issuer.post("/introspect", &form, "s3cret").1["active"], false);
}

#[test]
fn every_algorithm_has_tokens_that_its_credential_and_its_issuer_let_in() {
    let folder = Folder::new("token");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (mut credentials, mut issuers) = (String::new(), String::new());
    let algorithms = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
        "ES512", "EdDSA",
    ];
    for alg in algorithms {
        if alg.starts_with("HS") {
            let secret = printed(&["keygen", "--alg", alg], "");
            credentials.push_str(&format!("  - {{ key: {alg}, algorithm: {alg}, secret: \"{secret}\" }}\n"));
            continue;
        }
        printed(&["keygen", "--alg", alg, "--out", &at(alg)], "");
        let pem =
            std::fs::read_to_string(at(&format!("{alg}.pem"))).expect("it was made").replace('\n', "\\n");
        credentials.push_str(&format!("  - {{ key: {alg}, algorithm: {alg}, rsa_public_key: \"{pem}\" }}\n"));
        let jwks = printed(&["jwks", "--alg", alg, &at(&format!("{alg}.pem"))], "").replace('\n', " ");
        issuers.push_str(&format!(
            "        - {{ issuer: 'https://{alg}.test', algorithms: [RS256, {alg}], audiences: [api], jwks: '{jwks}' }}\n"
        ));
    }
    let config = format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://127.0.0.1:9\n  routes:\n  - name: r\n    paths: [/]\n    \
         plugins:\n    - name: jwt\n      config:\n        claims_to_verify: [exp]\n        issuers:\n{issuers}consumers:\n\
         - username: alice\n  jwt_secrets:\n{credentials}"
    )
    .replace("algorithms: [RS256, RS256]", "algorithms: [RS256]");
    let path = folder.write("gw.yaml", &config);
    let config = path.to_str().expect("a path");
    for alg in algorithms {
        let key = at(&format!("{alg}-key.pem"));
        let with_key = if alg.starts_with("HS") { &[][..] } else { &["--key-file", key.as_str()] };
        let issuer = format!("https://{alg}.test");
        let mut ways = vec![["mint", "--config", config, "--consumer", "alice", "--alg", alg]];
        if !with_key.is_empty() {
            ways.push(["mint", "--config", config, "--issuer", &issuer, "--alg", alg]);
        }
        for way in ways {
            let minted = printed(&[&way[..], with_key].concat(), "");
            assert!(printed(&["verify", "--config", config], &minted).starts_with("accepted"), "{way:?}");
        }
    }
    // A key of the set is for its own algorithm alone.
    let text = std::fs::read_to_string(&path)
        .expect("it is there")
        .replace("\"alg\": \"PS256\"", "\"alg\": \"PS384\"");
    let other = folder.write("other.yaml", &text);
    let (other, key) = (other.to_str().expect("a path"), at("PS256-key.pem"));
    let output =
        token(&["mint", "--config", other, "--issuer", "https://PS256.test", "--key-file", &key], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("another algorithm"), "{said}");
}
