//! `upstream-identity`: services are told who calls, in headers made from claims and in a token that gw signs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value as Claims, json};

use super::transform::template_with;
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::json::Json;
use crate::message::FieldName;
use crate::model::Model;
use crate::model::schema::{Field, HEADER, Kind, Record, STR, TEXT, Val};
use crate::template::{Lookup, Root, Template, Value};
use crate::token::sign::{Signer, encode};
use crate::token::{Algorithm, publish};

static PLUGIN: Descriptor = Descriptor {
    name: "upstream-identity",
    summary: "tell services who calls, in headers made from claims and in a signed token",
    doc: "\
## What it does
Writes request headers from the claims of the caller's token, and adds a short-lived token of the gateway's own that says
who the caller is.

## Why
A service can verify the gateway's token with one key, whatever the caller came with, and believes nobody who reaches it
around the gateway. Headers in a form of the service's choosing save it from reading tokens at all.

## Example
```yaml
plugins:
  - name: upstream-identity
    config:
      headers: { X-User: \"$(claims.sub)\", X-Account: \"$(claims.tenant)/$(claims.account or 'main')\" }
      token:
        private_key: \"${GATEWAY_KEY}\"
        issuer: https://gateway.example.com
        audience: orders
        copy_claims: [sub, tenant]
```
The public keys for the services are published by a route with the plugin `gateway-keys`.

## Behaviour
Runs after authentication and authorisation. `headers` are templates of `$(claims.NAME)` alone: what a client says beside
its token is no identity. A header whose template comes to nothing, or looks into what the claims do
not have, is not sent. Clients can send neither these headers nor
the token's, on any route.

The token has `iss`, `aud`, `iat`, `exp` (`ttl` seconds later), `sub` (the consumer's username, else its id, else the
credential's identifier), where they are known `consumer_id`, `consumer_username`, `consumer_custom_id` and `groups`, and the claims in
`copy_claims`; those named like one of `iss`, `aud`, `iat`, `exp` are not taken. A caller whom nobody has identified has a
token with `anonymous: true` and no `sub`. `typ` is `JWT`, `kid` the key's thumbprint (RFC 7638). One token is used for
all of a caller's requests in the first half of its life.

Where signing fails the answer is 500 and the service is not asked.
",
    fields: &[
        Field::new(
            "headers",
            Kind::Map(&STR),
            "Request headers, and for each a template of the caller's claims.",
        ),
        Field::new(
            "token",
            Kind::Record(&[
                Field::new("private_key", TEXT, "The gateway's private key, as PEM. Without it there is no token.").secret(),
                Field::new("algorithm", Kind::Enum(ALGORITHMS), "How tokens are signed.").default("\"ES256\""),
                Field::new("issuer", TEXT, "`iss` of the token.").default("\"gw\""),
                Field::new("audience", TEXT, "`aud` of the token."),
                Field::new("ttl", Kind::Int { min: 5, max: 3600 }, "Seconds that the token is good for.").default("60"),
                Field::new("header", HEADER, "The request header that has the token.").default("\"X-Gateway-Token\""),
                Field::new("copy_claims", Kind::Set(&TEXT), "Claims of the caller's token to take over."),
                Field::new(
                    "retired_keys",
                    Kind::List(&TEXT),
                    "Public keys, as PEM, that `gateway-keys` goes on publishing: those that signed before a rotation, and \
                     those that will sign after the next.",
                ),
            ]),
            "The gateway's own token.",
        ),
    ],
    consumer_scope: false,
    extension: true,
    identity_headers: &[],
};

const ALGORITHMS: &[&str] = &["ES256", "ES384", "RS256", "PS256", "EdDSA"];
/// What a token says of itself.
const OWN: [&str; 4] = ["iss", "aud", "iat", "exp"];
/// Tokens that one worker keeps.
const KEPT_MAX: usize = 1024;

/// See the module.
pub struct UpstreamIdentity {
    /// Sets this policy's tokens in the workers' memory apart.
    id: u64,
    headers: Vec<(FieldName, Template)>,
    token: Option<Minter>,
}

struct Minter {
    signer: Signer,
    kid: String,
    issuer: String,
    audience: Option<String>,
    ttl: u64,
    header: FieldName,
    copy: Vec<String>,
}

thread_local! {
    /// Tokens by policy and what they say, with the second from which a new one is made.
    static KEPT: RefCell<AHashMap<(u64, [u8; 32]), (u64, Rc<str>)>> = RefCell::default();
}

impl Policy for UpstreamIdentity {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut headers = Vec::new();
        for (name, value) in config.map("headers") {
            let Val::Str(text) = &value.value else { continue };
            if !crate::http1::scan::is_token(name.value.as_bytes()) {
                cx.report(&codes::INVALID_VALUE, name.span, format!("`{}` is no header name", name.value));
                return None;
            }
            let template = template_with(text, &[Root::Claims], value.span, 0, text.len(), cx)?;
            if template.uses().iter().any(|u| u.root != Root::Claims) {
                let message = "an identity is made of `claims` alone: anything else is the client's word";
                cx.report(&codes::INVALID_VALUE, value.span, message);
                return None;
            }
            headers.push((FieldName::new(&name.value), template));
        }
        let token = match config.record("token").filter(|t| t.str("private_key").is_some()) {
            None => None,
            Some(token) => match Minter::of(token) {
                Ok(minter) => Some(minter),
                Err(problem) => {
                    let span = token.span_of("private_key");
                    cx.report(&codes::INVALID_VALUE, span, format!("`private_key`: {problem}"));
                    return None;
                }
            },
        };
        if headers.is_empty() && token.is_none() {
            cx.report(
                &codes::MISSING_ALTERNATIVE,
                config.span,
                "neither `headers` nor `token.private_key` is given",
            );
            return None;
        }
        Some(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), headers, token })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        self.set_headers(x);
        let Some(minter) = &self.token else { return Flow::Next };
        match self.token(minter, x) {
            Ok(token) => {
                x.request.fields.set(&minter.header, token.as_bytes());
                Flow::Next
            }
            Err(why) => {
                x.keep(crate::telemetry::Why(why));
                Flow::Reply(Reply::error(&x.request, x.request_id, 500, "An unexpected error occurred"))
            }
        }
    }

    fn sets_headers(&self) -> Vec<String> {
        let token = self.token.iter().map(|t| &t.header);
        self.headers.iter().map(|(n, _)| n).chain(token).map(|n| n.as_str().to_owned()).collect()
    }
}

