//! Consumers of a config: what their requests carry, and which limits they are under.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gw_loadgen::limits::Limit;
use gw_loadgen::plan::{Consumer, Draft, Target};
use gw_runtime::check::Checked;
use gw_runtime::diag::suggest::nearest;
use gw_runtime::message::{Fields, split_port};
use gw_runtime::model::{CredentialKind, Model};
use gw_runtime::route::{self, Query};
use gw_runtime::snapshot::Snapshot;
use gw_runtime::token::mint::{self, MintRequest};
use gw_runtime::{clock, compile};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::{limits, request};
use crate::exit::{Code, WithCode};

/// What a config says about a run.
#[derive(Default)]
pub struct Known {
    pub consumers: Vec<Consumer>,
    pub limits: Vec<Limit>,
    /// Statuses by which they refuse.
    pub refusals: Vec<u16>,
    /// What a user should know beside the report.
    pub notes: Vec<String>,
}

/// The name under which requests go out that carry no credentials.
const NOBODY: &str = "anonymous";
/// Tokens must outlive the run.
const SPARE: Duration = Duration::from_secs(300);

/// Finds out who sends and under which limits. Without names there is one sender without credentials.
pub fn of_config(config: &Path, names: &[String], draft: &Draft) -> anyhow::Result<Known> {
    let model = crate::load::checked(config)?;
    let (snapshot, _) = compile::build(&model, &Arc::default());
    let snapshot = snapshot.ok_or_else(|| {
        let text = format!("`{0}` cannot be served; `gw validate {0}` says why", config.display());
        WithCode(Code::Findings, text)
    })?;
    let routes =
        draft.targets.iter().map(|t| find_route(&snapshot, t, config)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut known = Known::default();
    let mut senders = Vec::new();
    for name in names {
        let consumer = find_consumer(&model, name)?;
        known.consumers.push(Consumer {
            name: name.clone(),
            headers: credentials(&model, consumer, name, &routes, draft)?,
        });
        senders.push(Some(consumer));
    }
    if names.is_empty() {
        known.consumers.push(Consumer { name: NOBODY.to_owned(), headers: Vec::new() });
        senders.push(None);
    }
    limits::of_config(&model, &senders, &routes, draft, &mut known);
    Ok(known)
}

fn find_consumer(model: &Model, name: &str) -> anyhow::Result<usize> {
    gw_runtime::token::config::consumer(model, name).ok_or_else(|| {
        let all = model.consumers.iter().filter_map(|c| c.username.as_ref()).map(|u| u.value.as_str());
        let hint = nearest(name, all).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        anyhow::anyhow!("there is no consumer `{name}`{hint}")
    })
}

/// The route that a target's requests will be given.
fn find_route(snapshot: &Snapshot, target: &Target, config: &Path) -> anyhow::Result<usize> {
    let uri = &target.uri;
    let given = target.headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
    let authority = given.or_else(|| uri.authority().map(http::uri::Authority::as_str)).unwrap_or("");
    let (host, port) = split_port(authority.rsplit('@').next().unwrap_or(""));
    let tls = uri.scheme_str() == Some("https");
    let mut path = String::new();
    route::normalise::normalise(uri.path(), &mut path)
        .map_err(|e| anyhow::anyhow!("`{}`: {e}", uri.path()))?;
    let mut fields = Fields::default();
    for (name, value) in &target.headers {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, uri.port_u16().unwrap_or(if tls { 443 } else { 80 })));
    let host = host.to_ascii_lowercase();
    let found = snapshot.router.find(&Query {
        method: target.method.as_str(),
        host: &host,
        port: port.unwrap_or(local.port()),
        path: &path,
        query: uri.query().unwrap_or(""),
        fields: &fields,
        sni: tls.then_some(host.as_str()),
        source: local,
        destination: local,
    });
    let found = found.ok_or_else(|| {
        anyhow::anyhow!(
            "no route of `{}` takes {} {path} for host `{host}`; give the host that its routes name with `--header 'Host: ...'`",
            config.display(),
            target.method
        )
    })?;
    Ok(found.route as usize)
}

