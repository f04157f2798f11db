//! Certificates that change while clients make connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{PATIENCE, Serving, text_of};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// An authority, and certificates of it for `localhost`.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

struct Leaf {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn leaf(&self) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the authority is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        Arc::new(builder.with_no_client_auth())
    }
}

/// One request on a connection of its own: the certificate that was shown, and how the handshake went.
fn visit(
    to: SocketAddr,
    client: &Arc<ClientConfig>,
) -> std::io::Result<(CertificateDer<'static>, HandshakeKind)> {
    let mut tls = open(to, client)?;
    request(&mut tls)?;
    let certs = tls.conn.peer_certificates().expect("the handshake is over");
    Ok((certs[0].clone().into_owned(), tls.conn.handshake_kind().expect("the handshake is over")))
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn open(to: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<Stream> {
    let tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let conn = ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
    Ok(StreamOwned::new(conn, tcp))
}

fn request(tls: &mut Stream) -> std::io::Result<()> {
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n/") {
        let mut piece = [0; 4096];
        match tls.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes));
    Ok(())
}

fn config(upstream: &Upstream) -> String {
    let url = upstream.url();
    format!(
        "_format_version: \"3.0\"\nservices:\n- name: all\n  url: {url}\n  routes:\n  \
         - {{name: all, paths: [/], strip_path: false}}\n"
    )
}

const TLS: &[&str] =
    &["--listen-tls", "127.0.0.1:0", "--tls-cert", "{dir}/cert.pem", "--tls-key", "{dir}/key.pem"];

#[test]
fn certificates_rotate_without_a_failed_handshake() {
    let upstream = Upstream::start();
    let authority = Authority::new();
    let leaves: Vec<Leaf> = (0..4).map(|_| authority.leaf()).collect();
    let files = [("cert.pem", leaves[0].cert.as_str()), ("key.pem", leaves[0].key.as_str())];
    let args: Vec<&str> = TLS.iter().copied().chain(["--watch"]).collect();
    let mut gw = Serving::start_with(&config(&upstream), &files, &args, &[]);
    let to = gw.https;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, authority) = (Arc::clone(&stop), authority.client());
            std::thread::spawn(move || {
                let mut handshakes = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Without sessions to resume: a whole handshake each time.
                    let mut client = ClientConfig::clone(&authority);
                    client.resumption = rustls::client::Resumption::disabled();
                    let visited = visit(to, &Arc::new(client));
                    assert!(visited.is_ok(), "handshake {handshakes}: {visited:?}");
                    handshakes += 1;
                }
                handshakes
            })
        })
        .collect();
    // It lives through all of it.
    let mut kept = open(to, &authority.client()).expect("a connection");
    request(&mut kept).expect("an answer");
    let fresh = authority.client();
    let shows = |leaf: &Leaf| visit(to, &fresh).expect("a handshake").0 == leaf.der;
    assert!(shows(&leaves[0]));
    for (n, leaf) in leaves.iter().enumerate().skip(1) {
        // First the certificate without its key, then half a key: neither is taken.
        gw.write("cert.pem", &leaf.cert);
        gw.until("the mismatch is told", |gw| gw.log().matches("certificate and key").count() >= n);
        std::fs::write(gw.path("key.pem"), &leaf.key[..leaf.key.len() / 2]).expect("the file is there");
        gw.until("the broken key is told", |gw| gw.log().matches("no valid PEM").count() >= n);
        let client = authority.client();
        assert_eq!(visit(to, &client).expect("a handshake").0, leaves[n - 1].der, "the old pair is served");
        gw.write("key.pem", &leaf.key);
        let since = Instant::now();
        gw.until("the new certificate is served", |_| {
            visit(to, &authority.client()).expect("a handshake").0 == leaf.der
        });
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        request(&mut kept).expect("an old connection goes on");
    }
    stop.store(true, Ordering::Relaxed);
    let handshakes: usize = clients.into_iter().map(|c| c.join().expect("no handshake fails")).sum();
    assert!(handshakes > 100, "{handshakes}");
}

