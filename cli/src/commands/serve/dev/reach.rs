//! What this machine can reach: names that have an address, ports that answer. Everything is asked at once, so that the
//! start waits for the slowest answer and not for their sum.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Names that have no answer by then count as unknown.
const RESOLVE: Duration = Duration::from_secs(2);
/// A Redis of this machine or network answers much sooner.
const CONNECT: Duration = Duration::from_millis(300);

/// Why a place cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoAddress,
    Refuses,
    Silent,
}

impl Fault {
    /// As the terminal says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoAddress => "has no address here",
            Self::Refuses => "refuses connections",
            Self::Silent => "does not answer",
        }
    }
}

/// Which of these hosts have an address. An address is its own.
pub fn resolvable(hosts: impl IntoIterator<Item = String>) -> HashMap<String, bool> {
    ask(hosts, RESOLVE, false, |host| bare(host).parse::<IpAddr>().is_ok() || addresses(host, 0).is_some())
}

/// What keeps connections from these places, if anything.
pub fn connectable(places: impl IntoIterator<Item = (String, u16)>) -> HashMap<(String, u16), Option<Fault>> {
    ask(places, RESOLVE + CONNECT, Some(Fault::NoAddress), |(host, port)| {
        let Some(addresses) = addresses(host, *port) else { return Some(Fault::NoAddress) };
        let mut fault = Some(Fault::Silent);
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(_) => return None,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => fault = Some(Fault::Refuses),
                Err(_) => {}
            }
        }
        fault
    })
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let found: Vec<_> = (bare(host), port).to_socket_addrs().ok()?.collect();
    (!found.is_empty()).then_some(found)
}

/// Puts a question to a few threads at once. Those without an answer in time get `default`; their threads are left to
/// the system's resolver, which cannot be interrupted.
fn ask<Q, A>(
    questions: impl IntoIterator<Item = Q>,
    patience: Duration,
    default: A,
    answer: impl Fn(&Q) -> A + Copy + Send + 'static,
) -> HashMap<Q, A>
where
    Q: Clone + Eq + Hash + Send + 'static,
    A: Copy + Send + 'static,
{
    /// Threads; a config may name thousands of hosts.
    const AT_ONCE: usize = 64;
    let mut answers: HashMap<Q, A> = questions.into_iter().map(|q| (q, default)).collect();
    let all: Vec<Q> = answers.keys().cloned().collect();
    let (send, receive) = mpsc::channel();
    for part in all.chunks(all.len().div_ceil(AT_ONCE).max(1)) {
        let (part, send) = (part.to_vec(), send.clone());
        std::thread::spawn(move || {
            for question in part {
                let found = answer(&question);
                if send.send((question, found)).is_err() {
                    return;
                }
            }
        });
    }
    drop(send);
    let until = Instant::now() + patience;
    while let Ok((question, found)) = receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answers.insert(question, found);
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn names_without_an_address_are_told_from_the_others() {
        let hosts = ["localhost", "127.0.0.1", "[::1]", "no-such-host.invalid"].map(str::to_owned);
        let found = resolvable(hosts);
        for (host, want) in
            [("localhost", true), ("127.0.0.1", true), ("[::1]", true), ("no-such-host.invalid", false)]
        {
            assert_eq!(found.get(host), Some(&want), "{host}");
        }
    }

    #[test]
    fn places_that_accept_connections_are_told_from_the_others() {
        let open = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = |l: &TcpListener| l.local_addr().expect("it is bound").port();
        let (open_port, closed_port) = (port(&open), port(&closed));
        drop(closed);
        let local = "127.0.0.1".to_owned();
        let unknown = ("no-such-host.invalid".to_owned(), 1);
        let found = connectable([(local.clone(), open_port), (local.clone(), closed_port), unknown.clone()]);
        assert_eq!(found[&(local.clone(), open_port)], None);
        assert_eq!(found[&(local, closed_port)], Some(Fault::Refuses));
        assert_eq!(found[&unknown], Some(Fault::NoAddress));
    }
}
