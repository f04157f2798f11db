//! Splitting and decoding a token (JWS compact serialization), strictly, before anything of it is trusted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use thiserror::Error;

use super::check::kind_of;
use super::trace::{Evidence, Quiet, Trace, listed, shown};
use super::{Algorithm, json};

/// Names of the checks of decoding, in their order.
pub const CHECKS: &[&str] =
    &["size", "parts", "header", "payload", "alg", "crit", "payload kind", "signature encoding"];

/// The longest token that is looked at unless a config says otherwise, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// A decoded token. Nothing in it has been verified.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// The JOSE header; an object.
    pub header: Value,
    /// What `alg` claims.
    pub algorithm: Algorithm,
    /// The payload, whatever JSON it is.
    pub claims: Value,
    /// What was signed: header and payload as received, with the dot between them.
    pub message: &'a [u8],
    pub signature: Vec<u8>,
}

/// Why a token could not be decoded. The texts of the middle four are Kong's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    #[error("too long")]
    TooLong,
    /// Header or payload is missing, no base64url, or no JSON.
    #[error("invalid JSON")]
    Json,
    /// There is no `alg`, or gw does not know it; `none` is unknown.
    #[error("invalid alg")]
    Algorithm,
    #[error("invalid claims")]
    Claims,
    /// The signature is no base64url, or there are more than three parts.
    #[error("invalid signature")]
    Signature,
    /// The header makes extensions mandatory (`crit`), of which gw has none.
    #[error("unsupported crit")]
    Critical,
}

/// Decodes a token of at most `limit` bytes. Base64url is without padding and canonical (no stray bits), as RFC 7515
/// writes it.
pub fn parse(token: &[u8], limit: usize) -> Result<Token<'_>, ParseError> {
    parse_traced(token, limit, &mut Quiet)
}

/// The same, check by check.
pub fn parse_traced<'t>(
    token: &'t [u8],
    limit: usize,
    trace: &mut impl Trace,
) -> Result<Token<'t>, ParseError> {
    parse_as(token, limit, trace, json::parse)
}

/// The same for payloads that `read` understands.
fn parse_as<'t>(
    token: &'t [u8],
    limit: usize,
    trace: &mut impl Trace,
    read: Reader,
) -> Result<Token<'t>, ParseError> {
    let evidence = || Evidence::new(format!("{} bytes", token.len()), format!("at most {limit} bytes"));
    trace.check("size", token.len() <= limit, evidence, || ParseError::TooLong)?;
    let parts = || {
        let dots = memchr::memchr_iter(b'.', token).count();
        Evidence::new(format!("{} parts", dots + 1), "three parts with dots between them")
    };
    let Some((header_end, payload_end)) = dots(token) else {
        return Err(trace.fatal("parts", parts, ParseError::Json));
    };
    let surplus = memchr::memchr(b'.', &token[payload_end + 1..]).is_some();
    // More than three are a signature that is no base64url, which is how Kong answers them too.
    trace.observe("parts", !surplus, parts);
    let header = decode("header", &token[..header_end], trace, json::parse)?;
    let claims = decode("payload", &token[header_end + 1..payload_end], trace, read)?;
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
    let evidence =
        || Evidence::new(shown(header.get("alg")), listed(Algorithm::ALL.iter().map(|a| a.name())));
    let Some(algorithm) = algorithm else {
        return Err(trace.fatal("alg", evidence, ParseError::Algorithm));
    };
    trace.check("alg", true, evidence, || ParseError::Algorithm)?;
    let crit = header.get("crit");
    let evidence = || Evidence::new(shown(crit), "(absent): the gateway has no extensions");
    trace.check("crit", crit.is_none(), evidence, || ParseError::Critical)?;
    let scalar = matches!(claims, Value::Null | Value::Bool(_) | Value::Number(_));
    let evidence = || Evidence::new(kind_of(&claims), "an object");
    trace.check("payload kind", !scalar, evidence, || ParseError::Claims)?;
    let encoded = &token[payload_end + 1..];
    let decoded = URL_SAFE_NO_PAD.decode(encoded);
    let evidence = || match &decoded {
        Ok(bytes) => Evidence::new(format!("{} bytes", bytes.len()), BASE64URL),
        Err(error) => Evidence::new(error.to_string(), BASE64URL),
    };
    match &decoded {
        Ok(_) => trace.check("signature encoding", true, evidence, || ParseError::Signature)?,
        Err(_) => return Err(trace.fatal("signature encoding", evidence, ParseError::Signature)),
    }
    let signature = decoded.map_err(|_| ParseError::Signature)?;
    Ok(Token { header, algorithm, claims, message: &token[..payload_end], signature })
}

/// What a part of a token must be.
const BASE64URL: &str = "base64url without padding, spaces or stray bits";

/// Where the first two dots are.
fn dots(token: &[u8]) -> Option<(usize, usize)> {
    let first = memchr::memchr(b'.', token)?;
    let second = first + 1 + memchr::memchr(b'.', &token[first + 1..])?;
    Some((first, second))
}

/// What makes a value of a part's bytes.
type Reader = fn(&[u8]) -> Result<Value, serde_json::Error>;

