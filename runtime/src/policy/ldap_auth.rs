//! `ldap-auth`: a directory says whether name and password belong together.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::{Exchange, Identity};
use crate::ldap::{self, Bind, Server, Tls};
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, MILLIS, PORT, Record, Rule, STR, TEXT};
use crate::tls::{ClientSettings, client_config};

static PLUGIN: Descriptor = Descriptor {
    name: "ldap-auth",
    summary: "authenticate users by a directory (LDAP simple bind)",
    doc: "\
## What it does
Takes name and password from the request and binds to a directory with them: if the directory lets them in, so does the
gateway.

## Why
Users keep the password that they have, and services need not know the directory.

## Example
```yaml
plugins:
  - name: ldap-auth
    config:
      ldap_host: ldap.internal
      ldap_port: 636
      ldaps: true
      verify_ldap_host: true
      base_dn: ou=people,dc=example,dc=com
      attribute: uid
      hide_credentials: true
```

## Behaviour
The client sends `Authorization` (or `Proxy-Authorization`, which is tried first) with the word of `header_type` and the
Base64 of `name:password`. The gateway binds as `ATTRIBUTE=NAME,BASE_DN`; nothing in the name can change the rest of that.
An empty password is refused without asking, as directories take it for an anonymous bind. Every refusal is 401
`Unauthorized` with `WWW-Authenticate: LDAP`. Where the directory gives no answer within `timeout` the answer is 503.

What the directory confirmed holds for `cache_ttl` seconds; what it refused is asked again. Only a hash of name and
password is remembered. Connections are used again and closed after `keepalive` ms without a question.

The user is no consumer; upstreams are told the name in `X-Credential-Identifier`. Without `ldaps` or `start_tls` passwords
travel in clear text; without `verify_ldap_host` (or `gateway.tls.verify_upstreams`) anyone between can read them.
",
    fields: &[
        Field::new("ldap_host", Kind::Str(Rule::Host), "The directory's host.").required(),
        Field::new("ldap_port", PORT, "The directory's port.").default("389"),
        Field::new("ldaps", Kind::Bool, "Whether the connection is TLS from the start.").default("false"),
        Field::new("start_tls", Kind::Bool, "Whether TLS is begun before anything is asked.").default("false"),
        Field::new("verify_ldap_host", Kind::Bool, "Whether the directory's certificate is verified.").default("false"),
        Field::new("base_dn", TEXT, "The name below which users are.").required(),
        Field::new("attribute", TEXT, "The attribute that holds a user's name, such as `uid` or `cn`.").required(),
        Field::new("cache_ttl", Kind::Num { min: 0.0, max: 86_400.0 }, "Seconds that a confirmation holds.").default("60"),
        Field::new("hide_credentials", Kind::Bool, "Whether the password is kept from the upstream.").default("false"),
        Field::new("timeout", MILLIS, "How long the directory may take, in ms.").default("10000"),
        Field::new("keepalive", MILLIS, "How long an idle connection is kept, in ms.").default("60000"),
        ANONYMOUS,
        Field::new("header_type", STR, "The word before the credentials, `ldap` or `basic`.").default("\"ldap\""),
        Field::new("realm", STR, "The realm of `WWW-Authenticate`."),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};

/// See the module.
pub struct LdapAuth {
    /// Sets this policy's entries in the workers' caches apart.
    id: u64,
    server: Arc<Server>,
    base_dn: String,
    attribute: String,
    cache_ttl: Duration,
    hide: bool,
    /// Lower case.
    scheme: String,
    challenge: String,
    anonymous: Option<Anonymous>,
}

/// What a field shows.
#[derive(Clone)]
struct Shown {
    name: String,
    password: String,
}

/// What is still to be asked, and what is being asked.
struct Asking {
    current: Shown,
    next: Option<Shown>,
}

impl Policy for LdapAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if config.bool("ldaps") && config.bool("start_tls") {
            cx.diags.push(
                Diagnostic::new(
                    &codes::CONFLICTING_FIELDS,
                    config.span_of("start_tls"),
                    "`ldaps` and `start_tls` exclude each other",
                )
                .also(config.span_of("ldaps"), "TLS from the start")
                .help("remove one of them"),
            );
            return None;
        }
        let millis = |name| Duration::from_millis(config.int(name).unwrap_or(0).unsigned_abs());
        let scheme = config.str("header_type").unwrap_or("ldap").to_ascii_lowercase();
        let word = match scheme.as_str() {
            "ldap" => "LDAP".to_owned(),
            other => other.get(..1).map_or(String::new(), |c| c.to_ascii_uppercase() + &other[1..]),
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Some(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            server: Arc::new(Server {
                host: config.str("ldap_host")?.to_owned(),
                port: config.int("ldap_port").and_then(|p| u16::try_from(p).ok())?,
                tls: tls(config, cx)?,
                timeout: millis("timeout"),
                keepalive: millis("keepalive"),
            }),
            base_dn: config.str("base_dn")?.to_owned(),
            attribute: config.str("attribute")?.to_owned(),
            cache_ttl: Duration::from_secs_f64(config.num("cache_ttl")?),
            hide: config.bool("hide_credentials"),
            challenge: identity::challenge(&word, config.str("realm")),
            scheme,
            anonymous: Anonymous::of(config),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        let mut shown = [names::PROXY_AUTHORIZATION, names::AUTHORIZATION]
            .iter()
            .filter_map(|field| self.shown(x, field))
            .collect::<Vec<_>>()
            .into_iter();
        match (shown.next(), shown.next()) {
            (Some(current), next) => self.ask(x, Asking { current, next }),
            (None, _) => self.refuse(x),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        let asked = x.kept::<Asking>().map(|a| (a.current.clone(), a.next.clone()));
        let (Answer::Ldap(answer), Some((current, next))) = (answer, asked) else { return self.refuse(x) };
        match (answer, next) {
            (Ok(true), _) => {
                remember(self.key(&current), x.now.instant + self.cache_ttl, x.now.instant);
                self.accept(x, current.name)
            }
            (Ok(false), Some(current)) => self.ask(x, Asking { current, next: None }),
            (Ok(false), None) => self.refuse(x),
            (Err(why), _) => {
                x.keep(crate::telemetry::Why(format!("ldap-auth: {why}")));
                let message = "The directory cannot be asked";
                Flow::Reply(Reply::error(&x.request, x.request_id, 503, message))
            }
        }
    }
}

impl LdapAuth {
    fn ask(&self, x: &mut Exchange, asking: Asking) -> Flow {
        if is_known(&self.key(&asking.current), x.now.instant) {
            return self.accept(x, asking.current.name);
        }
        let Shown { name, password } = &asking.current;
        let bind = Bind {
            server: Arc::clone(&self.server),
            name: format!("{}={},{}", self.attribute, ldap::escape(name), self.base_dn),
            password: password.clone(),
        };
        x.keep(asking);
        Flow::Await(Effect::Ldap(Box::new(bind)))
    }

    fn accept(&self, x: &mut Exchange, name: String) -> Flow {
        if self.hide {
            x.request.fields.remove(&names::AUTHORIZATION);
            x.request.fields.remove(&names::PROXY_AUTHORIZATION);
        }
        let credential_id = Some(format!("ldap {name}"));
        let identity = Identity { credential: Some(name), credential_id, ..Identity::default() };
        identity::set_identity(x, identity);
        Flow::Next
    }

    fn refuse(&self, x: &mut Exchange) -> Flow {
        let refusal = Reply::error(&x.request, x.request_id, 401, "Unauthorized")
            .field(names::WWW_AUTHENTICATE, self.challenge.clone());
        identity::reject(self.anonymous.as_ref(), x, refusal)
    }

    fn shown(&self, x: &Exchange, field: &FieldName) -> Option<Shown> {
        let value = x.request.fields.text(field)?.trim_start();
        let (scheme, encoded) = value.split_at_checked(self.scheme.len())?;
        if !scheme.eq_ignore_ascii_case(&self.scheme) || !encoded.starts_with(' ') {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        // What has control characters is no name that could be handed on in a header.
        let sound = !name.is_empty() && !password.is_empty() && !name.chars().any(char::is_control);
        sound.then(|| Shown { name: name.to_owned(), password: password.to_owned() })
    }

    /// What a confirmation is remembered under. The random part is the process's, so that the hashes are worth nothing.
    fn key(&self, shown: &Shown) -> Remembered {
        static SALT: std::sync::LazyLock<Option<[u8; 32]>> = std::sync::LazyLock::new(|| {
            let mut salt = [0; 32];
            rand::fill(&mut salt).ok().map(|()| salt)
        });
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(SALT.as_ref()?);
        context.update(&self.id.to_be_bytes());
        context.update(&(shown.name.len() as u64).to_be_bytes());
        context.update(shown.name.as_bytes());
        context.update(shown.password.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Some(out)
    }
}

fn tls(config: &Record, cx: &mut Cx<'_>) -> Option<Tls> {
    if !config.bool("ldaps") && !config.bool("start_tls") {
        return Some(Tls::None);
    }
    let gateway = &cx.model.gateway.tls;
    let verify = config.bool("verify_ldap_host") || gateway.verify_upstreams;
    let ca = gateway.upstream_authorities().filter(|_| verify);
    let settings = ClientSettings { verify, ca: ca.into_iter().collect(), ..ClientSettings::default() };
    let without_http = |made: Arc<rustls::ClientConfig>| {
        let mut made = (*made).clone();
        made.alpn_protocols.clear();
        Arc::new(made)
    };
    match client_config(&settings).map(without_http) {
        Ok(made) if config.bool("ldaps") => Some(Tls::Direct(made)),
        Ok(made) => Some(Tls::Start(made)),
        Err(why) => {
            cx.report(&codes::INVALID_VALUE, config.span_of("verify_ldap_host"), format!("no TLS: {why}"));
            None
        }
    }
}

/// Nothing where the system gives no random bytes: then nothing is remembered.
type Remembered = Option<[u8; 32]>;

/// Confirmations that a worker remembers.
const MOST: usize = 4096;

thread_local! {
    static CONFIRMED: RefCell<AHashMap<[u8; 32], Instant>> = RefCell::default();
}

fn is_known(key: &Remembered, now: Instant) -> bool {
    let Some(key) = key else { return false };
    CONFIRMED.with_borrow(|all| all.get(key).is_some_and(|until| *until > now))
}

/// Only names with their right passwords get in, so whoever has none can push nothing out.
fn remember(key: Remembered, until: Instant, now: Instant) {
    let Some(key) = key.filter(|_| until > now) else { return };
    CONFIRMED.with_borrow_mut(|all| {
        if all.len() >= MOST {
            all.retain(|_, until| *until > now);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, until);
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ldap::Unavailable;
    use crate::policy::testing::{self, policy, refuses};

    fn config(change: Value) -> Value {
        let mut config = json!({"ldap_host": "l.test", "base_dn": "ou=p,dc=t", "attribute": "uid"});
        for (name, value) in change.as_object().into_iter().flatten() {
            config[name] = value.clone();
        }
        config
    }

    fn field(name: &str, scheme: &str, text: &str) -> String {
        format!("\n{name}: {scheme} {}", STANDARD.encode(text))
    }

    /// What comes of a request: a status (200 goes on), and the names that the directory was asked about.
    fn run(policy: &LdapAuth, fields: &str, directory: &[(&str, &str)]) -> (u16, Vec<String>) {
        let mut x = testing::exchange(&format!("GET /{fields}"));
        let (mut flow, mut asked) = (policy.request(&mut x), Vec::new());
        loop {
            match flow {
                Flow::Next => return (200, asked),
                Flow::Reply(reply) => return (reply.status, asked),
                Flow::Await(Effect::Ldap(bind)) => {
                    let answer = match bind.password.as_str() {
                        "down" => Err(Unavailable::Connection),
                        _ => Ok(directory.contains(&(bind.name.as_str(), bind.password.as_str()))),
                    };
                    asked.push(bind.name.clone());
                    flow = policy.resume(&mut x, Answer::Ldap(answer));
                }
                Flow::Await(other) => panic!("{other:?}"),
            }
        }
    }

    const ALICE: (&str, &str) = ("uid=alice,ou=p,dc=t", "pw:1");

    #[test]
    fn the_directory_decides() {
        let check = |fields: String, want: u16, asked: &[&str]| {
            let policy = policy::<LdapAuth>(&config(json!({})));
            let (status, names) = run(&policy, &fields, &[ALICE]);
            assert_eq!(
                (status, names.iter().map(String::as_str).collect::<Vec<_>>()),
                (want, asked.to_vec()),
                "{fields}"
            );
        };
        let auth = |text| field("Authorization", "ldap", text);
        check(auth("alice:pw:1"), 200, &["uid=alice,ou=p,dc=t"]);
        check(field("Authorization", "LDAP", "alice:pw:1"), 200, &["uid=alice,ou=p,dc=t"]);
        check(auth("alice:no"), 401, &["uid=alice,ou=p,dc=t"]);
        check(auth("a,ou=x:pw"), 401, &["uid=a\\,ou\\=x,ou=p,dc=t"]);
        check(auth("alice:down"), 503, &["uid=alice,ou=p,dc=t"]);
        for nothing in ["alice:", ":pw", "alice", "a\nb:pw", ""] {
            check(auth(nothing), 401, &[]);
        }
        check(field("Authorization", "Basic", "alice:pw:1"), 401, &[]);
        check("\nAuthorization: ldapx".to_owned(), 401, &[]);
        check("\nAuthorization: ldap %%%".to_owned(), 401, &[]);
        let both = field("Proxy-Authorization", "ldap", "bob:x") + &auth("alice:pw:1");
        check(both, 200, &["uid=bob,ou=p,dc=t", "uid=alice,ou=p,dc=t"]);
        check(String::new(), 401, &[]);
    }

    #[test]
    fn confirmations_hold_for_their_time_and_for_their_policy() {
        let auth = field("Authorization", "ldap", "alice:pw:1");
        let asks = |policy: &LdapAuth| run(policy, &auth, &[ALICE]).1.len();
        let (one, other) = (policy::<LdapAuth>(&config(json!({}))), policy::<LdapAuth>(&config(json!({}))));
        assert_eq!((asks(&one), asks(&one), asks(&other)), (1, 0, 1));
        assert_eq!(
            run(&one, &field("Authorization", "ldap", "alice:pw"), &[ALICE]),
            (401, vec![ALICE.0.into()])
        );
        let none = policy::<LdapAuth>(&config(json!({"cache_ttl": 0})));
        assert_eq!((asks(&none), asks(&none)), (1, 1));
    }

    #[test]
    fn callers_are_told_and_hidden_as_the_config_says() {
        let policy = policy::<LdapAuth>(&config(json!({"hide_credentials": true, "realm": "r"})));
        let mut x = testing::exchange(&format!("GET /{}", field("Authorization", "ldap", "alice:pw:1")));
        assert!(matches!(policy.request(&mut x), Flow::Await(_)));
        assert!(matches!(policy.resume(&mut x, Answer::Ldap(Ok(true))), Flow::Next));
        let told = |name: &str| x.request.fields.text(&FieldName::new(name)).map(str::to_owned);
        assert_eq!(told("X-Credential-Identifier").as_deref(), Some("alice"));
        assert_eq!((told("Authorization"), told("X-Consumer-ID")), (None, None));
        testing::check::<LdapAuth>(
            config(json!({"realm": "r"})),
            "GET /",
            "401\nbody Unauthorized\n< WWW-Authenticate: LDAP realm=\"r\"",
        );
        testing::check::<LdapAuth>(
            config(json!({"header_type": "basic"})),
            "GET /",
            "401\n< WWW-Authenticate: Basic",
        );
        testing::check::<LdapAuth>(
            config(json!({"anonymous": "anon"})),
            "GET /",
            "next\n> X-Anonymous-Consumer: true",
        );
        refuses::<LdapAuth>(config(json!({"ldaps": true, "start_tls": true})), "exclude each other");
    }
}
