//! A small HTTP/1.1 server that records what it is asked.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::http::Message;

/// A running upstream, which behaves by path:
/// - `/slow` is answered after a second, `/silent` never
/// - `/close` is answered, and the connection closed behind that, though the answer does not say so
/// - `/stale` is answered only if it is the first request on its connection; else that is closed, as if the server
///   had given it up at this very moment
/// - `/short` and `/short-chunked` break off within the answer's body
/// - `/chunked` is answered with the request's body in chunks of many sizes, and a trailer
/// - `/until-close` is answered with the request's body, whose end is the connection's
/// - `/drip` is answered with `one`, and after a second with `two`
/// - `/204` and `/304` have no body, though the latter tells how long it would be
/// - `/hints` is answered after an interim 103
/// - `/ws` is answered with 101, after which bytes are echoed until `bye`
///
/// All else is answered with 200 and the request's own body, or `ok` if it has none.
pub struct Upstream {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Message>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Upstream {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                lock(&state.connections).extend(stream.try_clone());
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { addr, state }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All requests so far, in the order of their coming.
    pub fn seen(&self) -> Vec<Message> {
        lock(&self.state.seen).clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        lock(&self.state.connections).len()
    }

    /// Closes all connections, as servers do with idle ones.
    pub fn close_connections(&self) {
        for stream in lock(&self.state.connections).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, state: &State) {
    let mut reader = BufReader::new(stream);
    let mut served = 0;
    while let Some(mut request) = Message::read_head(&mut reader) {
        if request.field("expect").is_some() && reader.get_mut().write_all(CONTINUE).is_err() {
            return;
        }
        if request.read_body(&mut reader, false).is_none() {
            return;
        }
        lock(&state.seen).push(request.clone());
        let path = request.target().split('?').next().unwrap_or_default();
        let body = if request.body.is_empty() { b"ok" } else { request.body.as_slice() };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        if request.method() != "HEAD" {
            answer.extend_from_slice(body);
        }
        match path {
            "/silent" => loop {
                thread::park();
            },
            "/stale" if served > 0 => return close(&reader),
            "/short" => answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(),
            "/short-chunked" => {
                answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
            }
            "/slow" => thread::sleep(Duration::from_secs(1)),
            "/chunked" => answer = in_chunks(body),
            "/until-close" => answer = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body].concat(),
            "/drip" => {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
                if reader.get_mut().write_all(head).is_err() {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
                answer = b"3\r\ntwo\r\n0\r\n\r\n".to_vec();
            }
            "/204" => answer = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => {
                answer = b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 2\r\n\r\n".to_vec()
            }
            "/hints" => {
                answer = [b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", answer.as_slice()].concat();
            }
            "/ws" => return echo_bytes(reader),
            _ => {}
        }
        if reader.get_mut().write_all(&answer).is_err() {
            return;
        }
        if matches!(path, "/close" | "/until-close") || path.starts_with("/short") {
            return close(&reader);
        }
        served += 1;
    }
}

/// An answer in chunks of 1, 2, 3 and more bytes, with a chunk extension and a trailer.
fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        answer.extend(format!("{:X};n={size}\r\n", chunk.len()).bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
        rest = after;
        size = size * 3 / 2 + 1;
    }
    answer.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    answer
}

/// A clone of the stream is kept, so dropping this one would not do.
fn close(reader: &BufReader<TcpStream>) {
    let _ = reader.get_ref().shutdown(Shutdown::Both);
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a WebSocket server says to the sample nonce of RFC 6455, section 1.3.
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn echo_bytes(mut reader: BufReader<TcpStream>) {
    if reader.get_mut().write_all(SWITCH).is_err() {
        return;
    }
    let mut bytes = [0; 4096];
    while let Ok(n) = reader.read(&mut bytes) {
        if n == 0 || reader.get_mut().write_all(&bytes[..n]).is_err() || bytes[..n].ends_with(b"bye") {
            break;
        }
    }
    close(&reader);
}
