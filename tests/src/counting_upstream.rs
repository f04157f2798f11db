//! An upstream for tests of the data plane: keeps connections, counts them, waits when asked to, speaks to WebSockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;

/// The upstream; it lives as long as the test's process.
pub struct Upstream {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Starts one. `/wait/N` answers after N ms, `/events` begins a stream of events that does not end, `Upgrade:
    /// websocket` begins an echo of bytes.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { port, connections }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut key, mut length) = (String::new(), None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1)?.to_owned();
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "sec-websocket-key" => key = Some(value.to_owned()),
                    "content-length" => length = value.parse().ok()?,
                    _ => {}
                }
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        if let Some(key) = key {
            return echo(reader, &key);
        }
        if let Some(ms) = path.strip_prefix("/wait/").and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        if path == "/events" {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            write!(reader.get_mut(), "{head}9\r\ndata: 1\n\n\r\n").ok()?;
            // No further event, for as long as anybody listens.
            return reader.read(&mut [0; 16]).ok().map(|_| ());
        }
        let n = path.len();
        write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n{path}").ok()?;
    }
}

fn echo(mut reader: BufReader<TcpStream>, key: &str) -> Option<()> {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    let accept = base64::engine::general_purpose::STANDARD.encode(hash.as_ref());
    write!(
        reader.get_mut(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .ok()?;
    let mut piece = [0; 4096];
    loop {
        let n = reader.read(&mut piece).ok()?;
        if n == 0 {
            return None;
        }
        reader.get_mut().write_all(&piece[..n]).ok()?;
    }
}
