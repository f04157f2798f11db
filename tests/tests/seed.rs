//! The order service as its config has it: HTTPS, token, limit over two gateways, correlation id.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gw_tests::binary::{gw, repository};
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{Message, get_tls};
use gw_tests::redis::RedisServer;
use gw_tests::upstream::Upstream;
use serde_json::{Value, json};

/// The secret that the config falls back to for alice.
const SECRET: &str = "alice-development-secret-0123456789abcdef";

/// The config, its Redis, its upstream and its certificates.
struct Place {
    folder: Folder,
    config: PathBuf,
    upstream: Upstream,
    _redis: RedisServer,
}

impl Place {
    fn new() -> Self {
        let (redis, upstream, folder) = (RedisServer::start(), Upstream::start(), Folder::new("seed"));
        let original = repository().join("fixtures/orders/kong.yaml");
        let original = std::fs::read_to_string(original).expect("the fixture is there");
        let text = original
            .replace("redis_host: redis.internal", "redis_host: 127.0.0.1")
            .replace("redis_port: 6379", &format!("redis_port: {}", redis.port()));
        assert_eq!(text.matches("127.0.0.1").count(), 1, "only the address of Redis is replaced");
        let config = folder.write("kong.yaml", &text);
        let place = Self { folder, config, upstream, _redis: redis };
        let certs = place.certs().display().to_string();
        place.run(&["certs", "server", "--out", &certs, "--config"]);
        place
    }

    fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// What a command of gw prints, given the config as its last argument.
    fn run(&self, args: &[&str]) -> String {
        let out = gw().args(args).arg(&self.config).output().expect("gw starts");
        assert!(out.status.success(), "gw {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn gateway(&self) -> Gateway {
        let upstream = format!("order-svc.internal:8080:{}", self.upstream.addr());
        let file = |name: &str| self.certs().join(name).display().to_string();
        let (cert, key) = (file("server.pem"), file("server-key.pem"));
        let tls = ["--listen-tls", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
        Gateway::start(&self.config, &[&tls[..], &["--resolve", &upstream]].concat())
    }

    fn minted(&self) -> String {
        self.run(&["token", "mint", "--consumer", "alice", "--config"])
    }

    fn ask(&self, addr: SocketAddr, token: &str, fields: &[&str]) -> Message {
        let authorization = format!("Authorization: Bearer {token}");
        let mut all = fields.to_vec();
        if !token.is_empty() {
            all.push(&authorization);
        }
        get_tls(&self.certs().join("ca.pem"), addr, "/orders", &all)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn token(alg: &str, secret: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": alg, "typ": "JWT"})), part(claims));
    let algorithm = match alg {
        "none" => return format!("{signed}."),
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

#[test]
fn a_valid_token_is_let_through_and_the_upstream_knows_whose_it_is() {
    let place = Place::new();
    let gateway = place.gateway();
    let forged = ["X-Consumer-Username: bob", "x_consumer_username: bob", "X.Consumer.Username: bob"];
    let answer = place.ask(gateway.tls_addr(), &place.minted(), &forged);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");
    let seen = place.upstream.seen();
    let [request] = &seen[..] else { panic!("one request, not {seen:#?}") };
    assert_eq!((request.method(), request.target()), ("GET", "/orders"));
    let names: Vec<_> = request
        .fields
        .iter()
        .filter(|(n, _)| n.to_lowercase().replace(['_', '.'], "-") == "x-consumer-username")
        .map(|(n, v)| (n.to_lowercase(), v.as_str()))
        .collect();
    assert_eq!(names, [("x-consumer-username".to_owned(), "alice")], "{request:#?}");
    assert_eq!(request.field("x-credential-identifier"), Some("alice"));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    let id = request.field("x-correlation-id").expect("the plugin adds one");
    assert!(id.ends_with("#1"), "{id}");
    assert_eq!(answer.field("x-correlation-id"), Some(id), "it is echoed");

    let own = place.ask(gateway.tls_addr(), &place.minted(), &["X-Correlation-Id: mine"]);
    assert_eq!(own.field("x-correlation-id"), Some("mine"), "one that the client has is kept");
    assert_eq!(place.upstream.seen()[1].field("x-correlation-id"), Some("mine"));
}

#[test]
fn every_other_token_is_refused_with_kongs_words() {
    let place = Place::new();
    let gateway = place.gateway();
    let good = json!({"sub": "alice", "exp": now() + 600});
    let old = json!({"sub": "alice", "exp": now() - 60});
    let unknown = json!({"sub": "mallory", "exp": now() + 600});
    let says = |m: &str| json!({ "message": m });
    let cases = [
        ("no token", String::new(), says("Unauthorized")),
        ("expired", token("HS256", SECRET, &old), json!({"exp": "token expired"})),
        (
            "never expires",
            token("HS256", SECRET, &json!({"sub": "alice"})),
            json!({"exp": "must be a number"}),
        ),
        ("wrong secret", token("HS256", "another secret", &good), says("Invalid signature")),
        ("alg none", token("none", "", &good), says("Bad token; invalid alg")),
        ("alg HS512", token("HS512", SECRET, &good), says("Invalid algorithm")),
        ("unknown key", token("HS256", SECRET, &unknown), says("No credentials found for given 'sub'")),
        ("no key", token("HS256", SECRET, &json!({"exp": 1})), says("No mandatory 'sub' in claims")),
        ("not a token", "a.b.c".to_owned(), says("Bad token; invalid JSON")),
    ];
    for (what, token, expected) in cases {
        let answer = place.ask(gateway.tls_addr(), &token, &[]);
        assert_eq!(answer.status(), 401, "{what}: {answer:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(body, expected, "{what}");
        let challenge = answer.field("www-authenticate").unwrap_or_default();
        let wanted = if token.is_empty() { "Bearer" } else { "Bearer error=\"invalid_token\"" };
        assert_eq!(challenge, wanted, "{what}");
    }
    assert_eq!(place.upstream.seen().len(), 0, "nothing is forwarded");
    let good = place.ask(gateway.tls_addr(), &token("HS256", SECRET, &good), &[]);
    assert_eq!(good.status(), 200, "a token of one's own making with the right secret is good: {good:?}");
}

#[test]
fn two_gateways_together_admit_a_hundred_a_minute() {
    let place = Place::new();
    let gateways = [place.gateway(), place.gateway()];
    let token = place.minted();
    let left = 60 - now() % 60;
    if left < 15 {
        std::thread::sleep(Duration::from_secs(left));
    }
    let minute = now() / 60;
    for n in 0..100 {
        let answer = place.ask(gateways[n % 2].tls_addr(), &token, &[]);
        assert_eq!(answer.status(), 200, "request {}: {answer:?}", n + 1);
        let remaining = (99 - n).to_string();
        assert_eq!(answer.field("x-ratelimit-remaining-minute"), Some(remaining.as_str()));
        assert_eq!(answer.field("x-ratelimit-limit-minute"), Some("100"));
    }
    for gateway in &gateways {
        let answer = place.ask(gateway.tls_addr(), &token, &[]);
        assert_eq!(now() / 60, minute, "the machine is too slow for a hundred requests in one minute");
        assert_eq!(answer.status(), 429, "{answer:?}");
        assert!(answer.text().contains("API rate limit exceeded"), "{answer:?}");
        for (name, value) in
            [("x-ratelimit-remaining-minute", "0"), ("ratelimit-limit", "100"), ("ratelimit-remaining", "0")]
        {
            assert_eq!(answer.field(name), Some(value), "{name}");
        }
        for name in ["retry-after", "ratelimit-reset"] {
            let seconds: u64 = answer.field(name).and_then(|v| v.parse().ok()).expect("a number");
            assert!((1..=60).contains(&seconds), "{name}: {seconds}");
        }
    }
    assert_eq!(place.upstream.seen().len(), 100);
    let bob = place.run(&["token", "mint", "--consumer", "bob", "--config"]);
    assert_eq!(place.ask(gateways[0].tls_addr(), &bob, &[]).status(), 200, "bob has a limit of his own");
}
