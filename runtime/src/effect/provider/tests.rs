use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::provider::Unavailable;
use crate::server::common_for_tests;
use crate::snapshot::Snapshot;
use crate::snapshot::shared::Shared;
use crate::token::Algorithm;

/// An issuer whose answers change at will: what it says at each path, whole.
struct Issuer {
    addr: SocketAddr,
    answers: Arc<Mutex<Vec<(String, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let this = Self {
            addr: listener.local_addr().expect("it is bound"),
            answers: Arc::default(),
            asked: Arc::default(),
        };
        let (answers, asked) = (Arc::clone(&this.answers), Arc::clone(&this.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                        while line != "\r\n" {
                            line.clear();
                            if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                                return;
                            }
                        }
                        line.clear();
                        asked.lock().unwrap().push(path.clone());
                        let answer = answers.lock().unwrap().iter().find(|(p, _)| *p == path).cloned();
                        let answer = answer.map_or_else(|| respond(404, "", "no"), |(_, a)| a);
                        if answer == "silence" {
                            std::thread::sleep(Duration::from_secs(30));
                        }
                        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        this
    }

    fn says(&self, path: &str, answer: String) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(p, _)| p != path);
        answers.push((path.to_owned(), answer));
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

fn respond(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

fn set(kids: &[&str]) -> String {
    let jwk = |kid: &&str| {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
        let point = pair.public_key().as_ref().to_vec();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": part(&point[1..33]), "y": part(&point[33..])})
    };
    json!({"keys": kids.iter().map(jwk).collect::<Vec<_>>()}).to_string()
}

/// The thread that asks, and the providers that it asks.
struct Place {
    providers: Arc<Providers>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl Place {
    fn new() -> Self {
        let shared: Arc<Shared> = Arc::default();
        let snapshot = Snapshot { shared: Arc::clone(&shared), ..Snapshot::default() };
        let (stop, stopped) = watch::channel(false);
        spawn(common_for_tests(snapshot), stopped).expect("a thread");
        Self { providers: shared.get(), shared, stop }
    }

    fn provider(&self, source: Source) -> Arc<Provider> {
        let (model, plugin) = (crate::model::Model::default(), crate::model::Plugin::default());
        let mut diags = crate::diag::Diags::new();
        let mut cx = crate::policy::Cx {
            model: &model,
            plugin: &plugin,
            route_id: None,
            service_id: None,
            consumer_id: None,
            shared: &self.shared,
            diags: &mut diags,
        };
        let transport = crate::policy::call::Transport::new(&mut cx, false, PATIENCE).expect("settings");
        self.providers.get(source, transport)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

fn wait(wanted: &crate::provider::Wanted) -> Result<(), Unavailable> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(wanted.wait())
}

fn has(provider: &Provider, kid: &str) -> bool {
    provider.published().is_some_and(|p| p.keys.find(Some(kid), Algorithm::ES256).is_some())
}

#[test]
fn keys_are_fetched_kept_and_fetched_again_when_a_token_names_another() {
    let (issuer, place) = (Issuer::start(), Place::new());
    issuer.says("/k", respond(200, "Content-Type: application/json\r\n", &set(&["a"])));
    let provider = place.provider(Source::Jwks(issuer.url("/k")));
    assert_eq!(wait(&provider.want_any()), Ok(()), "{:?}", provider.last_error());
    assert!(has(&provider, "a") && !has(&provider, "b"));
    let generation = provider.generation();

    issuer.says("/k", respond(200, "", &set(&["a", "b"])));
    let wanted: Vec<_> =
        (0..50).map(|_| provider.want_other(Some("b")).expect("it is the first time")).collect();
    assert!(wanted.iter().all(|w| wait(w) == Ok(())));
    assert!(has(&provider, "b") && provider.generation() > generation);
    // On a slow machine the first round can be over before the last has asked.
    let rounds = issuer.asked.lock().unwrap().len() - 1;
    assert!((1..10).contains(&rounds), "fifty who ask share a round or a few, not {rounds}");

    let same = place.provider(Source::Jwks(issuer.url("/k")));
    assert!(Arc::ptr_eq(&same, &provider), "another config with the same issuer has its keys at once");

    // The same set again changes nothing, so that tokens that were judged by it stay judged.
    let generation = provider.generation();
    wait(&provider.want_other(Some("c")).expect("the last one was useful")).expect("it answers");
    assert_eq!(provider.generation(), generation);

    issuer.says("/k", respond(500, "", "down"));
    assert_eq!(
        wait(&provider.want_other(Some("c")).expect("only useless ones count")),
        Err(Unavailable::Failed)
    );
    assert!(has(&provider, "b"), "stale keys are served");
    assert_eq!(provider.last_error().as_deref(), Some("it answered 500"));
}

#[test]
fn what_is_no_key_set_is_not_taken() {
    let place = Place::new();
    let secret = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let json = "Content-Type: application/json\r\n";
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(DOCUMENT_MAX));
    for (answer, want) in [
        (respond(404, "", "no"), "it answered 404"),
        (respond(200, "Content-Type: text/html\r\n", "<html>"), "not JSON"),
        (respond(200, json, "<html>"), "not well-formed JSON"),
        (respond(200, json, "{}"), "no list `keys`"),
        (respond(200, json, "{\"keys\":[]}"), "no key that verifies"),
        (
            respond(
                200,
                json,
                &format!("{{\"keys\":[{{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"{secret}\"}}]}}"),
            ),
            "no key that verifies",
        ),
        (respond(200, json, &huge), "longer than allowed"),
        (respond(302, "Location: http://127.0.0.1:1/\r\n", ""), "redirects (302)"),
        (respond(301, "Location: http://169.254.169.254/\r\n", ""), "redirects (301)"),
        ("nonsense\r\n\r\n".to_owned(), "broken or malformed"),
        ("silence".to_owned(), "took too long"),
    ] {
        let issuer = Issuer::start();
        issuer.says("/k", answer);
        let provider = place.provider(Source::Jwks(issuer.url("/k")));
        assert_eq!(wait(&provider.want_any()), Err(Unavailable::Failed), "{want}");
        let why = provider.last_error().unwrap_or_default();
        assert!(why.contains(want), "{want}: {why}");
        assert!(provider.published().is_none() && provider.generation() == 0);
        let again = crate::clock::monotonic();
        if provider.counts.failed.load(std::sync::atomic::Ordering::Relaxed) > 2 {
            assert_eq!(wait(&provider.want_any()), Err(Unavailable::Failed));
            assert!(again.elapsed() < Duration::from_secs(1), "nobody waits for a provider that rests");
        }
    }
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let provider = place.provider(Source::Jwks(format!("http://{gone}/")));
    assert_eq!(wait(&provider.want_any()), Err(Unavailable::Failed));
    assert_eq!(provider.last_error().as_deref(), Some("no connection came about"));
}

#[test]
fn metadata_leads_to_private_addresses_only_where_the_config_does() {
    let place = Place::new();
    let check = |jwks_uri: &dyn Fn(&Issuer, &Issuer) -> String, want: Result<(), &str>| {
        let (issuer, other) = (Issuer::start(), Issuer::start());
        let uri = jwks_uri(&issuer, &other);
        let name = issuer.url("");
        let metadata = json!({"issuer": name, "jwks_uri": uri}).to_string();
        issuer.says("/.well-known/openid-configuration", respond(200, "", &metadata));
        for at in [&issuer, &other] {
            at.says("/k", respond(200, "", &set(&["a"])));
        }
        let provider = place.provider(Source::discovery(&name));
        let got = wait(&provider.want_any());
        let why = provider.last_error().unwrap_or_default();
        match want {
            Ok(()) => assert!(got.is_ok() && has(&provider, "a"), "{uri}: {why}"),
            Err(part) => assert!(got.is_err() && why.contains(part), "{uri}: {why}"),
        }
        assert_eq!(other.asked.lock().unwrap().len(), 0, "{uri}: nothing may reach it");
    };
    check(&|issuer, _| issuer.url("/k"), Ok(()));
    check(&|_, other| other.url("/k"), Err("its address is not public"));
    check(&|_, other| format!("http://localhost:{}/k", other.addr.port()), Err("its address is not public"));
    check(&|_, other| format!("http://[::ffff:127.0.0.1]:{}/k", other.addr.port()), Err("not public"));
    check(&|_, _| "http://169.254.169.254/k".to_owned(), Err("its address is not public"));
    check(&|_, other| format!("http://u@{}/k", other.addr), Err("must not hold a user"));
    check(&|_, _| "file:///etc/passwd".to_owned(), Err("it must begin with"));
}
