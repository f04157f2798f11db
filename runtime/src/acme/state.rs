//! What there is now: certificates by name, answers to pending challenges, and how ordering goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{self, Ours};
use super::messages::is_token;
use crate::model::acme::Challenge as Kind;

/// The path under which tokens are asked for (RFC 8555 section 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The protocol that who checks a TLS-ALPN-01 challenge speaks, and nobody else.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// Read by handshakes and requests, written by the task that orders.
#[derive(Default)]
pub struct Certificates {
    ours: ArcSwap<HashMap<String, Arc<Ours>>>,
    pending: ArcSwap<Vec<Answer>>,
    reports: Mutex<BTreeMap<String, Report>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ours.load().keys()).finish()
    }
}

/// A challenge that may be checked at any moment. Gateways with a common storage tell each other of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub kind: Kind,
    pub domain: String,
    pub token: String,
    pub key_authorization: String,
}

struct Answer {
    pending: Pending,
    /// For TLS-ALPN-01.
    proof: Option<Arc<CertifiedKey>>,
}

/// How ordering goes for one name.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Unix seconds; 0 before there is a certificate.
    pub not_after: u64,
    /// When the next order is due, in Unix seconds.
    pub next_order: u64,
    pub ordered: u64,
    pub failed: u64,
    /// Why the last order failed, if it did.
    pub last_error: Option<String>,
}

impl Certificates {
    /// The certificate for a name, which is lower-case.
    pub fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.ours.load().get(name).map(|ours| Arc::clone(&ours.key))
    }

    /// The answer to a request with this path, where a pending challenge is behind it.
    pub fn answer(&self, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        let pending = self.pending.load();
        let found =
            pending.iter().map(|a| &a.pending).find(|p| p.kind == Kind::Http01 && p.token == token)?;
        Some(Bytes::from(found.key_authorization.clone()))
    }

    /// Every certificate by name.
    pub fn all(&self) -> Arc<HashMap<String, Arc<Ours>>> {
        self.ours.load_full()
    }

    /// Serves these from now on, and no others.
    pub fn serve(&self, all: HashMap<String, Arc<Ours>>) {
        let mut reports = self.reports();
        for (name, ours) in &all {
            reports.entry(name.clone()).or_default().not_after = ours.not_after;
        }
        drop(reports);
        self.ours.store(Arc::new(all));
    }

    /// Forgets how ordering went for all other names.
    pub fn keep(&self, domains: &[String]) {
        self.reports().retain(|name, _| domains.contains(name));
    }

    /// Answers these challenges from now on, and no others.
    pub fn prove(&self, all: Vec<Pending>) {
        let known = self.pending.load();
        if known.iter().map(|a| &a.pending).eq(&all) {
            return;
        }
        let mut answers = Vec::with_capacity(all.len());
        for pending in all.into_iter().filter(|p| is_token(&p.token)) {
            let known = known.iter().find(|a| a.pending == pending).and_then(|a| a.proof.clone());
            let proof = match pending.kind {
                Kind::Http01 => None,
                // Without a proof the challenge fails, and is told why by who checks it.
                Kind::TlsAlpn01 => {
                    known.or_else(|| certificate::proof(&pending.domain, &pending.key_authorization).ok())
                }
            };
            answers.push(Answer { pending, proof });
        }
        self.pending.store(Arc::new(answers));
    }

    /// Notes how ordering goes for a name.
    pub fn note(&self, domain: &str, change: impl FnOnce(&mut Report)) {
        change(self.reports().entry(domain.to_owned()).or_default());
    }

    /// How ordering goes, by name; names that are no longer asked for are left out.
    pub fn report(&self, domains: &[String]) -> Vec<(String, Report)> {
        let reports = self.reports();
        domains.iter().map(|d| (d.clone(), reports.get(d).cloned().unwrap_or_default())).collect()
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proof_for(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let pending = self.pending.load();
        let found = pending.iter().find(|a| a.proof.is_some() && a.pending.domain == name)?;
        found.proof.clone()
    }
}

/// Shows who checks a TLS-ALPN-01 challenge the proof of the name that it asks for, and nothing else.
#[derive(Debug)]
pub struct Proofs(pub Arc<Certificates>);

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.proof_for(&hello.server_name()?.to_ascii_lowercase())
    }
}

/// Whether a client's hello is that of who checks a challenge: it offers that one protocol alone.
pub fn is_check(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn pending(kind: Kind, token: &str) -> Pending {
        Pending {
            kind,
            domain: "a.test".to_owned(),
            token: token.to_owned(),
            key_authorization: format!("{token}.print"),
        }
    }

    #[test]
    fn only_pending_tokens_are_answered() {
        let all = Certificates::default();
        let path = format!("{WELL_KNOWN}{TOKEN}");
        assert_eq!(all.answer(&path), None);
        all.prove(vec![pending(Kind::Http01, TOKEN), pending(Kind::Http01, "../x")]);
        assert_eq!(all.answer(&path).as_deref(), Some(format!("{TOKEN}.print").as_bytes()));
        for other in ["", "/", WELL_KNOWN, &format!("{path}/"), &format!("{WELL_KNOWN}../x"), "/x"] {
            assert_eq!(all.answer(other), None, "{other}");
        }
        assert!(all.proof_for("a.test").is_none());
        all.prove(Vec::new());
        assert_eq!(all.answer(&path), None);
    }

    #[test]
    fn a_proof_is_made_once_and_for_its_name() {
        let all = Certificates::default();
        all.prove(vec![pending(Kind::TlsAlpn01, TOKEN)]);
        let first = all.proof_for("a.test").unwrap();
        assert!(all.proof_for("b.test").is_none());
        assert_eq!(all.answer(&format!("{WELL_KNOWN}{TOKEN}")), None, "another challenge's token");
        all.prove(vec![pending(Kind::TlsAlpn01, TOKEN), pending(Kind::Http01, TOKEN)]);
        assert!(Arc::ptr_eq(&first, &all.proof_for("a.test").unwrap()));
    }
}
