//! A new binary comes into service: it takes the sockets of the old one, and not one connection is refused.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gw_tests::binary::gw;
use gw_tests::counting_upstream::Upstream;
use gw_tests::folder::Folder;
use gw_tests::gateway::{Gateway, PATIENCE};
use gw_tests::serving::ask;

/// Asks again and again on a new connection each, until told to stop; nothing may fail.
fn clients(
    to: SocketAddr,
    stop: &Arc<AtomicBool>,
    done: &Arc<AtomicUsize>,
) -> Vec<std::thread::JoinHandle<()>> {
    let one = |n: usize| {
        let (stop, done) = (Arc::clone(stop), Arc::clone(done));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut stream =
                    TcpStream::connect(to).unwrap_or_else(|e| panic!("client {n} was refused: {e}"));
                stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
                let answer =
                    ask(&mut stream, "/").unwrap_or_else(|e| panic!("client {n} got no answer: {e}"));
                assert_eq!(answer.status, 200);
                done.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    (0..6).map(one).collect()
}

#[test]
fn ten_takeovers_under_load_refuse_nobody() {
    let (upstream, folder) = (Upstream::start(), Folder::new("takeover"));
    let text = format!(
        "_format_version: \"3.0\"\ngateway: {{ drain: 5 }}\nservices:\n- {{ name: s, url: \"{}\", routes: [{{ paths: [/] }}] }}\n",
        upstream.url()
    );
    let config = folder.write("kong.yaml", &text);
    let path = folder.path().join("place").display().to_string();
    let args = ["--takeover", path.as_str(), "--admin", "127.0.0.1:0"];
    let mut gateway = Gateway::start(&config, &args);
    let addr = gateway.addr();
    let (stop, done) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let clients = clients(addr, &stop, &done);
    for _ in 0..10 {
        let before = done.load(Ordering::Relaxed);
        let mut slow = TcpStream::connect(addr).expect("the gateway listens");
        std::io::Write::write_all(&mut slow, b"GET /wait/300 HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("it reads");
        std::thread::sleep(Duration::from_millis(50));
        let next = Gateway::start(&config, &args);
        assert_eq!(next.addr(), addr, "the port is the same, though the system had chosen it");
        assert_eq!(gw_tests::serving::receive(&mut slow).expect("an answer").status, 200, "it was in flight");
        let mut old = std::mem::replace(&mut gateway, next);
        assert_eq!(old.exit_code(), Some(0), "{:?}", old.said());
        assert!(old.said().iter().any(|l| l == "another gateway has taken over"));
        assert!(done.load(Ordering::Relaxed) > before, "clients are served all the time");
    }
    // A successor that does not come up changes nothing.
    let broken = folder.write("broken.yaml", &text.replace("paths: [/]", "paths: [no-slash]"));
    let out = gw().arg("serve").arg(&broken).args(args).output().expect("gw starts");
    assert_eq!(out.status.code(), Some(1));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!gateway.said().iter().any(|l| l.contains("taken over")));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("nothing failed");
    }
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0));
    // A gateway that finds the place of one that is gone takes it.
    let mut last = Gateway::start(&config, &args);
    last.terminate();
    assert_eq!(last.exit_code(), Some(0));
}
