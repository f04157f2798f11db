use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::message::Fields;
use crate::policy::call::{Endpoint, Transport};
use crate::policy::testing;
use crate::server;
use crate::snapshot::{Service, ServiceId, Snapshot};

/// A server that answers every request with these bytes after a while, and what it was asked.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(answer: &'static str, after: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                    if !head.ends_with("\r\n\r\n") {
                        continue;
                    }
                    heard.lock().unwrap().push(std::mem::take(&mut head));
                    std::thread::sleep(after);
                    let done = reader.get_mut().write_all(answer.as_bytes());
                    if done.is_err() || !answer.contains("\r\n\r\n") || answer.contains("Connection: close") {
                        return;
                    }
                }
            });
        }
    });
    Server { addr, asked }
}

fn endpoint(addr: SocketAddr) -> Endpoint {
    let (model, plugin) = (crate::model::Model::default(), crate::model::Plugin::default());
    let (shared, mut diags) = (Arc::default(), crate::diag::Diags::new());
    let mut cx = crate::policy::Cx {
        model: &model,
        plugin: &plugin,
        route_id: None,
        service_id: None,
        consumer_id: None,
        shared: &shared,
        diags: &mut diags,
    };
    let transport = Transport::new(&mut cx, false, Duration::from_secs(5)).expect("settings");
    transport.endpoint(&format!("http://{addr}/base")).expect("a URL")
}

fn call(to: CallTo) -> Call {
    Call {
        to,
        method: "GET".into(),
        path: "/p?q=1".into(),
        fields: Fields::default(),
        body: bytes::Bytes::new(),
        timeout: Duration::from_secs(10),
        max_body: 100,
    }
}

fn to(addr: SocketAddr) -> CallTo {
    CallTo::Endpoint(Arc::new(endpoint(addr)))
}

/// Makes calls for a client's request, as a worker does.
fn make(snapshot: Snapshot, request: &str, calls: Vec<Call>) -> Vec<Result<CallResponse, CallError>> {
    let worker = Worker::new(
        server::common_for_tests(snapshot),
        crate::telemetry::Sink { metrics: Arc::default(), log: None },
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::task::spawn_local(Rc::clone(&worker.deadlines).run());
        let mut x = testing::exchange(request);
        x.snapshot = worker.snapshot();
        perform(&worker, &x, calls).await
    })
}

fn seen(answers: &[Result<CallResponse, CallError>]) -> Vec<String> {
    let show = |a: &Result<CallResponse, CallError>| match a {
        Ok(a) => format!("{} {}", a.status, String::from_utf8_lossy(&a.body)),
        Err(e) => format!("{e:?}"),
    };
    answers.iter().map(show).collect()
}

#[test]
fn answers_come_whole_whatever_their_framing() {
    let now = Duration::ZERO;
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 hi"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", "200 hi"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", "200 hi"),
        ("HTTP/1.0 200 OK\r\n\r\nhi\r\n\r\nConnection: close", "200 hi\r\n\r\nConnection: close"),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "204 "),
        // Not followed.
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302 "),
        ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", "TooLarge"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nFFFF\r\n", "Broken"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhi", "Broken"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi", "Broken"),
        ("hello there", "Broken"),
    ] {
        let server = serve(answer, now);
        let answers = make(Snapshot::default(), "GET /", vec![call(to(server.addr))]);
        assert_eq!(seen(&answers), [want], "{answer}");
    }
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n0\r\n\r\n";
    let server = serve(chunk, now);
    assert_eq!(seen(&make(Snapshot::default(), "GET /", vec![call(to(server.addr))])), ["TooLarge"]);
}

#[test]
fn calls_run_side_by_side_and_answer_in_their_order() {
    let slow = serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow", Duration::from_millis(400));
    let quick = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nquick", Duration::ZERO);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let mut late = call(to(slow.addr));
    late.timeout = Duration::from_millis(50);
    let mut private = endpoint(quick.addr);
    private.public_only = true;
    let mut malformed = call(to(quick.addr));
    malformed.path = "/a b".into();
    let unknown = endpoint(quick.addr);
    let unknown = Endpoint {
        service: Service { host: "no-such-host.invalid".into(), ..unknown.service },
        path: unknown.path,
        public_only: false,
    };
    let calls = vec![
        call(to(slow.addr)),
        call(to(quick.addr)),
        call(to(slow.addr)),
        call(to(slow.addr)),
        call(to(closed)),
        late,
        call(CallTo::Endpoint(Arc::new(private))),
        malformed,
        call(CallTo::Endpoint(Arc::new(unknown))),
        call(CallTo::Service(ServiceId(9))),
    ];
    let began = clock::monotonic();
    let answers = make(Snapshot::default(), "GET /", calls);
    let took = began.elapsed();
    let slow = "200 slow";
    let want = [
        slow,
        "200 quick",
        slow,
        slow,
        "Unreachable",
        "Timeout",
        "Private",
        "Invalid",
        "Unresolved",
        "Invalid",
    ];
    assert_eq!(seen(&answers), want);
    assert!(took < Duration::from_millis(1100), "{took:?}: one after the other would take 1200 ms");
}

#[test]
fn services_hear_of_the_client_and_endpoints_only_what_the_call_says() {
    let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Duration::ZERO);
    let service = Service { path: "/base/".into(), ..endpoint(server.addr).service };
    let snapshot = Snapshot { services: Box::from([service]), ..Snapshot::default() };
    let calls = [CallTo::Service(ServiceId(0)), to(server.addr)].map(|to| {
        let mut call = call(to);
        call.fields.push(b"X-Mine", b"1");
        call.fields.push(b"host", b"other.test");
        call
    });
    let request = "GET /client?x=y\nX-Forwarded-For: 9.9.9.9\nX-Client: 1\nX-Forwarded-Host: evil.test";
    let answers = make(snapshot, request, calls.to_vec());
    assert_eq!(seen(&answers), ["200 ", "200 "]);
    let mut asked = server.asked.lock().unwrap().clone();
    asked.sort();
    let host = "\r\nHost: other.test\r\n";
    let [service, endpoint] = &asked[..] else { panic!("{asked:?}") };
    assert!(service.starts_with("GET /base/p?q=1 HTTP/1.1\r\n") && service.contains(host), "{service}");
    for line in ["X-Mine: 1", "X-Forwarded-For: 9.9.9.9, 127.0.0.1", "X-Forwarded-Host: api.test"] {
        assert!(service.contains(&format!("\r\n{line}\r\n")), "{line}: {service}");
    }
    assert!(!service.contains("X-Client") && !service.contains("evil.test"), "{service}");
    assert_eq!(*endpoint, format!("GET /p?q=1 HTTP/1.1{host}Connection: keep-alive\r\nX-Mine: 1\r\n\r\n"));
}
