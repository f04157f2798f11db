//! Host names to addresses, off the request path.
//!
//! One thread per process asks and keeps the answers. A request reads the table; only the very first request to a new
//! name can find it empty and waits. While nobody answers, the last good answer stays.
//!
//! As Kong, gw asks for SRV records first, which name hosts, ports and weights, and then for addresses. It asks the name
//! servers of `gateway.dns.servers`, or else those of `/etc/resolv.conf`; in the latter case addresses come from the
//! system's resolver, which knows more than name servers do, and the servers only say how long they are good.

mod ask;
mod find;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::unix;
use crate::clock;

/// How soon a failed name is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// A fixed answer given on the command line: `HOST:PORT:ADDR:PORT`, host and port may be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub addr: SocketAddr,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected HOST:PORT:ADDR:PORT, for example `orders.internal:8080:127.0.0.1:9000`";
        let (host, rest) = text.split_once(':').ok_or(FORM)?;
        let (port, addr) = rest.split_once(':').ok_or(FORM)?;
        let any = |s: &str| s == "*";
        Ok(Self {
            host: (!any(host)).then(|| host.to_ascii_lowercase()),
            port: if any(port) { None } else { Some(port.parse().map_err(|_| FORM)?) },
            addr: addr.parse().map_err(|_| FORM)?,
        })
    }
}

/// What a name stands for: an address, and what an SRV record says beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub ip: IpAddr,
    pub srv: Option<Srv>,
}

/// What an SRV record says, which goes before the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub port: u16,
    pub weight: u16,
    /// The name of the host.
    pub name: Arc<str>,
}

#[derive(Clone, Debug)]
enum State {
    Known(Arc<[Found]>),
    Failed,
}

struct Entry {
    state: State,
    ask_again: Instant,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Ready(Arc<[SocketAddr]>),
    /// Asked for the first time; wait for [`Resolver::changed`].
    Pending,
    Failed,
}

/// The process's resolver.
pub struct Resolver {
    overrides: ArcSwap<Vec<Override>>,
    table: ArcSwap<AHashMap<String, State>>,
    version: AtomicU64,
    changed: Notify,
    /// The servers that the config names; empty for the system's.
    servers: ArcSwap<Vec<SocketAddr>>,
    ask: Mutex<Sender<String>>,
}

impl Resolver {
    /// Starts the resolver's thread.
    pub fn start(overrides: Vec<Override>) -> Arc<Self> {
        let (ask, asked) = mpsc::channel();
        let resolver = Arc::new(Self {
            overrides: ArcSwap::from_pointee(overrides),
            table: ArcSwap::default(),
            version: AtomicU64::new(1),
            changed: Notify::new(),
            servers: ArcSwap::default(),
            ask: Mutex::new(ask),
        });
        let weak = Arc::downgrade(&resolver);
        // Without its thread the resolver answers Pending until the connect timeout; there is nothing better to do.
        let _ = std::thread::Builder::new().name("gw-dns".into()).spawn(move || run(&weak, &asked));
        resolver
    }

    /// Counts up whenever any answer changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Asks these servers from now on; none are the system's.
    pub fn use_servers(&self, servers: &[SocketAddr]) {
        if **self.servers.load() != servers {
            self.servers.store(Arc::new(servers.to_vec()));
            // What others said is asked anew, and stays until there is an answer.
            let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = ask.send(String::new());
        }
    }

    /// What SRV records say of the addresses of [`Resolver::lookup`], in the same order; `None` where there are none.
    pub fn records(&self, host: &str) -> Option<Arc<[Found]>> {
        match self.table.load().get(host) {
            Some(State::Known(found)) if found.iter().any(|f| f.srv.is_some()) => Some(Arc::clone(found)),
            _ => None,
        }
    }

    /// Replaces the fixed answers.
    pub fn redirect(&self, overrides: Vec<Override>) {
        if **self.overrides.load() != overrides {
            self.overrides.store(Arc::new(overrides));
            self.version.fetch_add(1, Ordering::Release);
            self.changed.notify_waiters();
        }
    }

    /// Adds fixed answers, which come before those that there are.
    pub fn redirect_also(&self, overrides: &[Override]) {
        let before = self.overrides.load();
        let others = before.iter().filter(|o| !overrides.contains(o));
        self.redirect(overrides.iter().chain(others).cloned().collect());
    }

