//! `gw explain METHOD URL`: what the gateway does with a request, without sending it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use gw_runtime::compile::plugin_for;
use gw_runtime::message::{Fields, split_port};
use gw_runtime::model::Plugin;
use gw_runtime::policy::Step;
use gw_runtime::policy::call::Url;
use gw_runtime::route::{Query, normalise, upstream_path};
use gw_runtime::snapshot::{ChainId, Scheme};

use super::loaded::Loaded;
use super::parts;
use crate::exit::{Code, WithCode};

/// Candidates that are shown of those that the request could have gone to before.
const SHOWN: usize = 5;

/// A request that somebody asks about.
pub struct Asked {
    method: String,
    tls: bool,
    host: String,
    port: u16,
    path: String,
    query: String,
    fields: Fields,
    consumer: Option<String>,
}

impl Asked {
    /// Reads it from the command line.
    pub fn new(
        method: &str,
        url: &str,
        headers: &[String],
        consumer: Option<String>,
    ) -> Result<Self, WithCode> {
        let usage = |text: String| WithCode(Code::Usage, text);
        if !method.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(usage(format!("`{method}` is no method; methods are upper case")));
        }
        let mut host = "localhost".to_owned();
        let (mut tls, mut port, mut target) = (false, None, url.to_owned());
        if !url.starts_with('/') {
            let url = Url::parse(url).map_err(|why| usage(format!("`{url}` is no URL: {why}")))?;
            (tls, host, port, target) = (url.tls, url.host.to_owned(), Some(url.port), url.path.to_owned());
        }
        let mut fields = Fields::default();
        for header in headers {
            let Some((name, value)) = header.split_once(':') else {
                return Err(usage(format!("`{header}` is no header; write `Name: value`")));
            };
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("host") {
                let (name, of_host) = split_port(value);
                host = name.to_owned();
                port = of_host.or(port);
            } else {
                fields.push(name.as_bytes(), value.as_bytes());
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Ok(Self {
            method: method.to_owned(),
            tls,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            path: path.to_owned(),
            query: query.to_owned(),
            fields,
            consumer,
        })
    }
}

/// Everything that becomes of it.
pub fn render(loaded: &Loaded, asked: &Asked) -> Result<String, WithCode> {
    let snapshot = &loaded.snapshot;
    let mut out = String::new();
    let mut fields = asked.fields.clone();
    for (name, _) in asked.fields.iter().filter(|(name, _)| snapshot.stripped_headers.contains(name)) {
        line(&mut out, "removed", &format!("{}: clients may not send it", String::from_utf8_lossy(name)));
    }
    snapshot.stripped_headers.strip(&mut fields);
    let mut path = String::new();
    if let Err(error) = normalise(&asked.path, &mut path) {
        line(&mut out, "answer", &format!("400 Bad request: {error}"));
        return Ok(out);
    }
    if path != asked.path {
        line(&mut out, "path", &format!("{path} (in normal form)"));
    }
    let nowhere = SocketAddr::from(([127, 0, 0, 1], asked.port));
    let query = Query {
        method: &asked.method,
        host: &asked.host,
        port: asked.port,
        path: &path,
        query: &asked.query,
        fields: &fields,
        sni: asked.tls.then_some(asked.host.as_str()),
        source: nowhere,
        destination: nowhere,
    };
    let ranked = snapshot.router.rank(&query);
    let chosen = ranked.iter().position(|c| c.matched);
    let Some((found, chosen)) = snapshot.router.find(&query).zip(chosen) else {
        line(&mut out, "route", "none");
        for candidate in ranked.iter().take(SHOWN) {
            not_taken(&mut out, loaded, candidate);
        }
        more(&mut out, ranked.len().saturating_sub(SHOWN));
        line(&mut out, "answer", "404 no Route matched with those values");
        return Ok(out);
    };
    let at = found.route as usize;
    let (route, written) = (&snapshot.routes[at], &loaded.model.routes[at]);
    line(&mut out, "route", &format!("{} ({})", route_name(loaded, at), loaded.place(written.span)));
    line(&mut out, "because", &ranked[chosen].reason);
    let before: Vec<_> = ranked[..chosen].iter().collect();
    for candidate in before.iter().rev().take(SHOWN).rev() {
        not_taken(&mut out, loaded, candidate);
    }
    more(&mut out, before.len().saturating_sub(SHOWN));
    for (name, value) in &found.captures {
        line(&mut out, "capture", &format!("{name} = {value}"));
    }
    let p = route.protocols;
    if p.https && !p.http && !asked.tls {
        let code = route.https_redirect_status_code;
        line(&mut out, "answer", &format!("{code}: the route takes https alone"));
        return Ok(out);
    }
    let consumer =
        match &asked.consumer {
            None => None,
            Some(name) => Some(snapshot.consumer_by_name(name).ok_or_else(|| {
                WithCode(Code::Usage, format!("there is no consumer `{name}` in this config"))
            })?),
        };
    let class = consumer.and_then(|c| snapshot.consumers[c.0 as usize].class);
    let own = class.and_then(|class| route.class_chains.iter().find(|(c, _)| *c == class));
    let chain = own.map_or(route.chain, |(_, chain)| *chain);
    plugins(&mut out, loaded, chain, at, consumer.map(|c| c.0 as usize));
    service(&mut out, loaded, asked, at, &path, found.matched_len);
    for step in steps(loaded, chain) {
        if let Step::Aggregate(aggregate) = step {
            parts::render(&mut out, aggregate.plan(), snapshot);
        }
    }
    Ok(out)
}

fn steps(loaded: &Loaded, chain: ChainId) -> impl Iterator<Item = &Step> {
    let steps = &loaded.snapshot.chains[chain.0 as usize].steps;
    steps.iter().map(|(_, step)| &loaded.snapshot.steps[*step as usize])
}

/// The plugins that run, in order, and where they are written.
fn plugins(out: &mut String, loaded: &Loaded, chain: ChainId, route: usize, consumer: Option<usize>) {
    let mut n = 0;
    for step in steps(loaded, chain) {
        n += 1;
        let name = step.plugin().name;
        let written = plugin_for(&loaded.model, name, route, consumer);
        let place = written.map_or(String::new(), |i| {
            let plugin = &loaded.model.plugins[i];
            format!(" ({}, {})", scope(plugin), loaded.place(plugin.span))
        });
        line(out, if n == 1 { "plugins" } else { "" }, &format!("{n}. {name}{place}"));
    }
    if n == 0 {
        line(out, "plugins", "none");
    }
}

fn scope(plugin: &Plugin) -> String {
    let named = [
        ("consumer", &plugin.consumer),
        ("consumer group", &plugin.consumer_group),
        ("route", &plugin.route),
        ("service", &plugin.service),
    ];
    let scopes: Vec<&str> = named.iter().filter(|(_, s)| s.is_some()).map(|(n, _)| *n).collect();
    if scopes.is_empty() { "global".to_owned() } else { format!("of the {}", scopes.join(" and ")) }
}

fn service(out: &mut String, loaded: &Loaded, asked: &Asked, at: usize, path: &str, matched: usize) {
    let snapshot = &loaded.snapshot;
    let route = &snapshot.routes[at];
    let Some(id) = route.service else {
        return line(out, "service", "none: a plugin answers, or the answer is 503");
    };
    let service = &snapshot.services[id.0 as usize];
    let mut upstream = String::new();
    upstream_path(&service.path, path, matched, route.strip_path, route.path_handling_v1, &mut upstream);
    let scheme = match service.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::Grpc => "grpc",
        Scheme::Grpcs => "grpcs",
    };
    let name = service.name.as_deref().unwrap_or(&service.id);
    let balanced = if service.upstream.is_some() { ", an upstream with targets" } else { "" };
    // What the environment says is shown by its name.
    let written = &loaded.model.services[id.0 as usize].host;
    let shown = loaded.model.shown(written);
    line(out, "service", &format!("{name} ({scheme}://{shown}:{}{balanced})", service.port));
    let authority = if shown == written.value { service.authority.as_str() } else { shown };
    let host = if route.preserve_host { &asked.host } else { authority };
    let query = if asked.query.is_empty() { String::new() } else { format!("?{}", asked.query) };
    line(
        out,
        "asked",
        &format!("{} {upstream}{query}, Host: {host}, unless a plugin changes it", asked.method),
    );
    let ms = |d: std::time::Duration| d.as_millis();
    line(
        out,
        "patience",
        &format!(
            "connect {} ms, write {} ms, read {} ms; {} retries",
            ms(service.connect_timeout),
            ms(service.write_timeout),
            ms(service.read_timeout),
            service.retries
        ),
    );
}

fn route_name(loaded: &Loaded, at: usize) -> String {
    let route = &loaded.snapshot.routes[at];
    format!("`{}`", route.name.as_deref().unwrap_or(&route.id))
}

fn not_taken(out: &mut String, loaded: &Loaded, candidate: &gw_runtime::route::Candidate) {
    let name = route_name(loaded, candidate.route as usize);
    line(out, "", &format!("not {name}: {}", candidate.reason));
}

fn more(out: &mut String, n: usize) {
    if n > 0 {
        line(out, "", &format!("nor {n} others"));
    }
}

/// A line of the answer.
pub fn line(out: &mut String, label: &str, text: &str) {
    // Writing to a text does not fail.
    let _ = writeln!(out, "{label:<9} {text}");
}
