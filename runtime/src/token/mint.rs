//! Making the token that a config's own `jwt` plugin accepts for one of its own consumers.

mod broken;
mod issuer;

pub use broken::Broken;

use serde_json::{Map, Value};
use thiserror::Error;

use super::check::Rules;
use super::config::{self, JwtCredential};
use super::demands::Demands;
use super::sign::{Signer, encode};
use super::{Algorithm, SecretForm, verify};
use crate::check::Checked;
use crate::diag::suggest::nearest;
use crate::model::Model;

/// How long a token lives unless something else is asked for, in seconds.
pub const DEFAULT_LIFETIME: u64 = 3600;

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct MintRequest {
    /// Username or id; for an issuer's token the subject, which may be empty.
    pub consumer: String,
    /// The issuer whose token it shall be, instead of a credential's.
    pub issuer: Option<String>,
    /// Name or id of the route that shall accept the token; without it every route with a `jwt` plugin shall.
    pub route: Option<String>,
    /// Seconds from now to `exp`; [`DEFAULT_LIFETIME`] or the config's `maximum_expiration` if not given.
    pub lifetime: Option<u64>,
    /// Further claims; they win over the ones that would be filled in.
    pub claims: Vec<(String, Value)>,
    /// Which of the consumer's credentials or the issuer's keys, by algorithm, and by key or `kid`.
    pub algorithm: Option<Algorithm>,
    pub key: Option<String>,
    /// The private key of a credential or issuer that has a public one, in PEM.
    pub private_key: Option<String>,
    /// What shall be wrong with the token.
    pub broken: Option<Broken>,
}

/// Why no token can be made. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MintError {
    #[error("there is no consumer `{name}`{hint}")]
    NoConsumer { name: String, hint: String },
    #[error("there is no route `{name}`{hint}")]
    NoRoute { name: String, hint: String },
    #[error("{place} has no enabled `jwt` plugin, so nothing would look at the token")]
    NoPlugin { place: String },
    #[error(
        "consumer `{consumer}` has no `jwt_secrets` entry{filter}; add one, such as `jwt_secrets: [{{ key: {consumer}, algorithm: HS256, secret: \"${{SECRET}}\" }}]`"
    )]
    NoCredential { consumer: String, filter: String },
    #[error(
        "credential `{key}` has no `secret`, so the gateway makes one up at every start; write one into the config"
    )]
    NoSecret { key: String },
    #[error(
        "credential of `{consumer}` has no `key`, so the gateway makes one up at every start; write one into the config"
    )]
    NoKey { consumer: String },
    #[error("credential `{key}`: `secret` is not base64url although `secret_is_base64` is on")]
    SecretNotBase64 { key: String },
    #[error(
        "credential `{key}` verifies {algorithm} with a public key; give the private key that belongs to it, in PEM (`--key-file`)"
    )]
    NeedsPrivateKey { key: String, algorithm: Algorithm },
    #[error("the private key does not belong to the public key of credential `{key}`")]
    OtherPrivateKey { key: String },
    #[error("claim `{claim}` names the credential, which is `{key}`; choose another credential instead")]
    KeyClaim { claim: String, key: String },
    #[error("a lifetime of {asked} s is more than the config's `maximum_expiration` of {most} s")]
    TooLong { asked: u64, most: u64 },
    #[error("the `jwt` plugins of this config differ in `secret_is_base64`; name the route (`--route`)")]
    Ambiguous,
    #[error("there is no issuer `{name}`{hint}")]
    NoIssuer { name: String, hint: String },
    #[error(
        "the keys of issuer `{issuer}` are public ones; give the private key of one of them, in PEM (`--key-file`)"
    )]
    NoIssuerKey { issuer: String },
    #[error(
        "the private key belongs to none of the keys of issuer `{issuer}`, or only to one for another algorithm (`alg` of the key)"
    )]
    OtherIssuerKey { issuer: String },
    #[error(
        "there is no public key that could be taken for a secret: the token is signed with a secret anyway"
    )]
    NothingToConfuse,
    #[error("{0}")]
    Key(String),
}

