//! Unix sockets of upstreams. Everything behind a name is an address, so the path of a socket gets one, too: of the
//! network that is there to lead nowhere (RFC 6666), which no service can have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// What a service's host begins with where it is a path.
pub const SCHEME: &str = "unix:";

/// The paths that have an address: as many as configs have ever named.
static PATHS: RwLock<Vec<PathBuf>> = RwLock::new(Vec::new());

/// `100::/64`, in its first 64 bits.
const NOWHERE: u64 = 0x0100_0000_0000_0000;

/// The address that stands for a path, always the same one.
pub fn address_of(path: &str) -> SocketAddr {
    let known = |paths: &[PathBuf]| paths.iter().position(|p| p == Path::new(path));
    let read = known(&PATHS.read().unwrap_or_else(PoisonError::into_inner));
    let n = read.unwrap_or_else(|| {
        let mut paths = PATHS.write().unwrap_or_else(PoisonError::into_inner);
        known(&paths).unwrap_or_else(|| {
            paths.push(PathBuf::from(path));
            paths.len() - 1
        })
    });
    let ip = Ipv6Addr::from((u128::from(NOWHERE) << 64) | n as u128);
    SocketAddr::new(IpAddr::V6(ip), 0)
}

/// The path that an address stands for, if it does.
pub fn path_of(addr: SocketAddr) -> Option<PathBuf> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let bits = ip.to_bits();
    if (bits >> 64) as u64 != NOWHERE || addr.port() != 0 {
        return None;
    }
    let paths = PATHS.read().unwrap_or_else(PoisonError::into_inner);
    paths.get(usize::try_from(bits & u128::from(u64::MAX)).ok()?).cloned()
}

/// An address as people read it: that of a Unix socket is its path.
pub fn shown(addr: SocketAddr) -> String {
    path_of(addr).map_or_else(|| addr.to_string(), |path| format!("{SCHEME}{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_address_and_an_address_one_path() {
        let (a, b) = (address_of("/run/a.sock"), address_of("/run/b.sock"));
        assert_ne!(a, b);
        assert_eq!(address_of("/run/a.sock"), a);
        assert_eq!((path_of(a), path_of(b)), (Some("/run/a.sock".into()), Some("/run/b.sock".into())));
        for other in ["127.0.0.1:0", "[::1]:0", "[100::ffff:1]:0", "[100::]:80"] {
            assert_eq!(path_of(other.parse().unwrap()), None, "{other}");
        }
    }
}
