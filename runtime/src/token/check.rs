//! Whether a token is good by the rules of a `jwt` plugin. The policy and `gw token` both decide here, so what one
//! says the other does. The order of the checks and the words of a refusal are Kong's.

use std::borrow::Borrow;

use serde_json::Value;

use super::claims::{Moment, Times};
use super::demands::Demands;
use super::parse::parse_traced;
use super::trace::{Evidence, Quiet, Trace, shown};
use super::{Key, MAX_TOKEN, ParseError, Refusal, SecretForm, Token};
use crate::model::schema::Record;

/// What a `jwt` plugin's config asks of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The claim, else header parameter, that names the credential.
    pub key_claim: String,
    pub secret_form: SecretForm,
    pub verify_exp: bool,
    pub verify_nbf: bool,
    /// Seconds.
    pub maximum_expiration: Option<f64>,
    /// Bytes.
    pub max_token_size: usize,
    /// RFC 8725 beyond Kong's rules: `exp` must be there, `nbf` and `iat` are kept where they are.
    pub strict: bool,
    pub demands: Demands,
}

/// Names of the checks by these rules, in their order. Those of decoding come before ([`super::parse::CHECKS`]).
pub const CHECKS: &[&str] = &[
    "key claim",
    "credential",
    "algorithm",
    "signature",
    "claims",
    "exp",
    "nbf",
    "iat",
    "maximum expiration",
    "scope",
];

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    /// The token is good, but its bearer lacks scopes: which are asked for.
    pub scope: Option<String>,
}

/// What the refusal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Message(String),
    /// Claims, and what is wrong with each.
    Claims(Vec<(&'static str, &'static str)>),
}

/// A token whose signature is good.
#[derive(Debug)]
pub struct Signed<C> {
    /// What the look-up gave.
    pub credential: C,
    /// The credential's `key`.
    pub key: String,
    /// An object.
    pub claims: Value,
    pub times: Times,
}

impl Rules {
    /// The rules in a plugin's config.
    pub fn of(config: &Record) -> Self {
        let to_verify = config.strings("claims_to_verify");
        let strict = config.bool("strict");
        let verifies = |claim: &str| to_verify.iter().any(|c| c.value == claim);
        Self {
            key_claim: config.str("key_claim_name").unwrap_or("iss").to_owned(),
            secret_form: if config.bool("secret_is_base64") { SecretForm::Base64 } else { SecretForm::Plain },
            verify_exp: verifies("exp") || strict,
            verify_nbf: verifies("nbf"),
            maximum_expiration: config.num("maximum_expiration").filter(|n| *n > 0.0),
            max_token_size: config.int("max_token_size").map_or(MAX_TOKEN, |n| n as usize),
            strict,
            demands: Demands::of(config, strict),
        }
    }

    /// Decodes a token and has [`Rules::check_parsed`] judge it.
    pub fn check_signature<C, K: Borrow<Key>>(
        &self,
        token: &[u8],
        find: impl FnOnce(&str) -> Option<(C, K)>,
    ) -> Result<Signed<C>, Denial> {
        let token = self.decode(token, &mut Quiet)?;
        self.check_parsed(token, find, &mut Quiet)
    }

