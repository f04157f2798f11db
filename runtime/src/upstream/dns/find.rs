//! What a name stands for: SRV records first, then addresses.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::Servers;
use super::wire::{Answer, Data, Kind};
use super::{Found, Srv};
use crate::clock;

/// How long an answer counts as fresh whose own time to live is not known, and the bounds of one that is.
const FRESH: Duration = Duration::from_secs(10);
const FRESH_MIN: Duration = Duration::from_secs(1);
const FRESH_MAX: Duration = Duration::from_secs(3600);
/// How long the system's servers are not asked after they did not answer: the system's resolver may know other ways.
const MUTE: Duration = Duration::from_secs(60);
/// Most hosts of SRV records, and most addresses of a name.
const HOSTS_MAX: usize = 256;

/// Finds what names stand for.
#[derive(Default)]
pub struct Finder {
    servers: Servers,
    /// The servers are the config's own.
    own: bool,
    mute_until: Option<Instant>,
}

impl Finder {
    /// Takes the config's servers, or without any the system's.
    pub fn servers(&mut self, own: &[SocketAddr]) {
        self.own = !own.is_empty();
        let servers = match self.own {
            true => Servers::new(own.to_vec()),
            false => Servers::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        };
        if servers != self.servers {
            self.servers = servers;
            self.mute_until = None;
        }
    }

    /// What the name stands for, and for how long; `None` if nobody knows.
    pub fn find(&mut self, host: &str) -> Option<(Vec<Found>, Duration)> {
        if is_local(host) || !self.may_ask() {
            return from_system(host);
        }
        let mut fresh = FRESH_MAX;
        for name in self.servers.names(host) {
            match self.srv(&name, &mut fresh) {
                Ok(found) if !found.is_empty() => return Some((found, fresh)),
                Ok(_) => {}
                Err(()) => break,
            }
            match self.addresses(&name, &mut fresh) {
                Ok(ips) if ips.is_empty() => {}
                Ok(ips) if self.own => return Some((plain(ips), fresh)),
                Ok(_) => return from_system(host).map(|(found, _)| (found, fresh)),
                Err(()) => break,
            }
        }
        if self.own { None } else { from_system(host) }
    }

    fn may_ask(&self) -> bool {
        let muted = self.mute_until.is_some_and(|until| clock::monotonic() < until);
        !self.servers.servers.is_empty() && (self.own || !muted)
    }

    /// Asks; an answer that there is nothing is an empty one, no answer is an error.
    fn ask(&mut self, name: &str, kind: Kind, fresh: &mut Duration) -> Result<Vec<Data>, ()> {
        match self.servers.ask(name, kind) {
            Ok(Answer::Records(records)) => {
                if let Some(least) = records.iter().map(|r| r.ttl).min() {
                    let ttl = Duration::from_secs(u64::from(least)).clamp(FRESH_MIN, FRESH_MAX);
                    *fresh = (*fresh).min(ttl);
                }
                Ok(records.into_iter().map(|r| r.data).collect())
            }
            Ok(Answer::NoSuchName) => Ok(Vec::new()),
            Ok(_) | Err(_) => {
                if !self.own {
                    self.mute_until = Some(clock::monotonic() + MUTE);
                }
                Err(())
            }
        }
    }

    /// The hosts of the name's SRV records of the highest rank, with their addresses.
    fn srv(&mut self, name: &str, fresh: &mut Duration) -> Result<Vec<Found>, ()> {
        let records = self.ask(name, Kind::Srv, fresh)?;
        let mut all: Vec<(u16, u16, u16, String)> = records.into_iter().filter_map(entry).collect();
        let Some(first) = all.iter().map(|e| e.0).min() else { return Ok(Vec::new()) };
        all.retain(|e| e.0 == first);
        all.sort();
        all.truncate(HOSTS_MAX);
        let mut found = Vec::new();
        for (_, weight, port, target) in all {
            let ips = match target.parse::<IpAddr>() {
                Ok(ip) => vec![ip],
                Err(_) if self.own => self.addresses(&target, fresh)?,
                Err(_) => {
                    from_system(&target).map_or_else(Vec::new, |(f, _)| f.iter().map(|f| f.ip).collect())
                }
            };
            let name: Arc<str> = target.into();
            // As Kong: a weight of 0 is the least there is.
            let srv = Srv { port, weight: weight.max(1), name };
            found.extend(ips.into_iter().map(|ip| Found { ip, srv: Some(srv.clone()) }));
        }
        found.truncate(HOSTS_MAX);
        Ok(found)
    }

    /// The name's IPv4 addresses, or where it has none its IPv6 addresses.
    fn addresses(&mut self, name: &str, fresh: &mut Duration) -> Result<Vec<IpAddr>, ()> {
        for kind in [Kind::A, Kind::Aaaa] {
            let mut ips: Vec<IpAddr> = self.ask(name, kind, fresh)?.into_iter().filter_map(address).collect();
            ips.sort();
            ips.dedup();
            ips.truncate(HOSTS_MAX);
            if !ips.is_empty() {
                return Ok(ips);
            }
        }
        Ok(Vec::new())
    }
}

fn entry(data: Data) -> Option<(u16, u16, u16, String)> {
    match data {
        // RFC 2782: a single dot says that there is no such service.
        Data::Srv { priority, weight, port, target } if !target.is_empty() && port != 0 => {
            Some((priority, weight, port, target))
        }
        _ => None,
    }
}

fn address(data: Data) -> Option<IpAddr> {
    match data {
        Data::Address(ip) => Some(ip),
        Data::Srv { .. } => None,
    }
}

fn plain(ips: Vec<IpAddr>) -> Vec<Found> {
    ips.into_iter().map(|ip| Found { ip, srv: None }).collect()
}

/// Names that no server is asked about: this machine's own, and those of its hosts file.
fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let is_localhost =
        host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    let hosts = || std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    is_localhost || names_host(&hosts(), host)
}

fn names_host(hosts: &str, host: &str) -> bool {
    let lines = hosts.lines().map(|l| l.split('#').next().unwrap_or_default());
    lines.into_iter().any(|l| l.split_whitespace().skip(1).any(|name| name.eq_ignore_ascii_case(host)))
}

fn from_system(host: &str) -> Option<(Vec<Found>, Duration)> {
    let all = (host, 0_u16).to_socket_addrs().ok()?;
    let mut ips: Vec<IpAddr> = all.map(|a| a.ip()).collect();
    // Loopback listeners are far more often on IPv4 alone, and Kong asks for A before AAAA.
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.dedup();
    Some((plain(ips), FRESH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_goes_first() {
        let hosts = "127.0.0.1 localhost a.test # b.test\n::1 ip6-localhost\n# 10.0.0.1 c.test\n";
        for (host, want) in [("A.test", true), ("b.test", false), ("c.test", false), ("127.0.0.1", false)] {
            assert_eq!(names_host(hosts, host), want, "{host}");
        }
        assert!(is_local("localhost") && is_local("x.localhost.") && !is_local("notlocalhost"));
    }
}