#[test]
fn sessions_are_resumed_after_a_reload() {
    let upstream = Upstream::start();
    let authority = Authority::new();
    let leaf = authority.leaf();
    let files = [("cert.pem", leaf.cert.as_str()), ("key.pem", leaf.key.as_str())];
    let mut gw = Serving::start_with(&config(&upstream), &files, TLS, &[]);
    let client = authority.client();
    assert_eq!(visit(gw.https, &client).expect("a handshake").1, HandshakeKind::Full);
    assert_eq!(visit(gw.https, &client).expect("a handshake").1, HandshakeKind::Resumed);
    let same = text_of(&gw.path("gw.yaml"));
    assert!(gw.reload(&same));
    assert_eq!(visit(gw.https, &client).expect("a handshake").1, HandshakeKind::Resumed);
    // Once clients must show certificates, a session from before spares nobody that.
    std::fs::write(gw.path("ca.pem"), &leaf.cert).expect("the directory is there");
    let ca = gw.path("ca.pem");
    let strict = format!("{same}gateway: {{tls: {{client_auth: required, client_ca: {}}}}}\n", ca.display());
    assert!(gw.reload(&strict), "{}", gw.log());
    assert!(visit(gw.https, &client).is_err(), "a client without a certificate was let in");
    gw.signal(Signal::TERM);
    assert_eq!(gw.ended().0.code(), Some(0));
}

/// A line of base64 of 80 bytes, as HAProxy takes them.
fn ticket_key(n: char) -> String {
    format!("{}AAA=\n", n.to_string().repeat(104))
}

#[test]
fn sessions_are_resumed_by_every_gateway_that_has_the_key() {
    let upstream = Upstream::start();
    let authority = Authority::new();
    let leaf = authority.leaf();
    let start = |keys: &str| {
        let files = [("cert.pem", leaf.cert.as_str()), ("key.pem", leaf.key.as_str()), ("tickets", keys)];
        let gw = Serving::start_with(&config(&upstream), &files, TLS, &[]);
        let path = gw.path("tickets");
        let with = format!("{}gateway: {{tls: {{ticket_keys: [{}]}}}}\n", config(&upstream), path.display());
        let mut gw = gw;
        assert!(gw.reload(&with), "{}", gw.log());
        (gw, with)
    };
    let (mut first, with) = start(&ticket_key('A'));
    let (second, _) = start(&ticket_key('A'));
    let (third, _) = start(&ticket_key('B'));
    let client = authority.client();
    let kind = |gw: &Serving, client| visit(gw.https, client).expect("a handshake").1;
    assert_eq!(kind(&first, &client), HandshakeKind::Full);
    assert_eq!(kind(&second, &client), HandshakeKind::Resumed);
    assert_eq!(kind(&third, &client), HandshakeKind::Full, "it has another key");
    // Rotated: the old key only opens now, and what the new one seals is unknown to the other gateway.
    let client = authority.client();
    assert_eq!(kind(&second, &client), HandshakeKind::Full);
    first.write("tickets", &(ticket_key('C') + &ticket_key('A')));
    assert!(first.reload(&with), "{}", first.log());
    assert_eq!(kind(&first, &client), HandshakeKind::Resumed);
    // A broken file changes nothing.
    first.write("tickets", "too short");
    assert!(!first.reload(&with));
    assert!(first.log().contains("expected 48 or 80 random bytes"), "{}", first.log());
    assert!(!first.log().contains("too short"), "what is in the file is a secret");
    assert!(matches!(kind(&first, &client), HandshakeKind::Resumed));
}

/// The same with a client that others wrote.
#[test]
fn openssl_resumes_a_session_of_another_gateway() {
    let upstream = Upstream::start();
    let leaf = Authority::new().leaf();
    let key = ticket_key('A');
    let files = [("cert.pem", leaf.cert.as_str()), ("key.pem", leaf.key.as_str()), ("tickets", key.as_str())];
    let start = || {
        let mut gw = Serving::start_with(&config(&upstream), &files, TLS, &[]);
        let keys = gw.path("tickets");
        let with = format!("{}gateway: {{tls: {{ticket_keys: [{}]}}}}\n", config(&upstream), keys.display());
        assert!(gw.reload(&with), "{}", gw.log());
        gw
    };
    let (first, second) = (start(), start());
    let session = first.path("session");
    let client = |gw: &Serving, option: &str, version: &str| {
        let command = format!(
            "(printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
             openssl s_client -connect {} -servername localhost {version} {option} {} 2>&1",
            gw.https,
            session.display()
        );
        let output =
            std::process::Command::new("sh").args(["-c", &command]).output().expect("there is a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_3", "-tls1_2"] {
        let new = client(&first, "-sess_out", version);
        assert!(!new.contains("not found"), "openssl is not installed: {new}");
        assert!(new.contains("New, TLS"), "{new}");
        let resumed = client(&second, "-sess_in", version);
        assert!(resumed.contains("Reused, TLS"), "{version}: {resumed}");
    }
}
