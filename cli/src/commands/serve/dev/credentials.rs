//! Who may ask a route, and what shows it: the words of a `curl` line that satisfy the route's authenticators.

use std::path::Path;

use gw_runtime::check::Checked;
use gw_runtime::clock;
use gw_runtime::model::schema::Record;
use gw_runtime::model::{Credential, CredentialKind, Model, Plugin};
use gw_runtime::token::mint::{self, MintRequest};

use super::curl::{Curl, quote};

/// The authenticators that this knows how to satisfy, by what a consumer must have.
const KNOWN: &[(&str, CredentialKind)] = &[
    ("jwt", CredentialKind::Jwt),
    ("key-auth", CredentialKind::KeyAuth),
    ("basic-auth", CredentialKind::BasicAuth),
];
/// Authenticators whose requests curl alone cannot make.
const BEYOND_CURL: &[&str] = &[
    "hmac-auth",
    "ldap-auth",
    "oauth2",
    "mtls-auth",
    "standard-webhooks",
    "oauth2-introspection",
    "forward-auth",
];

/// What was found out about a route's callers.
#[derive(Default)]
pub struct Caller {
    /// The consumer that asks.
    pub name: Option<String>,
    /// What proves it, for the comment above the line.
    pub proof: Vec<&'static str>,
    /// Whether a request without credentials is refused.
    pub required: bool,
    /// What is still missing from the line.
    pub missing: Vec<String>,
}

/// The plugins that a route's requests meet: of each name the one with the narrowest scope.
pub fn plugins_of_route(model: &Checked<Model>, route: usize) -> Vec<&Plugin> {
    let service = model.links().route_service.get(route).copied().flatten();
    let applying = model.plugins.iter().zip(&model.links().plugin_scope).filter(|(plugin, scope)| {
        plugin.enabled
            && scope.consumer.is_none()
            && scope.consumer_group.is_none()
            && scope.route.is_none_or(|r| r == route)
            && scope.service.is_none_or(|s| Some(s) == service)
    });
    let mut chosen: Vec<(&Plugin, (bool, bool))> = Vec::new();
    for (plugin, scope) in applying {
        let narrowness = (scope.route.is_some(), scope.service.is_some());
        match chosen.iter_mut().find(|(p, _)| p.name.value == plugin.name.value) {
            Some(entry) if entry.1 < narrowness => *entry = (plugin, narrowness),
            Some(_) => {}
            None => chosen.push((plugin, narrowness)),
        }
    }
    chosen.into_iter().map(|(plugin, _)| plugin).collect()
}

/// Adds to `curl` what makes the route's authenticators say yes.
pub fn add(
    curl: &mut Curl,
    model: &Checked<Model>,
    route: usize,
    plugins: &[&Plugin],
    file: Option<&Path>,
) -> Caller {
    let mut caller = Caller::default();
    let is = |p: &Plugin, name: &str| p.name.value == name;
    for plugin in plugins.iter().filter(|p| BEYOND_CURL.contains(&p.name.value.as_str())) {
        caller.required = true;
        caller.missing.push(format!("what `{}` asks for", plugin.name.value));
    }
    let asked: Vec<(&Plugin, CredentialKind)> =
        plugins.iter().filter_map(|p| Some((*p, KNOWN.iter().find(|(name, _)| is(p, name))?.1))).collect();
    if asked.is_empty() {
        return caller;
    }
    let optional = |p: &Plugin| p.config.str("anonymous").is_some_and(|a| !a.is_empty());
    caller.required |= asked.iter().any(|(p, _)| !optional(p));
    let acl = plugins.iter().find(|p| is(p, "acl"));
    let Some(consumer) = choose(model, &asked, acl.map(|p| &p.config)) else {
        if !caller.required {
            return caller;
        }
        let kinds: Vec<&str> = asked.iter().map(|(p, _)| p.name.value.as_str()).collect();
        caller.missing.push(format!("a consumer with credentials for {}", kinds.join(" and ")));
        return caller;
    };
    let entry = &model.consumers[consumer];
    let name = entry.username.as_ref().map_or(entry.id.as_str(), |u| u.value.as_str());
    caller.name = Some(name.to_owned());
    for (plugin, kind) in &asked {
        let Some(credential) = credentials(model, consumer, *kind).next() else { continue };
        let added = match kind {
            CredentialKind::Jwt => token(curl, model, route, name, plugin, file),
            CredentialKind::KeyAuth => key(curl, model, credential, &plugin.config),
            _ => password(curl, model, credential),
        };
        match added {
            Ok(proof) => caller.proof.push(proof),
            Err(missing) => caller.missing.push(missing),
        }
    }
    caller
}

fn credentials(
    model: &Checked<Model>,
    consumer: usize,
    kind: CredentialKind,
) -> impl Iterator<Item = &Credential> {
    let owned = model.credentials.iter().zip(&model.links().credential_consumer);
    owned.filter(move |(c, owner)| c.kind == kind && **owner == consumer).map(|(c, _)| c)
}

