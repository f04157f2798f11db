//! `jwt`: callers prove who they are with a signed token.

mod cache;
mod explain;
mod extract;
mod keys;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use self::cache::Scope;
use self::extract::{Found, Places};
use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::reply::JSON;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::{Exchange, Identity};
use crate::message::{FieldName, names};
use crate::model::schema::{Field, HEADER, Kind, Record, STR};
use crate::token::Token;
pub use explain::Explanation;

use crate::provider::{Provider, Published, Unavailable, Wanted};
use crate::snapshot::Snapshot;
use crate::token::check::{Denial, Reason, Rules};
use crate::token::claims::{self, Times};
use crate::token::demands;
use crate::token::issuer::{self, Issuer};
use crate::token::trace::{Evidence, Quiet, Trace, shown};

static PLUGIN: Descriptor = Descriptor {
    name: "jwt",
    summary: "let in callers with a token that one of the config's consumers has signed",
    doc: "\
## What it does
Takes a JSON Web Token from the request, finds the `jwt_secrets` credential that the token names, checks algorithm,
signature and times, and makes the credential's consumer the caller.

## Why
Services behind the gateway no longer check tokens, and every later policy knows who calls.

## Example
```yaml
plugins:
  - name: jwt
    config: { claims_to_verify: [exp], key_claim_name: iss }
consumers:
  - username: alice
    jwt_secrets: [{ key: alice, algorithm: HS256, secret: \"${ALICE_SECRET}\" }]
```
`gw token mint --config FILE --consumer alice` prints a token that this lets in.

## Behaviour
Looks into query, cookies and headers; equal tokens in several places are one. The credential is the one whose `key`
equals the claim `key_claim_name`, else the header parameter of that name. Its algorithm must be the token's.

Refuses with 401, `WWW-Authenticate: Bearer` and a JSON body: no token `Unauthorized`; tokens that differ `Multiple
tokens provided`; undecodable `Bad token; ...`; `No mandatory 'iss' in claims`; `Invalid 'iss' in claims`; `No
credentials found for given 'iss'`; `Invalid algorithm`; `Invalid key/secret`; `Invalid signature`; times
`{\"exp\":\"token expired\"}`, `{\"nbf\":\"token not valid yet\"}`, `must be a number`, `exceeds maximum allowed expiration`.
Except for the first, `WWW-Authenticate` says `error=\"invalid_token\"`.

A token whose `iss` is one of `issuers` is judged by that issuer's settings alone: key by `kid`, algorithm, `aud`, `typ`,
`exp` (required), `nbf` and `iat`. Its refusals name the reason in `error_description` too. `X-Credential-Identifier` is
its `sub`.

`audiences`, `required_claims`, `scopes_any` and `scopes_all` narrow whose tokens are let in: those beside `issuers` are
for tokens of credentials, those of an issuer for its own. A good token that lacks scopes is answered 403 `Insufficient
scope` with `error=\"insufficient_scope\"` and the scopes; the anonymous consumer does not stand in for its bearer.
`strict` judges tokens of credentials as issuers' are. `gw token explain` shows every check of a token.

An issuer's published keys (`jwks_uri`, `discovery`) are fetched in the background, once for all workers: when the config
is loaded, before they get old (as `Cache-Control: max-age` says, but every 30 s to 1 h), and when a token names a key that
the set does not have, which whoever sends such tokens cannot bring about more often than every 30 s in the long run.
While the issuer is down the last keys stay in force, for 24 h at most. Redirects are not followed, and a discovery document
leads to a private address only on the host and port that the config names itself. Secrets in a published set are ignored.
A token that nobody can judge, because its issuer's keys did not come within 6 s, is answered 503 with `Retry-After`, never
401. Their state is in the metrics `gw_identity_provider_*`.

With `anonymous` nobody is refused: the request goes on as that consumer (500 if there is none of that name), and
not at all is asked where an earlier authenticator already knows the caller.

Tells the upstream `X-Consumer-ID`, `X-Consumer-Username`, `X-Consumer-Custom-ID`, `X-Credential-Identifier` (the
credential's key), `X-Anonymous-Consumer`, and the headers of `claims_to_headers`. The token is forwarded.

Expiry is looked at only where `claims_to_verify` has `exp` or `maximum_expiration` is set.

Stricter than Kong: an `exp` beyond the year 9999 is out of range, base64url must be canonical, JSON names must be unique and nest at most 32 deep, `crit` is refused,
RSA keys have at least 2048 bits, and what makes Kong answer 500 is a 401.
",
    fields: &[
        Field::new("uri_param_names", Kind::Set(&STR), "Query arguments that may hold the token.")
            .default("[\"jwt\"]"),
        Field::new("cookie_names", Kind::Set(&STR), "Cookies that may hold the token.").default("[]"),
        Field::new(
            "header_names",
            Kind::Set(&HEADER),
            "Request headers that may hold the token, after the word `Bearer`.",
        )
        .default("[\"authorization\"]"),
        Field::new(
            "key_claim_name",
            STR,
            "The claim (or header parameter) that holds the credential's `key`.",
        )
        .default("\"iss\""),
        Field::new(
            "secret_is_base64",
            Kind::Bool,
            "Whether the secrets of HS256, HS384 and HS512 credentials are base64url of the real secret.",
        )
        .default("false"),
        Field::new(
            "claims_to_verify",
            Kind::Set(&Kind::Enum(&["exp", "nbf"])),
            "The times that a token must have and keep. Without `exp`, tokens never expire.",
        ),
        ANONYMOUS,
        Field::new("run_on_preflight", Kind::Bool, "Whether OPTIONS requests need a token too.")
            .default("true"),
        Field::new(
            "maximum_expiration",
            Kind::Num { min: 0.0, max: 31_536_000.0 },
            "The most seconds that `exp` may lie ahead; 0 for no bound.",
        )
        .default("0"),
        Field::new("realm", STR, "What `WWW-Authenticate` names as the realm."),
        Field::new(
            "claims_to_headers",
            Kind::Map(&HEADER),
            "Claims to hand to the upstream: claim name (dots descend into objects) to request header. Texts, \
             numbers and truth values are handed on; clients cannot send these headers.",
        )
        .extension(),
        Field::new(
            "issuers",
            Kind::List(&Kind::Record(issuer::FIELDS)),
            "Issuers whose tokens are let in without a credential of the config, by their published keys.",
        )
        .extension(),
        demands::AUDIENCES.extension(),
        demands::REQUIRED_CLAIMS.extension(),
        demands::SCOPES_ANY.extension(),
        demands::SCOPES_ALL.extension(),
        Field::new(
            "strict",
            Kind::Bool,
            "Whether credentials' tokens must keep RFC 8725 where Kong does not ask for it: `exp` is there, `nbf` and \
             `iat` do not lie ahead, and `typ` is none, `JWT` or `at+jwt`.",
        )
        .default("false")
        .extension(),
        Field::new(
            "max_token_size",
            Kind::Int { min: 64, max: 65_536 },
            "The longest token that is looked at, in bytes.",
        )
        .default("8192")
        .extension(),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};

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

/// Why a caller is not let in.
enum Failure {
    NoToken,
    BadToken(Reason),
    /// Scopes that are asked for.
    Forbidden(Reason, String),
    /// Only other keys can tell.
    Wait(Wanted),
    /// Nobody can tell now whether the token is good.
    NoKeys,
}

impl Failure {
    fn message(text: &str) -> Self {
        Self::BadToken(Reason::Message(text.to_owned()))
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        match denial.scope {
            Some(scope) => Self::Forbidden(denial.reason, scope),
            None => Self::BadToken(denial.reason),
        }
    }
}

impl Policy for Jwt {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let texts = |name| config.strings(name).into_iter().map(|s| s.value).collect::<Vec<_>>();
        let rules = Rules::of(config);
        if rules.maximum_expiration.is_some() && config.get("claims_to_verify").is_some() && !rules.verify_exp
        {
            cx.diags.push(needs_exp(config));
            return None;
        }
        let realm = config.str("realm").map(|r| r.replace('\\', "\\\\").replace('"', "\\\""));
        let (issuers, providers) = keys::issuers(config, cx)?;
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
            challenge: match &realm {
                Some(realm) => format!("Bearer realm=\"{realm}\""),
                None => "Bearer".to_owned(),
            },
            challenge_invalid: match &realm {
                Some(realm) => format!("Bearer realm=\"{realm}\", error=\"invalid_token\""),
                None => "Bearer error=\"invalid_token\"".to_owned(),
            },
            claims_to_headers: identity::claim_headers(config, "claims_to_headers"),
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
        self.claims_to_headers.iter().map(|(_, name)| name.as_str().to_owned()).collect()
    }
}

impl Jwt {
    /// Lets the caller in or not. `waited` tells that keys were waited for, and what came of it.
    fn decide(&self, x: &mut Exchange, waited: Option<Result<(), Unavailable>>) -> Flow {
        match (self.authenticate(x, waited), &self.anonymous) {
            (Ok(verified), _) => {
                identity::set_claim_headers(x, &self.claims_to_headers, verified.identity.claims.as_deref());
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

    fn refuse(&self, failure: &Failure) -> Reply {
        let (reply, challenge) = match failure {
            Failure::Forbidden(reason, scope) => {
                let challenge = self.challenge_invalid.replace("invalid_token", "insufficient_scope");
                let scope = scope.replace(['"', '\\'], "'");
                (Reply::with_body(403, JSON, reason.body()), format!("{challenge}, scope=\"{scope}\""))
            }
            Failure::Wait(_) | Failure::NoKeys => {
                let reply = Reply::exit(503, "The keys of the token's issuer are not available");
                return reply.field(names::RETRY_AFTER, "5");
            }
            Failure::NoToken => (Reply::exit(401, "Unauthorized"), self.challenge.clone()),
            Failure::BadToken(reason) => {
                let mut challenge = self.challenge_invalid.clone();
                // Kong says no more than this; with issuers, which Kong does not have, RFC 6750's reason is added.
                if !self.issuers.is_empty() {
                    let text = reason.text().replace(['"', '\\'], "'");
                    challenge.push_str(&format!(", error_description=\"{text}\""));
                }
                (Reply::with_body(401, JSON, reason.body()), challenge)
            }
        };
        reply.field(names::WWW_AUTHENTICATE, challenge)
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