/// A token before it is signed.
pub struct Prepared {
    signer: Signer,
    /// Fields beside `alg`, or instead of it.
    header: Vec<(String, Value)>,
    claims: Value,
    /// The public key, where there is one.
    public_pem: Option<String>,
}

impl Prepared {
    fn set_header(&mut self, name: &str, value: Value) {
        self.header.retain(|(n, _)| n != name);
        self.header.push((name.to_owned(), value));
    }

    fn header(&self) -> Vec<(&str, Value)> {
        self.header.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
    }

    fn encode(&self) -> Result<String, MintError> {
        encode(&self.signer, &self.header(), &self.claims).map_err(MintError::Key)
    }
}

/// Makes a token. `now` is seconds since 1970.
pub fn mint(model: &Checked<Model>, request: &MintRequest, now: u64) -> Result<String, MintError> {
    let token = match &request.issuer {
        Some(_) => issuer::prepare(model, request, now)?,
        None => of_credential(model, request, now)?,
    };
    match request.broken {
        Some(how) => broken::encode_broken(token, how, now),
        None => token.encode(),
    }
}

fn of_credential(model: &Checked<Model>, request: &MintRequest, now: u64) -> Result<Prepared, MintError> {
    let consumer = find_consumer(model, &request.consumer)?;
    let rules = rules_for(model, request.route.as_deref())?;
    let form = rules[0].secret_form;
    if rules.iter().any(|r| r.secret_form != form) {
        return Err(MintError::Ambiguous);
    }
    let credential = choose(config::credentials_of(model, consumer), request)?;
    let key = credential.key.ok_or_else(|| MintError::NoKey { consumer: request.consumer.clone() })?;
    let signer = signer(&credential, key, form, request.private_key.as_deref())?;
    let claims = claims(model, consumer, key, &rules, request, now)?;
    let public_pem = credential.public_key().map(str::to_owned);
    Ok(Prepared { signer, header: Vec::new(), claims, public_pem })
}

/// Adds what a config asks of claims, where the token does not say something else.
fn fill_demands(claims: &mut Map<String, Value>, demands: &Demands) {
    let mut put = |name: &str, value: &str| {
        claims.entry(name).or_insert_with(|| value.into());
    };
    if let Some(audience) = demands.audiences.first() {
        put("aud", audience);
    }
    let scopes = &demands.scopes;
    let scopes: Vec<&str> = scopes.all.iter().chain(scopes.any.first()).map(String::as_str).collect();
    if !scopes.is_empty() {
        put("scope", &scopes.join(" "));
    }
    for (name, value) in &demands.required_claims {
        put(name, value);
    }
}

fn find_consumer(model: &Model, name: &str) -> Result<usize, MintError> {
    config::consumer(model, name).ok_or_else(|| {
        let names = model.consumers.iter().filter_map(|c| c.username.as_ref());
        MintError::NoConsumer { name: name.to_owned(), hint: hint(name, names.map(|n| n.value.as_str())) }
    })
}

/// The rules that a token must satisfy; at least one.
fn rules_for(model: &Checked<Model>, route: Option<&str>) -> Result<Vec<Rules>, MintError> {
    let plugins = match route {
        Some(name) => {
            let route = config::route(model, name).ok_or_else(|| {
                let names = model.routes.iter().filter_map(|r| r.name.as_ref());
                MintError::NoRoute {
                    name: name.to_owned(),
                    hint: hint(name, names.map(|n| n.value.as_str())),
                }
            })?;
            let plugin = config::plugin_of_route(model, route);
            vec![plugin.ok_or_else(|| MintError::NoPlugin { place: format!("route `{name}`") })?]
        }
        None => config::plugins(model).collect(),
    };
    if plugins.is_empty() {
        return Err(MintError::NoPlugin { place: "this config".into() });
    }
    Ok(plugins.into_iter().map(|p| Rules::of(&p.config)).collect())
}

