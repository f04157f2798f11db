//! Names that a real name server answers for: SRV records, times to live, and what happens while it is down.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gw_tests::redis::free_port;
use gw_tests::scripted::{Scripted, answer};
use gw_tests::serving::{PATIENCE, Serving, get};
use rustix::process::Signal;

/// A running dnsmasq that knows these records and nothing else.
struct Dnsmasq {
    port: u16,
    child: Child,
}

impl Dnsmasq {
    fn start_on(port: u16, records: &[String]) -> Self {
        let child = Command::new("dnsmasq")
            .args(["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--local-ttl=1"])
            .arg(format!("--user={}", whoami()))
            .arg(format!("--port={port}"))
            .args(records)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("dnsmasq does not start: {e}: install `dnsmasq-base`"));
        let server = Self { port, child };
        let until = Instant::now() + PATIENCE;
        while !server.answers() {
            assert!(Instant::now() < until, "dnsmasq answers");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Whether it answers anything to a question for the root.
    fn answers(&self) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let question = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let sent = socket.send_to(&question, ("127.0.0.1", self.port));
        sent.is_ok() && socket.recv(&mut [0; 512]).is_ok()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().expect("there is `id`");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn named(name: &'static str) -> Scripted {
    Scripted::start(move |m| answer(200, "", format!("{name} {}", m.field("host").unwrap_or("")).as_bytes()))
}

fn bodies(gw: &Serving, n: usize) -> Vec<String> {
    let mut all: Vec<String> = (0..n).map(|_| get(gw.http, "/").body).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn srv_records_say_where_and_how_much_and_stay_while_the_server_is_down() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let srv = |host: &str, backend: &Scripted, rank: u16, weight: u16| {
        format!("--srv-host=web.test,{host}.test,{},{rank},{weight}", backend.addr().port())
    };
    let hosts = [
        "--host-record=a.test,127.0.0.1",
        "--host-record=b.test,127.0.0.1",
        "--host-record=c.test,127.0.0.1",
    ];
    let mut records: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
    records.extend([srv("a", &a, 1, 10), srv("b", &b, 1, 30), srv("c", &c, 2, 1000)]);
    let port = free_port();
    let server = Dnsmasq::start_on(port, &records);
    let config = |more: &str| {
        format!(
            "_format_version: \"3.0\"\ngateway: {{ dns: {{ servers: [\"127.0.0.1:{port}\"] }} }}\n\
             services:\n- {{ name: s, host: u, routes: [{{ paths: [/] }}] }}\n\
             upstreams:\n- {{ name: u, {more} targets: [{{ target: \"web.test:9\" }}] }}\n"
        )
    };
    let mut gw = Serving::start(&config(""));
    let counted = |gw: &Serving| {
        let all: Vec<String> = (0..40).map(|_| get(gw.http, "/").body).collect();
        ["a", "b", "c"].map(|n| all.iter().filter(|x| x.starts_with(n)).count())
    };
    assert_eq!(counted(&gw), [10, 30, 0], "weights are the records', and the second rank is for nobody");
    assert!(get(gw.http, "/").body.ends_with(" web.test:9"), "the Host is the target's");
    assert!(gw.reload(&config("use_srv_name: true,")));
    let want = vec![format!("a a.test:{}", a.addr().port()), format!("b b.test:{}", b.addr().port())];
    assert_eq!(bodies(&gw, 8), want);
    // For longer than the records are good for.
    drop(server);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(bodies(&gw, 8), want, "a stale answer beats none");
    // It comes back with another answer, which counts within the time to live.
    records.retain(|r| !r.contains("srv-host"));
    records.push(srv("c", &c, 1, 1));
    let _server = Dnsmasq::start_on(port, &records);
    let want = vec![format!("c c.test:{}", c.addr().port())];
    gw.until("the new answer is taken", |gw| bodies(gw, 4) == want);
}

#[test]
fn a_name_that_does_not_exist_is_told_at_once() {
    let port = free_port();
    let _server = Dnsmasq::start_on(port, &[]);
    let gw = Serving::start(&format!(
        "_format_version: \"3.0\"\ngateway: {{ dns: {{ servers: [\"127.0.0.1:{port}\"] }} }}\n\
         services:\n- {{ name: s, host: none.test, routes: [{{ paths: [/] }}] }}\n"
    ));
    let since = Instant::now();
    let answer = get(gw.http, "/");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("name resolution failed"), "{}", answer.body);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn a_name_server_that_says_nothing_keeps_no_gateway_from_its_end() {
    // It hears questions and answers none.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
    let port = silent.local_addr().expect("it is bound").port();
    let mut gw = Serving::start(&format!(
        "_format_version: \"3.0\"\ngateway: {{ drain: 1, dns: {{ servers: [\"127.0.0.1:{port}\"] }} }}\n\
         services:\n- {{ name: s, host: slow.test, routes: [{{ paths: [/] }}] }}\n\
         - {{ name: u, host: u, routes: [{{ paths: [/u] }}] }}\n\
         upstreams: [{{ name: u, targets: [{{ target: \"slow.test:80\" }}] }}]\n"
    ));
    let waiting: Vec<TcpStream> = ["/", "/u"]
        .iter()
        .map(|path| {
            let mut stream = TcpStream::connect(gw.http).expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("it reads");
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    gw.signal(Signal::TERM);
    let (status, took) = gw.ended();
    drop(waiting);
    assert_eq!(status.code(), Some(0), "{}", gw.log());
    assert!(took < Duration::from_secs(4), "{took:?}");
}
