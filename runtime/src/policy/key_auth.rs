//! `key-auth`: clients show a key.

use std::borrow::Cow;

use aws_lc_rs::digest;
use subtle::ConstantTimeEq as _;

use super::form::{self, Form};
use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, names, query_pairs};
use crate::model::schema::{Field, HEADER, Kind, Record, STR};

static PLUGIN: Descriptor = Descriptor {
    name: "key-auth",
    summary: "authenticate consumers by a key",
    doc: "\
## What it does
Finds the consumer by the key in a header, the query or the body.

## Why
The simplest credential that a script can send.

## Example
```yaml
consumers:
  - username: alice
    keyauth_credentials: [{ key: \"${ALICE_KEY}\" }]
plugins:
  - name: key-auth
    config: { key_names: [X-Api-Key], key_in_query: false, hide_credentials: true }
```

## Behaviour
For each name in turn the header, the query and, with `key_in_body`, the body (form, JSON or multipart) are looked at;
the first text found is the key, even an empty one. Refusals are 401 with `WWW-Authenticate: Key`:
`No API key found in request`, `Duplicate API key found` where a place has several, `Unauthorized` for an unknown key.
With `hide_credentials` the upstream does not see the key.

Keys are kept as their SHA-256 and compared in constant time. A config need not hold them either: `gw token hash-key` makes
what goes into `key_hash`. Only random keys are safe that way; a hash does not protect a key that can be guessed.
",
    fields: &[
        Field::new("key_names", Kind::List(&HEADER), "Names of the header, argument or field that holds the key.")
            .default("[\"apikey\"]"),
        Field::new("key_in_header", Kind::Bool, "Whether headers are looked at.").default("true"),
        Field::new("key_in_query", Kind::Bool, "Whether the query is looked at.").default("true"),
        Field::new("key_in_body", Kind::Bool, "Whether the body is looked at.").default("false"),
        Field::new("hide_credentials", Kind::Bool, "Whether the key is kept from the upstream.").default("false"),
        ANONYMOUS,
        Field::new("run_on_preflight", Kind::Bool, "Whether `OPTIONS` requests need a key too.").default("true"),
        Field::new("realm", STR, "The realm of `WWW-Authenticate`."),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};

/// What a key is stored under: its SHA-256. Compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct Fingerprint([u8; 32]);

impl std::hash::Hash for Fingerprint {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The fingerprint of a key.
pub fn fingerprint(key: &str) -> Fingerprint {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    Fingerprint(out)
}

/// How a config writes a fingerprint.
const WRITTEN: &str = "sha256:";

/// A fingerprint as a config holds it.
pub fn written(fingerprint: Fingerprint) -> String {
    let hex: String = fingerprint.0.iter().map(|b| format!("{b:02x}")).collect();
    format!("{WRITTEN}{hex}")
}

/// The fingerprint that a config holds.
pub fn read(text: &str) -> Option<Fingerprint> {
    let hex = text.strip_prefix(WRITTEN)?;
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok().map(Fingerprint) } else { None }
}

struct Name {
    text: String,
    field: FieldName,
    /// The same with `-` for `_`: Kong finds such headers too.
    dashed: FieldName,
}

/// See the module.
pub struct KeyAuth {
    names: Vec<Name>,
    in_header: bool,
    in_query: bool,
    in_body: bool,
    hide: bool,
    on_preflight: bool,
    challenge: String,
    anonymous: Option<Anonymous>,
}

/// What is found under a name.
enum Found {
    Nothing,
    Key(String),
    Several,
}

impl Policy for KeyAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let name = |text: String| Name {
            field: FieldName::new(&text),
            dashed: FieldName::new(&text.replace('_', "-")),
            text,
        };
        Some(Self {
            names: config.strings("key_names").into_iter().map(|n| name(n.value)).collect(),
            in_header: config.bool("key_in_header"),
            in_query: config.bool("key_in_query"),
            in_body: config.bool("key_in_body"),
            hide: config.bool("hide_credentials"),
            on_preflight: config.bool("run_on_preflight"),
            challenge: identity::challenge("Key", config.str("realm")),
            anonymous: Anonymous::of(config),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let exempt = !self.on_preflight && x.request.method == "OPTIONS";
        if exempt || (self.anonymous.is_some() && identity::is_authenticated(x)) {
            return Flow::Next;
        }
        if self.in_body && x.body.is_none() && form::readable(&x.request.fields) {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.authenticate(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            _ => self.authenticate(x),
        }
    }
}

impl KeyAuth {
    fn authenticate(&self, x: &mut Exchange) -> Flow {
        let key = match self.find(x) {
            Found::Key(key) if !key.is_empty() => key,
            Found::Several => return self.refuse(x, "Duplicate API key found"),
            _ => return self.refuse(x, "No API key found in request"),
        };
        let snapshot = x.snapshot.clone();
        let now = x.now.unix_ms / 1000;
        let known = snapshot.credentials.key_auth.get(&fingerprint(&key));
        match known.filter(|c| c.data.is_none_or(|end| now < u64::from(end.get()))) {
            Some(credential) => {
                let identity = identity::of_credential(credential, credential.id.clone(), None);
                identity::set_identity(x, identity);
                Flow::Next
            }
            None => self.refuse(x, "Unauthorized"),
        }
    }

    /// The key under the first name that has one; removes it where credentials are hidden.
    fn find(&self, x: &mut Exchange) -> Found {
        let mut form = match (&x.body, self.in_body) {
            (Some(body), true) => Form::parse(&x.request.fields, body),
            _ => None,
        };
        for name in &self.names {
            let mut found = Found::Nothing;
            if self.in_header {
                let header = |field| several(x.request.fields.all(field).map(String::from_utf8_lossy));
                found = header(&name.field).or(|| header(&name.dashed));
            }
            if self.in_query {
                let query = x.request.query.as_deref().unwrap_or("");
                found = found.or(|| in_query(query, &name.text));
            }
            if let Some(form) = &form {
                found = found.or(|| match form.get(&name.text) {
                    form::Entry::Text(text) => Found::Key(text),
                    form::Entry::Several => Found::Several,
                    form::Entry::Other | form::Entry::Absent => Found::Nothing,
                });
            }
            match found {
                Found::Nothing => {}
                found => {
                    if self.hide && matches!(found, Found::Key(_)) {
                        hide(x, name, form.as_mut());
                    }
                    return found;
                }
            }
        }
        Found::Nothing
    }

    fn refuse(&self, x: &mut Exchange, message: &str) -> Flow {
        let refusal = Reply::error(&x.request, x.request_id, 401, message)
            .field(names::WWW_AUTHENTICATE, self.challenge.clone());
        identity::reject(self.anonymous.as_ref(), x, refusal)
    }
}

impl Found {
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Nothing => other(),
            found => found,
        }
    }
}

