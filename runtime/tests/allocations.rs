//! How often a request asks the allocator for memory. A gateway in this process, with the counting allocator of the whole
//! test; client and upstream use fixed buffers, so that what is counted is the gateway's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use gw_runtime::check;
use gw_runtime::compile;
use gw_runtime::env::Env;
use gw_runtime::front::{self, Input, LoadOptions};
use gw_runtime::model::gateway;
use gw_runtime::server::{Options, Server};
use gw_runtime::snapshot::Snapshot;
use gw_runtime::snapshot::shared::Shared;
use gw_runtime::source::Sources;
use gw_runtime::worker::listen;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 2000;

/// An upstream that answers every request, which has no body, with the same bytes.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 4096];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    stream
                        .write_all(
                            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
                        )
                        .unwrap();
                }
            });
        }
    });
    addr
}

fn snapshot(config: &str) -> Snapshot {
    let mut sources = Sources::default();
    let options = LoadOptions::default();
    let (model, found) =
        front::load(&mut sources, &[Input::text("kong.yaml", config)], &Env::default(), &options);
    let (checked, more) = check::run(model);
    let (snapshot, most) = compile::build(&checked.unwrap(), &Arc::new(Shared::default()));
    snapshot.unwrap_or_else(|| panic!("{found:?} {more:?} {most:?}"))
}

/// Allocations per request over one connection that is warm.
fn count(config: &str, request: &str, status: &str) -> f64 {
    let asked = gateway::Listener::new("127.0.0.1:0".parse().unwrap(), false);
    let listener = listen::bind(&asked).unwrap();
    let addr = listener.addr.clone();
    let options = Options {
        listeners: vec![listener],
        workers: 1,
        admin: None,
        overrides: Vec::new(),
        log: None,
        connections_max: 100,
        hash: String::new(),
    };
    let server = Server::start(snapshot(config), options).unwrap();
    let gateway::Address::Ip(addr) = addr else { panic!("an address of the network was asked for") };
    let mut client = TcpStream::connect(addr).unwrap();
    let mut buffer = [0_u8; 4096];
    let mut one = |status: &str| {
        client.write_all(request.as_bytes()).unwrap();
        let n = client.read(&mut buffer).unwrap();
        assert!(buffer[..n].starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&buffer[..n]));
    };
    (0..200).for_each(|_| one("HTTP/1.1"));
    let region = Region::new(ALLOCATOR);
    (0..REQUESTS).for_each(|_| one(status));
    let made = region.change();
    drop(client);
    server.drain();
    (made.allocations + made.reallocations) as f64 / REQUESTS as f64
}

#[test]
fn requests_allocate_no_more_than_they_did() {
    let up = upstream();
    let service =
        format!("_format_version: '3.0'\nservices:\n- url: http://{up}\n  routes: [{{ paths: [/] }}]\n");
    let limited = |config: &str| format!("{service}  plugins:\n  - {config}\n");
    let get = "GET /orders/1 HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nUser-Agent: test\r\n\r\n";
    for (name, config, status, most) in [
        ("a plain proxied request", service.clone(), "HTTP/1.1 200", 2.0),
        (
            "one that is counted by a limit",
            limited("{ name: rate-limiting, config: { minute: 1000000, policy: local, limit_by: ip } }"),
            "HTTP/1.1 200",
            2.0,
        ),
        (
            "one that is refused by a limit",
            limited("{ name: rate-limiting, config: { minute: 1, policy: local, limit_by: ip } }"),
            "HTTP/1.1 429",
            2.0,
        ),
        (
            "one that is answered by a plugin",
            limited("{ name: request-termination, config: { status_code: 403 } }"),
            "HTTP/1.1 403",
            3.0,
        ),
    ] {
        let got = count(&config, get, status);
        assert!(got <= most + 0.1, "{name} makes {got:.2} allocations, not {most}");
    }
}
