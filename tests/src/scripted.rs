//! An HTTP/1.1 server that answers as a function says, byte by byte if it must.

use std::io::{BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::http::Message;

/// A part of what is sent.
pub enum Part {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// The connection ends here.
    Close,
}

type Script = dyn Fn(&Message) -> Vec<Part> + Send + Sync;

/// A running server.
pub struct Scripted {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Scripted {
    /// Starts one on a free port.
    pub fn start(script: impl Fn(&Message) -> Vec<Part> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let addr = listener.local_addr().expect("it is bound");
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::<Mutex<Vec<Message>>>::default());
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&all));
                std::thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { addr, seen }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: TcpStream, script: &Script, seen: &Mutex<Vec<Message>>) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = Message::read_head(&mut reader) {
        if request.read_body(&mut reader, false).is_none() {
            return;
        }
        let parts = script(&request);
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        for part in parts {
            match part {
                Part::Bytes(bytes) => {
                    if reader.get_mut().write_all(&bytes).is_err() {
                        return;
                    }
                }
                Part::Pause(time) => std::thread::sleep(time),
                Part::Close => {
                    let _ = reader.get_ref().shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}

/// A whole answer with a stated length; `fields` are lines that end in CRLF.
pub fn answer(status: u16, fields: &str, body: &[u8]) -> Vec<Part> {
    let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    vec![Part::Bytes([head.as_bytes(), body].concat())]
}

/// The head of an answer in chunks.
pub fn chunked_head(fields: &str) -> Part {
    Part::Bytes(format!("HTTP/1.1 200 Scripted\r\nTransfer-Encoding: chunked\r\n{fields}\r\n").into_bytes())
}

/// A chunk; the last one is empty.
pub fn chunk(bytes: &[u8]) -> Part {
    Part::Bytes([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}
