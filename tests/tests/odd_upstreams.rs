//! Upstreams that answer early, oddly, or with more than they should.

use std::io::Write as _;
use std::time::{Duration, Instant};

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::Connection;
use gw_tests::scripted::{Part, Scripted};

fn before(upstream: std::net::SocketAddr) -> (Gateway, Folder) {
    let folder = Folder::new("odd-upstreams");
    let text = format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: s, url: \"http://{upstream}\", read_timeout: 10000, routes: [{{ paths: [/] }}] }}\n"
    );
    let config = folder.write("gw.yaml", &text);
    (Gateway::start(&config, &["--workers", "1"]), folder)
}

#[test]
fn what_is_no_answer_is_a_502_at_once() {
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(70_000));
    for (what, bytes, status) in [
        ("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 502),
        ("another protocol", "220 smtp.test ESMTP\r\n\r\n", 502),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502),
        (
            "length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            502,
        ),
        ("a folded line", "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 502),
        ("an upgrade nobody asked for", "HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502),
        ("a head that is too long", long.as_str(), 502),
        ("a status nobody knows", "HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok", 799),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200),
        ("more than was announced", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more", 200),
    ] {
        let bytes = bytes.as_bytes().to_vec();
        let upstream = Scripted::start(move |_| vec![Part::Bytes(bytes.clone())]);
        let (gateway, _folder) = before(upstream.addr());
        let started = Instant::now();
        for _ in 0..2 {
            let mut connection = Connection::open(gateway.addr());
            connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = connection.response();
            assert_eq!(answer.status(), status, "{what}: {answer:?}");
            assert!(status != 200 || answer.text() == "ok", "{what}: {answer:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?}", started.elapsed());
    }
}

#[test]
fn no_length_is_stated_where_there_can_be_none() {
    let upstream =
        Scripted::start(|_| vec![Part::Bytes(b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n".to_vec())]);
    let (gateway, _folder) = before(upstream.addr());
    for method in ["GET", "HEAD", "DELETE"] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(connection.head().field("content-length"), None, "{method}");
    }
}

/// The upstream answers a request whose body is still coming, and does not read on.
#[test]
fn an_answer_before_the_body_reaches_the_client() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = std::io::Read::read(&mut stream, &mut head);
                let _ =
                    stream.write_all(b"HTTP/1.1 413 Big\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                // Closing with unread bytes resets the connection.
                std::thread::sleep(Duration::from_millis(100));
            });
        }
    });
    let (gateway, _folder) = before(addr);
    for fields in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        let mut writer = connection.writer();
        let chunked = fields.contains("chunked");
        std::thread::spawn(move || {
            for _ in 0..80 {
                let piece = vec![b'x'; 100_000];
                let framed = if chunked { [b"186a0\r\n", &piece[..], b"\r\n"].concat() } else { piece };
                if writer.write_all(&framed).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let answer = connection.response();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no"), "{fields}");
    }
}