/// The header fields by which every route of the run knows the consumer.
fn credentials(
    model: &Checked<Model>,
    consumer: usize,
    name: &str,
    routes: &[usize],
    draft: &Draft,
) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut out: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for &route in routes {
        let plugin = |plugin: &str| compile::plugin_for(model, plugin, route, Some(consumer));
        let mut here = Vec::new();
        if let Some(jwt) = plugin("jwt") {
            here.push(token(model, jwt, route, name, draft)?);
        }
        if let Some(key_auth) = plugin("key-auth") {
            here.extend(key(model, key_auth, consumer));
        }
        if here.is_empty() && plugin("basic-auth").is_some() {
            here.extend(password(model, consumer));
        }
        if here.is_empty() {
            let place = model.routes[route].name.as_ref().map_or("this route", |n| n.value.as_str());
            anyhow::bail!(
                "nothing tells consumer `{name}` on route `{place}`: it has no `jwt`, `key-auth` or `basic-auth` plugin for which \
                 the consumer has credentials; leave out `--consumer`, or send them yourself with `--header`"
            );
        }
        for (field, value) in here {
            // Tokens for two routes may differ and still both be good for either; the first is taken.
            if !out.iter().any(|(known, _)| *known == field) {
                out.push((field, value));
            }
        }
    }
    Ok(out)
}

fn token(
    model: &Checked<Model>,
    plugin: usize,
    route: usize,
    consumer: &str,
    draft: &Draft,
) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let planned: Duration = draft.phases.iter().filter_map(|p| p.duration).sum();
    let lifetime = (planned + SPARE).as_secs();
    let wanted = MintRequest {
        consumer: consumer.to_owned(),
        route: Some(model.routes[route].id.clone()),
        lifetime: (lifetime > mint::DEFAULT_LIFETIME).then_some(lifetime),
        ..MintRequest::default()
    };
    let token = mint::mint(model, &wanted, clock::unix_s())?;
    let names = model.plugins[plugin].config.strings("header_names");
    let bearer = names.iter().find(|n| n.value.eq_ignore_ascii_case("authorization")).or(names.first());
    let Some(name) = bearer else {
        anyhow::bail!(
            "the `jwt` plugin takes tokens from no header (`header_names` is empty); put one into the URL with `gw token mint`"
        )
    };
    sensitive(&name.value, &format!("Bearer {token}"))
}

fn key(model: &Checked<Model>, plugin: usize, consumer: usize) -> Option<(HeaderName, HeaderValue)> {
    let names = model.plugins[plugin].config.strings("key_names");
    let key = credential(model, CredentialKind::KeyAuth, consumer)?.str("key")?;
    sensitive(names.first().map_or("apikey", |n| n.value.as_str()), key).ok()
}

fn password(model: &Checked<Model>, consumer: usize) -> Option<(HeaderName, HeaderValue)> {
    let record = credential(model, CredentialKind::BasicAuth, consumer)?;
    let both = format!("{}:{}", record.str("username")?, record.str("password")?);
    sensitive(AUTHORIZATION.as_str(), &format!("Basic {}", STANDARD.encode(both))).ok()
}

fn credential(
    model: &Checked<Model>,
    kind: CredentialKind,
    consumer: usize,
) -> Option<&gw_runtime::model::schema::Record> {
    let mut all = model.credentials.iter().zip(&model.links().credential_consumer);
    all.find(|(c, owner)| c.kind == kind && **owner == consumer).map(|(c, _)| &c.record)
}

fn sensitive(name: &str, value: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, mut value) = request::header(name, value).map_err(anyhow::Error::msg)?;
    value.set_sensitive(true);
    Ok((name, value))
}
