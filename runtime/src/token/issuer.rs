//! Tokens of an issuer who publishes keys (OpenID Connect, RFC 9068). Unlike Kong's own rules these follow RFC 8725 in
//! full: one issuer, named audiences, chosen algorithms, an end that must be given.

use serde_json::Value;

use super::check::{Denial, Reason, signature_evidence};
use super::claims::{END_OF_TIME, Moment, Times};
use super::demands::{self, Demands};
use super::jwk::JwkSet;
use super::trace::{Evidence, Trace, listed, shown};
use super::{Algorithm, SecretForm, Token};
use crate::model::schema::{Field, HEADER, Kind, Record, Rule, TEXT};
use crate::provider::Source;

/// Algorithms that a config may choose from.
const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256",
    "HS384", "HS512",
];

/// Names of the checks by an issuer's settings, in their order. Those of decoding come before
/// ([`super::parse::CHECKS`]).
pub const CHECKS: &[&str] =
    &["issuer", "algorithm", "kid", "key", "signature", "consumer", "exp", "nbf", "iat", "scope"];

/// The fields of an issuer in a config.
pub const FIELDS: &[Field] = &[
    Field::new("issuer", TEXT, "The issuer, exactly as the claim `iss` has it.").required(),
    Field::new(
        "jwks",
        TEXT,
        "The issuer's key set (RFC 7517), as JSON text. Exactly one of `jwks`, `jwks_uri` and `discovery` is given.",
    )
    // It may hold secrets, for HS256 and its like.
    .secret(),
    Field::new(
        "jwks_uri",
        Kind::Str(Rule::Url),
        "Where the issuer publishes its key set. It is fetched in the background and kept up to date.",
    ),
    Field::new(
        "discovery",
        Kind::Bool,
        "Whether the issuer's metadata, at its name with `/.well-known/openid-configuration`, says where its key set is.",
    ),
    demands::AUDIENCES,
    demands::REQUIRED_CLAIMS,
    demands::SCOPES_ANY,
    demands::SCOPES_ALL,
    Field::new("algorithms", Kind::Set(&Kind::Enum(ALGORITHMS)), "The algorithms that tokens may have.")
        .default("[\"RS256\", \"ES256\"]"),
    Field::new("leeway_seconds", Kind::Int { min: 0, max: 60 }, "Seconds that clocks may differ.")
        .default("30"),
    Field::new(
        "claims_to_headers",
        Kind::Map(&HEADER),
        "Claims of this issuer's tokens to hand to the upstream, beside those of the plugin: claim name (dots descend into \
         objects) to request header. Clients cannot send these headers.",
    ),
    Field::new(
        "consumer_claim",
        TEXT,
        "The claim that has a consumer's username or id. The token is refused where there is no such consumer; \
         without this setting its bearer is nobody's consumer.",
    ),
];

/// One issuer, prepared.
#[derive(Clone, Debug)]
pub struct Issuer {
    name: String,
    /// Of the config; empty where they are published.
    keys: JwkSet,
    /// Where they are published, if they are.
    source: Option<Source>,
    pub demands: Demands,
    algorithms: Vec<Algorithm>,
    leeway: u64,
    /// See [`FIELDS`].
    pub consumer_claim: Option<String>,
}

impl Issuer {
    /// The issuer that a config describes.
    pub fn of(record: &Record) -> Result<Self, String> {
        let texts = |name| record.strings(name).into_iter().map(|s| s.value);
        Ok(Self {
            name: record.str("issuer").unwrap_or_default().to_owned(),
            keys: match record.str("jwks") {
                Some(jwks) => JwkSet::parse(jwks.as_bytes())?,
                None => JwkSet::default(),
            },
            source: source(record),
            demands: Demands::of(record, true),
            algorithms: texts("algorithms").filter_map(|name| Algorithm::parse(&name)).collect(),
            leeway: record.int("leeway_seconds").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            consumer_claim: record.str("consumer_claim").map(str::to_owned),
        })
    }

    /// An issuer for a tool's question: all of `algorithms`, and no leeway.
    pub fn for_tool(name: String, keys: JwkSet, audiences: Vec<String>) -> Self {
        let algorithms = Algorithm::ALL.to_vec();
        let demands = Demands { access_token: true, audiences, ..Demands::default() };
        Self { name, keys, source: None, demands, algorithms, leeway: 0, consumer_claim: None }
    }

    /// The issuer as the claim `iss` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a token says that it is from this issuer.
    pub fn is_of(&self, token: &Token<'_>) -> bool {
        token.claims.get("iss").is_some_and(|iss| *iss == *self.name)
    }

