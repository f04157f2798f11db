//! Asking name servers: over UDP, and over TCP what does not fit. Blocking, for the resolver's own thread.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use ::aws_lc_rs::rand;

use super::wire::{Answer, Kind, answer, question};
use crate::clock;

/// How long one server has for one answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most servers that are asked, and names that are tried.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;

/// Whom to ask, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    pub servers: Vec<SocketAddr>,
    /// Names that are put behind those with fewer than `ndots` dots.
    search: Vec<String>,
    ndots: usize,
}

impl Servers {
    /// These servers, which are asked for names as they are.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, search: Vec::new(), ndots: 1 }
    }

    /// What `/etc/resolv.conf` says.
    pub fn parse(text: &str) -> Self {
        let mut found = Self { ndots: 1, ..Self::default() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    found.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    found.search = words.take(SEARCH_MAX).map(str::to_owned).collect()
                }
                Some("options") => {
                    let ndots = words.filter_map(|w| w.strip_prefix("ndots:")?.parse().ok()).next_back();
                    found.ndots = ndots.map_or(found.ndots, |n: usize| n.min(15));
                }
                _ => {}
            }
        }
        found.servers.truncate(SERVERS_MAX);
        found
    }

    /// The names that `host` may stand for, in the order in which they are tried.
    pub fn names(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.trim_end_matches('.').to_owned()];
        }
        let with = self.search.iter().map(|s| format!("{host}.{}", s.trim_matches('.')));
        let mut names: Vec<String> = with.collect();
        let first = host.matches('.').count() >= self.ndots;
        names.insert(if first { 0 } else { names.len() }, host.to_owned());
        names
    }

    /// Asks one server after the other; `Err` if none of them answers.
    pub fn ask(&self, name: &str, kind: Kind) -> io::Result<Answer> {
        let mut last = Err(io::Error::new(io::ErrorKind::NotFound, "there is no name server"));
        for server in &self.servers {
            last = ask(*server, name, kind);
            if matches!(last, Ok(Answer::Records(_) | Answer::NoSuchName)) {
                return last;
            }
        }
        last
    }
}

fn ask(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Answer> {
    let until = clock::monotonic() + PATIENCE;
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let id = u16::from_be_bytes(id);
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "that is no name");
    let question = question(id, name, kind).ok_or_else(no_name)?;
    match over_udp(server, &question, until, |m| answer(m, id, name, kind))? {
        Answer::Truncated => {
            let message = over_tcp(server, &question, until)?;
            let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed");
            answer(&message, id, name, kind).filter(|a| *a != Answer::Truncated).ok_or_else(malformed)
        }
        found => Ok(found),
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(clock::monotonic());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn over_udp(
    server: SocketAddr,
    question: &[u8],
    until: Instant,
    read: impl Fn(&[u8]) -> Option<Answer>,
) -> io::Result<Answer> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of the system's choice, and connected: answers of others do not arrive.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let n = socket.recv(&mut buffer)?;
        if let Some(found) = read(&buffer[..n]) {
            return Ok(found);
        }
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut message = Vec::new();
    let mut wanted = 2;
    while message.len() < wanted {
        stream.set_read_timeout(Some(left(until)?))?;
        let mut piece = [0; 4096];
        let most = piece.len().min(wanted - message.len());
        match stream.read(&mut piece[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => message.extend_from_slice(&piece[..n]),
        }
        if wanted == 2 && message.len() == 2 {
            wanted += usize::from(u16::from_be_bytes([message[0], message[1]]));
        }
    }
    Ok(message.split_off(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_whom_to_ask_for_what() {
        let conf = Servers::parse(
            "# comment\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a.test b.test.\noptions ndots:2 x\n",
        );
        assert_eq!(conf.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        for (host, want) in [
            ("x", &["x.a.test", "x.b.test", "x"][..]),
            ("x.y", &["x.y.a.test", "x.y.b.test", "x.y"]),
            ("x.y.z", &["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]),
            ("x.", &["x"]),
        ] {
            assert_eq!(conf.names(host), want, "{host}");
        }
        assert_eq!(Servers::parse("").names("x"), ["x"]);
    }

    #[test]
    fn without_a_server_there_is_no_answer() {
        assert!(Servers::default().ask("a.test", Kind::A).is_err());
    }
}
