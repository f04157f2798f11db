//! Balancing over real sockets: shares, failures that clients do not see, ejection and recovery, hashing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gw_tests::binary::gw;
use gw_tests::redis::free_port;

const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP/1 server that answers with its own name.
struct Backend {
    port: u16,
    status: Arc<AtomicU16>,
    /// What `/health` answers.
    health: Arc<AtomicU16>,
    /// Seconds of `Retry-After`, 0 for none.
    retry_after: Arc<AtomicU16>,
    probes: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Backend {
    fn start(name: &str) -> Self {
        Self::start_on(name, 0)
    }

    fn start_on(name: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let backend = Self {
            port: listener.local_addr().expect("it is bound").port(),
            status: Arc::new(AtomicU16::new(200)),
            health: Arc::new(AtomicU16::new(200)),
            retry_after: Arc::default(),
            probes: Arc::default(),
            stop: Arc::default(),
            open: Arc::default(),
        };
        let (status, health, probes) =
            (Arc::clone(&backend.status), Arc::clone(&backend.health), Arc::clone(&backend.probes));
        let retry_after = Arc::clone(&backend.retry_after);
        let (stop, open) = (Arc::clone(&backend.stop), Arc::clone(&backend.open));
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                open.lock().expect("no thread panics").extend(stream.try_clone());
                let (name, status, health) = (name.clone(), Arc::clone(&status), Arc::clone(&health));
                let (probes, retry_after) = (Arc::clone(&probes), Arc::clone(&retry_after));
                std::thread::spawn(move || serve(stream, &name, &status, &health, &retry_after, &probes));
            }
        });
        backend
    }

    /// Closes the port and every connection.
    fn kill(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for stream in self.open.lock().expect("no thread panics").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < until, "the port closes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn serve(
    stream: TcpStream,
    name: &str,
    status: &AtomicU16,
    health: &AtomicU16,
    retry_after: &AtomicU16,
    probes: &AtomicU32,
) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut host, mut length) = (String::new(), String::new(), 0);
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            let line = line.trim_end();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or("/").to_owned();
            }
            match line.split_once(": ") {
                Some((n, v)) if n.eq_ignore_ascii_case("host") => host = v.to_owned(),
                Some((n, v)) if n.eq_ignore_ascii_case("content-length") => length = v.parse().unwrap_or(0),
                _ => {}
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let code = match path.as_str() {
            "/health" => {
                probes.fetch_add(1, Ordering::Relaxed);
                health.load(Ordering::Relaxed)
            }
            _ => status.load(Ordering::Relaxed),
        };
        if let Some(ms) = path.strip_prefix("/slow/") {
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
        }
        let body = format!("{name} {host}");
        let rest = match retry_after.load(Ordering::Relaxed) {
            0 => String::new(),
            seconds => format!("Retry-After: {seconds}\r\n"),
        };
        let answer = format!("HTTP/1.1 {code} X\r\n{rest}Content-Length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A running `gw serve`.
struct Gateway {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Gateway {
    fn start(upstream: &str, workers: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let config = std::env::temp_dir().join(format!("gw-upstreams-{}-{n}.yaml", std::process::id()));
        write_config(&config, upstream);
        // A port that is free now may be somebody else's a moment later: then gw ends, and others are tried.
        loop {
            let at = || SocketAddr::from(([127, 0, 0, 1], own_port()));
            let (addr, admin) = (at(), at());
            let child = gw()
                .args(["serve", "--listen", &addr.to_string(), "--admin", &admin.to_string()])
                .args(["--workers", workers])
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("gw starts");
            let mut gateway = Self { child, addr, admin, config: config.clone() };
            if gateway.serves() {
                return gateway;
            }
            write_config(&config, upstream);
        }
    }

    /// Waits for the ports; false if gw ended because one was taken.
    fn serves(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.addr).is_err() || TcpStream::connect(self.admin).is_err() {
            assert!(Instant::now() < until, "gw serves");
            match self.child.try_wait().expect("the child can be asked") {
                Some(status) if status.code() == Some(3) => return false,
                Some(status) => panic!("gw ended: {status}"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        true
    }

    /// Puts other upstreams in force.
    fn reload(&self, upstream: &str) {
        write_config(&self.config, upstream);
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("gw runs");
        self.until("the config is reloaded", |g| {
            ask(g.admin, "GET", "/metrics", "").body.contains("\ngw_config_generation 2\n")
        });
    }

    fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        ask(self.addr, method, path, fields)
    }

    fn get(&self) -> Answer {
        self.ask("GET", "/", "")
    }

    /// How often each backend answered `n` requests; every other answer counts under its status.
    fn tally(&self, n: usize) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for _ in 0..n {
            let answer = self.get();
            let name = match answer.status {
                200 => answer.body.split(' ').next().unwrap_or_default().to_owned(),
                status => status.to_string(),
            };
            *all.entry(name).or_default() += 1;
        }
        all
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// A free port that no other test of this file was given.
fn own_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let port = free_port();
        let mut given = GIVEN.lock().expect("no thread panics");
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

fn write_config(path: &Path, upstream: &str) {
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, host: u, routes: [{{ paths: [/] }}] }}\nupstreams:\n{upstream}"
    );
    std::fs::write(path, text).expect("the temporary directory is writable");
}

fn ask(addr: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).expect("gw listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).expect("gw reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("gw answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn target(backend: &Backend, weight: u32) -> String {
    format!("{{ target: \"127.0.0.1:{}\", weight: {weight} }}", backend.port)
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
}

#[test]
fn shares_follow_the_weights() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let targets = [target(&a, 10), target(&b, 30), target(&c, 0)].join(", ");
    let gateway = Gateway::start(&format!("- {{ name: u, targets: [{targets}] }}\n"), "2");
    assert_eq!(gateway.tally(80), counts(&[("a", 20), ("b", 60)]));
    let body = gateway.get().body;
    assert!(body.contains(" 127.0.0.1:"), "the Host is the target's: {body}");
}

#[test]
fn a_target_that_dies_costs_no_request() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let targets = [target(&a, 1), target(&b, 1), target(&c, 1)].join(", ");
    for algorithm in ["round-robin", "least-connections", "latency", "consistent-hashing"] {
        let victim = Backend::start("v");
        let targets = [targets.clone(), target(&victim, 1)].join(", ");
        let upstream = format!("- {{ name: u, algorithm: {algorithm}, targets: [{targets}] }}\n");
        let gateway = Gateway::start(&upstream, "2");
        // It dies while requests are on their way to it.
        let tallies: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| gateway.tally(60))).collect();
            std::thread::sleep(Duration::from_millis(20));
            victim.kill();
            clients.into_iter().map(|c| c.join().expect("no client panics")).collect()
        });
        for tally in tallies {
            assert!(tally.keys().all(|k| k.len() == 1), "{algorithm}: {tally:?}");
        }
        // Nothing reaches a closed port, so that even a request that may not be sent twice goes elsewhere.
        for _ in 0..8 {
            let answer = gateway.ask("POST", "/", "Content-Length: 0\r\n");
            assert_eq!(answer.status, 200, "{algorithm}");
        }
    }
    b.kill();
    let upstream = format!("- {{ name: u, targets: [{targets}] }}\n");
    let gateway = Gateway::start(&upstream, "1");
    assert_eq!(gateway.tally(30), counts(&[("a", 15), ("c", 15)]));
}

