//! `hmac-auth`: clients sign their requests.

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use subtle::ConstantTimeEq;

use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, Version, names};
use crate::model::schema::{Field, Kind, Record, STR};
use crate::snapshot::Credential;

const ALGORITHMS: Kind = Kind::Enum(&["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"]);

static PLUGIN: Descriptor = Descriptor {
    name: "hmac-auth",
    summary: "authenticate consumers by signatures over their requests",
    doc: "\
## What it does
Verifies a signature that the client made over parts of the request with a shared secret.

## Why
The secret never travels, and a request cannot be changed or, for long, replayed.

## Example
```yaml
consumers:
  - username: alice
    hmacauth_credentials: [{ username: alice, secret: \"${ALICE_SECRET}\" }]
plugins:
  - name: hmac-auth
    config: { enforce_headers: [date, request-line], algorithms: [hmac-sha256], validate_request_body: true }
```

## Behaviour
The client sends `Authorization` (or `Proxy-Authorization`)
`hmac username=\"u\", algorithm=\"hmac-sha256\", headers=\"date request-line\", signature=\"BASE64\"`. What is signed
is a line `name: value` for each listed header, joined by newlines; `request-line` stands for
`GET /path?query HTTP/1.1` alone, `@request-target` for `@request-target: get /path?query`. `X-Date` or `Date` must be
within `clock_skew` of the gateway's clock; of those that are signed, one. With `validate_request_body` a body needs `Digest: SHA-256=BASE64`. Every
refusal is 401 with `WWW-Authenticate: hmac`; its message tells the stage that failed. Signatures are compared in
constant time.
",
    fields: &[
        Field::new("hide_credentials", Kind::Bool, "Whether the signature is kept from the upstream.").default("false"),
        Field::new("clock_skew", Kind::Num { min: 0.0, max: f64::MAX }, "How far the date may be off, in seconds.")
            .default("300"),
        ANONYMOUS,
        Field::new("validate_request_body", Kind::Bool, "Whether the body must match the `Digest` header.")
            .default("false"),
        Field::new("enforce_headers", Kind::List(&STR), "What every signature must cover.").default("[]"),
        Field::new("algorithms", Kind::List(&ALGORITHMS), "The algorithms that are accepted.")
            .default(r#"["hmac-sha1","hmac-sha256","hmac-sha384","hmac-sha512"]"#),
        Field::new("realm", STR, "The realm of `WWW-Authenticate`."),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};

const NOT_VERIFIED: &str = "HMAC signature cannot be verified";
const NO_DATE: &str =
    "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
const NO_MATCH: &str = "HMAC signature does not match";

/// What an authorization field says.
struct Signed {
    username: String,
    algorithm: String,
    headers: Vec<String>,
    signature: String,
}

/// See the module.
pub struct HmacAuth {
    hide: bool,
    /// Milliseconds.
    skew: f64,
    check_body: bool,
    enforced: Vec<String>,
    algorithms: Vec<String>,
    challenge: String,
    anonymous: Option<Anonymous>,
    format: Regex,
    x_date: FieldName,
    digest: FieldName,
}

impl Policy for HmacAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let texts = |field| config.strings(field).into_iter().map(|t| t.value).collect();
        Some(Self {
            hide: config.bool("hide_credentials"),
            skew: config.num("clock_skew")? * 1000.0,
            check_body: config.bool("validate_request_body"),
            enforced: texts("enforce_headers"),
            algorithms: texts("algorithms"),
            challenge: identity::challenge("hmac", config.str("realm")),
            anonymous: Anonymous::of(config),
            format: Regex::new(
                r#"\s*[Hh]mac\s*username="(.+)",\s*algorithm="(.+)",\s*headers="(.+)",\s*signature="(.+)""#,
            )
            .ok()?,
            x_date: FieldName::new("X-Date"),
            digest: FieldName::new("Digest"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        // The signature first: the body of a request that nobody signed is not worth reading.
        let signed = match self.verify(x) {
            Ok(signed) => signed,
            Err(message) => return self.refuse(x, message),
        };
        if self.check_body && x.body.is_none() {
            x.keep(signed);
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.finish(x, &signed.username)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        match x.kept::<Signed>().map(|s| s.username.clone()) {
            Some(username) => self.finish(x, &username),
            None => self.refuse(x, NOT_VERIFIED),
        }
    }
}

impl HmacAuth {
    /// Everything but the body.
    fn verify(&self, x: &mut Exchange) -> Result<Signed, &'static str> {
        let fields = &x.request.fields;
        if !fields.contains(&names::AUTHORIZATION) && !fields.contains(&names::PROXY_AUTHORIZATION) {
            return Err("Unauthorized");
        }
        if !self.is_recent(x, &self.x_date) && !self.is_recent(x, &names::DATE) {
            return Err(NO_DATE);
        }
        let shown = |name: &FieldName| self.parse(x.request.fields.text(name)?);
        let (field, signed) = match shown(&names::PROXY_AUTHORIZATION) {
            Some(signed) => (names::PROXY_AUTHORIZATION, Some(signed)),
            None => (names::AUTHORIZATION, shown(&names::AUTHORIZATION)),
        };
        let outcome = signed.ok_or(NOT_VERIFIED).and_then(|signed| self.check_signature(x, signed));
        if self.hide {
            x.request.fields.remove(&field);
        }
        outcome
    }

    fn check_signature(&self, x: &Exchange, signed: Signed) -> Result<Signed, &'static str> {
        let covered = |name: &String| signed.headers.contains(name);
        if !self.enforced.iter().all(covered) || !self.algorithms.contains(&signed.algorithm) {
            return Err(NOT_VERIFIED);
        }
        let credential = credential(x, &signed.username).ok_or(NOT_VERIFIED)?;
        let algorithm = match signed.algorithm.as_str() {
            "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "hmac-sha256" => hmac::HMAC_SHA256,
            "hmac-sha384" => hmac::HMAC_SHA384,
            "hmac-sha512" => hmac::HMAC_SHA512,
            _ => return Err(NOT_VERIFIED),
        };
        // Kong takes any recent date, so that a signature over an old `Date` lives again beside an unsigned `X-Date`.
        let dates = [&self.x_date, &names::DATE];
        let mut signed_dates = dates
            .iter()
            .filter(|d| signed.headers.iter().any(|h| h.eq_ignore_ascii_case(d.as_str())))
            .peekable();
        if signed_dates.peek().is_some() && !signed_dates.any(|date| self.is_recent(x, date)) {
            return Err(NO_DATE);
        }
        let key = hmac::Key::new(algorithm, &credential.data);
        let signature = STANDARD.decode(&signed.signature).map_err(|_| NO_MATCH)?;
        hmac::verify(&key, &signing_string(x, &signed.headers), &signature).map_err(|_| NO_MATCH)?;
        Ok(signed)
    }

    fn finish(&self, x: &mut Exchange, username: &str) -> Flow {
        if self.check_body && !self.body_matches(x) {
            return self.refuse(x, NO_MATCH);
        }
        let snapshot = x.snapshot.clone();
        match snapshot.credentials.hmac_auth.get(username) {
            Some(credential) => {
                identity::set_identity(x, identity::of_credential(credential, username, None));
                Flow::Next
            }
            None => self.refuse(x, NOT_VERIFIED),
        }
    }

    /// Whether `Digest` is the body's; without one there must be no body.
    fn body_matches(&self, x: &Exchange) -> bool {
        let body = x.body.as_deref().unwrap_or(&[]);
        match x.request.fields.get(&self.digest) {
            Some(sent) => {
                let digest = STANDARD.encode(digest::digest(&digest::SHA256, body));
                format!("SHA-256={digest}").as_bytes().ct_eq(sent).into()
            }
            None => body.is_empty(),
        }
    }

    fn is_recent(&self, x: &Exchange, name: &FieldName) -> bool {
        let date = x.request.fields.text(name).and_then(|t| httpdate::parse_http_date(t).ok());
        let Some(date) = date.and_then(|d| d.duration_since(std::time::UNIX_EPOCH).ok()) else {
            return false;
        };
        (x.now.unix_ms as f64 - date.as_millis() as f64).abs() <= self.skew
    }

    fn parse(&self, value: &str) -> Option<Signed> {
        let groups = self.format.captures(value)?;
        let group = |i: usize| groups.get(i).map(|m| m.as_str().to_owned());
        Some(Signed {
            username: group(1)?,
            algorithm: group(2)?,
            headers: groups.get(3)?.as_str().split(' ').map(str::to_owned).collect(),
            signature: group(4)?,
        })
    }

    fn refuse(&self, x: &mut Exchange, message: &str) -> Flow {
        let refusal = Reply::error(&x.request, x.request_id, 401, message)
            .field(names::WWW_AUTHENTICATE, self.challenge.clone());
        identity::reject(self.anonymous.as_ref(), x, refusal)
    }
}

fn credential<'a>(x: &'a Exchange, username: &str) -> Option<&'a Credential<Vec<u8>>> {
    x.snapshot.credentials.hmac_auth.get(username)
}