/// The first credential that fits and that this request can sign with.
fn choose<'m>(all: Vec<JwtCredential<'m>>, request: &MintRequest) -> Result<JwtCredential<'m>, MintError> {
    let fits = |c: &JwtCredential<'_>| {
        request.algorithm.is_none_or(|a| c.algorithm == a)
            && request.key.as_deref().is_none_or(|k| c.key == Some(k))
    };
    let with_key_file = request.private_key.is_some();
    let mut fitting: Vec<_> = all.into_iter().filter(fits).collect();
    let signable = fitting.iter().position(|c| c.algorithm.is_symmetric() != with_key_file).unwrap_or(0);
    if fitting.is_empty() {
        let key = request.key.as_ref().map(|k| format!(" with key `{k}`")).unwrap_or_default();
        let algorithm = request.algorithm.map(|a| format!(" for {a}")).unwrap_or_default();
        return Err(MintError::NoCredential { consumer: request.consumer.clone(), filter: key + &algorithm });
    }
    Ok(fitting.swap_remove(signable))
}

fn signer(
    credential: &JwtCredential<'_>,
    key: &str,
    form: SecretForm,
    private_key: Option<&str>,
) -> Result<Signer, MintError> {
    let (algorithm, key) = (credential.algorithm, key.to_owned());
    if algorithm.is_symmetric() {
        let secret = credential.secret.ok_or_else(|| MintError::NoSecret { key: key.clone() })?.as_bytes();
        let secret = match form {
            SecretForm::Plain => secret.to_vec(),
            SecretForm::Base64 => verify::decode_secret(secret).ok_or(MintError::SecretNotBase64 { key })?,
        };
        return Signer::secret(algorithm, &secret).map_err(MintError::Key);
    }
    let pem = private_key.ok_or_else(|| MintError::NeedsPrivateKey { key: key.clone(), algorithm })?;
    let signer = Signer::private_pem(algorithm, pem).map_err(MintError::Key)?;
    let signature = signer.sign(b"probe").map_err(MintError::Key)?;
    let public = credential.verifier().map_err(MintError::Key)?;
    match public.verify_encoded(form, b"probe", &signature) {
        Ok(()) => Ok(signer),
        Err(_) => Err(MintError::OtherPrivateKey { key }),
    }
}

fn claims(
    model: &Model,
    consumer: usize,
    key: &str,
    rules: &[Rules],
    request: &MintRequest,
    now: u64,
) -> Result<Value, MintError> {
    let mut claims = Map::new();
    for rule in rules {
        claims.insert(rule.key_claim.clone(), key.into());
    }
    if let Some((name, _)) =
        request.claims.iter().find(|(name, v)| claims.get(name).is_some_and(|key| key != v))
    {
        return Err(MintError::KeyClaim { claim: name.clone(), key: key.to_owned() });
    }
    if let Some(username) =
        model.consumers[consumer].username.as_ref().filter(|_| !claims.contains_key("sub"))
    {
        claims.insert("sub".into(), username.value.as_str().into());
    }
    claims.insert("iat".into(), now.into());
    if rules.iter().any(|r| r.verify_nbf) {
        claims.insert("nbf".into(), now.into());
    }
    claims.insert("exp".into(), (now + lifetime(rules, request.lifetime)?).into());
    for rule in rules {
        fill_demands(&mut claims, &rule.demands);
    }
    for (name, value) in &request.claims {
        claims.insert(name.clone(), value.clone());
    }
    Ok(Value::Object(claims))
}

fn lifetime(rules: &[Rules], asked: Option<u64>) -> Result<u64, MintError> {
    let most = rules.iter().filter_map(|r| r.maximum_expiration).reduce(f64::min).map(|n| n as u64);
    match (asked, most) {
        (Some(asked), Some(most)) if asked > most => Err(MintError::TooLong { asked, most }),
        (Some(asked), _) => Ok(asked),
        (None, most) => Ok(most.map_or(DEFAULT_LIFETIME, |most| most.min(DEFAULT_LIFETIME))),
    }
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => "; the config names none".into(),
        None => {
            let shown: Vec<String> = known.iter().take(8).map(|n| format!("`{n}`")).collect();
            let more = if known.len() > 8 { ", ..." } else { "" };
            format!("; there are {}{more}", shown.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