fn decode(
    name: &'static str,
    part: &[u8],
    trace: &mut impl Trace,
    read: Reader,
) -> Result<Value, ParseError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|e| (e.to_string(), BASE64URL)).and_then(|bytes| {
        read(&bytes).map_err(|e| (e.to_string(), "JSON with unique names, nested at most 32 deep"))
    });
    match json {
        Ok(value) => {
            let evidence = || Evidence::new(kind_of(&value), "an object in JSON");
            trace.check(name, true, evidence, || ParseError::Json)?;
            Ok(value)
        }
        Err((actual, expected)) => {
            Err(trace.fatal(name, || Evidence::new(actual, expected), ParseError::Json))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SecretForm;
    use crate::token::jwk::JwkSet;

    /// Cases of the signature vectors that want more tolerance than there is: a key whose `alg` is not the token's
    /// (PS256 for PS384, and `ES521`, which does not exist), and characters in base64url that are none.
    const TOO_LENIENT: [u64; 6] = [346, 347, 350, 351, 372, 373];
    /// Cases that are called invalid and are, byte for byte, the valid case 357.
    const MISPRINTED: [u64; 2] = [367, 370];

    /// Runs the JWS and JWK vectors of C2SP's Wycheproof, which are not part of the repository.
    #[test]
    #[ignore = "needs the files json_web_signature_test.json and json_web_key_test.json in the folder WYCHEPROOF"]
    fn wycheproof_agrees() {
        let folder = std::env::var("WYCHEPROOF").expect("WYCHEPROOF names the folder of the vectors");
        let folder = std::path::Path::new(&folder);
        let (mut counts, mut wrong) = ((0, 0), Vec::new());
        for (file, lenient) in
            [("json_web_signature_test.json", &TOO_LENIENT[..]), ("json_web_key_test.json", &[])]
        {
            let text = std::fs::read(folder.join(file)).expect("the file can be read");
            let vectors: Value = serde_json::from_slice(&text).expect("vectors are JSON");
            for group in vectors["testGroups"].as_array().into_iter().flatten() {
                let keys = group.get("public").unwrap_or(&group["private"]);
                let keys = match keys.get("keys") {
                    Some(_) => keys.clone(),
                    None => serde_json::json!({ "keys": [keys] }),
                };
                let set = JwkSet::from_value(&keys);
                for case in group["tests"].as_array().into_iter().flatten() {
                    let id = case["tcId"].as_u64().expect("a number");
                    let jws = case["jws"].as_str().expect("a text");
                    let good = set.as_ref().is_ok_and(|set| verifies(set, jws));
                    if !lenient.is_empty() && MISPRINTED.contains(&id) {
                        continue;
                    }
                    let want = case["result"] == "valid" && !lenient.contains(&id);
                    if good != want {
                        wrong.push(format!("{file} {id} {}: {:?}", case["comment"], set.as_ref().err()));
                    }
                    if good { counts.0 += 1 } else { counts.1 += 1 }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(counts.0 > 0 && counts.1 > 0, "no cases");
        println!("{} accepted, {} refused", counts.0, counts.1);
    }

    fn verifies(set: &JwkSet, jws: &str) -> bool {
        let Ok(token) = parse_as(jws.as_bytes(), MAX_TOKEN, &mut Quiet, |_| Ok(serde_json::json!({}))) else {
            return false;
        };
        let kid = match token.header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return false,
        };
        let key = set.find(kid, token.algorithm);
        key.is_some_and(|k| k.verify(SecretForm::Plain, token.message, &token.signature).is_ok())
    }

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn tokens_decode_or_say_what_is_wrong() {
        let check = |token: &str, want: Result<(), ParseError>| {
            assert_eq!(parse(token.as_bytes(), MAX_TOKEN).map(|_| ()), want, "{token}");
        };
        let head = part(r#"{"alg":"HS256"}"#);
        let body = part(r#"{"iss":"a"}"#);
        check(&format!("{head}.{body}.AAAA"), Ok(()));
        check(&format!("{head}.{body}."), Ok(()));
        check(&format!("{head}.{body}"), Err(ParseError::Json));
        check("garbage", Err(ParseError::Json));
        check("", Err(ParseError::Json));
        check("..", Err(ParseError::Json));
        check(&format!("{head}.{body}.AAAA.AAAA"), Err(ParseError::Signature));
        check(&format!("{head}.{body}.AA=="), Err(ParseError::Signature));
        check(&format!("{head}.{body}.AB"), Err(ParseError::Signature));
        check(&format!("{head}.{body}.+/AA"), Err(ParseError::Signature));
        check(&format!("{head}=.{body}.AAAA"), Err(ParseError::Json));
        check(&format!(" {head}.{body}.AAAA"), Err(ParseError::Json));
        check(&format!("{head}.{}.AAAA", part("hello")), Err(ParseError::Json));
        check(&format!("{head}.{}.AAAA", part("{\"a\":1,\"a\":2}")), Err(ParseError::Json));
        for payload in ["null", "1", "true"] {
            check(&format!("{head}.{}.AAAA", part(payload)), Err(ParseError::Claims));
        }
        for header in [
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"NONE"}"#,
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#""HS256""#,
            "null",
            "7",
        ] {
            check(&format!("{}.{body}.AAAA", part(header)), Err(ParseError::Algorithm));
        }
        check(
            &format!("{}.{body}.AAAA", part(r#"{"alg":"HS256","crit":["exp"]}"#)),
            Err(ParseError::Critical),
        );
        check(&format!("{head}.{body}.{}", "A".repeat(MAX_TOKEN)), Err(ParseError::TooLong));
    }
}