    /// Whether tokens of this algorithm are taken.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Where the keys are published, unless the config has them.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Whether a published set lacks the key of a token that is right as far as this can be said without it. A newer
    /// set may have it.
    pub fn lacks_key(&self, token: &Token<'_>, keys: &JwkSet) -> bool {
        if !demands::typ_is_access(token.header.get("typ")) || !self.takes(token.algorithm) {
            return false;
        }
        let good = |key: &super::Key| key.verify(SecretForm::Plain, token.message, &token.signature).is_ok();
        match token.header.get("kid") {
            Some(Value::String(kid)) => keys.find(Some(kid), token.algorithm).is_none(),
            Some(_) => false,
            // Which key is meant shows only in the signature.
            None => !keys.find(None, token.algorithm).is_some_and(good),
        }
    }

    /// [`Issuer::check_with`] the keys of the config.
    pub fn check(&self, token: &Token<'_>, trace: &mut impl Trace) -> Result<Times, Denial> {
        self.check_with(token, &self.keys, trace)
    }

    /// Everything about a token that does not depend on the time.
    pub fn check_with(
        &self,
        token: &Token<'_>,
        keys: &JwkSet,
        trace: &mut impl Trace,
    ) -> Result<Times, Denial> {
        let evidence = || Evidence::new(shown(token.claims.get("iss")), format!("{:?}", self.name));
        trace.check("issuer", self.is_of(token), evidence, || Denial::new("other issuer"))?;
        let evidence = || {
            let taken = listed(self.algorithms.iter().map(|a| a.name()));
            Evidence::new(token.algorithm.name(), format!("one of `algorithms`: {taken}"))
        };
        let denial = || Denial::new("Invalid algorithm");
        trace.check("algorithm", self.takes(token.algorithm), evidence, denial)?;
        Self::check_key(token, keys, trace)?;
        self.demands.check(&token.header, &token.claims, trace)?;
        Ok(Times::of(&token.claims))
    }

    /// The key that the token names, and its signature.
    fn check_key(token: &Token<'_>, keys: &JwkSet, trace: &mut impl Trace) -> Result<(), Denial> {
        let kid = token.header.get("kid");
        let evidence = || Evidence::new(shown(kid), "a text, or absent");
        let sound = matches!(kid, None | Some(Value::String(_)));
        trace.check("kid", sound, evidence, || Denial::new("Bad token; invalid kid"))?;
        let key = match kid {
            _ if !sound => None,
            kid => keys.find(kid.and_then(Value::as_str), token.algorithm),
        };
        let evidence = || {
            let asked = format!("`kid` {} and {}", shown(kid), token.algorithm);
            Evidence::new(asked, format!("exactly one key of the set: {}", keys.described()))
        };
        let denial = || Denial::new("No key found for the token's 'kid' and 'alg'");
        trace.check("key", key.is_some(), evidence, denial)?;
        let Some(key) = key else {
            trace.skip("signature", || "there is no key to check it with".into());
            return Ok(());
        };
        let good = key.verify(SecretForm::Plain, token.message, &token.signature).is_ok();
        let evidence = || signature_evidence(good, token);
        trace.check("signature", good, evidence, || Denial::new("Invalid signature"))
    }

    /// What depends on the time: `now` in seconds since 1970.
    pub fn check_times(&self, times: &Times, now: u64, trace: &mut impl Trace) -> Result<(), Denial> {
        let late = now.saturating_add(self.leeway) as f64;
        let early = now.saturating_sub(self.leeway) as f64;
        let mut errors = Vec::new();
        let leeway = self.leeway;
        let exp = match times.exp {
            Moment::At(exp) if exp > END_OF_TIME => Some("out of range"),
            Moment::At(exp) if exp <= early => Some("token expired"),
            Moment::At(_) => None,
            Moment::Missing | Moment::Malformed => Some("must be a number"),
        };
        let at = |moment: f64| Moment::At(moment).shown(now);
        trace.observe("exp", exp.is_none(), || {
            Evidence::new(times.exp.shown(now), format!("after {}, {leeway} s of leeway included", at(early)))
        });
        errors.extend(exp.map(|e| ("exp", e)));
        for (claim, moment) in [("nbf", times.nbf), ("iat", times.iat)] {
            let error = match moment {
                Moment::At(at) if at > late => Some("token not valid yet"),
                Moment::At(_) | Moment::Missing => None,
                Moment::Malformed => Some("must be a number"),
            };
            trace.observe(claim, error.is_none(), || {
                let expected = format!("absent or not after {}, {leeway} s of leeway included", at(late));
                Evidence::new(moment.shown(now), expected)
            });
            errors.extend(error.map(|e| (claim, e)));
        }
        if errors.is_empty() { Ok(()) } else { Err(Denial { reason: Reason::Claims(errors), scope: None }) }
    }
}

