//! Clients that read slowly, and those that are half gone.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::http::Message;
use gw_tests::scripted::{Part, Scripted, answer, chunk, chunked_head};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// More than sockets hold for a client that does not read.
const LARGE: usize = 12 * 1024 * 1024;

fn script(request: &Message) -> Vec<Part> {
    let size = request.target().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(LARGE);
    let body: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
    match request.target().starts_with("/chunked") {
        false => answer(200, "", &body),
        true => {
            let mut parts = vec![chunked_head("")];
            parts.extend(body.chunks(70_000).map(chunk));
            parts.push(chunk(b""));
            parts
        }
    }
}

struct Place {
    gateway: Gateway,
    folder: Folder,
    _upstream: Scripted,
}

fn place() -> Place {
    let (upstream, folder) = (Scripted::start(script), Folder::new("slow-clients"));
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/], strip_path: false }}] }}\n",
        upstream.addr()
    );
    let config = folder.write("kong.yaml", &text);
    let certs = folder.path().join("certs");
    let made = gw().args(["certs", "server", "--out"]).arg(&certs).output().expect("gw starts");
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| certs.join(name).display().to_string();
    let (cert, key) = (file("server.pem"), file("server-key.pem"));
    let args = ["--listen-tls", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key, "--workers", "1"];
    Place { gateway: Gateway::start(&config, &args), folder, _upstream: upstream }
}

/// A TLS connection.
fn tls(ca: &Path, addr: SocketAddr) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).expect("the file is there") {
        roots.add(cert.expect("it is a certificate")).expect("it is an authority");
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(config), name).expect("the settings are good");
    rustls::StreamOwned::new(connection, connect(addr))
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("something listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// Reads until the end of an answer that has `size` bytes of body, or comes in chunks.
fn read_all(from: &mut impl std::io::Read, size: usize, chunked: bool) -> usize {
    let (mut all, mut piece) = (Vec::new(), vec![0; 256 * 1024]);
    loop {
        let n = from.read(&mut piece).expect("the answer goes on");
        assert!(n > 0, "the connection ends within the answer");
        all.extend_from_slice(&piece[..n]);
        let Some(head) = all.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        if (chunked && all.ends_with(b"\r\n0\r\n\r\n")) || (!chunked && all.len() == head + 4 + size) {
            return all.len();
        }
    }
}

#[test]
fn a_client_of_tls_that_reads_late_gets_the_last_record_too() {
    let place = place();
    let ca = place.folder.path().join("certs/ca.pem");
    for size in [LARGE, LARGE + 1, LARGE + 16_000, LARGE + 50_000] {
        for way in ["length", "chunked"] {
            let mut stream = tls(&ca, place.gateway.tls_addr());
            for round in 0..2 {
                stream
                    .write_all(format!("GET /{way}/{size} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
                    .expect("the gateway reads");
                // The gateway fills what sockets hold, and waits.
                std::thread::sleep(Duration::from_millis(150));
                let since = Instant::now();
                read_all(&mut stream, size, way == "chunked");
                let took = since.elapsed();
                assert!(took < Duration::from_secs(15), "{way} {size}, round {round}: {took:?}");
            }
        }
    }
}

#[test]
fn a_client_that_has_sent_all_may_close_its_side() {
    let place = place();
    for (what, request) in [
        ("at once", "GET /length/100 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("with a body", "POST /length/100 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        ("for a long answer", "GET /length/3000000 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut stream = connect(place.gateway.addr());
        stream.write_all(request.as_bytes()).expect("the gateway reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let size = if what.contains("long") { 3_000_000 } else { 100 };
        let head = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
        assert!(all.starts_with(b"HTTP/1.1 200 ") && all.len() == head + 4 + size, "{what}: {}", all.len());
    }
    let mut stream = connect(place.gateway.addr());
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
        .expect("the gateway reads");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(
        all.starts_with(b"HTTP/1.1 400 "),
        "half a body is no request: {}",
        String::from_utf8_lossy(&all)
    );
}