#[test]
fn all_targets_down_is_an_answer_too() {
    let a = Backend::start("a");
    a.kill();
    let passive = "healthchecks: { passive: { unhealthy: { tcp_failures: 1 }, recover_after: 0 } }";
    let upstream = format!("- {{ name: u, targets: [{}], {passive} }}\n", target(&a, 1));
    let gateway = Gateway::start(&upstream, "1");
    // The first failure takes the only target out, so that there is none for the retry.
    for _ in 0..2 {
        let answer = gateway.get();
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("failure to get a peer from the ring-balancer"), "{}", answer.body);
    }
    let gateway = Gateway::start("- { name: u }\n", "1");
    assert_eq!(gateway.get().status, 503);
}

#[test]
fn real_responses_eject_a_target_and_a_trial_brings_it_back() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let targets = [target(&a, 1), target(&b, 1)].join(", ");
    let passive = "healthchecks: { passive: { unhealthy: { http_failures: 2 }, recover_after: 1 } }";
    let gateway = Gateway::start(&format!("- {{ name: u, targets: [{targets}], {passive} }}\n"), "2");
    b.status.store(500, Ordering::Relaxed);
    assert_eq!(gateway.tally(10), counts(&[("a", 8), ("500", 2)]));
    let metrics = ask(gateway.admin, "GET", "/metrics", "").body;
    let line = |state: &str, backend: &Backend, value: u8| {
        format!(
            "kong_upstream_target_health{{upstream=\"u\",target=\"127.0.0.1:{0}\",address=\"127.0.0.1:{0}\",\
             state=\"{state}\",subsystem=\"http\"}} {value}\n",
            backend.port
        )
    };
    for want in
        [line("unhealthy", &b, 1), line("healthy", &b, 0), line("healthy", &a, 1), line("unhealthy", &a, 0)]
    {
        assert!(metrics.contains(&want), "{want}\n{metrics}");
    }
    let health = ask(gateway.admin, "GET", "/upstreams/u/health", "").body;
    assert!(health.contains("\"UNHEALTHY\"") && health.contains("\"HEALTHY\""), "{health}");
    assert_eq!(ask(gateway.admin, "GET", "/upstreams/v/health", "").status, 404);
    b.status.store(200, Ordering::Relaxed);
    gateway.until("a trial finds the target well again", |g| g.tally(4) == counts(&[("a", 2), ("b", 2)]));
}

