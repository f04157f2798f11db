//! Splitting and decoding a token (JWS compact serialization), strictly, before anything of it is trusted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use thiserror::Error;

use super::{Algorithm, json};

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
    if token.len() > limit {
        return Err(ParseError::TooLong);
    }
    let (header_end, payload_end) = dots(token).ok_or(ParseError::Json)?;
    let header = decode_json(&token[..header_end])?;
    let claims = decode_json(&token[header_end + 1..payload_end])?;
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
    let algorithm = algorithm.ok_or(ParseError::Algorithm)?;
    if header.get("crit").is_some() {
        return Err(ParseError::Critical);
    }
    if matches!(claims, Value::Null | Value::Bool(_) | Value::Number(_)) {
        return Err(ParseError::Claims);
    }
    let signature = URL_SAFE_NO_PAD.decode(&token[payload_end + 1..]).map_err(|_| ParseError::Signature)?;
    Ok(Token { header, algorithm, claims, message: &token[..payload_end], signature })
}

/// Where the first two dots are.
fn dots(token: &[u8]) -> Option<(usize, usize)> {
    let first = memchr::memchr(b'.', token)?;
    let second = first + 1 + memchr::memchr(b'.', &token[first + 1..])?;
    Some((first, second))
}

fn decode_json(part: &[u8]) -> Result<Value, ParseError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| ParseError::Json)?;
    json::parse(&bytes).map_err(|_| ParseError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

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
