use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Answers, Echo, Knobs, spawn};

fn start(defaults: Knobs) -> Echo {
    spawn(TcpListener::bind("127.0.0.1:0").unwrap(), Answers { defaults, ..Answers::default() }).unwrap()
}

/// Sends raw bytes and returns status and body of the answer.
fn ask(echo: &Echo, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(echo.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[end..].to_vec())
}

fn get(echo: &Echo, target: &str, fields: &str) -> (u16, Vec<u8>) {
    ask(echo, format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n").as_bytes())
}

#[test]
fn says_what_it_received() {
    let echo = start(Knobs::default());
    let (status, body) = ask(
        &echo,
        b"POST /a%20b?x=1&y HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    );
    let json: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200);
    let check = |name: &str, want: Value| assert_eq!(json[name], want, "{name}");
    check("schema", "gw.echo/1".into());
    check("method", "POST".into());
    check("path", "/a%20b".into());
    check("query", "x=1&y".into());
    check("http_version", "1.1".into());
    check("body", "abc".into());
    check("body_encoding", "text".into());
    assert_eq!(json["headers"]["x-two"], serde_json::json!(["1", "2"]));
    assert_eq!(json["headers"]["host"], "h");
    assert!(json["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn a_body_that_is_not_text_comes_back_in_base64() {
    let echo = start(Knobs::default());
    let (_, body) =
        ask(&echo, b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\xfe");
    let json: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((json["body"].as_str(), json["body_encoding"].as_str()), (Some("//4="), Some("base64")));
}

#[test]
fn answers_are_as_asked_for() {
    let echo = start(Knobs { status: 201, ..Knobs::default() });
    let check = |target: &str, fields: &str, status: u16, length: Option<usize>| {
        let (got, body) = get(&echo, target, fields);
        assert_eq!(got, status, "{target} {fields}");
        if let Some(length) = length {
            assert_eq!(body.len(), length, "{target} {fields}");
        }
    };
    check("/", "", 201, None);
    check("/?status=503", "", 503, None);
    check("/?status=503", "X-Echo-Status: 404\r\n", 404, None);
    check("/?status=204", "", 204, Some(0));
    check("/?size=100k", "", 201, Some(102_400));
    check("/", "X-Echo-Size: 7\r\n", 201, Some(7));
    check("/?status=999", "", 400, None);
    check("/?size=lots", "", 400, None);
    check("/?delay=5", "", 400, None);
    check("/?other=1", "", 201, None);
}

#[test]
fn a_chunked_answer_does_not_say_its_length() {
    let echo = start(Knobs::default());
    let (_, body) = get(&echo, "/?size=5&chunked=1", "");
    assert_eq!(body, b"5\r\n.....\r\n0\r\n\r\n");
}

#[test]
fn a_delay_is_waited() {
    let echo = start(Knobs { delay: Duration::from_millis(60), ..Knobs::default() });
    let began = Instant::now();
    get(&echo, "/", "");
    assert!(began.elapsed() >= Duration::from_millis(60));
}

#[test]
fn speaks_http2_to_those_who_begin_with_it() {
    let echo = start(Knobs::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, json) = tokio::task::LocalSet::new().block_on(&runtime, async {
        let stream = tokio::net::TcpStream::connect(echo.addr()).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(super::OnThisThread, io).await.unwrap();
        tokio::task::spawn_local(async move { connection.await.map_err(drop) });
        let request =
            http::Request::get("http://h:1/two").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    });
    assert_eq!(status, 200);
    assert_eq!(json["http_version"], "2");
    assert_eq!(json["headers"]["host"], "h:1");
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let echo = start(Knobs { delay: Duration::from_millis(150), ..Knobs::default() });
    let addr = echo.addr();
    let asking = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    std::thread::sleep(Duration::from_millis(50));
    echo.stop();
    assert!(asking.join().unwrap().starts_with("HTTP/1.1 200"));
    assert!(TcpStream::connect(addr).is_err());
}