impl UpstreamIdentity {
    fn set_headers(&self, x: &mut Exchange) {
        if self.headers.is_empty() {
            return;
        }
        let claims = x.identity.as_ref().and_then(|i| i.claims.as_deref()).map(Json::from);
        let view = View(claims.as_ref());
        for (name, template) in &self.headers {
            // What cannot be evaluated for this caller says nothing of them, and control characters could say two things.
            let text = template.render(&view).unwrap_or_default();
            match text.trim() {
                text if text.is_empty() || text.chars().any(char::is_control) => {
                    x.request.fields.remove(name);
                }
                text => x.request.fields.set(name, text),
            }
        }
    }

    /// The token for the caller, one that is kept or a new one.
    fn token(&self, minter: &Minter, x: &Exchange) -> Result<Rc<str>, String> {
        let now = x.now.unix_ms / 1000;
        let claims = minter.claims(x);
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, Claims::Object(claims.clone()).to_string().as_bytes()).as_ref());
        let key = (self.id, key);
        let kept = KEPT
            .with_borrow(|kept| kept.get(&key).filter(|(until, _)| now < *until).map(|(_, t)| Rc::clone(t)));
        if let Some(token) = kept {
            return Ok(token);
        }
        let token: Rc<str> = minter.mint(claims, now)?.into();
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= KEPT_MAX {
                kept.retain(|_, (until, _)| now < *until);
                // Signing again costs little, and a caller who makes many identities gains nothing by it.
                if kept.len() >= KEPT_MAX {
                    kept.clear();
                }
            }
            kept.insert(key, (now + minter.ttl / 2, Rc::clone(&token)));
        });
        Ok(token)
    }
}

