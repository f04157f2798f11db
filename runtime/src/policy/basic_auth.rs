//! `basic-auth`: clients show a name and a password.

use aws_lc_rs::digest;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, Record, STR};
use crate::snapshot::BasicSecret;

static PLUGIN: Descriptor = Descriptor {
    name: "basic-auth",
    summary: "authenticate consumers by name and password",
    doc: "\
## What it does
Finds the consumer by the name and password of an `Authorization: Basic` field.

## Why
Every HTTP client can do it. Use it over TLS only: the password travels with each request.

## Example
```yaml
consumers:
  - username: alice
    basicauth_credentials: [{ username: alice, password: \"${ALICE_PASSWORD}\" }]
plugins:
  - name: basic-auth
    config: { hide_credentials: true }
```

## Behaviour
`Proxy-Authorization` is tried first; where it names no known user, `Authorization`. Every failure is 401
`Unauthorized` with `WWW-Authenticate: Basic realm=\"service\"`. With `hide_credentials` the upstream does not see the
field. Passwords are compared in constant time and kept as a hash salted with the consumer's id.
",
    fields: &[
        Field::new("hide_credentials", Kind::Bool, "Whether the password is kept from the upstream.").default("false"),
        ANONYMOUS,
        Field::new("realm", STR, "The realm of `WWW-Authenticate`.").default("\"service\""),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};

/// What is kept of a password: SHA-1 of it and the consumer's id.
pub fn secret(password: &str, consumer_id: &str) -> BasicSecret {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(password.as_bytes());
    context.update(consumer_id.as_bytes());
    let mut out = [0; 20];
    out.copy_from_slice(context.finish().as_ref());
    BasicSecret(out)
}

/// A password that is given as [`secret`] in hexadecimal already (`_transform: false`).
pub fn prehashed(hex: &str) -> Option<BasicSecret> {
    if hex.len() != 40 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 20];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(BasicSecret(out))
}

/// See the module.
pub struct BasicAuth {
    hide: bool,
    challenge: String,
    anonymous: Option<Anonymous>,
}

impl Policy for BasicAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        Some(Self {
            hide: config.bool("hide_credentials"),
            challenge: identity::challenge("Basic", config.str("realm")),
            anonymous: Anonymous::of(config),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        let snapshot = x.snapshot.clone();
        let users = &snapshot.credentials.basic_auth;
        let found = [names::PROXY_AUTHORIZATION, names::AUTHORIZATION].iter().find_map(|field| {
            let (user, password) = self.shown(x, field)?;
            Some((users.get(&user)?, user, password))
        });
        if let Some((credential, user, password)) = found
            && let Some(consumer) = snapshot.consumers.get(credential.consumer.0 as usize)
            && secret(&password, &consumer.id).0.ct_eq(&credential.data.0).into()
        {
            identity::set_identity(x, identity::of_credential(credential, user, None));
            return Flow::Next;
        }
        let refusal = Reply::error(&x.request, x.request_id, 401, "Unauthorized")
            .field(names::WWW_AUTHENTICATE, self.challenge.clone());
        identity::reject(self.anonymous.as_ref(), x, refusal)
    }
}

impl BasicAuth {
    /// Name and password of a field, which is removed where credentials are hidden.
    fn shown(&self, x: &mut Exchange, field: &FieldName) -> Option<(String, String)> {
        let shown = x.request.fields.text(field).and_then(decode);
        if self.hide {
            x.request.fields.remove(field);
        }
        shown
    }
}

/// Name and password of `Basic BASE64`. Colons before the name are skipped, as Kong does.
fn decode(value: &str) -> Option<(String, String)> {
    let at = value.find("asic").filter(|&at| at > 0 && matches!(value.as_bytes()[at - 1], b'B' | b'b'))?;
    let encoded = value[at + 4..].trim_start();
    let encoded = encoded.split('=').next().unwrap_or("");
    let decoded = String::from_utf8(LENIENT.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.trim_start_matches(':').split_once(':')?;
    let password = password.split('\n').next().unwrap_or("");
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// Takes Base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{ALICE, check};

    const REFUSED: &str =
        "401\nbody \"message\":\"Unauthorized\"\n< WWW-Authenticate: Basic realm=\"service\"";

    fn basic(text: &str) -> String {
        format!("Basic {}", general_purpose::STANDARD.encode(text))
    }

    #[test]
    fn names_and_passwords_are_checked() {
        let good = basic("alice-login:kong:s");
        let accepted = format!(
            "next\n> X-Consumer-ID: {ALICE}\n> X-Credential-Identifier: alice-login\n> Authorization: {good}"
        );
        for (authorization, want) in [
            (good.clone(), accepted.as_str()),
            (good.replace("Basic", "basic"), "next"),
            (basic(":alice-login:kong:s"), "next"),
            (good.trim_end_matches('=').to_owned(), "next"),
            (basic("alice-login:nope"), REFUSED),
            (basic("alice-login:"), REFUSED),
            (basic("alice-login"), REFUSED),
            (basic(":kong:s"), REFUSED),
            (basic("ghost:kong:s"), REFUSED),
            ("Basic %%%".to_owned(), REFUSED),
            ("Basic".to_owned(), REFUSED),
            ("Bearer abc".to_owned(), REFUSED),
        ] {
            check::<BasicAuth>(json!({}), &format!("GET /\nAuthorization: {authorization}"), want);
        }
        check::<BasicAuth>(json!({}), "OPTIONS /", REFUSED);
    }

    #[test]
    fn the_proxy_field_is_tried_first() {
        let (good, unknown, wrong) = (basic("alice-login:kong:s"), basic("eve:x"), basic("alice-login:x"));
        let both = |first: &str, second: &str| {
            format!("GET /\nProxy-Authorization: {first}\nAuthorization: {second}")
        };
        check::<BasicAuth>(json!({}), &format!("GET /\nProxy-Authorization: {good}"), "next");
        check::<BasicAuth>(json!({}), &both(&unknown, &good), "next");
        check::<BasicAuth>(json!({}), &both(&wrong, &good), REFUSED);
        let hide = json!({"hide_credentials": true});
        check::<BasicAuth>(hide.clone(), &format!("GET /\nAuthorization: {good}"), "next\n> Authorization:");
        let kept = format!("next\n> Proxy-Authorization:\n> Authorization: {unknown}");
        check::<BasicAuth>(hide, &both(&good, &unknown), &kept);
    }

    #[test]
    fn failures_may_be_anonymous() {
        let config = json!({"anonymous": "anon"});
        check::<BasicAuth>(
            config,
            "GET /",
            "next\n> X-Consumer-Username: anon\n> X-Anonymous-Consumer: true",
        );
    }

    #[test]
    fn hashes_are_read_as_kong_stores_them() {
        let stored = "5520d5aaccb5b0575bd2c2a6adb6a5cfb664f882";
        assert_eq!(prehashed(stored).map(|s| s.0), Some(secret("kong", ALICE).0));
        assert!(prehashed("kong").is_none());
        assert!(prehashed(&"é".repeat(20)).is_none());
    }
}