/// The first consumer that can satisfy the most authenticators and that `acl` lets through.
fn choose(
    model: &Checked<Model>,
    asked: &[(&Plugin, CredentialKind)],
    acl: Option<&Record>,
) -> Option<usize> {
    let allowed = |consumer: usize| {
        let Some(acl) = acl else { return true };
        let groups: Vec<&str> =
            credentials(model, consumer, CredentialKind::Acl).filter_map(|c| c.record.str("group")).collect();
        let member = |list: &str| acl.strings(list).iter().any(|g| groups.contains(&g.value.as_str()));
        (acl.list("allow").is_empty() || member("allow")) && !member("deny")
    };
    let has = |consumer: usize| {
        asked.iter().filter(|(_, kind)| credentials(model, consumer, *kind).next().is_some()).count()
    };
    let able = (0..model.consumers.len()).filter(|c| has(*c) > 0);
    // `max_by_key` would take the last of equals.
    able.rev().max_by_key(|c| (allowed(*c), has(*c)))
}

fn token(
    curl: &mut Curl,
    model: &Checked<Model>,
    route: usize,
    consumer: &str,
    plugin: &Plugin,
    file: Option<&Path>,
) -> Result<&'static str, String> {
    let route = &model.routes[route];
    let named = route.name.as_ref().map_or(route.id.as_str(), |n| n.value.as_str());
    let request = MintRequest {
        consumer: consumer.to_owned(),
        route: Some(named.to_owned()),
        ..MintRequest::default()
    };
    let header = plugin.config.strings("header_names");
    let Some(header) = header.first() else {
        return Err("a token, which this route takes from the query or a cookie".to_owned());
    };
    match mint::mint(model, &request, clock::unix_s()) {
        Ok(token) => {
            let name = if header.value.eq_ignore_ascii_case("authorization") {
                "Authorization"
            } else {
                &header.value
            };
            curl.credentials.push(format!("-H {}", quote(&format!("{name}: Bearer {token}"))));
            Ok("a token for 1 h")
        }
        Err(mint::MintError::NeedsPrivateKey { .. }) => {
            let file = file.map_or_else(|| "FILE".to_owned(), |f| quote(&f.display().to_string()));
            let consumer = quote(consumer);
            Err(format!(
                "a token, from `gw token mint --config {file} --consumer {consumer} --key-file KEY.pem`"
            ))
        }
        Err(e) => Err(format!("a token: {e}")),
    }
}

fn key(
    curl: &mut Curl,
    model: &Model,
    credential: &Credential,
    config: &Record,
) -> Result<&'static str, String> {
    let names = config.strings("key_names");
    let name = names.first().map_or("apikey", |n| n.value.as_str());
    let secret = Secret::of(model, &credential.record, "key").ok_or("the API key")?;
    if config.bool_opt("key_in_header").unwrap_or(true) {
        curl.credentials.push(format!("-H {}", secret.word(&format!("{name}: "))));
        return Ok("an API key");
    }
    match secret {
        Secret::Open(key) if config.bool_opt("key_in_query").unwrap_or(true) => {
            curl.query = Some(format!("{name}={key}"));
            Ok("an API key")
        }
        _ => Err("the API key".to_owned()),
    }
}

fn password(curl: &mut Curl, model: &Model, credential: &Credential) -> Result<&'static str, String> {
    let user = credential.record.str("username").unwrap_or_default();
    if credential.hashed {
        return Err(format!("the password of `{user}`, of which the config has only a hash"));
    }
    let secret = Secret::of(model, &credential.record, "password").ok_or("the password")?;
    curl.credentials.push(format!("-u {}", secret.word(&format!("{user}:"))));
    Ok("a password")
}

/// A secret as a shell may have it. What comes from the environment is left to the environment.
enum Secret {
    /// It stands in the file.
    Open(String),
    /// The variable that holds it.
    Variable(String),
}

impl Secret {
    fn of(model: &Model, record: &Record, field: &str) -> Option<Self> {
        let value = record.spanned_str(field)?;
        let Some(shown) = model.masked.get(&value.span) else { return Some(Self::Open(value.value)) };
        let name = shown.strip_prefix("${")?.strip_suffix('}')?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match std::env::var_os(name) {
            _ if !is_name => None,
            Some(_) => Some(Self::Variable(name.to_owned())),
            // The default in the file is no secret of the environment.
            None => Some(Self::Open(value.value)),
        }
    }

    /// `before` and the secret as one word.
    fn word(&self, before: &str) -> String {
        match self {
            Self::Open(secret) => quote(&format!("{before}{secret}")),
            Self::Variable(name) => {
                let before: String = before
                    .chars()
                    .flat_map(|c| "\\\"$`".contains(c).then_some('\\').into_iter().chain([c]))
                    .collect();
                format!("\"{before}${{{name}}}\"")
            }
        }
    }
}