    /// Decodes a token.
    pub fn decode<'t>(&self, token: &'t [u8], trace: &mut impl Trace) -> Result<Token<'t>, Denial> {
        Ok(parse_traced(token, self.max_token_size, trace)?)
    }

    /// Everything about a token that does not depend on the time. `find` looks a credential up by its `key` and gives
    /// it with its verification key.
    pub fn check_parsed<C, K: Borrow<Key>>(
        &self,
        token: Token<'_>,
        find: impl FnOnce(&str) -> Option<(C, K)>,
        trace: &mut impl Trace,
    ) -> Result<Signed<C>, Denial> {
        let name = &self.key_claim;
        let key = self.key_named(&token, trace)?;
        let absent = || Denial::new(format!("No credentials found for given '{name}'"));
        let Some((credential, verifier)) = key.text().and_then(find) else {
            let evidence = || Evidence::new(key.shown(), "the `key` of a `jwt_secrets` entry");
            return Err(trace.fatal("credential", evidence, absent()));
        };
        let evidence = || Evidence::new(key.shown(), "the `key` of a `jwt_secrets` entry");
        trace.check("credential", true, evidence, absent)?;
        let verifier: &Key = verifier.borrow();
        let same = token.algorithm == verifier.algorithm();
        let evidence =
            || Evidence::new(token.algorithm.name(), format!("{} of the credential", verifier.algorithm()));
        trace.check("algorithm", same, evidence, || Denial::new("Invalid algorithm"))?;
        if same {
            let verdict = verifier.verify(self.secret_form, token.message, &token.signature);
            let evidence = || match &verdict {
                Err(Refusal::NoKey) => Evidence::new("no usable key", "a key that verifies the signature"),
                verdict => signature_evidence(verdict.is_ok(), &token),
            };
            let denial = || match &verdict {
                Err(Refusal::NoKey) => Denial::new("Invalid key/secret"),
                _ => Denial::new("Invalid signature"),
            };
            trace.check("signature", verdict.is_ok(), evidence, denial)?;
        } else {
            trace.skip("signature", || "the credential's key is for another algorithm".into());
        }
        let evidence = || Evidence::new(kind_of(&token.claims), "an object");
        let denial = || Denial::new("Bad token; invalid claims");
        trace.check("claims", token.claims.is_object(), evidence, denial)?;
        self.demands.check(&token.header, &token.claims, trace)?;
        let key = key.text().unwrap_or_default().to_owned();
        Ok(Signed { credential, key, times: Times::of(&token.claims), claims: token.claims })
    }

    /// What the token says that the credential's key is.
    fn key_named(&self, token: &Token<'_>, trace: &mut impl Trace) -> Result<Named, Denial> {
        let name = &self.key_claim;
        let claimed = token.claims.get(name).filter(|v| **v != Value::Bool(false));
        let value = claimed.or_else(|| token.header.get(name));
        let evidence =
            || Evidence::new(shown(value), format!("a text in the claim (or header parameter) `{name}`"));
        let (named, denial) = match value {
            Some(Value::String(key)) if !key.is_empty() => (Named::Text(key.clone()), None),
            Some(Value::Number(number)) => (Named::Number(number.to_string()), None),
            Some(Value::Bool(false)) | None => {
                (Named::Nothing, Some(format!("No mandatory '{name}' in claims")))
            }
            Some(_) => (Named::Nothing, Some(format!("Invalid '{name}' in claims"))),
        };
        match denial {
            Some(text) => Err(trace.fatal("key claim", evidence, Denial::new(text))),
            None => {
                trace.check("key claim", true, evidence, || Denial::new(""))?;
                Ok(named)
            }
        }
    }

    /// What depends on the time: `now` in seconds since 1970.
    pub fn check_times(&self, times: &Times, now: u64, trace: &mut impl Trace) -> Result<(), Denial> {
        let mut errors = Vec::new();
        let moment_of = |claim| match claim {
            "exp" => (self.verify_exp, times.exp_error(now), times.exp),
            "nbf" => (self.verify_nbf, times.nbf_error(now), times.nbf),
            _ => (false, times.iat_error(now), times.iat),
        };
        for claim in ["exp", "nbf", "iat"] {
            let (verified, error, moment) = moment_of(claim);
            let optional = !verified && self.strict;
            if !verified && !optional {
                trace.skip(claim, || match claim {
                    "iat" => "the config does not ask for it (`strict`)".into(),
                    _ => format!("`claims_to_verify` does not have `{claim}`"),
                });
                continue;
            }
            let error = error.filter(|_| !(optional && moment == Moment::Missing));
            errors.extend(error.map(|e| (claim, e)));
            trace.observe(claim, error.is_none(), || {
                let word = if claim == "exp" { "after" } else { "not after" };
                let expected = format!("{word} {}", Moment::At(now as f64).shown(now));
                Evidence::new(moment.shown(now), expected)
            });
        }
        let exceeds = self.maximum_expiration.is_some_and(|most| times.exceeds(most, now));
        match self.maximum_expiration {
            Some(most) => trace.observe("maximum expiration", !exceeds, || {
                Evidence::new(times.exp.shown(now), format!("within {most} s from now"))
            }),
            None => trace.skip("maximum expiration", || "the config sets no `maximum_expiration`".into()),
        }
        // Kong names what is wrong with both times in one answer.
        if !errors.is_empty() {
            return Err(Denial { reason: Reason::Claims(errors), scope: None });
        }
        if exceeds {
            let reason = Reason::Claims(vec![("exp", "exceeds maximum allowed expiration")]);
            return Err(Denial { reason, scope: None });
        }
        Ok(())
    }
}

/// What names the credential.
enum Named {
    Text(String),
    /// A number is no credential's key, which are texts.
    Number(String),
    Nothing,
}

impl Named {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Nothing => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => format!("{number} (a number)"),
            Self::Nothing => "(absent)".into(),
        }
    }
}

/// What is to be said of a signature.
pub(super) fn signature_evidence(good: bool, token: &Token<'_>) -> Evidence {
    let length = token.signature.len();
    let actual = match (good, length) {
        (true, _) => format!("{length} bytes that fit"),
        (false, 0) => "empty".to_owned(),
        (false, _) => format!("{length} bytes that do not fit"),
    };
    Evidence::new(actual, format!("{} by the key over header and payload as received", token.algorithm))
}

/// What kind of JSON a value is.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl From<ParseError> for Denial {
    fn from(error: ParseError) -> Self {
        Self::new(format!("Bad token; {error}"))
    }
}

impl Denial {
    /// A refusal with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { reason: Reason::Message(message.into()), scope: None }
    }
}

impl Reason {
    /// The refusal in one line, for `error_description`.
    pub fn text(&self) -> String {
        match self {
            Self::Message(text) => text.clone(),
            Self::Claims(errors) => {
                errors.iter().map(|(claim, e)| format!("{claim}: {e}")).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The body of the gateway's answer.
    pub fn body(&self) -> String {
        match self {
            Self::Message(text) => format!("{{\"message\":{}}}", Value::from(text.as_str())),
            Self::Claims(errors) => {
                let members: Vec<String> =
                    errors.iter().map(|(claim, e)| format!("\"{claim}\":{}", Value::from(*e))).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}
