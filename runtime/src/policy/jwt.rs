//! `jwt`: callers prove who they are with a signed token.

mod cache;
mod explain;
mod extract;
mod keys;
mod plugin;
mod refusal;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use self::cache::Scope;
use self::extract::{Found, Places};
use self::refusal::Failure;
use super::identity::{self, Anonymous};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy};
use crate::diag::{Diagnostic, codes};
use crate::exchange::{Exchange, Identity};
use crate::message::FieldName;
use crate::model::schema::Record;
use crate::provider::{Provider, Published, Unavailable};
use crate::snapshot::Snapshot;
use crate::token::Token;
use crate::token::check::{Denial, Rules};
use crate::token::claims::{self, Times};
use crate::token::demands;
use crate::token::issuer::Issuer;
use crate::token::trace::{Evidence, Quiet, Trace, shown};
pub use explain::{Explanation, ISSUER_KEYS};

/// See the module.
pub struct Jwt {
    /// Sets this policy's entries in the workers' caches apart.
    id: u64,
    places: Places,
    rules: Rules,
    anonymous: Option<Anonymous>,
    run_on_preflight: bool,
    /// `WWW-Authenticate` where no token came, and where a bad one did.
    challenge: String,
    challenge_invalid: String,
    claims_to_headers: Vec<(String, FieldName)>,
    issuers: Vec<Issuer>,
    /// Of each issuer, what of its tokens' claims upstreams are told beside `claims_to_headers`.
    issuer_headers: Vec<Vec<(String, FieldName)>>,
    /// Of those issuers that publish their keys.
    providers: Vec<Option<Arc<Provider>>>,
}

/// What a good signature established.
#[derive(Debug, Default)]
struct Verified {
    identity: Identity,
    times: Times,
    /// Index of the issuer that the token is from.
    issuer: Option<usize>,
    /// The token is good, but its bearer may not go on.
    forbidden: Option<Denial>,
    /// Generation of the published keys that it was judged by.
    keys: u64,
}

impl Policy for Jwt {
    const PLUGIN: &'static Descriptor = &plugin::PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let texts = |name| config.strings(name).into_iter().map(|s| s.value).collect::<Vec<_>>();
        let rules = Rules::of(config);
        if rules.maximum_expiration.is_some() && config.get("claims_to_verify").is_some() && !rules.verify_exp
        {
            cx.diags.push(needs_exp(config));
            return None;
        }
        let (issuers, providers) = keys::issuers(config, cx)?;
        let of_issuer = |record| identity::claim_headers(record, "claims_to_headers");
        let challenge = identity::challenge("Bearer", config.str("realm"));
        Some(Self {
            id: next_id(),
            places: Places {
                query: texts("uri_param_names"),
                cookies: texts("cookie_names"),
                headers: texts("header_names").iter().map(|n| FieldName::new(n)).collect(),
            },
            rules,
            anonymous: Anonymous::of(config),
            run_on_preflight: config.bool_opt("run_on_preflight").unwrap_or(true),
            challenge_invalid: identity::with_params(&challenge, "error=\"invalid_token\""),
            challenge,
            claims_to_headers: identity::claim_headers(config, "claims_to_headers"),
            issuer_headers: config.records("issuers").map(of_issuer).collect(),
            issuers,
            providers,
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if !self.run_on_preflight && x.request.method == "OPTIONS" {
            return Flow::Next;
        }
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        self.decide(x, None)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Keys(came) => self.decide(x, Some(came)),
            _ => Flow::Reply(self.refuse(&Failure::NoKeys)),
        }
    }

    fn sets_headers(&self) -> Vec<String> {
        let all = self.claims_to_headers.iter().chain(self.issuer_headers.iter().flatten());
        all.map(|(_, name)| name.as_str().to_owned()).collect()
    }
}

impl Jwt {
    /// Lets the caller in or not. `waited` tells that keys were waited for, and what came of it.
    fn decide(&self, x: &mut Exchange, waited: Option<Result<(), Unavailable>>) -> Flow {
        match (self.authenticate(x, waited), &self.anonymous) {
            (Ok(verified), _) => {
                let claims = verified.identity.claims.as_deref();
                identity::set_claim_headers(x, &self.claims_to_headers, claims);
                if let Some(own) = verified.issuer.and_then(|i| self.issuer_headers.get(i)) {
                    identity::set_claim_headers(x, own, claims);
                }
                identity::set_identity(x, verified.identity.clone());
                Flow::Next
            }
            // Who the caller is was proven, so the anonymous consumer is not meant.
            (Err(failure @ Failure::Forbidden(..)), _) => Flow::Reply(self.refuse(&failure)),
            (Err(Failure::Wait(wanted)), _) => Flow::Await(Effect::Keys(wanted)),
            // Whoever may be somebody is not made nobody for want of keys.
            (Err(failure @ Failure::NoKeys), _) => Flow::Reply(self.refuse(&failure)),
            (Err(_), Some(anonymous)) => {
                identity::set_claim_headers(x, &self.claims_to_headers, None);
                anonymous.apply(x)
            }
            (Err(failure), None) => Flow::Reply(self.refuse(&failure)),
        }
    }

