//! Reloads of a running gateway: nothing is lost, nothing is kept that should go, nothing goes that should stay.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{PATIENCE, Serving, ask, get, post, receive};

/// A config that differs from others by `mark`, which every answer carries.
fn config(upstream: &Upstream, mark: &str, more: &str) -> String {
    let url = upstream.url();
    format!(
        "_format_version: \"3.0\"
{more}
services:
- name: all
  url: {url}
  routes:
  - name: limited
    paths: [/limited]
    plugins:
    - name: rate-limiting
      config: {{ hour: 1000, policy: local }}
  - name: all
    paths: [/]
    strip_path: false
    plugins:
    - name: response-transformer
      config: {{ add: {{ headers: [\"X-Mark:{mark}\"] }} }}
"
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

/// A WebSocket, as far as a gateway looks into it.
fn websocket(to: SocketAddr) -> TcpStream {
    let mut stream = connect(to);
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("the gateway reads");
    assert_eq!(receive(&mut stream).expect("an answer").status, 101);
    stream
}

fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("the tunnel is open");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("the tunnel is open");
    assert_eq!(back, text);
}

/// Clients that ask all the time.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(to: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..6).map(|n| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut kept = connect(to);
                while !stop.load(Ordering::Relaxed) {
                    // Some keep their connection, some make one for each request.
                    if n % 3 == 0 {
                        kept = connect(to);
                    }
                    match ask(&mut kept, "/load") {
                        Ok(answer) if answer.status == 200 && answer.body == "/load" => {}
                        other => {
                            failures.push(format!("{other:?}"));
                            kept = connect(to);
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
                failures
            })
        });
        let clients = clients.collect();
        Self { stop, done, clients }
    }

    /// How many requests there were; none may have failed.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let failures = client.join().expect("a client does not panic");
            assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[test]
fn fifty_reloads_under_load_lose_nothing_and_leave_nothing() {
    let upstream = Upstream::start();
    let mut gw = Serving::start(&config(&upstream, "0", ""));
    let mut idle = connect(gw.http);
    assert!(ask(&mut idle, "/").expect("an answer").head.contains("X-Mark: 0"));
    let mut ws = websocket(gw.http);
    echoes(&mut ws, b"before");
    for left in ["999", "998", "997"] {
        assert!(get(gw.http, "/limited").head.contains(&format!("RateLimit-Remaining: {left}")));
    }
    // It began before all reloads and ends after them, on the config that it began with.
    let mut slow = connect(gw.http);
    slow.write_all(b"GET /wait/4000 HTTP/1.1\r\nHost: test\r\n\r\n").expect("the gateway reads");
    let load = Load::start(gw.http);
    for n in 1..=50 {
        assert!(gw.reload(&config(&upstream, &n.to_string(), "")), "{}", gw.log());
    }
    let answer = receive(&mut slow).expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("X-Mark: 0"), "{}", answer.head);
    assert!(load.end() > 500, "the clients were busy");
    // Counters, tunnels and idle connections outlive reloads.
    assert!(get(gw.http, "/limited").head.contains("RateLimit-Remaining: 996"));
    echoes(&mut ws, b"after");
    // Old configs do not, though a connection idles and a tunnel is open since the first one.
    gw.until("old snapshots are freed", |gw| gw.metric("gw_live_snapshots") == 1.0);
    drop(ws);
    assert!(ask(&mut idle, "/").expect("an answer").head.contains("X-Mark: 50"));
    // Upstream connections are kept: a few for the clients at the same time, none for each reload.
    assert!(upstream.connections() <= 30, "{} upstream connections", upstream.connections());
    assert_eq!(gw.metric("gw_config_reloads_total{result=\"ok\"}"), 50.0);
    assert_eq!(gw.metric("gw_config_last_reload_success"), 1.0);
    assert_eq!(gw.metric("gw_panics_total"), 0.0);
}

#[test]
fn a_bad_config_changes_nothing_and_is_told() {
    let upstream = Upstream::start();
    let good = config(&upstream, "good", "");
    let mut gw = Serving::start(&good);
    for (bad, what) in [
        ("a: [", "GW1"),
        ("", "the file is empty"),
        ("_format_version: \"3.0\"\nroutes:\n- pahts: [/]\n", "unknown field `pahts`"),
        ("_format_version: \"3.0\"\nroutes:\n- paths: [\"~/(\"]\n", "error[GW"),
    ] {
        let failed = gw.metric("gw_config_reloads_total{result=\"failed\"}");
        assert!(!gw.reload(bad), "{bad:?} was taken");
        assert!(get(gw.http, "/").head.contains("X-Mark: good"));
        let log = gw.log();
        assert!(log.contains(what) && log.contains("not reloaded: "), "{log}");
        let status = gw.config_status();
        assert_eq!(status["generation"], 1);
        let found = &status["last_error"]["report"];
        assert_eq!(found["schema"], "gw.diagnostics", "{status:#}");
        assert!(found["diagnostics"].as_array().is_some_and(|d| !d.is_empty()), "{status:#}");
        assert_eq!(gw.metric("gw_config_last_reload_success"), 0.0);
        assert_eq!(gw.metric("gw_config_reloads_total{result=\"failed\"}"), failed + 1.0);
    }
    std::fs::remove_file(gw.path("gw.yaml")).expect("the file is there");
    gw.signal(rustix::process::Signal::HUP);
    gw.until("the missing file is told", |gw| gw.log().contains("there is no such file"));
    assert!(gw.reload(&good));
    assert_eq!(gw.metric("gw_config_last_reload_success"), 1.0);
    assert!(gw.config_status()["last_error"].is_null());
}

#[test]
fn a_config_can_be_handed_in() {
    let upstream = Upstream::start();
    let first = config(&upstream, "first", "");
    let mut gw = Serving::start(&first);
    let second = config(&upstream, "second", "");
    let answer = post(gw.admin, "/config", "", &second);
    assert_eq!(answer.status, 201, "{answer:?}");
    let said: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(said["generation"], 2);
    assert!(get(gw.http, "/").head.contains("X-Mark: second"));
    let status = gw.config_status();
    assert_eq!((&status["hash"], &status["origin"]), (&said["hash"], &"admin".into()));
    // The same again does nothing where the hash is to be checked.
    assert_eq!(post(gw.admin, "/config?check_hash=1", "", &second).status, 304);
    assert_eq!(gw.config_status()["generation"], 2);
    assert_eq!(post(gw.admin, "/config", "", &second).status, 201);
    // All findings of a bad one, and none of its secrets.
    let bad = "_format_version: \"3.0\"\nconsumers:\n- username: u\n  keyauth_credentials:\n  - {key: canary-1, kye: x}\n  basicauth_credentials:\n  - {username: b, password: canary-2, x: y}\n";
    let answer = post(gw.admin, "/config", "", bad);
    assert_eq!(answer.status, 400, "{answer:?}");
    let found: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((&found["schema"], &found["version"]), (&"gw.diagnostics".into(), &1.into()));
    assert!(found["diagnostics"].as_array().is_some_and(|d| d.len() >= 2), "{found:#}");
    let told = format!("{}{}{}", answer.body, gw.log(), gw.config_status());
    assert!(!told.contains("canary"), "{told}");
    // A web page cannot hand one in, nor can one be fetched.
    let answer = post(gw.admin, "/config", "Origin: http://evil.example\r\n", &first);
    assert_eq!(answer.status, 403);
    assert!(!get(gw.admin, "/config").body.contains("services"));
    assert!(get(gw.http, "/").head.contains("X-Mark: second"));
    // The files come back when they are asked for.
    assert!(gw.reload(&first));
    assert!(get(gw.http, "/").head.contains("X-Mark: first"));
}
