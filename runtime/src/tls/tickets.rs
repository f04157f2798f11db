//! Session tickets under keys that several gateways share: a client that was with one resumes its session with another.
//!
//! Keys come from files as nginx's `ssl_session_ticket_key` and HAProxy's `tls-ticket-keys` take them. The first seals
//! tickets, the others still open those of before. What is in a file is not used itself: keys are derived from it and
//! from the rules about client certificates, so that a ticket from under other rules spares no client the check.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ::aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::server::ProducesTickets;

use super::invalid;
use crate::clock;

/// Seconds for which a ticket is good, whatever its key: what rustls gives its own.
const LIFETIME: u32 = 12 * 60 * 60;
/// How far clocks of gateways may be apart, in seconds.
const SKEW: u64 = 60;
/// Most keys, and longest file.
const KEYS_MAX: usize = 64;
const FILE_MAX: u64 = 64 * 1024;
/// Longest ticket that is looked at.
const TICKET_MAX: usize = 64 * 1024;
const NAME_LEN: usize = 16;
const TIME_LEN: usize = 8;

/// One key's secret bytes as a file holds them.
pub type Secret = Vec<u8>;

/// The secrets of these files, in order.
pub fn read(files: &[PathBuf]) -> io::Result<Vec<Secret>> {
    let mut all = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let length = std::fs::metadata(path).map_err(|e| invalid(&name, e))?.len();
        if length > FILE_MAX {
            return Err(invalid(&name, "a file of ticket keys is far shorter"));
        }
        let bytes = std::fs::read(path).map_err(|e| invalid(&name, e))?;
        all.extend(secrets(&bytes).ok_or_else(|| {
            invalid(&name, "expected 48 or 80 random bytes, or lines of so many in base64: `openssl rand 80`")
        })?);
    }
    if all.len() > KEYS_MAX {
        return Err(invalid("`ticket_keys`", format!("{} keys, and {KEYS_MAX} at most", all.len())));
    }
    Ok(all)
}

/// 48 or 80 bytes as they are, or lines of base64 of so many.
fn secrets(bytes: &[u8]) -> Option<Vec<Secret>> {
    let fits = |secret: &Secret| matches!(secret.len(), 48 | 80);
    if matches!(bytes.len(), 48 | 80) {
        return Some(vec![bytes.to_vec()]);
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let all: Option<Vec<Secret>> = lines.map(|l| STANDARD.decode(l).ok().filter(fits)).collect();
    all.filter(|all| !all.is_empty())
}

struct Key {
    /// Which key it is; stands in front of the ticket.
    name: [u8; NAME_LEN],
    sealing: LessSafeKey,
}

impl Key {
    fn derive(secret: &[u8], rules: &[u8]) -> Option<Self> {
        let of = |purpose: &[u8]| {
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
            context.update(purpose);
            context.update(rules);
            context.sign()
        };
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(of(b"gw session ticket: name\0").as_ref().get(..NAME_LEN)?);
        let unbound = UnboundKey::new(&AES_256_GCM, of(b"gw session ticket: key\0").as_ref()).ok()?;
        Some(Self { name, sealing: LessSafeKey::new(unbound) })
    }
}

/// Makes and opens tickets: name of the key, nonce, then time and session sealed with AES-256-GCM.
pub struct SharedTickets(Vec<Key>);

impl SharedTickets {
    /// For these secrets, of which there is at least one, and these rules about client certificates.
    pub fn shared(secrets: &[Secret], rules: &[u8]) -> io::Result<Arc<dyn ProducesTickets>> {
        let keys: Option<Vec<Key>> = secrets.iter().map(|s| Key::derive(s, rules)).collect();
        match keys.filter(|keys| !keys.is_empty()) {
            Some(keys) => Ok(Arc::new(Self(keys))),
            None => Err(invalid("`ticket_keys`", "no key can be made of them")),
        }
    }

    fn seal(&self, session: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = now.to_be_bytes().to_vec();
        sealed.extend_from_slice(session);
        let sealing = Nonce::assume_unique_for_key(nonce);
        key.sealing.seal_in_place_append_tag(sealing, Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_MAX {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let key = self.0.iter().find(|k| k.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.sealing.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        let (time, session) = plain.split_at_checked(TIME_LEN)?;
        let made = u64::from_be_bytes(time.try_into().ok()?);
        let good = made <= now.saturating_add(SKEW) && now <= made.saturating_add(u64::from(LIFETIME));
        good.then(|| session.to_vec())
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::unix_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, clock::unix_s())
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the keys.
        f.debug_struct("SharedTickets").field("keys", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(secrets: &[u8], rules: &[u8]) -> SharedTickets {
        let secret = |byte: &u8| vec![*byte; 80];
        SharedTickets(secrets.iter().filter_map(|s| Key::derive(&secret(s), rules)).collect())
    }

    #[test]
    fn tickets_open_where_their_key_is_and_the_rules_are_the_same() {
        let ticket = tickets(&[1, 2], b"none").seal(b"session", 1000).unwrap();
        for (secrets, rules, now, want) in [
            (&[1, 2][..], "none", 1000, true),
            (&[1], "none", 1000, true),
            // Rotated: the key that sealed it only opens now.
            (&[3, 1], "none", 1000, true),
            (&[2, 3], "none", 1000, false),
            (&[1, 2], "required", 1000, false),
            (&[], "none", 1000, false),
            (&[1], "none", 1000 + u64::from(LIFETIME), true),
            (&[1], "none", 1001 + u64::from(LIFETIME), false),
            (&[1], "none", 940, true),
            (&[1], "none", 939, false),
        ] {
            let opened = tickets(secrets, rules.as_bytes()).open(&ticket, now);
            assert_eq!(opened.as_deref(), want.then_some(&b"session"[..]), "{secrets:?} {rules} {now}");
        }
        assert_ne!(ticket, tickets(&[1, 2], b"none").seal(b"session", 1000).unwrap(), "no two are alike");
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let all = tickets(&[1], b"");
        let ticket = all.seal(b"session", 0).unwrap();
        for i in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[i] ^= 1;
            assert_eq!(all.open(&changed, 0), None, "byte {i}");
            assert_eq!(all.open(&ticket[..i], 0), None, "cut at {i}");
        }
        assert_eq!(all.open(&vec![0; TICKET_MAX + 1], 0), None);
    }

    #[test]
    fn files_hold_bytes_or_lines_of_base64() {
        let line = |n: usize| STANDARD.encode(vec![7; n]);
        let check = |bytes: &[u8], want: &[usize]| {
            let got: Vec<_> = secrets(bytes).iter().flatten().map(Vec::len).collect();
            assert_eq!(got, want, "{bytes:?}");
        };
        check(&[0xff; 48], &[48]);
        check(&[0; 80], &[80]);
        check(format!("{}\n\n{}\n", line(80), line(48)).as_bytes(), &[80, 48]);
        check(format!("{}\n{}\n", line(80), line(47)).as_bytes(), &[]);
        check(b"", &[]);
        check(&[0xff; 47], &[]);
        check(b"not a key\n", &[]);
    }
}
