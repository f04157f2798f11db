//! What connections may come by: PROXY protocol, with and without TLS behind it, and Unix sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::PATIENCE;
use gw_tests::http::{Message, curl, get};
use gw_tests::serving::{self, Serving};
use gw_tests::upstream::Upstream;

/// A gateway that listens where its config says.
struct Place {
    child: Child,
    /// Where, in the order of the config.
    listening: Vec<String>,
    admin: SocketAddr,
    upstream: Upstream,
    folder: Folder,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The config's `gateway` section; `DIR` in it is the test's folder.
fn place(gateway: &str) -> Place {
    let (folder, upstream) = (Folder::new("listeners"), Upstream::start());
    let gateway = gateway.replace("DIR", &folder.path().display().to_string());
    let text = format!(
        "_format_version: \"3.0\"\ngateway: {gateway}\nservices:\n- {{ name: s, url: \"http://{}\", routes: [{{ paths: [/] }}] }}\n",
        upstream.addr()
    );
    let config = folder.write("kong.yaml", &text);
    let certs = folder.path().join("certs");
    let made = gw().args(["certs", "server", "--out"]).arg(&certs).output().expect("gw starts");
    assert!(made.status.success(), "{made:?}");
    let mut child = gw()
        .arg("serve")
        .arg(config)
        .args(["--admin", "127.0.0.1:0", "--workers", "2"])
        .arg("--tls-cert")
        .arg(certs.join("server.pem"))
        .arg("--tls-key")
        .arg(certs.join("server-key.pem"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gw starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let wanted = gateway.matches("address:").count();
    let (mut listening, mut admin) = (Vec::new(), None);
    while listening.len() < wanted {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).expect("text") > 0, "gw ended: {listening:?}");
        let line = line.trim();
        listening.extend(line.strip_prefix("listening on ").map(str::to_owned));
        admin = admin.or_else(|| line.strip_prefix("admin on http://")?.parse().ok());
    }
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Place { child, listening, admin: admin.expect("an admin listener"), upstream, folder }
}

impl Place {
    fn addr(&self, n: usize) -> SocketAddr {
        let at = self.listening[n].rsplit('/').next().and_then(|a| a.parse().ok());
        at.unwrap_or_else(|| panic!("no address in {:?}", self.listening))
    }

    /// What comes back for these pieces, each sent on its own, until the gateway closes.
    fn send(&self, n: usize, pieces: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr(n)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        for piece in pieces {
            let _ = stream.write_all(piece);
            if pieces.len() > 1 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    }

    /// Who the upstream was told that the last client is, and the port that it asked.
    fn told(&self) -> (String, String) {
        let seen = self.upstream.seen();
        let last: &Message = seen.last().expect("a request");
        let field = |name: &str| last.field(name).unwrap_or("none").to_owned();
        (field("x-forwarded-for"), field("x-forwarded-port"))
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let start = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &(rest.len() as u16).to_be_bytes()];
    [&start.concat(), rest].concat()
}

#[test]
fn a_balancer_says_whose_connection_it_is() {
    let place = place(
        "{trusted_ips: [127.0.0.1], listeners: [{address: '127.0.0.1:0', proxy_protocol: true}, \
         {address: '127.0.0.1:0', tls: true, proxy_protocol: true}]}",
    );
    let four = v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0, 5, 1, 187, 4, 0, 1, 0]);
    let own = place.addr(0).port().to_string();
    for (header, want) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5 443\r\n".to_vec(), ("192.0.2.7", "443")),
        (b"PROXY TCP6 2001:db8::7 ::1 5 8443\r\n".to_vec(), ("2001:db8::7", "8443")),
        (b"PROXY UNKNOWN\r\n".to_vec(), ("127.0.0.1", own.as_str())),
        (four, ("192.0.2.7", "443")),
        (v2(0x20, 0, &[]), ("127.0.0.1", own.as_str())),
    ] {
        let whole = [&header, REQUEST].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for pieces in [&[whole.as_slice()][..], &bytes] {
            let answer = place.send(0, pieces);
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
            assert_eq!(place.told(), (want.0.to_owned(), want.1.to_owned()));
        }
    }
    // The client behind the balancer is not trusted because the balancer is.
    let claims = b"PROXY TCP4 192.0.2.7 198.51.100.1 5 443\r\n\
        GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX-Real-IP: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n";
    place.send(0, &[claims]);
    let seen = place.upstream.seen();
    let last = seen.last().expect("a request");
    assert_eq!((last.field("x-real-ip"), last.field("x-forwarded-proto")), (Some("192.0.2.7"), Some("http")));
    // TLS begins after the header.
    let url = format!("https://localhost:{}/", place.addr(1).port());
    let ca = place.folder.path().join("certs/ca.pem").display().to_string();
    let code = ["--ipv4", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}"];
    for version in ["--http1.1", "--http2"] {
        let args = [&["--haproxy-protocol", "--cacert", &ca, version], &code[..], &[&url]].concat();
        assert!(curl(&args).starts_with("200 "), "{version}");
        assert_eq!(place.told().0, "127.0.0.1", "curl names itself");
        assert_eq!(place.told().1, place.addr(1).port().to_string());
    }
}

