//! Why a token is let in or not: every check with what it looked at, by the verifier that the gateway runs.

use super::Jwt;
use crate::diag::suggest::nearest;
use crate::provider::{Provider, Published};
use crate::snapshot::Snapshot;
use crate::token::check::{self, Denial};
use crate::token::claims::Times;
use crate::token::trace::{Check, Evidence, Outcome, Report, Trace as _, listed};
use crate::token::{demands, issuer, parse};

/// What came of judging a token.
#[derive(Debug)]
pub struct Explanation {
    /// Every check in its order.
    pub checks: Vec<Check>,
    /// What the gateway refuses the token with; the first failed check's.
    pub denial: Option<Denial>,
}

impl Jwt {
    /// Judges a token as at `now` (seconds since 1970), and goes on after a failure as far as the token can be read.
    pub fn explain(&self, snapshot: &Snapshot, token: &[u8], now: u64) -> Explanation {
        let mut report = Report::default();
        let mut rest = check::CHECKS;
        let judged = self.rules.decode(token, &mut report).and_then(|token| {
            let issuer = self.issuer_of(&token);
            if issuer.is_some() {
                rest = issuer::CHECKS;
            }
            let (times, claims) = (Times::of(&token.claims), token.claims.clone());
            let provider = issuer.and_then(|i| self.providers.get(i)?.as_ref());
            let keys = provider.and_then(|p| p.published());
            if let Some(provider) = provider {
                has_keys(provider, keys.as_deref(), &mut report);
            }
            let verified = self.verify_decoded(snapshot, token, issuer, keys.as_deref(), &mut report);
            // The gateway would not look at the times of a token without a good signature; its owner wants to know.
            let in_time = self.check_times(issuer, &times, now, &mut report);
            let admitted = self.scopes(issuer).check(&claims, &mut report);
            verified.map(|_| ()).and(in_time).and(admitted)
        });
        if let Err(denial) = judged {
            report.failed(denial);
        }
        report.fill(parse::CHECKS);
        report.fill(demands::CHECKS);
        report.fill(rest);
        if report.checks.iter().any(|c| c.name == ISSUER_KEYS && c.outcome == Outcome::Fail) {
            for check in report.checks.iter_mut().filter(|c| NEED_KEYS.contains(&c.name)) {
                *check = Check { outcome: Outcome::Skip, evidence: Evidence::default(), ..check.clone() };
                check.note = "the issuer's keys are not there".into();
            }
        }
        for check in report.checks.iter_mut().filter(|c| c.outcome == Outcome::Fail) {
            check.note = match check.name {
                "credential" => self.known(snapshot, &check.evidence.actual),
                name => advice(name).to_owned(),
            };
        }
        Explanation { checks: report.checks, denial: report.denial }
    }

    /// The places in which the policy looks for a token, in words.
    pub fn places(&self) -> String {
        let mut places: Vec<String> =
            self.places.headers.iter().map(|h| format!("header `{}: Bearer TOKEN`", h.as_str())).collect();
        places.extend(self.places.cookies.iter().map(|c| format!("cookie `{c}`")));
        places.extend(self.places.query.iter().map(|q| format!("query argument `{q}`")));
        if places.is_empty() { "nowhere".into() } else { places.join(", ") }
    }

    /// What the config knows, where the token names something else.
    fn known(&self, snapshot: &Snapshot, named: &str) -> String {
        let mut keys: Vec<&str> = snapshot.credentials.jwt.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let issuers = self.issuers.iter().map(issuer::Issuer::name);
        let named = named.trim_matches('"');
        if let Some(near) = nearest(named, keys.iter().copied().chain(issuers.clone())) {
            return format!("did you mean `{near}`?");
        }
        let keys = if keys.is_empty() { "none".into() } else { listed(keys.iter().copied()) };
        match self.issuers.is_empty() {
            true => format!("the config has the keys {keys}"),
            false => format!("the config has the issuers {}, and the keys {keys}", listed(issuers)),
        }
    }
}

/// Whether the keys that an issuer publishes are known.
pub const ISSUER_KEYS: &str = "issuer keys";
/// What cannot be said without them.
const NEED_KEYS: [&str; 2] = ["key", "signature"];

fn has_keys(provider: &Provider, keys: Option<&Published>, report: &mut Report) {
    let expected = format!("a key set, by {}", provider.source.url());
    let actual = match (keys, provider.last_error()) {
        (Some(published), _) => published.keys.described(),
        (None, Some(error)) => error,
        (None, None) => "not fetched".to_owned(),
    };
    report.observe(ISSUER_KEYS, keys.is_some(), || Evidence::new(actual, expected));
    if keys.is_none() {
        report.failed(Denial::new("The keys of the token's issuer are not available"));
    }
}

/// What to do about a check that failed.
fn advice(check: &str) -> &'static str {
    match check {
        "size" => "ask for fewer claims, or raise `max_token_size`",
        "parts" => {
            "a signed token is HEADER.PAYLOAD.SIGNATURE; five parts are an encrypted one, which gw does not read"
        }
        "header" | "payload" => "the token was cut or changed on its way; copy it whole",
        "signature encoding" => {
            "the token was cut or changed on its way, or not made by a conforming library"
        }
        "payload kind" | "claims" => "claims are an object, such as {\"iss\": ...}",
        "alg" => "sign with one of these algorithms; unsigned tokens are never let in",
        "crit" => "have the issuer leave `crit` out",
        "key claim" => "put the credential's `key` there, or change the plugin's `key_claim_name`",
        "algorithm" => "sign with the expected algorithm, or change what the config expects",
        ISSUER_KEYS => {
            "nobody can tell whether the token is good; see that this machine reaches the URL, and what is there"
        }
        "key" | "kid" => "the issuer signs with a key that this set does not have; bring the set up to date",
        "signature" => "it was signed with another key or secret, or changed afterwards",
        "exp" => "ask for a new token; if it should still be good, compare the clocks",
        "nbf" | "iat" => "wait, or compare the clocks",
        "maximum expiration" => "ask for a token with a shorter life",
        "aud" => "ask the issuer for a token for this API, or add the audience to the config",
        "at+jwt claims" => {
            "have the issuer add it, as RFC 9068 asks of access tokens, or mark the token as `JWT`"
        }
        "typ" => "send the access token, not an ID or logout token",
        "required claims" => "ask the issuer for a token that says so, or change `required_claims`",
        "scope" => "ask the issuer for a token with these scopes; the caller is known, and may not do this",
        "consumer" => "add the consumer, or remove `consumer_claim`",
        _ => "",
    }
}
