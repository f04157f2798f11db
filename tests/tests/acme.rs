//! Certificates that gw orders itself, from a real ACME server.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use gw_tests::pebble::Pebble;
use gw_tests::redis::{RedisServer, free_port};
use gw_tests::serving::{PATIENCE, Serving, get};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const BINDING: &str = r#""externalAccountBindingRequired": true, "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}"#;

/// The ports that the ACME server checks names at.
struct Ports {
    http: u16,
    tls: u16,
}

impl Ports {
    fn free() -> Self {
        Self { http: free_port(), tls: free_port() }
    }

    fn pebble(&self) -> Pebble {
        Pebble::start(self.http, self.tls, "")
    }

    /// A gateway that listens there.
    fn serve(&self, config: &str, files: &[(&str, &str)]) -> Serving {
        let (http, tls) = (format!("127.0.0.1:{}", self.http), format!("127.0.0.1:{}", self.tls));
        Serving::start_with(config, files, &["--listen", &http, "--listen-tls", &tls], &[])
    }
}

/// A config that orders certificates; `rest` belongs to `gateway.acme`, `gateway` to `gateway`.
fn config(pebble: &Pebble, domains: &str, rest: &str, gateway: &str) -> String {
    format!(
        "_format_version: \"3.0\"\ngateway:\n  {gateway}\n  acme:\n    server: {}\n    ca: {}\n    \
         terms_of_service_agreed: true\n    email: ops@a.test\n    domains: [{domains}]\n    {rest}\n\
         services:\n- name: s\n  url: http://127.0.0.1:9\n  routes: [{{ name: r, paths: [/] }}]\n  \
         plugins: [{{ name: request-termination, config: {{ status_code: 200, message: fine }} }}]\n",
        pebble.url(),
        pebble.ca().display(),
    )
}

