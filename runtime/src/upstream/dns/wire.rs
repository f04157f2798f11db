//! DNS messages (RFC 1035, RFC 2782, RFC 6891): one question out, the answers to it in. Whatever is not the answer to the
//! question that was asked is nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_OPT: u16 = 41;
/// Bytes that an answer over UDP may have: what passes any path in one piece.
pub const UDP_MAX: u16 = 1232;
/// Longest chain of names that stand for other names.
const CNAMES_MAX: usize = 8;
/// Most records of an answer that are looked at.
const RECORDS_MAX: usize = 512;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A = 1,
    Aaaa = 28,
    Srv = 33,
}

/// A record that answers the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Seconds for which it is good, the names on the way to it included.
    pub ttl: u32,
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There may be none, though the name exists.
    Records(Vec<Record>),
    NoSuchName,
    /// To be asked again over TCP.
    Truncated,
    /// The server cannot or will not say.
    Failed,
}

/// The message that asks, or `None` if that is no name.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    // Recursion is desired; one question and one additional record.
    for n in [id, 0x0100, 1, 0, 0, 1] {
        out.extend_from_slice(&n.to_be_bytes());
    }
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 || !name.is_ascii() {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    for n in [kind as u16, CLASS_IN] {
        out.extend_from_slice(&n.to_be_bytes());
    }
    out.push(0);
    for n in [TYPE_OPT, UDP_MAX, 0, 0, 0] {
        out.extend_from_slice(&n.to_be_bytes());
    }
    Some(out)
}

/// A message with a place in it.
struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.all.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// A name in lower case. Pointers only lead back, so that every name ends.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut back, mut after) = (self.at, self.at, None);
        loop {
            let length = *self.all.get(at)?;
            match length {
                0 => {
                    self.at = after.unwrap_or(at + 1);
                    return Some(name);
                }
                1..=63 => {
                    let label = self.all.get(at + 1..at + 1 + usize::from(length))?;
                    if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
                    if name.len() > 253 {
                        return None;
                    }
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.all.get(at + 1)?;
                    after.get_or_insert(at + 2);
                    at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if at >= back {
                        return None;
                    }
                    back = at;
                }
                _ => return None,
            }
        }
    }
}

/// One record as it stands in a message.
struct Raw {
    owner: String,
    kind: u16,
    ttl: u32,
    /// Where its data stands.
    data: std::ops::Range<usize>,
}

fn raw(r: &mut Reader<'_>) -> Option<(u16, Raw)> {
    let owner = r.name()?;
    let (kind, class) = (r.u16()?, r.u16()?);
    let ttl = u32::from_be_bytes(r.bytes()?);
    let length = usize::from(r.u16()?);
    let data = r.at..r.at.checked_add(length)?;
    r.all.get(data.clone())?;
    r.at = data.end;
    // RFC 2181: with the highest bit set it is zero.
    Some((class, Raw { owner, kind, ttl: if ttl > i32::MAX as u32 { 0 } else { ttl }, data }))
}

/// What a message answers to this question; `None` if it is no answer to it, or malformed.
pub fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut r = Reader { all: message, at: 0 };
    let (of, flags) = (r.u16()?, r.u16()?);
    let (questions, answers) = (r.u16()?, r.u16()?);
    r.at = 12;
    let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
    if of != id || !is_response || questions != 1 {
        return None;
    }
    let asked = r.name()? == name.trim_end_matches('.').to_ascii_lowercase();
    if !asked || r.u16()? != kind as u16 || r.u16()? != CLASS_IN {
        return None;
    }
    match flags & 0xf {
        _ if flags & 0x0200 != 0 => return Some(Answer::Truncated),
        0 => {}
        3 => return Some(Answer::NoSuchName),
        _ => return Some(Answer::Failed),
    }
    let mut all = Vec::new();
    for _ in 0..usize::from(answers).min(RECORDS_MAX) {
        let (class, record) = raw(&mut r)?;
        if class == CLASS_IN {
            all.push(record);
        }
    }
    let (mut owner, mut ttl) = (name.trim_end_matches('.').to_ascii_lowercase(), u32::MAX);
    for _ in 0..CNAMES_MAX {
        let Some(alias) = all.iter().find(|a| a.kind == TYPE_CNAME && a.owner == owner) else { break };
        owner = Reader { all: message, at: alias.data.start }.name()?;
        ttl = ttl.min(alias.ttl);
    }
    let mut records = Vec::new();
    for a in all.iter().filter(|a| a.kind == kind as u16 && a.owner == owner) {
        records.push(Record { ttl: ttl.min(a.ttl), data: data(message, a, kind)? });
    }
    Some(Answer::Records(records))
}

