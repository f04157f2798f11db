//! What a config says about tokens: its `jwt` plugins, and the `jwt_secrets` of its consumers.

use super::{Algorithm, Key};
use crate::check::Checked;
use crate::model::schema::Record;
use crate::model::{Credential, CredentialKind, Model, Plugin};

/// One `jwt_secrets` entry.
#[derive(Clone, Copy)]
pub struct JwtCredential<'m> {
    pub key: Option<&'m str>,
    /// As written; never to be shown.
    pub secret: Option<&'m str>,
    pub algorithm: Algorithm,
    /// Position in [`Model::consumers`].
    pub consumer: usize,
    entry: &'m Credential,
}

impl<'m> JwtCredential<'m> {
    /// The public key in PEM.
    pub fn public_key(&self) -> Option<&'m str> {
        self.entry.record.str("rsa_public_key")
    }

    /// The key that verifies this credential's tokens.
    pub fn verifier(&self) -> Result<Key, String> {
        Key::from_credential(&self.entry.record)
    }
}

/// Every `jwt_secrets` entry whose algorithm gw knows.
pub fn credentials(model: &Checked<Model>) -> impl Iterator<Item = JwtCredential<'_>> {
    let owners = &model.links().credential_consumer;
    let jwt = model.credentials.iter().zip(owners).filter(|(c, _)| c.kind == CredentialKind::Jwt);
    jwt.filter_map(|(entry, &consumer)| {
        let record = &entry.record;
        let algorithm = Algorithm::parse(record.str("algorithm").unwrap_or("HS256"))?;
        let (key, secret) = (record.str("key"), record.str("secret"));
        Some(JwtCredential { key, secret, algorithm, consumer, entry })
    })
}

/// The entries of one consumer, in order.
pub fn credentials_of(model: &Checked<Model>, consumer: usize) -> Vec<JwtCredential<'_>> {
    credentials(model).filter(|c| c.consumer == consumer).collect()
}

/// The consumer with this username or id.
pub fn consumer(model: &Model, name: &str) -> Option<usize> {
    let named = |c: &crate::model::Consumer| c.username.as_ref().is_some_and(|u| u.value == name);
    let by_name = model.consumers.iter().position(named);
    by_name.or_else(|| model.consumers.iter().position(|c| c.id == name))
}

/// The route with this name or id.
pub fn route(model: &Model, name: &str) -> Option<usize> {
    let named = |r: &crate::model::Route| r.name.as_ref().is_some_and(|n| n.value == name);
    model.routes.iter().position(named).or_else(|| model.routes.iter().position(|r| r.id == name))
}

/// Every enabled `jwt` plugin.
pub fn plugins(model: &Model) -> impl Iterator<Item = &Plugin> {
    model.plugins.iter().filter(|p| is_jwt(p))
}

/// The `jwt` plugin that a route's requests meet: of all that apply, the one with the narrowest scope.
pub fn plugin_of_route(model: &Checked<Model>, route: usize) -> Option<&Plugin> {
    let service = model.links().route_service.get(route).copied().flatten();
    let applying = model.plugins.iter().zip(&model.links().plugin_scope).filter(|(plugin, scope)| {
        is_jwt(plugin)
            && scope.consumer.is_none()
            && scope.consumer_group.is_none()
            && scope.route.is_none_or(|r| r == route)
            && scope.service.is_none_or(|s| Some(s) == service)
    });
    applying
        .max_by_key(|(_, scope)| (scope.route.is_some(), scope.service.is_some()))
        .map(|(plugin, _)| plugin)
}

/// The issuers of a route's `jwt` plugin, or of every one.
pub fn issuers<'m>(model: &'m Checked<Model>, route_name: Option<&str>) -> Vec<&'m Record> {
    let plugins: Vec<&Plugin> = match route_name {
        Some(name) => route(model, name).and_then(|r| plugin_of_route(model, r)).into_iter().collect(),
        None => plugins(model).collect(),
    };
    plugins.into_iter().flat_map(|p| p.config.records("issuers")).collect()
}

fn is_jwt(plugin: &Plugin) -> bool {
    plugin.enabled && plugin.name.value == "jwt"
}