fn client(roots: &[&str]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a certificate");
        store.add(root).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(store);
    Arc::new(builder.with_no_client_auth())
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A handshake with a client that trusts `root`: the server's certificate, or why there is none.
fn open(to: SocketAddr, root: &str, name: &str) -> std::io::Result<(Stream, CertificateDer<'static>)> {
    let tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let conn = ClientConnection::new(client(&[root]), name).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(conn, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let cert = tls.conn.peer_certificates().expect("the handshake is over")[0].clone().into_owned();
    Ok((tls, cert))
}

fn shown(to: SocketAddr, root: &str, name: &str) -> std::io::Result<CertificateDer<'static>> {
    open(to, root, name).map(|(_, cert)| cert)
}

fn orders(gw: &Serving, name: &str, result: &str) -> f64 {
    gw.metric(&format!("gw_acme_orders_total{{sni=\"{name}\",result=\"{result}\"}}"))
}

/// A certificate as an ACME server might have issued it a while ago, with its key in front: due for renewal, but good.
/// Beside it its authority.
fn old(name: &str) -> (String, String) {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let root = authority.self_signed(&authority_key).expect("a certificate").pem();
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let leaf = key();
    let cert = params.signed_by(&leaf, &Issuer::new(authority, authority_key)).expect("a certificate");
    (format!("{}{}", leaf.serialize_pem(), cert.pem()), root)
}

#[test]
fn names_are_proved_by_either_challenge_and_kept_over_a_restart() {
    for (challenge, key_type) in [("http-01", "ecdsa"), ("tls-alpn-01", "rsa")] {
        let ports = Ports::free();
        let mut pebble = Pebble::start(ports.http, ports.tls, BINDING);
        let storage = gw_tests::folder::Folder::new("acme");
        let rest = format!(
            "challenge: {challenge}\n    key_type: {key_type}\n    storage: {}\n    external_account: {{ kid: kid-1, \
             hmac_key: zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W }}",
            storage.path().display()
        );
        let config = config(&pebble, "a.test, B.test", &rest, "");
        let mut gw = ports.serve(&config, &[]);
        let root = pebble.root();
        gw.until("both certificates", |gw| {
            orders(gw, "a.test", "ok") == 1.0 && orders(gw, "b.test", "ok") == 1.0
        });
        let first = shown(gw.https, &root, "a.test").expect("the certificate is good");
        shown(gw.https, &root, "b.test").expect("the other is, too");
        assert!(shown(gw.https, &root, "c.test").is_err(), "nobody asked for that name");
        assert!(gw.metric("gw_certificate_expiry_seconds{sni=\"a.test\"}") > 1.7e9);
        let status = get(gw.admin, "/status").body;
        assert!(status.contains("\"sni\": \"b.test\"") && status.contains("\"failures\": 0"), "{status}");
        let unknown = get(gw.http, "/.well-known/acme-challenge/0123456789abcdef");
        assert_eq!((unknown.status, unknown.body.contains("fine")), (200, true), "a route's own path");

        let folder =
            std::fs::read_dir(storage.path()).expect("it was made").next().expect("a server's folder");
        let folder = folder.expect("it can be read").path();
        for file in std::fs::read_dir(&folder).expect("it can be read") {
            let file = file.expect("it can be read");
            let mode = file.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
        }
        let kept = std::fs::read_to_string(folder.join("a.test.pem")).expect("it is kept");
        let secret = kept.lines().nth(1).expect("a line of the key");
        for said in [gw.log(), status, get(gw.admin, "/metrics").body, get(gw.admin, "/config").body] {
            assert!(!said.contains(secret) && !said.contains("zWNDZM6e"), "{said}");
        }

        drop(gw);
        pebble.kill();
        let gw = ports.serve(&config, &[]);
        assert_eq!(shown(gw.https, &root, "a.test").expect("from the first handshake on"), first);
        assert_eq!(orders(&gw, "a.test", "ok"), 0.0, "{}", gw.log());
    }
}

#[test]
fn an_old_certificate_is_served_while_the_server_is_down_and_renewed_after() {
    let ports = Ports::free();
    let mut pebble = ports.pebble();
    let storage = gw_tests::folder::Folder::new("acme");
    let (kept, authority) = old("a.test");
    let place = pebble.url().replace("https://", "").replace([':', '/'], "_");
    std::fs::create_dir(storage.path().join(&place)).expect("the folder is writable");
    storage.write(&format!("{place}/a.test.pem"), &kept);
    pebble.kill();
    let rest = format!("storage: {}", storage.path().display());
    let mut gw = ports.serve(&config(&pebble, "a.test", &rest, ""), &[]);
    let mut served = Vec::new();
    gw.until("a failed order", |gw| {
        served.push(open(gw.https, &authority, "a.test").expect("the old one is served"));
        orders(gw, "a.test", "failed") >= 1.0
    });
    assert!(gw.log().contains("no certificate for `a.test`"), "{}", gw.log());
    assert!(get(gw.admin, "/status").body.contains("no connection came about"), "{}", gw.log());
    pebble.restart();
    let root = pebble.root();
    gw.until("the new certificate", |gw| shown(gw.https, &root, "a.test").is_ok());
    // Connections that were open are as they were.
    let (mut stream, _) = served.pop().expect("there was one");
    use std::io::{Read as _, Write as _};
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn certificates_are_renewed_before_their_end() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports.http, ports.tls, "\"certificateValidityPeriod\": 9");
    let storage = gw_tests::folder::Folder::new("acme");
    let rest = format!("renew_before: 30\n    storage: {}", storage.path().display());
    let mut gw = ports.serve(&config(&pebble, "a.test", &rest, ""), &[]);
    let root = pebble.root();
    gw.until("the first certificate", |gw| shown(gw.https, &root, "a.test").is_ok());
    let first = shown(gw.https, &root, "a.test").expect("it was there");
    gw.until("another one", |gw| orders(gw, "a.test", "ok") >= 2.0);
    let second = shown(gw.https, &root, "a.test").expect("it is good");
    assert_ne!(first, second);
    assert_eq!(orders(&gw, "a.test", "ok"), 2.0, "one at a time: {}", gw.log());
}