/// Where a config says that the keys are published.
fn source(record: &Record) -> Option<Source> {
    match record.str("jwks_uri") {
        Some(url) => Some(Source::Jwks(url.to_owned())),
        None if record.bool("discovery") => Some(Source::discovery(record.str("issuer").unwrap_or_default())),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sign::{Signer, encode};
    use super::super::trace::Quiet;
    use super::super::{MAX_TOKEN, parse};
    use super::*;

    const SECRET: &[u8] = &[7; 32];
    const NOW: u64 = 1_700_000_000;

    fn issuer() -> Issuer {
        let jwks = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "a", "k": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]});
        Issuer {
            name: "https://issuer.test".into(),
            keys: JwkSet::from_value(&jwks).expect("a set"),
            source: None,
            demands: Demands { access_token: true, audiences: vec!["api".into()], ..Demands::default() },
            algorithms: vec![Algorithm::HS256],
            leeway: 30,
            consumer_claim: None,
        }
    }

    /// Judges a token with the usual claims, changed by `change` (null removes).
    fn judge(header: &[(&str, Value)], change: Value) -> Result<(), String> {
        let mut claims = json!({"iss": "https://issuer.test", "aud": "api", "exp": NOW + 60, "iat": NOW});
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let claims: Value = claims
            .as_object()
            .map(|c| c.clone().into_iter().filter(|(_, v)| *v != "-").collect())
            .unwrap_or_default();
        let token = encode(&Signer::secret(Algorithm::HS256, SECRET)?, header, &claims)?;
        let token = parse(token.as_bytes(), MAX_TOKEN).map_err(|e| e.to_string())?;
        let issuer = issuer();
        if !issuer.is_of(&token) {
            return Err("other issuer".into());
        }
        let times = issuer.check(&token, &mut Quiet).map_err(|d| d.reason.text())?;
        issuer.check_times(&times, NOW, &mut Quiet).map_err(|d| d.reason.text())
    }

    #[test]
    fn the_rules_are_those_of_rfc_8725() {
        let check = |header: &[(&str, Value)], change: Value, want: Result<(), &str>| {
            assert_eq!(judge(header, change.clone()), want.map_err(str::to_owned), "{header:?} {change}");
        };
        let ok = |change: Value| check(&[], change, Ok(()));
        let bad = |change: Value, want: &str| check(&[], change, Err(want));
        ok(json!({}));
        ok(json!({"aud": ["x", "api"], "nbf": NOW + 30, "exp": NOW as f64 - 29.5}));
        bad(json!({"iss": "https://issuer.test/"}), "other issuer");
        bad(json!({"iss": ["https://issuer.test"]}), "other issuer");
        bad(json!({"aud": "-"}), "aud: not this audience");
        for aud in [json!("ap"), json!([]), json!({"api": 1}), json!(["x"]), json!(null)] {
            bad(json!({ "aud": aud }), "aud: not this audience");
        }
        bad(json!({"exp": NOW - 30}), "exp: token expired");
        bad(json!({"exp": -1}), "exp: token expired");
        bad(json!({"exp": "-"}), "exp: must be a number");
        bad(json!({"exp": "1800000000"}), "exp: must be a number");
        bad(json!({"exp": u64::MAX}), "exp: out of range");
        bad(json!({"nbf": NOW + 31, "iat": NOW + 31}), "nbf: token not valid yet, iat: token not valid yet");
        bad(json!({"nbf": "x"}), "nbf: must be a number");
        check(&[("kid", json!("a"))], json!({}), Ok(()));
        let at = [("typ", json!("application/at+JWT"))];
        let all = json!({"sub": "s", "client_id": "c", "jti": "1"});
        check(&at, all.clone(), Ok(()));
        for (claim, value) in
            [("sub", json!("-")), ("client_id", json!("")), ("jti", json!(7)), ("iat", json!("-"))]
        {
            let mut claims = all.clone();
            claims[claim] = value;
            let want = format!("Claim '{claim}' of the access token is missing or malformed");
            check(&at, claims, Err(&want));
        }
        check(&[("typ", json!("JWT"))], json!({"sub": "-"}), Ok(()));
        check(&[("typ", json!("logout+jwt"))], json!({}), Err("Bad token; invalid typ"));
        check(&[("kid", json!("b"))], json!({}), Err("No key found for the token's 'kid' and 'alg'"));
        check(&[("kid", json!(1))], json!({}), Err("Bad token; invalid kid"));
    }
}
