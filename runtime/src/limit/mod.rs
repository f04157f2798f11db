//! Rate limits: the arithmetic and the types, apart from where counts are stored. Knows no clock and no network.

pub mod algorithm;
pub mod calendar;
pub mod counter_file;
pub mod headers;
pub mod lease;
pub mod local;
pub mod redis;
mod rule;
pub mod window;

use std::sync::Arc;

pub use self::redis::RedisSettings;
pub use algorithm::{Algorithm, Cell};
pub use calendar::Calendar;
pub use lease::LeaseStore;
pub use local::LocalStore;
pub use rule::{MAX_RULES, Rule, Rules};
pub use window::Period;

/// One decision asked of a shared store.
#[derive(Clone, Debug)]
pub struct Request {
    pub redis: Arc<RedisSettings>,
    pub rules: Arc<Rules>,
    /// What the counters belong to.
    pub key: Key,
    /// How many hits to take; 0 only looks.
    pub hits: u32,
    /// Count in this process and settle with the store every so often, where that was asked for.
    pub sync: Option<Arc<local::SyncStore>>,
    /// What is known without asking, and tokens to spend without asking; only where `sync` is not given.
    pub lease: Option<Arc<LeaseStore>>,
    /// Wall clock of the request in ms since 1970. Only `sync` uses it; otherwise the store's own clock rules.
    pub now_ms: u64,
}

/// One of several decisions on the same request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub request: Request,
    /// Its verdict refuses nothing.
    pub dry_run: bool,
}

/// The stem of a request's counters: `ROUTE:SERVICE:IDENTIFIER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Whose counters are meant.
#[derive(Clone, Copy, Debug)]
pub enum Identifier<'a> {
    /// An id, or what a client sent.
    Text(&'a [u8]),
    Ip(std::net::IpAddr),
}

/// Longer identifiers are replaced by their digest, so that a client cannot fill a store with long keys.
const LONGEST_IDENTIFIER: usize = 128;

impl Key {
    /// The counters of `identifier` within `scope`, which was made by [`scope`].
    pub fn new(scope: &str, identifier: Identifier<'_>) -> Self {
        let mut key = Self::default();
        key.rewrite(scope, identifier);
        key
    }

    /// A key whose text is known, as a store names it.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Makes this the key that [`Key::new`] would make, reusing its memory.
    pub fn rewrite(&mut self, scope: &str, identifier: Identifier<'_>) {
        use std::fmt::Write as _;
        let key = &mut self.0;
        key.clear();
        key.push_str(scope);
        key.push(':');
        let bytes = match identifier {
            Identifier::Ip(ip) => {
                let _ = write!(key, "{ip}");
                return;
            }
            Identifier::Text(bytes) => bytes,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= LONGEST_IDENTIFIER => key.push_str(text),
            _ => {
                key.push_str("sha256=");
                for byte in aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref() {
                    let _ = write!(key, "{byte:02x}");
                }
            }
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// The scope that a plugin's counters belong to: the route and service that it is attached to, not those of a request.
pub fn scope(route_id: Option<&str>, service_id: Option<&str>) -> String {
    format!("{}:{}", route_id.unwrap_or(NIL_UUID), service_id.unwrap_or(NIL_UUID))
}

/// How one limit stood when it was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    pub limit: f64,
    /// What was left before this request; below 0 where refused requests count.
    pub left: f64,
    /// What was asked for; 0 where somebody only looked.
    pub hits: u32,
    /// Whether this limit refuses the request.
    pub exhausted: bool,
    /// Seconds, rounded up: until the window ends by Kong's reckoning; of a bucket, until the next request fits or it is
    /// full.
    pub reset_s: u64,
    /// Seconds, rounded up, until there is more: until the window really ends; of a bucket, until one more request fits.
    pub more_s: u64,
    /// Of a refused request: ms until it would pass if nobody else came. None where it never would, as it asks for more
    /// than the whole limit.
    pub retry_ms: Option<u64>,
    /// Of an admitted request: ms that it must wait for its turn first. Only buckets with a queue make requests wait.
    pub delay_ms: u64,
}

/// How all limits stood, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    usages: [Option<Usage>; MAX_RULES],
    /// Whether the request may pass.
    pub admitted: bool,
}

impl Outcome {
    /// The outcome for `rules` whose states before the request are `cells`, in the same order.
    pub fn of(rules: &Rules, cells: impl Iterator<Item = Cell>, hits: u32, now_ms: u64) -> Self {
        let mut usages = [None; MAX_RULES];
        for ((slot, rule), cell) in usages.iter_mut().zip(&rules.rules).zip(cells) {
            *slot = Some(rule.usage(cell, hits, now_ms, rules.count_rejected));
        }
        let admitted = !usages.iter().flatten().any(|u| u.exhausted);
        Self { usages, admitted }
    }

    /// One for each rule, in the rules' order.
    pub fn usages(&self) -> impl Iterator<Item = &Usage> {
        self.usages.iter().flatten()
    }

    /// How long an admitted request must wait for its turn, in ms.
    pub fn delay_ms(&self) -> u64 {
        self.usages().map(|u| u.delay_ms).max().unwrap_or(0)
    }
}

/// Why a shared store gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Known to be unreachable; nothing was tried.
    #[error("redis is unreachable")]
    Down,
    /// Not within the time that a request may wait.
    #[error("redis did not answer in time")]
    Timeout,
    /// The connection broke while the request waited.
    #[error("the connection to redis broke")]
    Broken,
    /// The store answered with an error: loading, busy, out of memory, read-only, no permission.
    #[error("redis refused the command")]
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_name_the_scope() {
        let ip = Identifier::Ip("2001:db8::1".parse().unwrap());
        assert_eq!(Key::new(&scope(Some("r"), None), ip).as_str(), format!("r:{NIL_UUID}:2001:db8::1"));
        let long = Key::new("r:s", Identifier::Text(&[b'x'; 4000]));
        assert_eq!(long.as_str().len(), "r:s:sha256=".len() + 64);
        assert_ne!(long, Key::new("r:s", Identifier::Text(&[b'x'; 4001])));
        assert!(Key::new("r:s", Identifier::Text(b"\xff")).as_str().starts_with("r:s:sha256="));
        let mut reused = long;
        reused.rewrite("a:b", Identifier::Text(b"c"));
        assert_eq!(reused.as_str(), "a:b:c");
    }
}