    fn authenticate(
        &self,
        x: &Exchange,
        waited: Option<Result<(), Unavailable>>,
    ) -> Result<Rc<Verified>, Failure> {
        let token = match self.places.search(&x.request) {
            Found::One(token) => token,
            Found::Nothing => return Err(Failure::NoToken),
            Found::Unrecognizable => return Err(Failure::message("Unrecognizable token")),
            Found::Several => return Err(Failure::message("Multiple tokens provided")),
        };
        let scope = Scope { policy: self.id, snapshot: x.snapshot.generation };
        let known = cache::with(|c| c.get(scope, &token)).filter(|v| self.has_keys_of(v));
        let verified = match known {
            Some(verified) => verified,
            None => {
                let verified = Rc::new(self.verify(&x.snapshot, &token, waited)?);
                cache::with(|c| c.put(scope, &token, Rc::clone(&verified)));
                verified
            }
        };
        let now = x.now.unix_ms / 1000;
        self.check_times(verified.issuer, &verified.times, now, &mut Quiet)?;
        match &verified.forbidden {
            Some(denial) => Err(denial.clone().into()),
            None => Ok(verified),
        }
    }

    fn verify(
        &self,
        snapshot: &Snapshot,
        token: &[u8],
        waited: Option<Result<(), Unavailable>>,
    ) -> Result<Verified, Failure> {
        let token = self.rules.decode(token, &mut Quiet)?;
        let issuer = self.issuer_of(&token);
        let (keys, generation) = self.keys_for(issuer, &token, waited)?;
        let mut verified = self.verify_decoded(snapshot, token, issuer, keys.as_deref(), &mut Quiet)?;
        verified.keys = generation;
        Ok(verified)
    }

    /// Everything about a decoded token that does not depend on the time.
    fn verify_decoded(
        &self,
        snapshot: &Snapshot,
        token: Token<'_>,
        issuer: Option<usize>,
        keys: Option<&Published>,
        trace: &mut impl Trace,
    ) -> Result<Verified, Denial> {
        if let Some(i) = issuer {
            let times = match keys {
                Some(published) => self.issuers[i].check_with(&token, &published.keys, trace)?,
                None => self.issuers[i].check(&token, trace)?,
            };
            let forbidden = self.scopes(issuer).check(&token.claims, &mut Quiet).err();
            let identity = of_issuer(&self.issuers[i], snapshot, token.claims, trace)?;
            return Ok(Verified { identity, times, issuer, forbidden, keys: 0 });
        }
        let find = |key: &str| snapshot.credentials.jwt.get(key).map(|c| (c, &c.data));
        let signed = self.rules.check_parsed(token, find, trace)?;
        let forbidden = self.scopes(None).check(&signed.claims, &mut Quiet).err();
        let claims = Some(Rc::new(signed.claims));
        let identity = identity::of_credential(signed.credential, signed.key, claims);
        Ok(Verified { identity, times: signed.times, issuer: None, forbidden, keys: 0 })
    }

    /// The scopes that bearers must have.
    fn scopes(&self, issuer: Option<usize>) -> &demands::Scopes {
        issuer.and_then(|i| self.issuers.get(i)).map_or(&self.rules.demands.scopes, |i| &i.demands.scopes)
    }

    /// What depends on the time: `now` in seconds since 1970.
    fn check_times(
        &self,
        issuer: Option<usize>,
        times: &Times,
        now: u64,
        trace: &mut impl Trace,
    ) -> Result<(), Denial> {
        match issuer.and_then(|i| self.issuers.get(i)) {
            Some(issuer) => issuer.check_times(times, now, trace),
            None => self.rules.check_times(times, now, trace),
        }
    }

    /// The issuer that judges a token. Several entries may describe one issuer, each with algorithms of its own.
    fn issuer_of(&self, token: &Token<'_>) -> Option<usize> {
        let takes = |issuer: &Issuer| issuer.is_of(token) && issuer.takes(token.algorithm);
        let best = self.issuers.iter().position(takes);
        best.or_else(|| self.issuers.iter().position(|issuer| issuer.is_of(token)))
    }
}

/// Who the bearer of an issuer's token is.
fn of_issuer(
    issuer: &Issuer,
    snapshot: &Snapshot,
    claims: Value,
    trace: &mut impl Trace,
) -> Result<Identity, Denial> {
    let text = |name: &str| claims::find(&claims, name).and_then(Value::as_str);
    let consumer = match &issuer.consumer_claim {
        Some(claim) => {
            let consumer = text(claim).and_then(|name| snapshot.consumer_by_name(name));
            let missing = || Denial::new(format!("No consumer found for given '{claim}'"));
            let evidence = || {
                let expected = format!("in `{claim}` the username or id of a consumer");
                Evidence::new(shown(claims::find(&claims, claim)), expected)
            };
            trace.check("consumer", consumer.is_some(), evidence, missing)?;
            consumer
        }
        None => {
            trace.skip("consumer", || "the issuer's settings have no `consumer_claim`".into());
            None
        }
    };
    let subject =
        text("sub").filter(|s| !s.is_empty() && !s.chars().any(char::is_control)).map(str::to_owned);
    let credential_id = subject.as_ref().and_then(|sub| Some(format!("{} {sub}", text("iss")?)));
    Ok(Identity {
        consumer,
        credential: subject,
        credential_id,
        claims: Some(Rc::new(claims)),
        ..Identity::default()
    })
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn needs_exp(config: &Record) -> Diagnostic {
    Diagnostic::new(
        &codes::MISSING_ALTERNATIVE,
        config.span_of("maximum_expiration"),
        "`maximum_expiration` needs `exp` in `claims_to_verify`",
    )
    .label("bounds `exp`")
    .also(config.span_of("claims_to_verify"), "does not have `exp`")
    .help("add `exp` to `claims_to_verify`")
    .note("failed conditional validation given value of field 'config.maximum_expiration'")
}

#[cfg(test)]
mod tests;
