//! What lints need to know of a config as a whole: references resolved, and which plugins run on which route.

use std::collections::HashMap;

use crate::model::{CredentialKind, Model, Plugin, Ref, Route, Service};
use crate::policy::registry;
use crate::source::{Sources, Span};

/// The config and its indexes. Built once for all lints.
pub struct Facts<'a> {
    pub model: &'a Model,
    pub sources: &'a Sources,
    /// For every route: indexes of the plugins that run on its requests before anyone is identified, one a name.
    pub chains: Vec<Vec<usize>>,
    services: HashMap<&'a str, usize>,
    routes: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, usize>,
    /// The other way round: for every plugin the live routes that it runs on.
    plugin_routes: Vec<Vec<usize>>,
    service_routes: HashMap<usize, Vec<usize>>,
}

/// An authenticator and the credentials that it looks up.
pub const AUTHENTICATORS: &[(&str, CredentialKind, &str)] = &[
    ("jwt", CredentialKind::Jwt, "jwt_secrets"),
    ("key-auth", CredentialKind::KeyAuth, "keyauth_credentials"),
    ("basic-auth", CredentialKind::BasicAuth, "basicauth_credentials"),
    ("hmac-auth", CredentialKind::HmacAuth, "hmacauth_credentials"),
    ("oauth2", CredentialKind::OAuth2, "oauth2_credentials"),
];

/// Authenticators that take their consumers from elsewhere than the config's credentials.
const EXTERNAL_AUTHENTICATORS: &[&str] =
    &["forward-auth", "ldap-auth", "mtls-auth", "oauth2-introspection", "openid-connect", "session"];

impl<'a> Facts<'a> {
    /// Indexes `model`.
    pub fn new(model: &'a Model, sources: &'a Sources) -> Self {
        let mut facts = Self {
            model,
            sources,
            chains: Vec::new(),
            services: HashMap::new(),
            routes: HashMap::new(),
            consumers: HashMap::new(),
            plugin_routes: vec![Vec::new(); model.plugins.len()],
            service_routes: HashMap::new(),
        };
        for (i, s) in model.services.iter().enumerate() {
            facts.services.extend(s.name.iter().map(|n| (n.as_str(), i)));
            facts.services.insert(&s.id, i);
        }
        for (i, r) in model.routes.iter().enumerate() {
            facts.routes.extend(r.name.iter().map(|n| (n.as_str(), i)));
            facts.routes.insert(&r.id, i);
        }
        for (i, c) in model.consumers.iter().enumerate() {
            facts.consumers.extend(c.username.iter().map(|n| (n.as_str(), i)));
            facts.consumers.insert(&c.id, i);
        }
        facts.chains = facts.chains();
        for route in facts.live_routes().collect::<Vec<_>>() {
            for &plugin in &facts.chains[route] {
                facts.plugin_routes[plugin].push(route);
            }
            if let Some(service) = facts.service_index_of(route) {
                facts.service_routes.entry(service).or_default().push(route);
            }
        }
        facts
    }

    /// Index of the service that is meant.
    pub fn service(&self, r: &Ref) -> Option<usize> {
        resolve(&self.services, r)
    }

    /// Index of the route that is meant.
    pub fn route(&self, r: &Ref) -> Option<usize> {
        resolve(&self.routes, r)
    }

    /// Index of the consumer that is meant.
    pub fn consumer(&self, r: &Ref) -> Option<usize> {
        resolve(&self.consumers, r)
    }

    /// Index of the consumer with this username or id.
    pub fn consumer_named(&self, name: &str) -> Option<usize> {
        self.consumers.get(name).copied()
    }

