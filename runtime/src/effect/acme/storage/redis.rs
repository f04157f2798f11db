//! A Redis that several gateways share: one of them orders, all of them serve and answer challenges.
//!
//! Keys begin with `gw:acme:{SERVER}:`. `certificate:NAME` and `account` are as a folder's files, `lock:NAME` is who orders,
//! `version` counts certificates, `pending` holds challenges by name. The braces keep all keys of a server in one slot of a
//! cluster.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use redis::{Value, cmd};
use serde_json::json;

use super::{LOCK, News, Said};
use crate::acme::account::base64url;
use crate::acme::state::Pending;
use crate::effect::redis::store::{Store, text};
use crate::limit::{RedisSettings, StoreError};
use crate::model::acme::Challenge;

/// Gives the lock back, or lets it last for a while longer, but only if it is still ours.
const UNLOCK: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
    if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end \
    redis.call('SET', KEYS[1], 'rest', 'PX', ARGV[2]) return 1";
/// Keeps a certificate and says so.
const KEEP: &str = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])";
const LOOK: &str = "return {redis.call('GET', KEYS[1]), redis.call('HVALS', KEYS[2])}";
const PUBLISH: &str =
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

/// Most challenges of others that are taken.
const PENDING_MAX: usize = 1000;

/// One ACME server's part of a Redis.
pub struct Shared {
    store: Store,
    prefix: String,
    /// The last version of certificates that was seen; `None` before the first look.
    version: Cell<Option<u64>>,
}

impl Shared {
    /// Connects in the background.
    pub fn open(settings: &Arc<RedisSettings>, place: &str) -> Self {
        let prefix = format!("gw:acme:{{{place}}}:");
        Self { store: Store::open(settings), prefix, version: Cell::new(None) }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub async fn look(&self) -> Said<News> {
        let keys = [self.key("version"), self.key("pending")];
        let said = self.store.eval(LOOK, &[&keys[0], &keys[1]], &[]).await.map_err(told)?;
        let Value::Array(said) = said else { return Err("redis gave an odd answer".to_owned()) };
        let version = said.first().and_then(text).and_then(|t| t.parse().ok()).unwrap_or(0);
        let certificates = self.version.replace(Some(version)) != Some(version);
        let pending = match said.get(1) {
            Some(Value::Array(all)) => {
                all.iter().filter_map(text).filter_map(|t| read(&t)).take(PENDING_MAX).collect()
            }
            _ => Vec::new(),
        };
        Ok(News { certificates, pending: Some(pending) })
    }

    pub async fn read(&self, name: &str) -> Said<Option<String>> {
        let mut get = cmd("GET");
        let key = self.key(name);
        get.arg(&key);
        self.store.ask(&key, get).await.map(|v| text(&v)).map_err(told)
    }

    pub async fn write(&self, name: &str, value: &str) -> Said<()> {
        let mut set = cmd("SET");
        let key = self.key(name);
        set.arg(&key).arg(value);
        self.store.ask(&key, set).await.map(drop).map_err(told)
    }

    pub async fn keep_certificate(&self, domain: &str, pem: &str) -> Said<()> {
        let keys = [self.key(&format!("certificate:{domain}")), self.key("version")];
        self.store.eval(KEEP, &[&keys[0], &keys[1]], &[pem]).await.map(drop).map_err(told)
    }

    /// A token that only its holder knows, so that nobody gives back the lock of another.
    pub async fn lock(&self, domain: &str) -> Said<Option<String>> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| "there is no randomness".to_owned())?;
        let token = base64url(&bytes);
        let mut set = cmd("SET");
        let key = self.key(&format!("lock:{domain}"));
        set.arg(&key).arg(&token);
        set.arg("NX").arg("PX").arg(LOCK.as_millis() as u64);
        let got = self.store.ask(&key, set).await.map_err(told)?;
        Ok((got != Value::Nil).then_some(token))
    }

    pub async fn unlock(&self, domain: &str, token: &str, rest: Option<Duration>) -> Said<()> {
        let rest = rest.map_or(0, |r| r.as_millis().max(1)).to_string();
        let key = self.key(&format!("lock:{domain}"));
        self.store.eval(UNLOCK, &[&key], &[token, &rest]).await.map(drop).map_err(told)
    }

    pub async fn publish(&self, pending: &Pending) -> Said<()> {
        let life = LOCK.as_millis().to_string();
        let text = write(pending);
        let args = [pending.domain.as_str(), &text, &life];
        self.store.eval(PUBLISH, &[&self.key("pending")], &args).await.map(drop).map_err(told)
    }

    pub async fn withdraw(&self, domain: &str) -> Said<()> {
        let mut del = cmd("HDEL");
        let key = self.key("pending");
        del.arg(&key).arg(domain);
        self.store.ask(&key, del).await.map(drop).map_err(told)
    }
}

fn told(error: StoreError) -> String {
    error.to_string()
}

fn write(pending: &Pending) -> String {
    let Pending { kind, domain, token, key_authorization } = pending;
    let answer = key_authorization;
    json!({ "type": kind.name(), "name": domain, "token": token, "answer": answer }).to_string()
}

fn read(text: &str) -> Option<Pending> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let part = |name: &str| document[name].as_str().map(str::to_owned);
    let kinds = [Challenge::Http01, Challenge::TlsAlpn01];
    let kind = kinds.into_iter().find(|k| document["type"] == k.name())?;
    Some(Pending { kind, domain: part("name")?, token: part("token")?, key_authorization: part("answer")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_told_to_others_whole() {
        for kind in [Challenge::Http01, Challenge::TlsAlpn01] {
            let [domain, token, key_authorization] = ["a.test", "t", "t.\"x"].map(str::to_owned);
            let pending = Pending { kind, domain, token, key_authorization };
            assert_eq!(read(&write(&pending)), Some(pending));
        }
        for bad in ["", "{}", "[]", r#"{"type":"dns-01","name":"a","token":"b","answer":"c"}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