#[test]
fn who_says_nothing_or_nonsense_or_is_nobody_is_turned_away() {
    let far = "trusted_ips: [192.0.2.0/24], listeners: [{address: '127.0.0.1:0', proxy_protocol: true}]";
    let near = far.replace("192.0.2.0/24", "127.0.0.1");
    let good = [b"PROXY TCP4 192.0.2.7 198.51.100.1 5 443\r\n", REQUEST].concat();
    let untrusted = place(&format!("{{{far}}}"));
    assert!(untrusted.send(0, &[&good]).is_empty(), "not from a trusted peer");
    let place = place(&format!("{{{near}, timeouts: {{header: 500}}}}"));
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 120]].concat();
    for bad in [
        REQUEST,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5 443 extra\r\n",
        &long,
        &v2(0x21, 0x11, &[1; 4]),
        &v2(0x29, 0x11, &[1; 12]),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        assert!(place.send(0, &[bad]).is_empty(), "{:?}", String::from_utf8_lossy(bad));
    }
    let since = Instant::now();
    assert!(place.send(0, &[b"PROXY TCP4 192"]).is_empty());
    assert!(since.elapsed() < PATIENCE / 2, "it is waited for only so long");
    assert!(place.upstream.seen().is_empty() && untrusted.upstream.seen().is_empty());
    let metrics = get(place.admin, "/metrics").text();
    assert!(metrics.contains("gw_connections_refused_total{limit=\"proxy_protocol\"} 8"), "{metrics}");
    assert!(place.send(0, &[&good]).starts_with(b"HTTP/1.1 200 "));
}

fn ask(path: &std::path::Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.write_all(bytes).expect("the gateway reads");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("text");
    all
}

