//! No secret of a config that is served, and none that callers send, is seen anywhere: in findings, explanations, what the
//! terminal offers, the admin listener, metrics, or logs.

use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gw_runtime::model::schema::{Field, Kind};
use gw_runtime::policy::registry::REGISTRY;
use gw_tests::binary::gw;
use gw_tests::dev::Dev;
use gw_tests::folder::Folder;
use gw_tests::redis::free_port;
use gw_tests::serving::{Serving, get, text_of};

/// In every secret of the config.
const CANARY: &str = "Canary7f3a9c";
/// In every credential that a caller sends.
const SENT: &str = "Sparrow51d0e";

/// A config with every plugin that has a secret, each with all its secrets; nobody answers where it asks. Those with an
/// `@` are the PEM of a private key.
const CONFIG: &str = r#"_format_version: "3.0"
gateway: { redis: { url: "redis://u:Canary7f3a9c-url@127.0.0.1:PORT/0" } }
services:
- name: s
  url: http://127.0.0.1:PORT
  retries: 0
  routes:
  - name: openid
    paths: [/openid]
    plugins:
    - name: openid-connect
      config: { issuer: "http://127.0.0.1:PORT", client_id: c, client_secret: Canary7f3a9c-oidc,
        redirect_uri: "http://localhost/openid/cb", session_secrets: [Canary7f3a9c-session-0123456789abcdef] }
  - name: introspection
    paths: [/introspection]
    plugins:
    - name: oauth2-introspection
      config: { introspection_url: "http://127.0.0.1:PORT/i", client_id: c, client_secret: Canary7f3a9c-introspection }
  - name: introspection-by-value
    paths: [/value]
    plugins:
    - name: oauth2-introspection
      config: { introspection_url: "http://127.0.0.1:PORT/i", authorization_value: "Basic Canary7f3a9c-value" }
  - name: ldap
    paths: [/ldap]
    plugins:
    - name: ldap-auth
      config: { ldap_host: 127.0.0.1, ldap_port: PORT, base_dn: dc=t, attribute: uid }
  - name: tokens
    paths: [/tokens]
    plugins:
    - name: oauth2
      config: { provision_key: Canary7f3a9c-provision, global_credentials: true }
  - name: keyed
    paths: [/keyed]
    plugins:
    - name: key-auth
    - name: upstream-identity
      config: { token: { private_key: "@", issuer: i, audience: a } }
  - { name: keys, paths: [/keys], plugins: [{ name: gateway-keys }] }
  - name: issuer
    paths: [/issuer]
    plugins:
    - name: jwt
      config: { issuers: [{ issuer: i, algorithms: [HS256],
        jwks: '{"keys":[{"kty":"oct","alg":"HS256","kid":"k","k":"Canary7f3a9cCanary7f3a9cCanary7f3a9cCanary0"}]}' }] }
  - name: hook
    paths: [/hook]
    plugins: [{ name: standard-webhooks, config: { secret_v1: Canary7f3a9c-hook } }]
  - name: limited
    paths: [/limited]
    plugins:
    - name: rate-limiting
      config: { minute: 5, policy: redis, redis: { host: 127.0.0.1, port: PORT, username: u, password: Canary7f3a9c-redis,
        sentinel_master: m, sentinel_nodes: [{ host: 127.0.0.1, port: PORT }], sentinel_password: Canary7f3a9c-sentinel } }
  - name: limited-response
    paths: [/limited-response]
    plugins:
    - name: response-ratelimiting
      config: { limits: { v: { minute: 5 } }, policy: redis, redis: { host: 127.0.0.1, port: PORT, password: Canary7f3a9c-rr,
        sentinel_master: m, sentinel_nodes: [{ host: 127.0.0.1, port: PORT }], sentinel_password: Canary7f3a9c-rrs } }
  - name: limited-flat
    paths: [/limited-flat]
    plugins:
    - name: rate-limiting
      config: { minute: 5, policy: redis, redis_host: 127.0.0.1, redis_port: PORT, redis_password: Canary7f3a9c-flat }
  - name: limited-response-flat
    paths: [/limited-response-flat]
    plugins:
    - name: response-ratelimiting
      config: { limits: { v: { minute: 5 } }, policy: redis, redis_host: 127.0.0.1, redis_port: PORT,
        redis_password: Canary7f3a9c-rrf }
consumers:
- username: alice
  keyauth_credentials: [{ key: "${GW_TEST_KEY:-Canary7f3a9c-key}" }]
  oauth2_credentials:
  - name: app
    client_id: app
    client_secret: Canary7f3a9c-client
    oauth2_tokens:
    - { access_token: "${GW_TEST_TOKEN:-Canary7f3a9c-token}", refresh_token: Canary7f3a9c-refresh, expires_in: 0 }
"#;

/// The private key's canary: a part of its PEM.
struct Secrets {
    config: String,
    pem: String,
}

impl Secrets {
    fn new() -> Self {
        let pem = rcgen::KeyPair::generate().expect("a key pair").serialize_pem();
        let config = CONFIG.replace("PORT", &free_port().to_string()).replace('@', &pem.replace('\n', "\\n"));
        // The URL's own.
        let config = config.replace(&format!("-url{}", pem.replace('\n', "\\n")), "-url@");
        let line = pem.lines().nth(1).expect("a PEM has a second line").to_owned();
        Self { config, pem: line }
    }