impl Minter {
    fn of(record: &Record) -> Result<Self, String> {
        let name = record.str("algorithm").unwrap_or("ES256");
        let algorithm = Algorithm::parse(name).ok_or_else(|| format!("`{name}` is no algorithm of gw"))?;
        let key = record.str("private_key").unwrap_or_default();
        let public = publish::jwk(algorithm, key, false)?;
        Ok(Self {
            signer: Signer::private_pem(algorithm, key)?,
            kid: public["kid"].as_str().unwrap_or_default().to_owned(),
            issuer: record.str("issuer").unwrap_or("gw").to_owned(),
            audience: record.str("audience").map(str::to_owned),
            ttl: record.int("ttl").and_then(|n| u64::try_from(n).ok()).unwrap_or(60),
            header: FieldName::new(record.str("header").unwrap_or("X-Gateway-Token")),
            copy: record.strings("copy_claims").into_iter().map(|c| c.value).collect(),
        })
    }

    /// What the token says of the caller.
    fn claims(&self, x: &Exchange) -> Map<String, Claims> {
        let mut claims = Map::new();
        let Some(identity) = x.identity.as_ref().filter(|i| !i.anonymous) else {
            claims.insert("anonymous".into(), true.into());
            return claims;
        };
        let consumer = x.consumer();
        let username = consumer.and_then(|c| c.username.as_deref());
        let subject = username.or(consumer.map(|c| c.id.as_str())).or(identity.credential.as_deref());
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                claims.insert(name.to_owned(), value.into());
            }
        };
        put("sub", subject);
        put("consumer_id", consumer.map(|c| c.id.as_str()));
        put("consumer_username", username);
        put("consumer_custom_id", consumer.and_then(|c| c.custom_id.as_deref()));
        let groups: Vec<&str> =
            consumer.iter().flat_map(|c| &c.acl_groups).chain(&identity.groups).map(String::as_str).collect();
        if !groups.is_empty() {
            claims.insert("groups".into(), groups.into());
        }
        for name in self.copy.iter().filter(|n| !OWN.contains(&n.as_str())) {
            if let Some(value) = identity.claims.as_deref().and_then(|c| c.get(name)) {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims
    }

    fn mint(&self, mut claims: Map<String, Claims>, now: u64) -> Result<String, String> {
        claims.insert("iss".into(), self.issuer.as_str().into());
        if let Some(audience) = &self.audience {
            claims.insert("aud".into(), audience.as_str().into());
        }
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), (now + self.ttl).into());
        encode(&self.signer, &[("kid", self.kid.as_str().into())], &Claims::Object(claims))
    }
}

/// The keys that all `upstream-identity` plugins of a config sign with, public parts alone.
pub fn public_keys(model: &Model) -> Claims {
    let mut keys: Vec<Claims> = Vec::new();
    for plugin in model.plugins.iter().filter(|p| p.enabled && p.name.value == PLUGIN.name) {
        let Some(token) = plugin.config.record("token") else { continue };
        let Some(algorithm) = token.str("algorithm").and_then(Algorithm::parse) else { continue };
        let retired = token.strings("retired_keys").into_iter().map(|k| k.value);
        for pem in token.str("private_key").map(str::to_owned).into_iter().chain(retired) {
            // A key that cannot be read is reported where it stands.
            let Ok(jwk) = publish::jwk(algorithm, &pem, false) else { continue };
            let jwk = publish::without_secrets(&jwk);
            if !keys.contains(&jwk) {
                keys.push(jwk);
            }
        }
    }
    json!({ "keys": keys })
}

/// The claims as templates see them, and nothing else.
struct View<'a>(Option<&'a Json>);