#[test]
fn unix_sockets_are_listened_on() {
    let text = "{listeners: [{address: 'unix:DIR/a.sock', mode: '600'}, {address: 'unix:DIR/b.sock', proxy_protocol: true}]}";
    let mut place = place(text);
    let (a, b) = (place.folder.path().join("a.sock"), place.folder.path().join("b.sock"));
    assert_eq!(place.listening, [format!("unix:{}", a.display()), format!("unix:{}", b.display())]);
    let mode = |p: &std::path::Path| std::fs::metadata(p).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(&a), mode(&b)), (0o600, 0o660));
    assert!(ask(&a, REQUEST).starts_with("HTTP/1.1 200 "));
    assert_eq!(place.told().0, "127.0.0.1");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5 443\r\n".as_slice();
    assert!(ask(&b, &[header, REQUEST].concat()).starts_with("HTTP/1.1 200 "));
    assert_eq!(place.told().0, "192.0.2.7");
    // One that is in use, or is no socket, stays where it is; one that a process left behind does not.
    let second = |listen: &std::path::Path| {
        let mut command = gw();
        command.arg("serve").arg(place.folder.path().join("kong.yaml"));
        command.arg("--listen").arg(format!("unix:{}", listen.display()));
        command.output().expect("gw starts")
    };
    let file = place.folder.write("file", "precious");
    for taken in [&a, &file] {
        let out = second(taken);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(3), "{said}");
        assert!(said.contains("another process listens there, or it is no socket"), "{said}");
    }
    assert!(file.is_file() && ask(&a, REQUEST).starts_with("HTTP/1.1 200 "));
    let left = place.folder.path().join("left.sock");
    drop(UnixListener::bind(&left).expect("the folder is writable"));
    let _ = place.child.kill();
    let _ = place.child.wait();
    let mut again = gw()
        .arg("serve")
        .arg(place.folder.path().join("kong.yaml"))
        .args(["--listen", &format!("unix:{}", left.display()), "--listen", &format!("unix:{}", a.display())])
        .stderr(Stdio::null())
        .spawn()
        .expect("gw starts");
    let until = Instant::now() + PATIENCE;
    while UnixStream::connect(&a).is_err() || UnixStream::connect(&left).is_err() {
        assert!(Instant::now() < until, "it never listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ask(&left, REQUEST).starts_with("HTTP/1.1 200 "));
    let _ = again.kill();
    let _ = again.wait();
}

/// A server on a Unix socket that says what it was asked, and who it is.
fn app(path: &std::path::Path, name: &'static str) {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("the folder is writable");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some(request) = Message::read_head(&mut reader) {
                    let said =
                        format!("{} {}{name}", request.target(), request.field("host").unwrap_or("none"));
                    let n = said.len();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n{said}");
                    if reader.get_mut().write_all(head.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn targets_are_unix_sockets_whose_health_is_watched() {
    let folder = Folder::new("unix-targets");
    let [a, b] = ["A.sock", "b.sock"].map(|name| folder.path().join(name));
    app(&a, " a");
    let config = format!(
        "_format_version: \"3.0\"\nservices: [{{ name: s, host: u, routes: [{{ paths: [/], strip_path: false }}] }}]\n\
         upstreams:\n- name: u\n  targets: [{{ target: 'unix:{}' }}, {{ target: 'unix:{}' }}]\n  healthchecks: {{ active: \
         {{ http_path: /up, healthy: {{ interval: 0.05, successes: 1 }}, unhealthy: {{ interval: 0.05, tcp_failures: 1 }} }} }}\n",
        a.display(),
        b.display()
    );
    let mut gw = Serving::start(&config);
    let healthy = |gw: &Serving, path: &std::path::Path| {
        let all = serving::get(gw.admin, "/upstreams/u/health").body;
        all.contains(&format!("\"health\":\"HEALTHY\",\"address\":\"unix:{}\"", path.display()))
    };
    gw.until("the socket that is not there is out", |gw| healthy(gw, &a) && !healthy(gw, &b));
    for _ in 0..4 {
        assert_eq!(serving::get(gw.http, "/x").body, "/x localhost a");
    }
    app(&b, " b");
    gw.until("it is in again once it is there", |gw| healthy(gw, &b));
    let mut said: Vec<String> = (0..4).map(|_| serving::get(gw.http, "/x").body).collect();
    said.sort();
    assert_eq!(said, ["/x localhost a", "/x localhost a", "/x localhost b", "/x localhost b"]);
}

#[test]
fn a_service_is_reached_over_a_unix_socket() {
    let folder = Folder::new("unix-upstream");
    let path = folder.path().join("app.sock");
    app(&path, "");
    let service = |host: &std::path::Path, route: &str| {
        format!(
            "- {{ name: {route}, host: 'unix:{}', retries: 0, routes: [{{ paths: [/{route}] }}] }}\n",
            host.display()
        )
    };
    let (there, gone) = (service(&path, "there"), service(&folder.path().join("gone.sock"), "gone"));
    let config = folder.write("kong.yaml", &format!("_format_version: \"3.0\"\nservices:\n{there}{gone}"));
    let log = folder.path().join("log").display().to_string();
    let gateway = gw_tests::gateway::Gateway::start(&config, &["--access-log", &log]);
    for _ in 0..3 {
        let answer = get(gateway.addr(), "/there/a");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "/a localhost"));
    }
    assert_eq!(get(gateway.addr(), "/gone").status(), 502);
    let until = Instant::now() + PATIENCE;
    let named = format!("\"upstream\":\"unix:{}\"", path.display());
    while !std::fs::read_to_string(&log).is_ok_and(|l| l.contains(&named)) {
        assert!(Instant::now() < until, "the log names the socket");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Scanners and clients take "access denied" for a matter of client certificates.
#[test]
fn a_client_without_a_common_cipher_suite_is_told_so() {
    let place = place("{listeners: [{address: '127.0.0.1:0', tls: true}]}");
    let out = std::process::Command::new("openssl")
        .args(["s_client", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-connect"])
        .arg(place.addr(0).to_string())
        .stdin(Stdio::null())
        .output()
        .expect("openssl starts");
    let said = String::from_utf8_lossy(&out.stderr).to_lowercase();
    assert!(said.contains("handshake failure"), "{said}");
}