#[test]
fn probes_take_a_target_out_and_bring_it_back() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let targets = [target(&a, 1), target(&b, 1)].join(", ");
    let active = "healthchecks: { active: { http_path: /health, healthy: { interval: 0.05, successes: 2 }, \
                  unhealthy: { interval: 0.05, http_failures: 2, tcp_failures: 1 } } }";
    let gateway = Gateway::start(&format!("- {{ name: u, targets: [{targets}], {active} }}\n"), "1");
    gateway.until("targets are probed", |_| b.probes.load(Ordering::Relaxed) > 1);
    assert_eq!(gateway.tally(10), counts(&[("a", 5), ("b", 5)]));
    b.health.store(503, Ordering::Relaxed);
    gateway.until("probes take it out", |g| g.tally(4) == counts(&[("a", 4)]));
    b.health.store(200, Ordering::Relaxed);
    gateway.until("probes bring it back", |g| g.tally(4) == counts(&[("a", 2), ("b", 2)]));
    b.kill();
    gateway.until("a closed port takes it out", |_| {
        ask(gateway.admin, "GET", "/upstreams/u/health", "").body.contains("\"UNHEALTHY\"")
    });
    let _b = Backend::start_on("b", b.port);
    gateway.until("and an open one brings it back", |g| g.tally(4) == counts(&[("a", 2), ("b", 2)]));
}

#[test]
fn a_key_stays_with_its_target() {
    let all: Vec<_> = ["a", "b", "c", "d"].iter().map(|n| Backend::start(n)).collect();
    let targets: Vec<_> = all.iter().map(|b| target(b, 100)).collect();
    let by_header = format!(
        "- {{ name: u, hash_on: header, hash_on_header: X-Tenant, targets: [{}] }}\n",
        targets.join(", ")
    );
    let gateway = Gateway::start(&by_header, "2");
    let owner = |tenant: usize| {
        let body = gateway.ask("GET", "/", &format!("X-Tenant: t{tenant}\r\n")).body;
        body.split(' ').next().unwrap_or_default().to_owned()
    };
    let owners: Vec<String> = (0..40).map(owner).collect();
    assert_eq!((0..40).map(owner).collect::<Vec<_>>(), owners);
    let mut distinct = owners.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 2, "{owners:?}");
    let by_cookie =
        format!("- {{ name: u, hash_on: cookie, hash_on_cookie: sid, targets: [{}] }}\n", targets.join(", "));
    let gateway = Gateway::start(&by_cookie, "2");
    let first = gateway.get();
    let cookie = first.head.lines().find_map(|l| l.strip_prefix("Set-Cookie: ")).expect("a cookie is set");
    let pair = cookie.split(';').next().unwrap_or_default();
    assert!(pair.starts_with("sid="), "{cookie}");
    for _ in 0..8 {
        let next = gateway.ask("GET", "/", &format!("Cookie: {pair}\r\n"));
        assert_eq!(next.body, first.body);
        assert!(!next.head.contains("Set-Cookie"), "{}", next.head);
    }
}

