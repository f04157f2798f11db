//! Hard errors of a model as a whole: what is wrong between entities. One family a file.

mod certificates;
mod duplicates;
mod public_keys;
mod references;
mod scopes;

use crate::diag::{self, Diags};
use crate::model::Model;
use crate::policy::redis_settings;

/// A value that [`run`] found free of errors; only it makes one.
#[derive(Debug)]
pub struct Checked<T> {
    value: T,
    links: Links,
}

impl<T> std::ops::Deref for Checked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Checked<T> {
    /// Every reference of the model, resolved.
    pub fn links(&self) -> &Links {
        &self.links
    }
}

/// References as indices: the position in each vector is that of the referring entity in the same vector of [`Model`].
#[derive(Debug, Default, Clone)]
pub struct Links {
    /// Route to service.
    pub route_service: Vec<Option<usize>>,
    /// Plugin to what it is attached to.
    pub plugin_scope: Vec<Scope>,
    /// Credential to consumer.
    pub credential_consumer: Vec<usize>,
    /// OAuth 2 token to its application, an index into [`Model::credentials`].
    pub token_credential: Vec<usize>,
    /// OAuth 2 token to the one service it is good for.
    pub token_service: Vec<Option<usize>>,
    /// Target to upstream.
    pub target_upstream: Vec<usize>,
    /// SNI to certificate.
    pub sni_certificate: Vec<usize>,
    /// Consumer to its groups, in order of declaration and without repetition.
    pub consumer_groups: Vec<Vec<usize>>,
    /// Service to the upstream whose name is the service's host.
    pub service_upstream: Vec<Option<usize>>,
    /// Service to its client certificate.
    pub service_certificate: Vec<Option<usize>>,
    /// Service to its CA certificates.
    pub service_cas: Vec<Vec<usize>>,
    /// Upstream to its client certificate.
    pub upstream_certificate: Vec<Option<usize>>,
}

/// What a plugin is attached to; nothing at all is everything.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    pub route: Option<usize>,
    pub service: Option<usize>,
    pub consumer: Option<usize>,
    pub consumer_group: Option<usize>,
}

/// Checks a model. Every error is found in one run; without errors the model comes back checked.
///
/// A model with findings of [`crate::front::load`] can be checked too: what was reported there is passed over here.
pub fn run(model: Model) -> (Option<Checked<Model>>, Diags) {
    let mut diags = Diags::new();
    let (links, complete) = references::resolve(&model, &mut diags);
    duplicates::check(&model, &links, &mut diags);
    scopes::check(&model, &mut diags);
    certificates::check(&model, &mut diags);
    public_keys::check(&model, &mut diags);
    // Only what is wrong with it: plugins read it where they need it.
    let _ = redis_settings::of_gateway(&model, &mut diags);
    diags.sort_by_key(|d| (d.primary.span.file.0, d.primary.span.start));
    let checked = (complete && !diag::has_errors(&diags)).then_some(Checked { value: model, links });
    (checked, diags)
}

#[cfg(test)]
mod tests;
