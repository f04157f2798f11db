//! Whether a token is good by the rules of a `jwt` plugin. The policy and `gw token` both decide here, so what one
//! says the other does. The order of the checks and the words of a refusal are Kong's.

use std::borrow::Borrow;

use serde_json::Value;

use super::claims::Times;
use super::{Key, MAX_TOKEN, Refusal, SecretForm, Token, parse};
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
}

/// The checks, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The token can be decoded.
    Decode,
    /// It names a credential.
    KeyClaim,
    /// There is that credential.
    Credential,
    /// Its algorithm is the token's.
    Algorithm,
    Signature,
    /// `exp` and `nbf`, as far as they are to be verified.
    Times,
    /// `maximum_expiration`.
    MaximumExpiration,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub step: Step,
    pub reason: Reason,
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
        let verifies = |claim: &str| to_verify.iter().any(|c| c.value == claim);
        Self {
            key_claim: config.str("key_claim_name").unwrap_or("iss").to_owned(),
            secret_form: if config.bool("secret_is_base64") { SecretForm::Base64 } else { SecretForm::Plain },
            verify_exp: verifies("exp"),
            verify_nbf: verifies("nbf"),
            maximum_expiration: config.num("maximum_expiration").filter(|n| *n > 0.0),
            max_token_size: config.int("max_token_size").map_or(MAX_TOKEN, |n| n as usize),
        }
    }

    /// Decodes a token and has [`Rules::check_parsed`] judge it.
    pub fn check_signature<C, K: Borrow<Key>>(
        &self,
        token: &[u8],
        find: impl FnOnce(&str) -> Option<(C, K)>,
    ) -> Result<Signed<C>, Denial> {
        self.check_parsed(self.decode(token)?, find)
    }

    /// Decodes a token.
    pub fn decode<'t>(&self, token: &'t [u8]) -> Result<Token<'t>, Denial> {
        parse(token, self.max_token_size).map_err(|e| Denial::new(Step::Decode, format!("Bad token; {e}")))
    }

    /// Everything about a token that does not depend on the time. `find` looks a credential up by its `key` and gives
    /// it with its verification key.
    pub fn check_parsed<C, K: Borrow<Key>>(
        &self,
        token: Token<'_>,
        find: impl FnOnce(&str) -> Option<(C, K)>,
    ) -> Result<Signed<C>, Denial> {
        let name = &self.key_claim;
        let deny = |step, text: String| Err(Denial::new(step, text));
        let absent = || format!("No credentials found for given '{name}'");
        let claimed = token.claims.get(name).filter(|v| **v != Value::Bool(false));
        let key = match claimed.or_else(|| token.header.get(name)) {
            Some(Value::String(key)) if !key.is_empty() => key,
            Some(Value::Bool(false)) | None => {
                return deny(Step::KeyClaim, format!("No mandatory '{name}' in claims"));
            }
            Some(Value::Number(_)) => return deny(Step::Credential, absent()),
            Some(_) => return deny(Step::KeyClaim, format!("Invalid '{name}' in claims")),
        };
        let Some((credential, verifier)) = find(key) else {
            return deny(Step::Credential, absent());
        };
        let verifier: &Key = verifier.borrow();
        if token.algorithm != verifier.algorithm() {
            return deny(Step::Algorithm, "Invalid algorithm".into());
        }
        match verifier.verify(self.secret_form, token.message, &token.signature) {
            Ok(()) => {}
            Err(Refusal::NoKey) => return deny(Step::Signature, "Invalid key/secret".into()),
            Err(Refusal::BadSignature) => return deny(Step::Signature, "Invalid signature".into()),
        }
        if !token.claims.is_object() {
            return deny(Step::Decode, "Bad token; invalid claims".into());
        }
        Ok(Signed { credential, key: key.clone(), times: Times::of(&token.claims), claims: token.claims })
    }

    /// What depends on the time: `now` in seconds since 1970.
    pub fn check_times(&self, times: &Times, now: u64) -> Result<(), Denial> {
        let exp = self.verify_exp.then(|| times.exp_error(now)).flatten().map(|e| ("exp", e));
        let nbf = self.verify_nbf.then(|| times.nbf_error(now)).flatten().map(|e| ("nbf", e));
        let deny = |step, claims| Err(Denial { step, reason: Reason::Claims(claims) });
        if exp.is_some() || nbf.is_some() {
            return deny(Step::Times, exp.into_iter().chain(nbf).collect());
        }
        if self.maximum_expiration.is_some_and(|most| times.exceeds(most, now)) {
            return deny(Step::MaximumExpiration, vec![("exp", "exceeds maximum allowed expiration")]);
        }
        Ok(())
    }
}

impl Denial {
    /// A refusal with a message.
    pub fn new(step: Step, message: impl Into<String>) -> Self {
        Self { step, reason: Reason::Message(message.into()) }
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