    #[track_caller]
    fn absent(&self, what: &str, text: &str) {
        let sent = STANDARD.encode(format!("{SENT}:{SENT}-password"));
        for secret in [CANARY, SENT, &self.pem, &sent] {
            let at = text.find(secret);
            assert!(at.is_none(), "{what} has `{secret}`: {}", &text[at.unwrap_or(0).saturating_sub(200)..]);
        }
    }
}

fn secret_fields(fields: &[Field], found: &mut Vec<&'static str>) {
    for field in fields {
        found.extend(Some(field.name).filter(|_| field.secret));
        match field.kind {
            Kind::Record(inner) | Kind::List(&Kind::Record(inner)) | Kind::Map(&Kind::Record(inner)) => {
                secret_fields(inner, found);
            }
            _ => {}
        }
    }
}

#[test]
fn the_config_here_has_every_secret_that_a_plugin_can_have() {
    for plugin in REGISTRY {
        let mut names = Vec::new();
        secret_fields(plugin.fields, &mut names);
        for name in names {
            let entries = CONFIG.split("- name: ").chain(CONFIG.split("{ name: "));
            let has = |e: &str| e.starts_with(plugin.name) && e.contains(&format!("{name}:"));
            assert!(entries.into_iter().any(has), "`{name}` of `{}` is missing here", plugin.name);
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(args: &[&str]) -> String {
    let mut command: Command = gw();
    said(&command.args(args).output().expect("gw runs"))
}

#[test]
fn findings_and_explanations_show_no_secret() {
    let (secrets, folder) = (Secrets::new(), Folder::new("canaries"));
    let path = folder.write("gw.yaml", &secrets.config);
    let config = path.to_str().expect("a path");
    for format in ["full", "concise", "json", "sarif", "github"] {
        let text = run(&["validate", "-W", "all", "--format", format, config]);
        assert!(text.contains("GW4004"), "{text}");
        secrets.absent(format, &text);
    }
    secrets.absent("explain config", &run(&["explain", "config", "--config", config]));
    for route in ["openid", "value", "ldap", "tokens", "keyed", "issuer", "hook", "limited", "limited-flat"] {
        let text = run(&["explain", "GET", &format!("/{route}"), "--config", config, "--consumer", "alice"]);
        assert!(text.contains("plugin"), "{text}");
        secrets.absent(route, &text);
    }
    let text = run(&["token", "explain", "--config", config, "--route", "issuer", "a.b.c"]);
    secrets.absent("token explain", &text);
}

#[test]
fn a_gateway_that_fails_at_everything_tells_no_secret() {
    let secrets = Secrets::new();
    let mut serving = Serving::start_with(&secrets.config, &[], &["--access-log", "{dir}/access.log"], &[]);
    let basic = STANDARD.encode(format!("{SENT}:{SENT}-password"));
    let credentials = format!(
        "Cookie: gw_session={SENT}\r\napikey: {SENT}\r\nwebhook-id: 1\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,{SENT}\r\n"
    );
    let mut answers = String::new();
    for route in [
        "openid",
        "introspection",
        "value",
        "ldap",
        "tokens",
        "keyed",
        "keys",
        "issuer",
        "hook",
        "limited",
        "limited-response",
        "limited-flat",
    ] {
        for authorization in [format!("Bearer {SENT}"), format!("Basic {basic}"), format!("ldap {basic}")] {
            let request = format!(
                "GET /{route} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {authorization}\r\n{credentials}\r\n"
            );
            let mut connection = gw_tests::http::Connection::open(serving.http);
            connection.send(request);
            let answer = connection.response();
            answers.push_str(&format!("{} {:?} {}\n", answer.status(), answer.fields, answer.text()));
        }
    }
    secrets.absent("an answer", &answers);
    for place in ["/config", "/status", "/metrics", "/usage", "/ready", "/upstreams/s/health"] {
        let answer = get(serving.admin, place);
        secrets.absent(place, &format!("{}{}", answer.head, answer.body));
    }
    serving.reload(&secrets.config.replace("minute: 5", "minutes: 5"));
    serving.reload(&secrets.config.replace("[/hook]", "[/hooks]"));
    secrets.absent("/config", &get(serving.admin, "/config").body);
    secrets.absent("the log", &serving.log());
    let mut lines = 0;
    serving.until("the access log has all requests", |s| {
        lines = text_of(&s.path("access.log")).lines().count();
        lines >= 36
    });
    secrets.absent("the access log", &text_of(&serving.path("access.log")));
}

#[test]
fn what_the_terminal_offers_has_no_secret_of_a_plugin() {
    let (secrets, folder) = (Secrets::new(), Folder::new("canaries"));
    // A consumer's key that stands in the file for development is what the terminal is to offer.
    let path = folder.write("gw.yaml", &secrets.config.replace("Canary7f3a9c-key", "for-development"));
    let dev = Dev::start(path.to_str().expect("a path"), gw_tests::dev::FREE);
    secrets.absent("the banner", &dev.shown.join("\n"));
}