fn data(message: &[u8], record: &Raw, kind: Kind) -> Option<Data> {
    let bytes = message.get(record.data.clone())?;
    Some(match kind {
        Kind::A => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        Kind::Aaaa => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        Kind::Srv => {
            let mut r = Reader { all: message, at: record.data.start };
            let (priority, weight, port) = (r.u16()?, r.u16()?, r.u16()?);
            let target = r.name()?;
            if r.at != record.data.end {
                return None;
            }
            Data::Srv { priority, weight, port, target }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a question, with these records behind it.
    fn reply(question: &[u8], flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut out = question[..question.len() - 11].to_vec();
        out[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        out[10..12].copy_from_slice(&[0, 0]);
        out.extend(records.iter().flat_map(|r| r.iter()));
        out
    }

    /// A record whose owner is the question's name.
    fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0xc0, 12];
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn answers_to_the_question_are_read() {
        let q = question(7, "a.Test.", Kind::A).unwrap();
        let a = record(1, 30, &[10, 0, 0, 1]);
        let one =
            |ttl, ip: &str| Answer::Records(vec![Record { ttl, data: Data::Address(ip.parse().unwrap()) }]);
        let read = |m: &[u8], id, name, kind| answer(m, id, name, kind);
        let good = reply(&q, 0, &[&a]);
        assert_eq!(read(&good, 7, "A.test", Kind::A), Some(one(30, "10.0.0.1")));
        for (id, name, kind) in [(8, "a.test", Kind::A), (7, "b.test", Kind::A), (7, "a.test", Kind::Aaaa)] {
            assert_eq!(read(&good, id, name, kind), None, "{id} {name} {kind:?}");
        }
        assert_eq!(read(&q, 7, "a.test", Kind::A), None, "a question is no answer");
        for (flags, want) in
            [(3, Answer::NoSuchName), (2, Answer::Failed), (5, Answer::Failed), (0x200, Answer::Truncated)]
        {
            assert_eq!(read(&reply(&q, flags, &[]), 7, "a.test", Kind::A), Some(want));
        }
        assert_eq!(read(&reply(&q, 0, &[]), 7, "a.test", Kind::A), Some(Answer::Records(Vec::new())));
        // A name that stands for another one: `b` and a pointer to `test`.
        let alias = record(5, 5, &[1, b'b', 0xc0, 14]);
        let at = (reply(&q, 0, &[]).len() + 12) as u8;
        let mut of_b = record(1, 30, &[10, 0, 0, 2]);
        of_b[1] = at;
        assert_eq!(read(&reply(&q, 0, &[&of_b, &alias]), 7, "a.test", Kind::A), None, "it points forward");
        let chained = reply(&q, 0, &[&alias, &of_b]);
        assert_eq!(
            read(&chained, 7, "a.test", Kind::A),
            Some(one(5, "10.0.0.2")),
            "the shortest time counts"
        );
        // Of others, nothing is taken.
        let mut other = record(1, 30, &[10, 0, 0, 3]);
        other[1] = 14;
        assert_eq!(read(&reply(&q, 0, &[&other]), 7, "a.test", Kind::A), Some(Answer::Records(Vec::new())));
    }

    #[test]
    fn srv_records_name_hosts_and_ports() {
        let q = question(7, "_http._tcp.a.test", Kind::Srv).unwrap();
        let data = [&[0, 1, 0, 20, 0x1f, 0x90][..], &[1, b'H', 4, b't', b'e', b's', b't', 0]].concat();
        let m = reply(&q, 0, &[&record(33, 60, &data)]);
        let want = Data::Srv { priority: 1, weight: 20, port: 8080, target: "h.test".to_owned() };
        let got = answer(&m, 7, "_http._tcp.a.test", Kind::Srv);
        assert_eq!(got, Some(Answer::Records(vec![Record { ttl: 60, data: want }])));
        let long = reply(&q, 0, &[&record(33, 60, &[&data[..], &[0]].concat())]);
        assert_eq!(answer(&long, 7, "_http._tcp.a.test", Kind::Srv), None, "bytes are left over");
    }

    #[test]
    fn no_message_is_too_broken() {
        let q = question(7, "a.test", Kind::A).unwrap();
        let good = reply(&q, 0, &[&record(5, 5, &[1, b'b', 0xc0, 14]), &record(1, 30, &[10, 0, 0, 1])]);
        for cut in 0..good.len() {
            assert_eq!(answer(&good[..cut], 7, "a.test", Kind::A), None, "cut at {cut}");
        }
        for i in 0..good.len() {
            for bits in [0xff, 0xc0, 0x01, 0x80] {
                let mut bad = good.clone();
                bad[i] ^= bits;
                // Whatever it is taken for, it ends.
                let _ = answer(&bad, 7, "a.test", Kind::A);
            }
        }
        for name in ["", ".", "a..test", "ä.test", &"a".repeat(64), &"a.".repeat(200)] {
            assert_eq!(question(7, name, Kind::A), None, "{name}");
        }
    }
}
