//! The PROXY protocol, versions 1 and 2: the line or block with which a balancer in front of gw says whose connection it
//! hands on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt as _;

use super::io::Io;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The balancer's own, for instance to see whether gw is there; or of a kind that has no addresses.
    Own,
    /// From a client, to the address that the client has connected to.
    Proxied { source: SocketAddr, destination: SocketAddr },
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest header of all, `PROXY UNKNOWN` and a line end: so many bytes can be read without knowing more.
const SHORTEST: usize = 15;
/// Longest header of version 1, its line end included.
const LINE_MAX: usize = 107;
/// Longest block of version 2 after its first 16 bytes. Addresses take 36; the rest are extensions, which are ignored.
const BLOCK_MAX: usize = 2048;

/// Reads a header and not a byte more: what follows may be TLS. Anything else is an error. The caller sets the time.
pub async fn read(io: &mut Io) -> io::Result<Header> {
    let mut bytes = Vec::with_capacity(128);
    fill(io, &mut bytes, SHORTEST).await?;
    if bytes.starts_with(SIGNATURE) {
        fill(io, &mut bytes, 16).await?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > BLOCK_MAX {
            return Err(malformed());
        }
        fill(io, &mut bytes, 16 + length).await?;
        return block(&bytes).ok_or_else(malformed);
    }
    if !bytes.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() >= LINE_MAX {
            return Err(malformed());
        }
        let want = bytes.len() + line_rest(io, LINE_MAX - bytes.len()).await?;
        fill(io, &mut bytes, want).await?;
    }
    line(&bytes[..bytes.len() - 2]).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Reads until there are `want` bytes.
async fn fill(io: &mut Io, bytes: &mut Vec<u8>, want: usize) -> io::Result<()> {
    let mut have = bytes.len();
    bytes.resize(want, 0);
    while have < want {
        match io.read(&mut bytes[have..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    Ok(())
}

/// How many bytes are here for sure that belong to the line: up to its end, or all. One where they cannot be looked at.
async fn line_rest(io: &mut Io, most: usize) -> io::Result<usize> {
    let Io::Tcp(tcp) = io else { return Ok(1) };
    let mut ahead = [0; LINE_MAX];
    let n = tcp.peek(&mut ahead[..most]).await?;
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ahead[..n].iter().position(|b| *b == b'\n').map_or(n, |at| at + 1))
}

/// Version 1, without its line end.
fn line(bytes: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.strip_prefix("PROXY ")?.split(' ');
    let v6 = match words.next()? {
        "TCP4" => false,
        "TCP6" => true,
        // What follows is to be ignored.
        "UNKNOWN" => return Some(Header::Own),
        _ => return None,
    };
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match v6 {
            false => word.parse::<Ipv4Addr>().ok().map(Into::into),
            true => word.parse::<Ipv6Addr>().ok().map(Into::into),
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word == "0" || !word.starts_with(['0', '+']);
        word.parse().ok().filter(|_| plain)
    };
    let (from, to) = (port()?, port()?);
    if words.next().is_some() {
        return None;
    }
    Some(Header::Proxied {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// Version 2, whole.
fn block(bytes: &[u8]) -> Option<Header> {
    let (version, command) = (bytes.get(12)? >> 4, bytes[12] & 15);
    let (family, transport) = (bytes.get(13)? >> 4, bytes[13] & 15);
    let rest = bytes.get(16..)?;
    match (version, command) {
        (2, 0) => return Some(Header::Own),
        (2, 1) => {}
        _ => return None,
    }
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    match (family, transport) {
        // Unspecified, and Unix sockets, whose paths say nothing to anybody behind gw.
        (0, 0) | (3, 1) => Some(Header::Own),
        (1, 1) => {
            let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(rest.get(at..at + 4)?).ok()?));
            Some(Header::Proxied {
                source: SocketAddr::new(ip(0)?.into(), port(8)?),
                destination: SocketAddr::new(ip(4)?.into(), port(10)?),
            })
        }
        (2, 1) => {
            let ip = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(rest.get(at..at + 16)?).ok()?));
            Some(Header::Proxied {
                source: SocketAddr::new(ip(0)?.into(), port(32)?),
                destination: SocketAddr::new(ip(16)?.into(), port(34)?),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(source: &str, destination: &str) -> Option<Header> {
        let addr = |t: &str| t.parse().expect("an address");
        Some(Header::Proxied { source: addr(source), destination: addr(destination) })
    }

    #[test]
    fn lines_are_read_strictly() {
        let four = proxied("192.0.2.7:5", "198.51.100.1:443");
        for (text, want) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 5 443", four),
            ("PROXY TCP6 2001:db8::7 ::1 65535 0", proxied("[2001:db8::7]:65535", "[::1]:0")),
            ("PROXY UNKNOWN", Some(Header::Own)),
            ("PROXY UNKNOWN whatever it is", Some(Header::Own)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 5", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 5 443 ", None),
            ("PROXY TCP4  192.0.2.7 198.51.100.1 5 443", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 05 443", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +5 443", None),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 5 65536", None),
            ("PROXY TCP4 192.0.2.07 198.51.100.1 5 443", None),
            ("PROXY TCP4 2001:db8::7 ::1 5 443", None),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 5 443", None),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 5 443", None),
            ("proxy TCP4 192.0.2.7 198.51.100.1 5 443", None),
        ] {
            assert_eq!(line(text.as_bytes()), want, "{text}");
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn blocks_are_read_strictly() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0, 5, 1, 187];
        let want = proxied("192.0.2.7:5", "198.51.100.1:443");
        let six = [[1; 16].as_slice(), &[2; 16], &[0, 1, 0, 2]].concat();
        for (bytes, want) in [
            (v2(0x21, 0x11, &four), want),
            (v2(0x21, 0x11, &[&four[..], &[3, 0, 1, 9]].concat()), want),
            (
                v2(0x21, 0x21, &six),
                proxied("[101:101:101:101:101:101:101:101]:1", "[202:202:202:202:202:202:202:202]:2"),
            ),
            (v2(0x20, 0, &[]), Some(Header::Own)),
            (v2(0x20, 0x11, &four), Some(Header::Own)),
            (v2(0x21, 0, &[1, 2, 3]), Some(Header::Own)),
            (v2(0x21, 0x31, &[0; 216]), Some(Header::Own)),
            (v2(0x21, 0x11, &four[..11]), None),
            (v2(0x21, 0x21, &six[..35]), None),
            (v2(0x21, 0x12, &four), None),
            (v2(0x22, 0x11, &four), None),
            (v2(0x11, 0x11, &four), None),
        ] {
            assert_eq!(block(&bytes), want, "{bytes:?}");
        }
    }
}
