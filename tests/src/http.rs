//! HTTP/1.1 by hand over TCP, and HTTPS by `curl`.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::gateway::PATIENCE;

/// A request or a response: its first line, its fields as they were sent, and its body without framing.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// The status of a response; 0 for anything else.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Reads a start line and fields; none where the connection ends first.
    pub fn read_head(from: &mut impl BufRead) -> Option<Self> {
        let mut message = Self { start: line(from)?, ..Self::default() };
        loop {
            let line = line(from)?;
            if line.is_empty() {
                return Some(message);
            }
            let (name, value) = line.split_once(':')?;
            message.fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads the body that the fields announce; `to_the_end` where they announce none.
    pub fn read_body(&mut self, from: &mut impl BufRead, to_the_end: bool) -> Option<()> {
        let chunked = self.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        if chunked {
            loop {
                let size = line(from)?;
                let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
                self.read_exactly(from, size)?;
                loop {
                    let line = line(from)?;
                    let Some((name, value)) = line.split_once(':') else { break };
                    self.trailers.push((name.to_owned(), value.trim().to_owned()));
                }
                if size == 0 {
                    return Some(());
                }
            }
        }
        match self.field("content-length").map(str::parse) {
            Some(Ok(length)) => self.read_exactly(from, length),
            Some(Err(_)) => None,
            None if to_the_end => from.read_to_end(&mut self.body).ok().map(|_| ()),
            None => Some(()),
        }
    }

    fn read_exactly(&mut self, from: &mut impl BufRead, n: usize) -> Option<()> {
        let start = self.body.len();
        self.body.resize(start + n, 0);
        from.read_exact(&mut self.body[start..]).ok()
    }
}

fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let n = from.read_line(&mut line).ok()?;
    (n > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A connection on which requests are written as they are.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects.
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("something listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self(BufReader::new(stream))
    }

    /// Sends bytes; whether the peer took them shows in what it answers.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    /// A second handle, for a thread that writes while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.0.get_ref().try_clone().expect("a socket can be shared")
    }

    /// Reads the head of a response.
    pub fn head(&mut self) -> Message {
        Message::read_head(&mut self.0).expect("a response")
    }

    /// Reads a whole response to a request that is no HEAD.
    pub fn response(&mut self) -> Message {
        let mut response = self.head();
        response.read_body(&mut self.0, true).expect("a whole body");
        response
    }

    /// Reads exactly `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// What comes until the peer closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}

/// One request without a body; `fields` are lines that end in CRLF.
pub fn request(addr: SocketAddr, method: &str, target: &str, fields: &str) -> Message {
    let mut connection = Connection::open(addr);
    connection
        .send(format!("{method} {target} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{fields}\r\n"));
    connection.response()
}

/// A GET.
pub fn get(addr: SocketAddr, target: &str) -> Message {
    request(addr, "GET", target, "")
}

/// A GET of `https://localhost`, trusting `ca` alone; `fields` are `Name: value`.
pub fn get_tls(ca: &Path, addr: SocketAddr, target: &str, fields: &[&str]) -> Message {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--http1.1", "--noproxy", "*", "--cacert"]).arg(ca);
    for field in fields {
        curl.args(["--header", field]);
    }
    let url = format!("https://localhost:{}{target}", addr.port());
    let out = curl.args(["--ipv4", &url]).output().expect("curl starts: apt-get install curl");
    assert!(out.status.success(), "curl {url}: {}", String::from_utf8_lossy(&out.stderr));
    let mut from = out.stdout.as_slice();
    let mut response = Message::read_head(&mut from).expect("a response");
    // curl has taken the framing away already.
    from.read_to_end(&mut response.body).expect("memory");
    response
}

/// Runs `curl` with these arguments, no proxy and no progress, and returns what it prints.
pub fn curl(args: &[&str]) -> String {
    let out = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"])
        .args(args)
        .output()
        .expect("curl starts: apt-get install curl");
    assert!(out.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