#[test]
fn health_and_probes_go_with_a_reload() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let passive = "passive: { unhealthy: { http_failures: 1 }, recover_after: 0 }";
    let targets = [target(&a, 1), target(&b, 1)].join(", ");
    let upstream = format!("- {{ name: u, targets: [{targets}], healthchecks: {{ {passive} }} }}\n");
    let gateway = Gateway::start(&upstream, "2");
    b.status.store(500, Ordering::Relaxed);
    assert_eq!(gateway.tally(6), counts(&[("500", 1), ("a", 5)]));
    // Another target and probes come; what is known of the others stays.
    b.status.store(200, Ordering::Relaxed);
    b.health.store(404, Ordering::Relaxed);
    let targets = [target(&a, 1), target(&b, 1), target(&c, 1)].join(", ");
    let active = "active: { http_path: /health, healthy: { interval: 0.05, successes: 2 }, \
                  unhealthy: { interval: 0.05, http_failures: 1 } }";
    gateway
        .reload(&format!("- {{ name: u, targets: [{targets}], healthchecks: {{ {passive}, {active} }} }}\n"));
    assert_eq!(gateway.tally(12), counts(&[("a", 6), ("c", 6)]));
    gateway.until("the new config's probes run", |_| b.probes.load(Ordering::Relaxed) > 2);
    b.health.store(200, Ordering::Relaxed);
    gateway.until("and bring a target back", |g| g.tally(6) == counts(&[("a", 2), ("b", 2), ("c", 2)]));
}

fn metric(gateway: &Gateway, series: &str) -> u64 {
    let metrics = ask(gateway.admin, "GET", "/metrics", "").body;
    let line = metrics.lines().find_map(|l| l.strip_prefix(series));
    line.and_then(|v| v.trim().parse().ok()).unwrap_or_else(|| panic!("there is `{series}`:\n{metrics}"))
}

#[test]
fn a_circuit_breaker_refuses_at_once_what_is_too_much() {
    let a = Backend::start("a");
    for (limits, refused_by, served) in [
        ("max_requests: 2", "requests", 2),
        ("max_connections: 2", "connections", 2),
        ("max_requests: 2, max_pending: 1, pending_timeout: 10", "pending", 3),
    ] {
        let upstream =
            format!("- {{ name: u, targets: [{}], circuit_breaker: {{ {limits} }} }}\n", target(&a, 1));
        let gateway = Gateway::start(&upstream, "2");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let ask = || gateway.ask("GET", "/slow/1500", "").status;
            let clients: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().map(|c| c.join().expect("no client panics")).collect()
        });
        let ok = statuses.iter().filter(|s| **s == 200).count();
        assert_eq!(ok, served, "{limits}: {statuses:?}");
        assert!(statuses.iter().all(|s| matches!(s, 200 | 503)), "{limits}: {statuses:?}");
        let series = format!("gw_upstream_refused_total{{upstream=\"u\",limit=\"{refused_by}\"}}");
        assert_eq!(metric(&gateway, &series), 6 - served as u64);
        assert_eq!(gateway.get().status, 200, "there is room again");
        gateway.until("nothing is counted that is over", |g| {
            metric(g, "gw_upstream_requests{upstream=\"u\",state=\"in_flight\"}") == 0
        });
    }
}

#[test]
fn errors_in_a_row_eject_a_target_for_a_while() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let targets = [target(&a, 1), target(&b, 1)].join(", ");
    let rules = "outlier_ejection: { consecutive_errors: 3, time: 1 }";
    let gateway = Gateway::start(&format!("- {{ name: u, targets: [{targets}], {rules} }}\n"), "2");
    b.status.store(503, Ordering::Relaxed);
    assert_eq!(gateway.tally(12), counts(&[("a", 9), ("503", 3)]));
    assert_eq!(metric(&gateway, "gw_upstream_let_alone_total{upstream=\"u\",reason=\"ejected\"}"), 1);
    let health = ask(gateway.admin, "GET", "/upstreams/u/health", "").body;
    assert!(health.contains("\"UNHEALTHY\""), "{health}");
    b.status.store(200, Ordering::Relaxed);
    gateway.until("its time is over", |g| g.tally(4) == counts(&[("a", 2), ("b", 2)]));
}

#[test]
fn a_target_that_asks_for_a_rest_gets_it() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let targets = [target(&a, 1), target(&b, 1)].join(", ");
    let gateway =
        Gateway::start(&format!("- {{ name: u, targets: [{targets}], retry_after_max: 1 }}\n"), "1");
    b.status.store(503, Ordering::Relaxed);
    b.retry_after.store(600, Ordering::Relaxed);
    assert_eq!(gateway.tally(10), counts(&[("a", 9), ("503", 1)]));
    b.status.store(200, Ordering::Relaxed);
    gateway.until("its rest is bounded", |g| g.tally(4).contains_key("b"));
}