impl Lookup for View<'_> {
    fn header(&self, _: &str) -> Value<'_> {
        Value::Nil
    }

    fn query(&self, _: &str) -> Value<'_> {
        Value::Nil
    }

    fn capture(&self, _: &str) -> Value<'_> {
        Value::Nil
    }

    fn document(&self, root: Root) -> Option<&Json> {
        self.0.filter(|_| root == Root::Claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Identity;
    use crate::policy::testing::{exchange, policy, refuses};
    use crate::snapshot::ConsumerId;
    use crate::token::{Key, SecretForm, parse};

    fn key() -> (String, Claims) {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
        let pem = crate::token::sign::to_pem("PRIVATE KEY", pair.to_pkcs8v1().expect("a key").as_ref());
        let jwk = publish::jwk(Algorithm::ES256, &pem, false).expect("a key");
        (pem, jwk)
    }

    fn field(x: &Exchange, name: &str) -> String {
        x.request.fields.text(&FieldName::new(name)).unwrap_or("-").to_owned()
    }

    fn identified(claims: Claims) -> Exchange {
        let mut x = exchange("GET /\nX-User: forged");
        let claims = Some(Rc::new(claims));
        x.identity = Some(Identity { consumer: Some(ConsumerId(0)), claims, ..Identity::default() });
        x
    }

    #[test]
    fn headers_are_made_of_claims_and_of_nothing_else() {
        let config =
            json!({"headers": {"X-User": "$(claims.sub)", "X-Both": "$(claims.a.b)/$(claims.n or 'none')"}});
        let policy = policy::<UpstreamIdentity>(&config);
        let check = |mut x: Exchange, user: &str, both: &str| {
            assert!(matches!(policy.request(&mut x), Flow::Next));
            assert_eq!((field(&x, "X-User").as_str(), field(&x, "X-Both").as_str()), (user, both));
        };
        check(identified(json!({"sub": "ann", "a": {"b": "x"}, "n": 7})), "ann", "x/7");
        check(identified(json!({"a": {"b": "x"}})), "-", "x/none");
        check(identified(json!({"sub": "ann\r\nX-Evil: 1"})), "-", "-");
        check(exchange("GET /\nX-User: forged"), "-", "-");
        assert_eq!(policy.sets_headers(), ["X-User", "X-Both"]);
        refuses::<UpstreamIdentity>(
            json!({"headers": {"X-U": "$(headers.x_user)"}}),
            "made of `claims` alone",
        );
        refuses::<UpstreamIdentity>(json!({"headers": {"X U": "a"}}), "is no header name");
        refuses::<UpstreamIdentity>(json!({}), "neither `headers` nor");
        refuses::<UpstreamIdentity>(json!({"token": {"private_key": "x"}}), "`private_key`: ");
    }

    #[test]
    fn tokens_say_who_calls_and_are_used_for_half_their_life() {
        let (pem, jwk) = key();
        let config = json!({"token": {"private_key": pem, "issuer": "https://gw.test", "audience": "s", "ttl": 60,
            "copy_claims": ["tenant", "iss", "exp"]}});
        let policy = policy::<UpstreamIdentity>(&config);
        let token = |x: &mut Exchange| {
            assert!(matches!(policy.request(x), Flow::Next));
            field(x, "X-Gateway-Token")
        };
        let mut x = identified(json!({"tenant": "t1", "iss": "evil", "exp": 1, "other": 1}));
        let first = token(&mut x);
        let set = crate::token::jwk::JwkSet::from_value(&json!({"keys": [jwk]})).expect("a set");
        let parsed = parse(first.as_bytes(), 8192).expect("a token");
        let kid = parsed.header["kid"].as_str();
        let verifies = |k: &Key| k.verify(SecretForm::Plain, parsed.message, &parsed.signature).is_ok();
        assert!(set.find(kid, Algorithm::ES256).is_some_and(verifies));
        let now = x.now.unix_ms / 1000;
        let want = json!({"sub": "alice", "consumer_id": crate::policy::testing::ALICE, "consumer_username": "alice",
            "consumer_custom_id": "cust-1", "groups": ["admin", "users"], "tenant": "t1", "iss": "https://gw.test", "aud": "s",
            "iat": now, "exp": now + 60});
        assert_eq!(parsed.claims, want);
        x.now.unix_ms += 29_000;
        assert_eq!(token(&mut x), first);
        x.now.unix_ms += 1_000;
        assert_ne!(token(&mut x), first);
        let mut nobody = exchange("GET /\nX-Gateway-Token: forged");
        let parsed_nobody = token(&mut nobody);
        let claims = parse(parsed_nobody.as_bytes(), 8192).expect("a token").claims;
        assert_eq!((claims.get("sub"), &claims["anonymous"]), (None, &json!(true)));
    }
}