/// What the client must have signed.
fn signing_string(x: &Exchange, headers: &[String]) -> Vec<u8> {
    let request = &x.request;
    let mut target = request.raw_path.clone();
    if let Some(query) = &request.query {
        target.push('?');
        target.push_str(query);
    }
    let mut out = Vec::new();
    for (i, name) in headers.iter().enumerate() {
        if i > 0 {
            out.push(b'\n');
        }
        let field = FieldName::new(name);
        let value = match request.fields.get(&field) {
            None if name.eq_ignore_ascii_case("host") => Some(request.host.as_bytes()),
            value => value,
        };
        match (value, name.as_str()) {
            (Some(value), _) => {
                out.extend_from_slice(format!("{name}: ").as_bytes());
                out.extend_from_slice(value);
            }
            (None, "@request-target") => {
                let method = request.method.to_ascii_lowercase();
                out.extend_from_slice(format!("{name}: {method} {target}").as_bytes());
            }
            (None, "request-line") => {
                let version = match request.version {
                    Version::H10 => "1.0",
                    Version::H11 => "1.1",
                    Version::H2 => "2.0",
                };
                out.extend_from_slice(format!("{} {target} HTTP/{version}", request.method).as_bytes());
            }
            (None, _) => out.extend_from_slice(format!("{name}:").as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::testing::{ALICE, ANON, check};

    const REFUSED: &str = "401\n< WWW-Authenticate: hmac";

    fn now() -> String {
        httpdate::fmt_http_date(std::time::SystemTime::now())
    }

    fn authorization(user: &str, headers: &str, signed: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
        let signature = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        format!(
            r#"hmac username="{user}", algorithm="hmac-sha256", headers="{headers}", signature="{signature}""#
        )
    }

    fn get(config: Value, date: &str, authorization: &str, want: &str) {
        let request = format!("GET /request?a=1\nDate: {date}\nAuthorization: {authorization}");
        check::<HmacAuth>(config, &request, want);
    }

    #[test]
    fn signatures_are_verified() {
        let date = now();
        let signed = format!("date: {date}\nGET /request?a=1 HTTP/1.1");
        let good = authorization("alice-hmac", "date request-line", &signed);
        let alice = format!(
            "next\n> X-Consumer-ID: {ALICE}\n> X-Credential-Identifier: alice-hmac\n> Authorization: {good}"
        );
        get(json!({}), &date, &good, &alice);
        get(json!({"enforce_headers": ["date"]}), &date, &good, "next");
        get(json!({"hide_credentials": true}), &date, &good, "next\n> Authorization:");
        let target = format!("@request-target: get /request?a=1\nhost: api.test\nx-none:\ndate: {date}");
        let target = authorization("alice-hmac", "@request-target host x-none date", &target);
        get(json!({}), &date, &target, "next");

        let not_verified = format!("{REFUSED}\nbody \"message\":\"{NOT_VERIFIED}\"");
        let no_match = format!("{REFUSED}\nbody \"message\":\"{NO_MATCH}\"");
        get(json!({"enforce_headers": ["host"]}), &date, &good, &not_verified);
        get(json!({"algorithms": ["hmac-sha512"]}), &date, &good, &not_verified);
        get(json!({}), &date, "Basic abc", &not_verified);
        get(json!({}), &date, &authorization("ghost", "date", &signed), &not_verified);
        get(json!({}), &date, &authorization("alice-hmac", "date", "date: other"), &no_match);
        get(json!({}), &date, &good.replace("signature=\"", "signature=\"!"), &no_match);
        check::<HmacAuth>(json!({}), "GET /", &format!("{REFUSED}\nbody \"message\":\"Unauthorized\""));
    }

    #[test]
    fn dates_must_be_recent() {
        let old = httpdate::fmt_http_date(std::time::SystemTime::now() - std::time::Duration::from_secs(310));
        let signed = authorization("alice-hmac", "date", &format!("date: {old}"));
        let no_date = format!("{REFUSED}\nbody \"message\":\"{NO_DATE}\"");
        get(json!({}), &old, &signed, &no_date);
        get(json!({"clock_skew": 400}), &old, &signed, "next");
        let fresh = now();
        get(json!({}), &format!("{old}\nX-Date: {fresh}"), &signed, &no_date);
        let both = authorization("alice-hmac", "date x-date", &format!("date: {old}\nx-date: {fresh}"));
        get(json!({}), &format!("{old}\nX-Date: {fresh}"), &both, "next");
        get(
            json!({}),
            &format!("{fresh}\nX-Date: {old}"),
            &authorization("alice-hmac", "date", &format!("date: {fresh}")),
            "next",
        );
        get(json!({}), "yesterday", &signed, &no_date);
    }

    #[test]
    fn bodies_must_match_their_digest() {
        let (config, date) = (json!({"validate_request_body": true}), now());
        let authorization = authorization("alice-hmac", "date", &format!("date: {date}"));
        let post = |extra: &str, body: &str| {
            format!("POST /\nDate: {date}\nAuthorization: {authorization}{extra}\n\n{body}")
        };
        let digest = STANDARD.encode(digest::digest(&digest::SHA256, b"hello"));
        let no_match = format!("{REFUSED}\nbody \"message\":\"{NO_MATCH}\"");
        check::<HmacAuth>(config.clone(), &post(&format!("\nDigest: SHA-256={digest}"), "hello"), "next");
        check::<HmacAuth>(config.clone(), &post(&format!("\nDigest: SHA-256={digest}"), "hallo"), &no_match);
        check::<HmacAuth>(config.clone(), &post("", "hello"), &no_match);
        check::<HmacAuth>(config, &post("", ""), "next");
    }

    #[test]
    fn failures_may_be_anonymous() {
        let want = format!("next\n> X-Consumer-ID: {ANON}\n> X-Anonymous-Consumer: true");
        check::<HmacAuth>(json!({"anonymous": "anon"}), "GET /", &want);
    }
}
