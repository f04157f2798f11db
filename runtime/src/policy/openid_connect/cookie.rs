//! What the browser keeps for the gateway: encrypted, bound to one plugin, in as many cookies as it takes.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Fields, names, tags};

/// The longest value of one cookie: browsers take 4096 bytes with name and attributes.
const PIECE: usize = 3800;
/// The most cookies of one value.
const PIECES_MAX: usize = 4;
const NONCE: usize = 12;

/// Keys that close and open what browsers keep.
pub struct Vault {
    /// The first closes, all open: so keys are rotated without ending a session.
    keys: Vec<LessSafeKey>,
    /// What the contents belong to; what was closed for one place opens in no other.
    place: String,
}

impl Vault {
    /// Keys from secrets, each at least 32 bytes long.
    pub fn new(secrets: &[String], place: String) -> Option<Self> {
        let key = |secret: &String| {
            let bytes = digest(&SHA256, format!("gw session\0{secret}").as_bytes());
            UnboundKey::new(&AES_256_GCM, bytes.as_ref()).ok().map(LessSafeKey::new)
        };
        let keys = secrets.iter().map(key).collect::<Option<Vec<_>>>()?;
        (!keys.is_empty()).then_some(Self { keys, place })
    }

    fn aad(&self, name: &str) -> Aad<Vec<u8>> {
        Aad::from(format!("{}\0{name}", self.place).into_bytes())
    }

    /// Encrypts a value for the cookie of this name.
    pub fn close(&self, name: &str, value: &impl Serialize) -> Option<String> {
        let mut bytes = serde_json::to_vec(value).ok()?;
        let mut nonce = [0; NONCE];
        rand::fill(&mut nonce).ok()?;
        let key = self.keys.first()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(name), &mut bytes).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &bytes].concat()))
    }

    /// What [`Vault::close`] closed, if nobody has changed it.
    pub fn open<T: DeserializeOwned>(&self, name: &str, text: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let plain = key.open_in_place(nonce, self.aad(name), &mut sealed).ok()?;
            serde_json::from_slice(plain).ok()
        })
    }
}

/// The name of a value's cookie of this number.
fn piece_name(name: &str, n: usize) -> String {
    if n == 0 { name.to_owned() } else { format!("{name}.{n}") }
}

/// A value of the request's cookies, put together from its pieces.
pub fn get(fields: &Fields, name: &str) -> Option<String> {
    let mut value = cookie(fields, name)?.to_owned();
    for n in 1..PIECES_MAX {
        match cookie(fields, &piece_name(name, n)) {
            Some(piece) if value.len() == n * PIECE => value.push_str(piece),
            _ => break,
        }
    }
    Some(value)
}

fn pairs(fields: &Fields) -> impl Iterator<Item = (&str, &str)> {
    let values = fields.iter_tagged().filter(|(tag, ..)| *tag == tags::COOKIE);
    let values = values.filter_map(|(_, _, v)| std::str::from_utf8(v).ok());
    values.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    pairs(fields).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// Removes cookies whose name begins so: they are the gateway's, and no service's.
pub fn hide(fields: &mut Fields, name: &str) {
    if !pairs(fields).any(|(n, _)| n.starts_with(name)) {
        return;
    }
    let rest: Vec<String> =
        pairs(fields).filter(|(n, _)| !n.starts_with(name)).map(|(n, v)| format!("{n}={v}")).collect();
    match rest.is_empty() {
        true => {
            fields.remove(&names::COOKIE);
        }
        false => fields.set(&names::COOKIE, rest.join("; ")),
    }
}

/// The `Set-Cookie` values that store `value`, and forget pieces that an earlier one had. `None` if it is too long.
pub fn set(name: &str, value: &str, attributes: &str, max_age: u64, before: &Fields) -> Option<Vec<String>> {
    if value.len() > PIECES_MAX * PIECE {
        return None;
    }
    let mut all: Vec<String> = Vec::new();
    for (n, piece) in value.as_bytes().chunks(PIECE).enumerate() {
        let piece = String::from_utf8_lossy(piece);
        all.push(format!("{}={piece}; Max-Age={max_age}; {attributes}", piece_name(name, n)));
    }
    let used = all.len();
    all.extend(forget(name, attributes, used, before));
    Some(all)
}

/// The `Set-Cookie` values that make the browser forget a value's pieces from this one on.
pub fn forget(name: &str, attributes: &str, from: usize, before: &Fields) -> Vec<String> {
    (from..PIECES_MAX)
        .map(|n| piece_name(name, n))
        .filter(|name| cookie(before, name).is_some())
        .map(|name| format!("{name}=; Max-Age=0; {attributes}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(secrets: &[&str], place: &str) -> Vault {
        let secrets: Vec<String> = secrets.iter().map(|&s| s.repeat(32)).collect();
        Vault::new(&secrets, place.to_owned()).expect("keys")
    }

    #[test]
    fn what_was_closed_opens_only_unchanged_in_its_place_and_with_a_key_that_is_in_use() {
        let closed = vault(&["a"], "p").close("n", &"secret").expect("it closes");
        let open = |v: &Vault, name: &str, text: &str| v.open::<String>(name, text);
        assert_eq!(open(&vault(&["a"], "p"), "n", &closed).as_deref(), Some("secret"));
        assert_eq!(open(&vault(&["b", "a"], "p"), "n", &closed).as_deref(), Some("secret"), "an older key");
        assert_eq!(open(&vault(&["b"], "p"), "n", &closed), None);
        assert_eq!(open(&vault(&["a"], "q"), "n", &closed), None);
        assert_eq!(open(&vault(&["a"], "p"), "m", &closed), None);
        assert_ne!(vault(&["a"], "p").close("n", &"secret").expect("it closes"), closed);
        for i in 0..closed.len() {
            let mut changed = closed.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(open(&vault(&["a"], "p"), "n", &changed), None, "{i}");
        }
        for junk in ["", "A", "AAAA", "%%%", &"A".repeat(100)] {
            assert_eq!(open(&vault(&["a"], "p"), "n", junk), None);
        }
    }

    #[test]
    fn long_values_take_several_cookies_and_short_ones_forget_the_rest() {
        let mut before = Fields::default();
        for length in [10, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let value: String = (0..length).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
            let set = set("s", &value, "Path=/", 60, &Fields::default()).expect("it fits");
            assert_eq!(set.len(), length.div_ceil(PIECE));
            let line: Vec<&str> = set.iter().map(|c| c.split(';').next().unwrap_or_default()).collect();
            before.clear();
            before.push(b"Cookie", format!("x=1; {}; sx=2", line.join("; ")).as_bytes());
            assert_eq!(get(&before, "s").as_deref(), Some(value.as_str()));
        }
        assert!(set("s", &"a".repeat(PIECES_MAX * PIECE + 1), "", 1, &before).is_none());
        let shorter = set("s", "v", "Path=/", 60, &before).expect("it fits");
        assert_eq!(
            shorter[1..],
            ["s.1=; Max-Age=0; Path=/", "s.2=; Max-Age=0; Path=/", "s.3=; Max-Age=0; Path=/"]
        );
        hide(&mut before, "s");
        assert_eq!(before.text(&names::COOKIE), Some("x=1"));
    }
}
