//! An HTTP/1.1 server that answers what it was told to, as late as it was told to.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::http::Message;

/// One answer: method and target, milliseconds, status, fields as lines that end in CRLF, body.
pub type Answer = (&'static str, u64, u16, &'static str, &'static str);

/// A running server.
#[derive(Clone)]
pub struct Canned {
    addr: SocketAddr,
    answers: Arc<Mutex<Vec<Answer>>>,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Canned {
    /// Starts one on a free port. What it has no answer for is answered 404.
    pub fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let canned = Self {
            addr: listener.local_addr().expect("it is bound"),
            answers: Arc::new(Mutex::new(answers.to_vec())),
            seen: Arc::default(),
        };
        let server = canned.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        canned
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, answers: &[Answer]) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers.to_vec();
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(mut request) = Message::read_head(&mut reader) {
            if request.read_body(&mut reader, false).is_none() {
                return;
            }
            let name = format!("{} {}", request.method(), request.target());
            let found = {
                let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.iter().find(|a| a.0 == name).copied()
            };
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            let (_, ms, status, fields, body) = found.unwrap_or(("", 0, 404, "", "{}"));
            std::thread::sleep(Duration::from_millis(ms));
            let length = body.len();
            let bodyless = status == 304 || status == 204 || name.starts_with("HEAD ");
            let (length, body) = match bodyless {
                true => (String::new(), ""),
                false => (format!("Content-Length: {length}\r\n"), body),
            };
            let head = format!("HTTP/1.1 {status} Canned\r\n{length}{fields}\r\n{body}");
            if reader.get_mut().write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    }
}