    /// The service of a route.
    pub fn service_of(&self, route: &Route) -> Option<&'a Service> {
        self.model.services.get(self.service(route.service.as_ref()?)?)
    }

    /// Whether requests can reach the route: its service is not disabled.
    pub fn is_live(&self, route: &Route) -> bool {
        self.service_of(route).is_none_or(|s| s.enabled)
    }

    /// Indexes of routes that requests can reach.
    pub fn live_routes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.model.routes.len()).filter(|&i| self.is_live(&self.model.routes[i]))
    }

    /// The plugins of a route's requests, before anyone is identified.
    pub fn plugins_on(&self, route: usize) -> impl Iterator<Item = &'a Plugin> + '_ {
        self.chains[route].iter().map(|&i| &self.model.plugins[i])
    }

    /// The plugin called `name` on a route's requests.
    pub fn plugin_on(&self, route: usize, name: &str) -> Option<&'a Plugin> {
        self.plugins_on(route).find(|p| p.name.value == name)
    }

    /// Enabled plugins of a name whose config could be read.
    pub fn plugins(&self, name: &str) -> impl Iterator<Item = &'a Plugin> + use<'a> {
        self.numbered_plugins(name).map(|(_, p)| p)
    }

    /// The same, each with its index.
    pub fn numbered_plugins(&self, name: &str) -> impl Iterator<Item = (usize, &'a Plugin)> + use<'a> {
        let known = registry::find(name).is_some();
        let model = self.model;
        let name = name.to_owned();
        model.plugins.iter().enumerate().filter(move |(_, p)| known && p.enabled && p.name.value == name)
    }

    /// Live routes on whose requests the plugin with this index runs.
    pub fn routes_of(&self, plugin: usize) -> &[usize] {
        &self.plugin_routes[plugin]
    }

    /// Live routes that the plugin would run on if there were no other of its name.
    pub fn routes_in_scope(&self, plugin: &Plugin) -> Vec<usize> {
        let service = plugin.service.as_ref().map(|s| self.service(s));
        match (&plugin.route, service) {
            (Some(r), service) => {
                let fits = |&r: &usize| service.is_none_or(|wanted| wanted == self.service_index_of(r));
                self.route(r)
                    .filter(|&r| self.is_live(&self.model.routes[r]))
                    .filter(fits)
                    .into_iter()
                    .collect()
            }
            (None, Some(service)) => {
                service.and_then(|s| self.service_routes.get(&s).cloned()).unwrap_or_default()
            }
            (None, None) => self.live_routes().collect(),
        }
    }

    fn service_index_of(&self, route: usize) -> Option<usize> {
        self.service(self.model.routes[route].service.as_ref()?)
    }

    /// Whether a route asks who is there, by whatever authenticator.
    pub fn has_authenticator(&self, route: usize) -> bool {
        self.plugins_on(route).any(|p| is_authenticator(&p.name))
    }

    /// Whether identities may come from elsewhere than the config's own credentials.
    pub fn has_external_identities(&self) -> bool {
        let enabled = self.model.plugins.iter().filter(|p| p.enabled);
        enabled.into_iter().any(|p| EXTERNAL_AUTHENTICATORS.contains(&p.name.as_str()) || has_issuers(p))
    }

    /// `` `name` ``, or how a nameless route can be told from others.
    pub fn route_name(&self, route: usize) -> String {
        let r = &self.model.routes[route];
        match (&r.name, r.paths.first(), r.hosts.first()) {
            (Some(name), _, _) => format!("`{}`", name.value),
            (None, Some(path), _) => format!("for `{}`", path.value),
            (None, None, Some(host)) => format!("for host `{}`", host.value),
            (None, None, None) => format!("in line {}", self.sources.line_col(r.span).line),
        }
    }

    /// Where a route is best pointed at.
    pub fn route_span(&self, route: usize) -> Span {
        let r = &self.model.routes[route];
        r.name
            .as_ref()
            .or(r.paths.first())
            .or(r.hosts.first())
            .map_or_else(|| self.first_line(r.span), |s| s.span)
    }

    /// The start of a long span, for a label that should not bracket a whole entity.
    pub fn first_line(&self, span: Span) -> Span {
        let text = self.sources.text(span);
        let line = text.lines().next().unwrap_or("").trim_end();
        Span { end: span.start + line.len() as u32, ..span }
    }

    /// Whether the text at a span names an environment variable or a vault instead of the value.
    pub fn is_reference(&self, span: Span) -> bool {
        let text = self.sources.text(span);
        self.model.masked.contains_key(&span) || text.contains("${") || text.contains("{vault://")
    }

    /// The key `name` in the text of the files, where the model keeps no place for a setting.
    pub fn find_key(&self, name: &str) -> Option<Span> {
        let file =
            self.model.services.first().map(|s| s.span).or(self.model.routes.first().map(|r| r.span))?.file;
        let text = &self.sources.file(file).text;
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            let key = line.trim_start_matches([' ', '-', '{', '"', '\'']);
            if key
                .strip_prefix(name)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
            {
                let start = offset + (line.len() - key.len());
                return Some(Span::new(file, start, start + name.len()));
            }
            offset += line.len();
        }
        None
    }

    fn chains(&self) -> Vec<Vec<usize>> {
        let model = self.model;
        let mut by_route: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut by_service: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut global = Vec::new();
        for (i, p) in model.plugins.iter().enumerate() {
            if !p.enabled || p.consumer.is_some() || p.consumer_group.is_some() {
                continue;
            }
            match (&p.route, &p.service) {
                (Some(r), _) => by_route.entry(self.route(r).unwrap_or(usize::MAX)).or_default().push(i),
                (None, Some(s)) => {
                    by_service.entry(self.service(s).unwrap_or(usize::MAX)).or_default().push(i)
                }
                (None, None) => global.push(i),
            }
        }
        let chain = |(i, route): (usize, &Route)| {
            let service = route.service.as_ref().and_then(|s| self.service(s));
            let mut own = by_route.get(&i).cloned().unwrap_or_default();
            own.retain(|&p| match &model.plugins[p].service {
                Some(s) => self.service(s) == service,
                None => true,
            });
            // Of one name the most specific config runs: route with service, route, service, global.
            own.sort_by_key(|&p| model.plugins[p].service.is_none());
            let of_service = service.and_then(|s| by_service.get(&s)).into_iter().flatten();
            let mut chain: Vec<usize> = Vec::new();
            for &p in own.iter().chain(of_service).chain(&global) {
                if !chain.iter().any(|&q| model.plugins[q].name.value == model.plugins[p].name.value) {
                    chain.push(p);
                }
            }
            chain
        };
        model.routes.iter().enumerate().map(chain).collect()
    }
}

/// Whether a plugin finds out who is there.
pub fn is_authenticator(name: &str) -> bool {
    AUTHENTICATORS.iter().any(|(n, ..)| *n == name) || EXTERNAL_AUTHENTICATORS.contains(&name)
}

/// Whether `jwt` takes tokens of issuers, whose subjects need no credential here.
pub fn has_issuers(plugin: &Plugin) -> bool {
    !plugin.config.list("issuers").is_empty() || !plugin.config.map("issuers").is_empty()
}

fn resolve(index: &HashMap<&str, usize>, r: &Ref) -> Option<usize> {
    match r {
        Ref::Parent(i) => Some(*i),
        Ref::Name(name) => index.get(name.as_str()).copied(),
    }
}