fn several<'a>(mut values: impl Iterator<Item = Cow<'a, str>>) -> Found {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(one), None) => Found::Key(one.into_owned()),
        (Some(_), Some(_)) => Found::Several,
    }
}

/// An argument without `=` is no text, so it is no key.
fn in_query(query: &str, name: &str) -> Found {
    let mut values = query_pairs(query).filter(|(k, _)| k == name).map(|(_, v)| v);
    match (values.next(), values.next()) {
        (Some(Some(one)), None) => Found::Key(one),
        (None, _) | (Some(None), None) => Found::Nothing,
        (Some(_), Some(_)) => Found::Several,
    }
}

fn hide(x: &mut Exchange, name: &Name, form: Option<&mut Form>) {
    x.request.fields.remove(&name.field);
    x.request.fields.remove(&name.dashed);
    if let Some(query) = &x.request.query {
        x.request.query = form::without_argument(query, &name.text);
    }
    if let Some(form) = form
        && form.remove(&name.text)
    {
        x.body = Some(form.encode().into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{ALICE, ANON, check, policy};

    const NO_KEY: &str = "401\nbody \"message\":\"No API key found in request\"\n< WWW-Authenticate: Key";
    const DUPLICATE: &str = "401\nbody \"message\":\"Duplicate API key found\"";
    const UNKNOWN: &str = "401\nbody \"message\":\"Unauthorized\"";

    #[test]
    fn keys_are_found_in_headers_and_the_query() {
        let none = json!({});
        check::<KeyAuth>(none.clone(), "GET /", NO_KEY);
        check::<KeyAuth>(none.clone(), "GET /\napikey:", NO_KEY);
        check::<KeyAuth>(none.clone(), "GET /?apikey", NO_KEY);
        check::<KeyAuth>(none.clone(), "GET /?APIKEY=kong", NO_KEY);
        check::<KeyAuth>(none.clone(), "GET /\napikey: KONG", UNKNOWN);
        check::<KeyAuth>(none.clone(), "GET /\napikey: kong\napikey: kong", DUPLICATE);
        check::<KeyAuth>(none.clone(), "GET /?apikey=kong&apikey=x", DUPLICATE);
        let alice = format!(
            "next\n> X-Consumer-ID: {ALICE}\n> X-Consumer-Username: alice\n> X-Consumer-Custom-ID: cust-1\n\
             > X-Credential-Identifier: key-alice\n> X-Anonymous-Consumer:\n> apikey: kong"
        );
        check::<KeyAuth>(none.clone(), "GET /\nAPIKEY: kong", &alice);
        check::<KeyAuth>(none.clone(), "GET /?apikey=kong", "next\n> X-Consumer-Username: alice");
        check::<KeyAuth>(json!({"key_in_query": false}), "GET /?apikey=kong", NO_KEY);
        let names = json!({"key_names": ["x-a", "x_b"]});
        check::<KeyAuth>(names.clone(), "GET /\nx-b: kong", "next");
        check::<KeyAuth>(names, "GET /\nx-a: bad\nx-b: kong", UNKNOWN);
        let realm = "401\n< WWW-Authenticate: Key realm=\"r\"";
        check::<KeyAuth>(json!({"realm": "r"}), "GET /", realm);
    }

    #[test]
    fn keys_are_found_in_bodies() {
        let post = |media: &str, body: &str| format!("POST /\nContent-Type: {media}\n\n{body}");
        let config = json!({"key_in_body": true});
        let (json_media, form_media) = ("application/json", "application/x-www-form-urlencoded");
        for (media, body, want) in [
            (json_media, r#"{"apikey":"kong"}"#, "next"),
            (json_media, r#"{"apikey":"123"}"#, UNKNOWN),
            (json_media, r#"{"apikey":["kong"]}"#, DUPLICATE),
            (json_media, r#"{"apikey":5}"#, NO_KEY),
            (json_media, "not json", NO_KEY),
            (form_media, "apikey=kong&a=b", "next"),
            (form_media, "apikey=kong&apikey=kong", DUPLICATE),
            (form_media, "apikey[]=kong", NO_KEY),
            ("text/plain", "apikey=kong", NO_KEY),
        ] {
            check::<KeyAuth>(config.clone(), &post(media, body), want);
        }
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nkong\r\n--b--\r\n";
        check::<KeyAuth>(config, &post("multipart/form-data; boundary=b", multipart), "next");
    }

    #[test]
    fn hashes_are_written_and_read() {
        let hash = fingerprint("kong");
        let text = written(hash);
        assert!(read(&text) == Some(hash) && read(&text.to_uppercase().replace("SHA", "sha")) == Some(hash));
        for bad in
            ["", "sha256:", &text[..70], &format!("{text}0"), &text.replace("sha256", "md5"), "sha256:é"]
        {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_are_hidden() {
        let config = json!({"hide_credentials": true, "key_in_body": true});
        check::<KeyAuth>(config.clone(), "GET /\napikey: kong", "next\n> apikey:");
        check::<KeyAuth>(config.clone(), "GET /?a=1&apikey=kong&b=%20", "next\nquery a=1&b=%20");
        let form = "POST /\nContent-Type: application/x-www-form-urlencoded\n\na=1&apikey=kong";
        check::<KeyAuth>(config.clone(), form, "next\nbody a=1");
        let json = "POST /\nContent-Type: application/json\n\n{\"b\":1,\"apikey\":\"kong\"}";
        check::<KeyAuth>(config, json, "next\nbody {\"b\":1}");
    }

    #[test]
    fn preflights_and_anonymous_requests_may_pass() {
        check::<KeyAuth>(json!({}), "OPTIONS /", NO_KEY);
        check::<KeyAuth>(json!({"run_on_preflight": false}), "OPTIONS /", "next\n> X-Consumer-ID:");
        let anonymous = json!({"anonymous": "anon"});
        let want = format!(
            "next\n> X-Consumer-ID: {ANON}\n> X-Anonymous-Consumer: true\n> X-Credential-Identifier:"
        );
        check::<KeyAuth>(anonymous.clone(), "GET /", &want);
        check::<KeyAuth>(anonymous.clone(), "GET /\napikey: bad", &want);
        check::<KeyAuth>(anonymous, "GET /\napikey: kong", "next\n> X-Consumer-Username: alice");
        check::<KeyAuth>(json!({"anonymous": "ghost"}), "GET /", "500");
    }

    #[test]
    fn an_earlier_success_is_enough_only_with_anonymous() {
        let mut x = crate::policy::testing::exchange("GET /\napikey: bad");
        let bob = crate::snapshot::ConsumerId(1);
        identity::set_identity(
            &mut x,
            crate::exchange::Identity { consumer: Some(bob), ..Default::default() },
        );
        assert!(matches!(policy::<KeyAuth>(&json!({"anonymous": "anon"})).request(&mut x), Flow::Next));
        assert_eq!(x.identity.as_ref().and_then(|i| i.consumer), Some(bob));
        assert!(matches!(policy::<KeyAuth>(&json!({})).request(&mut x), Flow::Reply(_)));
    }
}
