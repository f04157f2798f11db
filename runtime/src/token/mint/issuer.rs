//! Tokens of an issuer that a config trusts, for whoever has one of the issuer's keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::demands::Demands;
use super::super::sign::Signer;
use super::super::{Algorithm, config, publish};
use super::{MintError, MintRequest, Prepared, broken, fill_demands, hint};
use crate::check::Checked;
use crate::model::Model;
use crate::model::schema::Record;

/// Prepares a token of the issuer that the request names.
pub fn prepare(model: &Checked<Model>, request: &MintRequest, now: u64) -> Result<Prepared, MintError> {
    let name = request.issuer.as_deref().unwrap_or_default();
    let all = config::issuers(model, request.route.as_deref());
    let mut fitting: Vec<&Record> = all.iter().copied().filter(|r| r.str("issuer") == Some(name)).collect();
    if fitting.is_empty() {
        let names: Vec<&str> = all.iter().filter_map(|r| r.str("issuer")).collect();
        return Err(MintError::NoIssuer { name: name.to_owned(), hint: hint(name, names.into_iter()) });
    }
    // Of several entries for one issuer the first that this request can sign for.
    let mut last = MintError::NoIssuerKey { issuer: name.to_owned() };
    fitting.sort_by_key(|r| r.str("jwks").is_none());
    for record in fitting {
        match sign_for(record, request) {
            Ok((signer, kid, public_pem)) => {
                let claims = claims(record, request, now);
                let mut token = Prepared { signer, header: Vec::new(), claims, public_pem };
                token.set_header("typ", "at+jwt".into());
                if let Some(kid) = kid {
                    token.set_header("kid", kid.into());
                }
                return Ok(token);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

type Signing = (Signer, Option<String>, Option<String>);

fn sign_for(record: &Record, request: &MintRequest) -> Result<Signing, MintError> {
    let issuer = record.str("issuer").unwrap_or_default().to_owned();
    let taken = record.strings("algorithms").into_iter().filter_map(|a| Algorithm::parse(&a.value));
    let taken: Vec<Algorithm> =
        taken.filter(|a| request.algorithm.is_none_or(|wanted| wanted == *a)).collect();
    let set: Value = record.str("jwks").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(pem) = &request.private_key else {
        return shared_secret(keys, &taken).ok_or(MintError::NoIssuerKey { issuer });
    };
    let mut problem = MintError::Key(format!("the config takes no algorithm of this key from `{issuer}`"));
    for algorithm in taken.into_iter().filter(|a| !a.is_symmetric()) {
        let signer = match Signer::private_pem(algorithm, pem) {
            Ok(signer) => signer,
            Err(why) => {
                if !matches!(problem, MintError::OtherIssuerKey { .. }) {
                    problem = MintError::Key(why);
                }
                continue;
            }
        };
        let own = publish::jwk(algorithm, pem, false).map_err(MintError::Key)?;
        let public_pem = broken::public_pem(algorithm, pem);
        let for_it = |key: &Value| key["alg"].as_str().is_none_or(|name| name == algorithm.name());
        let same =
            |key: &&Value| for_it(key) && ["n", "x", "y"].iter().all(|part| key.get(*part) == own.get(*part));
        let kid = |key: &Value| key.get("kid").and_then(Value::as_str).map(str::to_owned);
        match keys.iter().find(same) {
            Some(known) => return Ok((signer, request.key.clone().or_else(|| kid(known)), public_pem)),
            // The keys are elsewhere, so the user knows better.
            None if keys.is_empty() => {
                return Ok((signer, request.key.clone().or_else(|| kid(&own)), public_pem));
            }
            None => problem = MintError::OtherIssuerKey { issuer: issuer.clone() },
        }
    }
    Err(problem)
}

/// A secret that the key set itself holds.
fn shared_secret(keys: &[Value], taken: &[Algorithm]) -> Option<Signing> {
    keys.iter().filter(|k| k["kty"] == "oct").find_map(|key| {
        let algorithm = key["alg"].as_str().and_then(Algorithm::parse).filter(|a| taken.contains(a))?;
        let secret = URL_SAFE_NO_PAD.decode(key["k"].as_str()?).ok()?;
        let signer = Signer::secret(algorithm, &secret).ok()?;
        Some((signer, key["kid"].as_str().map(str::to_owned), None))
    })
}

fn claims(record: &Record, request: &MintRequest, now: u64) -> Value {
    let demands = Demands::of(record, true);
    let mut claims = Map::new();
    let who = if request.consumer.is_empty() { "test" } else { &request.consumer };
    claims.insert("iss".into(), record.str("issuer").unwrap_or_default().into());
    claims.insert("sub".into(), who.into());
    if let Some(claim) = record.str("consumer_claim") {
        claims.insert(claim.to_owned(), who.into());
    }
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), (now + request.lifetime.unwrap_or(super::DEFAULT_LIFETIME)).into());
    claims.insert("client_id".into(), "gw-token-mint".into());
    claims.insert("jti".into(), uuid::Uuid::new_v4().to_string().into());
    fill_demands(&mut claims, &demands);
    claims.entry("aud").or_insert_with(|| record.str("issuer").unwrap_or_default().into());
    for (name, value) in &request.claims {
        claims.insert(name.clone(), value.clone());
    }
    Value::Object(claims)
}