#[test]
fn of_two_gateways_one_orders_and_both_serve() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let redis = RedisServer::start();
        let ports = Ports::free();
        let pebble = ports.pebble();
        let gateway = format!("redis: {}", redis.url());
        let rest = format!("challenge: {challenge}\n    storage: redis");
        let config = config(&pebble, "a.test, b.test", &rest, &gateway);
        // The server checks at the first one, whichever orders.
        let mut first = ports.serve(&config, &[]);
        let mut second = Ports::free().serve(&config, &[]);
        let root = pebble.root();
        for gw in [&mut first, &mut second] {
            for name in ["a.test", "b.test"] {
                gw.until("its certificate", |gw| shown(gw.https, &root, name).is_ok());
            }
        }
        for name in ["a.test", "b.test"] {
            let of = |gw: &Serving, result| orders(gw, name, result);
            assert_eq!(of(&first, "ok") + of(&second, "ok"), 1.0, "{} {}", first.log(), second.log());
            assert_eq!(of(&first, "failed") + of(&second, "failed"), 0.0, "{} {}", first.log(), second.log());
            let both = [&first, &second].map(|gw| shown(gw.https, &root, name).expect("it is served"));
            assert_eq!(both[0], both[1]);
        }
        for gw in [&first, &second] {
            assert!(!gw.log().contains("PRIVATE"), "{}", gw.log());
        }
    }
}

#[test]
fn configured_certificates_go_first_and_a_refusal_is_said() {
    let ports = Ports::free();
    let pebble = ports.pebble();
    let storage = gw_tests::folder::Folder::new("acme");
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a name");
    let indent = |pem: String| pem.replace('\n', "\n    ");
    let rest = format!("storage: {}", storage.path().display());
    let with = format!(
        "{}certificates:\n- cert: |\n    {}\n  key: |\n    {}\n  snis: [a.test]\n",
        config(&pebble, "a.test", &rest, ""),
        indent(made.cert.pem()),
        indent(made.signing_key.serialize_pem())
    );
    let mut gw = ports.serve(&with, &[]);
    gw.until("the order", |gw| orders(gw, "a.test", "ok") == 1.0);
    assert_eq!(shown(gw.https, &made.cert.pem(), "a.test").expect("the config's"), *made.cert.der());
    assert!(gw.reload(&config(&pebble, "a.test", &rest, "")));
    assert!(shown(gw.https, &pebble.root(), "a.test").is_ok(), "{}", gw.log());
    // Nothing listens where the server looks now.
    gw.signal(Signal::TERM);
    gw.ended();
    let rest = format!("{rest}\n    challenge: http-01");
    let mut gw = Ports::free().serve(&config(&pebble, "n.test", &rest, ""), &[]);
    gw.until("a failed order", |gw| orders(gw, "n.test", "failed") == 1.0);
    assert!(gw.log().contains("the challenge (http-01): "), "{}", gw.log());
    assert!(shown(gw.https, &pebble.root(), "n.test").is_err(), "no stand-in");
}

#[test]
fn who_checks_a_name_needs_no_client_certificate() {
    let ports = Ports::free();
    let pebble = ports.pebble();
    let storage = gw_tests::folder::Folder::new("acme");
    let ca = storage.write("client-ca.pem", &old("ca.test").1);
    let gateway = format!("tls: {{ client_auth: required, client_ca: {} }}", ca.display());
    let rest = format!("storage: {}", storage.path().display());
    let mut gw = ports.serve(&config(&pebble, "a.test", &rest, &gateway), &[]);
    gw.until("the order", |gw| orders(gw, "a.test", "ok") == 1.0);
    let (mut stream, _) = match open(gw.https, &pebble.root(), "a.test") {
        // With TLS 1.3 a client learns only afterwards that it was refused.
        Ok(opened) => opened,
        Err(_) => return,
    };
    use std::io::{Read as _, Write as _};
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(stream.read(&mut [0; 64]).is_err(), "everybody else needs one");
}