    /// Where `host:port` is, as far as is known now.
    pub fn lookup(&self, host: &str, port: u16) -> Lookup {
        let ready = |addr: SocketAddr| Lookup::Ready(Arc::from([addr]));
        for o in self.overrides.load().iter() {
            let host_fits = o.host.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(host));
            if host_fits && o.port.is_none_or(|p| p == port) {
                return ready(o.addr);
            }
        }
        if let Some(path) = host.strip_prefix(unix::SCHEME) {
            return ready(unix::address_of(path));
        }
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return ready(SocketAddr::new(ip, port));
        }
        match self.table.load().get(host) {
            Some(State::Known(found)) => {
                let at = |f: &Found| SocketAddr::new(f.ip, f.srv.as_ref().map_or(port, |s| s.port));
                Lookup::Ready(found.iter().map(at).collect())
            }
            Some(State::Failed) => Lookup::Failed,
            None => {
                let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = ask.send(host.to_owned());
                Lookup::Pending
            }
        }
    }

    /// As [`Resolver::lookup`], waiting for the first answer at most `timeout`.
    pub async fn resolve(&self, host: &str, port: u16, timeout: Duration) -> Lookup {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                match self.lookup(host, port) {
                    Lookup::Pending => changed.await,
                    known => return known,
                }
            }
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(Lookup::Failed)
    }

    fn publish(&self, entries: &AHashMap<String, Entry>) {
        let table = entries.iter().map(|(k, e)| (k.clone(), e.state.clone())).collect();
        self.table.store(Arc::new(table));
        self.version.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }
}

fn run(resolver: &std::sync::Weak<Resolver>, asked: &mpsc::Receiver<String>) {
    let mut entries: AHashMap<String, Entry> = AHashMap::new();
    let mut finder = find::Finder::default();
    loop {
        let next = entries.values().map(|e| e.ask_again).min();
        let wait =
            next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(clock::monotonic()));
        let name = match asked.recv_timeout(wait) {
            Ok(name) => Some(name),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(resolver) = resolver.upgrade() else { return };
        let now = clock::monotonic();
        let due: Vec<String> = match name {
            Some(n) if n.is_empty() => entries.keys().cloned().collect(),
            Some(n) if entries.contains_key(&n) => Vec::new(),
            Some(n) => vec![n],
            None => entries.iter().filter(|(_, e)| e.ask_again <= now).map(|(k, _)| k.clone()).collect(),
        };
        let mut changed = false;
        finder.servers(&resolver.servers.load());
        for host in due {
            changed |= refresh(&mut entries, host, &mut finder);
        }
        if changed {
            resolver.publish(&entries);
        }
    }
}

/// Asks for one name; tells whether what is known of it changed.
fn refresh(entries: &mut AHashMap<String, Entry>, host: String, finder: &mut find::Finder) -> bool {
    let answer = finder.find(&host);
    let now = clock::monotonic();
    let old = entries.get(&host).map(|e| e.state.clone());
    let (state, again) = match (answer, &old) {
        (Some((found, fresh)), _) if !found.is_empty() => (State::Known(found.into()), fresh),
        // A stale answer beats none.
        (_, Some(State::Known(found))) => (State::Known(Arc::clone(found)), RETRY),
        _ => (State::Failed, RETRY),
    };
    let changed = match (&old, &state) {
        (Some(State::Known(a)), State::Known(b)) => a != b,
        (Some(State::Failed), State::Failed) => false,
        _ => true,
    };
    entries.insert(host, Entry { state, ask_again: now + again });
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_come_first_and_addresses_are_taken_as_they_are() {
        let o = |t: &str| t.parse::<Override>();
        let r =
            Resolver::start(vec![o("a.test:80:127.0.0.1:9000").unwrap(), o("*:81:127.0.0.1:9001").unwrap()]);
        let addr = |t: &str| Lookup::Ready(Arc::from([t.parse::<SocketAddr>().unwrap()]));
        assert_eq!(r.lookup("A.test", 80), addr("127.0.0.1:9000"));
        assert_eq!(r.lookup("b.test", 81), addr("127.0.0.1:9001"));
        assert_eq!(r.lookup("10.0.0.1", 5), addr("10.0.0.1:5"));
        assert_eq!(r.lookup("[::1]", 5), addr("[::1]:5"));
        assert!(o("a.test:80").is_err());
        assert!(o("a.test:x:127.0.0.1:1").is_err());
    }

    #[test]
    fn names_are_resolved_in_the_background() {
        let r = Resolver::start(Vec::new());
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        rt.block_on(async {
            let found = r.resolve("localhost", 80, Duration::from_secs(10)).await;
            assert!(matches!(&found, Lookup::Ready(a) if a[0].ip().is_loopback()), "{found:?}");
            assert_eq!(r.lookup("localhost", 80), found);
            assert_eq!(r.resolve("no-such-host.invalid", 80, Duration::from_secs(10)).await, Lookup::Failed);
        });
    }
}
