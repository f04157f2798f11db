//! Which of a cluster's 16,384 slots a key belongs to, and who has which slot.

use redis::Value;

use crate::limit::redis::Address;

/// How many slots a cluster has.
pub const COUNT: usize = 16_384;

/// The slot of a key: of what stands between its first `{` and the next `}`, if anything does.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|t| !t.is_empty()).unwrap_or(key).as_bytes()) % COUNT as u16
}

/// CRC-16 as XMODEM has it: polynomial 0x1021, from 0.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = (i as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, b| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ b)])
}

/// Slots and who has them.
#[derive(Debug, PartialEq)]
pub struct Range {
    pub first: u16,
    pub last: u16,
    pub master: Address,
}

/// Reads the answer to `CLUSTER SLOTS` of the node at `asked`; what cannot be read is left out.
pub fn read(answer: &Value, asked: &Address) -> Vec<Range> {
    let Value::Array(items) = answer else { return Vec::new() };
    items.iter().filter_map(|item| range(item, asked)).collect()
}

fn range(item: &Value, asked: &Address) -> Option<Range> {
    let Value::Array(parts) = item else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        // A node that does not know its own address means the one that it was asked at.
        Value::Nil => "",
        Value::BulkString(text) => std::str::from_utf8(text).ok()?,
        Value::SimpleString(text) => text,
        _ => return None,
    };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    let master = node(host, u16::try_from(*port).ok()?, asked)?;
    (first <= last && usize::from(last) < COUNT).then_some(Range { first, last, master })
}

fn node(host: &str, port: u16, asked: &Address) -> Option<Address> {
    let host = match host {
        "" => &asked.host,
        // A node whose name the cluster is not told.
        "?" => return None,
        host => host,
    };
    Some(Address { host: host.to_owned(), port })
}

/// Reads the details of a `MOVED` or `ASK` that the node at `asked` answered with: `SLOT HOST:PORT`.
pub fn read_redirection(details: &str, asked: &Address) -> Option<Address> {
    let (_, target) = details.split_once(' ')?;
    let (host, port) = target.trim().rsplit_once(':')?;
    node(host.trim_matches(['[', ']']), port.parse().ok()?, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of the CRC, and slots that a server named.
        for (key, slot) in [
            ("123456789", 0x31c3),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}b{bar}", 12182),
            ("ratelimit:{foo}:1:minute", 12182),
            ("foo{}", crc16(b"foo{}") % 16384),
            ("{foo", crc16(b"{foo") % 16384),
            ("foo{{bar}}zap", slot_of("{bar")),
        ] {
            assert_eq!(slot_of(key), slot % 16384, "{key}");
        }
    }

    #[test]
    fn ranges_are_read_and_nonsense_is_left_out() {
        let asked = address("10.0.0.1", 7000);
        let text = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        let item = |first, last, host, port| {
            let master = Value::Array(vec![host, Value::Int(port), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master, Value::Array(vec![])])
        };
        let answer = Value::Array(vec![
            item(0, 99, text("10.0.0.2"), 7001),
            item(100, 199, Value::Nil, 7002),
            item(200, 299, text("?"), 7003),
            item(300, 16384, text("x"), 7003),
            item(9, 8, text("x"), 7003),
            item(1, 8, text("x"), 70030),
            Value::Nil,
        ]);
        let range = |first, last, host, port| Range { first, last, master: address(host, port) };
        assert_eq!(
            read(&answer, &asked),
            [range(0, 99, "10.0.0.2", 7001), range(100, 199, "10.0.0.1", 7002)]
        );
        assert_eq!(read(&Value::Okay, &asked), []);
    }

    #[test]
    fn redirections_are_read() {
        let asked = address("10.0.0.1", 7000);
        for (details, want) in [
            ("3999 127.0.0.1:6381", Some(address("127.0.0.1", 6381))),
            ("3999 :6381", Some(address("10.0.0.1", 6381))),
            ("3999 ::1:6381", Some(address("::1", 6381))),
            ("3999 ?:6381", None),
            ("3999", None),
            ("3999 h:x", None),
        ] {
            assert_eq!(read_redirection(details, &asked), want, "{details}");
        }
    }
}
