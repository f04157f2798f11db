//! References by name or id become indices; those to nothing are errors.

use std::collections::HashSet;

use ahash::AHashMap;

use super::{Links, Scope};
use crate::diag::{Applicability, Diagnostic, Diags, codes, suggest};
use crate::model::{CredentialKind, Model, Ref};
use crate::source::Spanned;

/// Beyond so many dangling references nobody reads suggestions, and each costs a walk over all names.
const SUGGESTIONS: usize = 50;

/// Entities of one kind by what others may call them. Names win over ids, and the first over later ones.
struct Index<'m> {
    entity: &'static str,
    names: AHashMap<&'m str, usize>,
    ids: AHashMap<&'m str, usize>,
}

impl<'m> Index<'m> {
    fn new(entity: &'static str, entries: impl Iterator<Item = (Option<&'m str>, &'m str)>) -> Self {
        let (mut names, mut ids) = (AHashMap::new(), AHashMap::new());
        for (i, (name, id)) in entries.enumerate() {
            if let Some(name) = name.filter(|n| !n.is_empty()) {
                names.entry(name).or_insert(i);
            }
            ids.entry(id).or_insert(i);
        }
        Self { entity, names, ids }
    }

    fn find(&self, text: &str) -> Option<usize> {
        self.names.get(text).or_else(|| self.ids.get(text)).copied()
    }
}

struct Resolver<'m, 'd> {
    model: &'m Model,
    diags: &'d mut Diags,
    dangling: usize,
    /// Every reference was found or reported.
    complete: bool,
}

/// Resolves every reference of the model.
///
/// False beside the links says that something is missing about which an earlier pass complained.
pub(super) fn resolve(model: &Model, diags: &mut Diags) -> (Links, bool) {
    fn name(n: &Option<Spanned<String>>) -> Option<&str> {
        n.as_ref().map(|n| n.value.as_str())
    }
    let services = Index::new("services", model.services.iter().map(|e| (name(&e.name), e.id.as_str())));
    let routes = Index::new("routes", model.routes.iter().map(|e| (name(&e.name), e.id.as_str())));
    let consumers =
        Index::new("consumers", model.consumers.iter().map(|e| (name(&e.username), e.id.as_str())));
    let groups = model.consumer_groups.iter().map(|e| (Some(e.name.value.as_str()), e.id.as_str()));
    let groups = Index::new("consumer_groups", groups);
    let upstreams = model.upstreams.iter().map(|e| (Some(e.name.value.as_str()), e.id.as_str()));
    let upstreams = Index::new("upstreams", upstreams);
    let certificates = Index::new("certificates", model.certificates.iter().map(|e| (None, e.id.as_str())));
    let cas = Index::new("ca_certificates", model.ca_certificates.iter().map(|e| (None, e.id.as_str())));

    let mut r = Resolver { model, diags, dangling: 0, complete: true };
    let mut links = Links::default();
    for service in &model.services {
        links.service_upstream.push(upstreams.names.get(service.host.value.as_str()).copied());
        let certificate = service.client_certificate.as_ref();
        links
            .service_certificate
            .push(certificate.and_then(|c| r.name("client_certificate", c, &certificates)));
        links.service_cas.push(
            service.ca_certificates.iter().filter_map(|c| r.name("ca_certificates", c, &cas)).collect(),
        );
    }
    for upstream in &model.upstreams {
        let certificate = upstream.record.spanned_str("client_certificate");
        links
            .upstream_certificate
            .push(certificate.and_then(|c| r.name("client_certificate", &c, &certificates)));
    }
    for route in &model.routes {
        links.route_service.push(r.reference("service", route.service.as_ref(), &services));
    }
    for plugin in &model.plugins {
        links.plugin_scope.push(Scope {
            route: r.reference("route", plugin.route.as_ref(), &routes),
            service: r.reference("service", plugin.service.as_ref(), &services),
            consumer: r.reference("consumer", plugin.consumer.as_ref(), &consumers),
            consumer_group: r.reference("consumer_group", plugin.consumer_group.as_ref(), &groups),
        });
    }
    // An owner that is missing was reported, so that no such model comes out; the index only keeps the place.
    for credential in &model.credentials {
        let consumer = r.reference("consumer", credential.consumer.as_ref(), &consumers);
        links.credential_consumer.push(consumer.unwrap_or(usize::MAX));
    }
    oauth2_tokens(&mut r, &services, &mut links);
    for target in &model.targets {
        let upstream = r.reference("upstream", target.upstream.as_ref(), &upstreams);
        links.target_upstream.push(upstream.unwrap_or(usize::MAX));
    }
    for sni in &model.snis {
        let certificate = r.reference("certificate", sni.certificate.as_ref(), &certificates);
        links.sni_certificate.push(certificate.unwrap_or(usize::MAX));
    }
    links.consumer_groups = memberships(&mut r, &consumers, &groups);
    // An owner can also be missing without any reference.
    let owned =
        [&links.credential_consumer, &links.token_credential, &links.target_upstream, &links.sni_certificate];
    let complete = r.complete && owned.iter().all(|o| !o.contains(&usize::MAX));
    (links, complete)
}

/// The application and the service of every OAuth 2 token.
fn oauth2_tokens<'m>(r: &mut Resolver<'m, '_>, services: &Index<'m>, links: &mut Links) {
    let model = r.model;
    if model.oauth2_tokens.is_empty() {
        return;
    }
    let all = model.credentials.iter().enumerate();
    let applications: Vec<usize> =
        all.filter(|(_, c)| c.kind == CredentialKind::OAuth2).map(|(i, _)| i).collect();
    let names = applications.iter().map(|&i| &model.credentials[i]).map(|c| {
        let given = c.record.get("client_id").is_some_and(|f| f.given);
        (c.record.str("client_id").filter(|_| given), c.id.as_str())
    });
    let index = Index::new("oauth2_credentials", names);
    for token in &model.oauth2_tokens {
        let credential = match &token.credential {
            Some(Ref::Parent(credential)) => Some(*credential),
            Some(Ref::Name(name)) => r.name("credential", name, &index).map(|i| applications[i]),
            None => None,
        };
        links.token_credential.push(credential.unwrap_or(usize::MAX));
        links.token_service.push(r.reference("service", token.service.as_ref(), services));
    }
}

/// The groups of every consumer, from the consumers' lists and from those of the groups.
fn memberships(r: &mut Resolver<'_, '_>, consumers: &Index<'_>, groups: &Index<'_>) -> Vec<Vec<usize>> {
    let mut member_of: Vec<Vec<usize>> = Vec::with_capacity(r.model.consumers.len());
    for consumer in &r.model.consumers {
        member_of.push(consumer.groups.iter().filter_map(|g| r.name("consumer_group", g, groups)).collect());
    }
    for (index, group) in r.model.consumer_groups.iter().enumerate() {
        for member in &group.consumers {
            if let Some(consumer) = r.name("consumer", member, consumers) {
                member_of[consumer].push(index);
            }
        }
    }
    // In the consumer's own order, as the first group goes before others; then those that name the consumer.
    for groups in &mut member_of {
        let mut seen = HashSet::new();
        groups.retain(|g| seen.insert(*g));
    }
    member_of
}

impl Resolver<'_, '_> {
    fn reference(&mut self, field: &str, reference: Option<&Ref>, index: &Index<'_>) -> Option<usize> {
        match reference? {
            Ref::Parent(index) => Some(*index),
            Ref::Name(name) => self.name(field, name, index),
        }
    }

    fn name(&mut self, field: &str, name: &Spanned<String>, index: &Index<'_>) -> Option<usize> {
        if let Some(found) = index.find(name) {
            return Some(found);
        }
        if self.model.unreadable.contains(index.entity) {
            self.complete = false;
            return None;
        }
        self.dangling += 1;
        let shown = self.model.shown(name);
        let message = format!("invalid reference '{field}: {shown}' (no such entry in '{}')", index.entity);
        let mut diagnostic = Diagnostic::new(&codes::DANGLING_REFERENCE, name.span, message);
        let by_custom_id =
            |c: &&crate::model::Consumer| c.custom_id.as_ref().is_some_and(|i| i.value == name.value);
        if index.entity == "consumers"
            && let Some(consumer) = self.model.consumers.iter().find(by_custom_id)
        {
            let at = consumer.custom_id.as_ref().map_or(consumer.span, |i| i.span);
            diagnostic = diagnostic
                .label("this is a `custom_id`")
                .also(at, "of this consumer")
                .help("refer to a consumer by `username` or `id`");
        } else if shown == name.value && self.dangling <= SUGGESTIONS {
            // Sorted, because the order of a hash map would make the answer differ from run to run.
            let mut names: Vec<_> = index.names.keys().copied().collect();
            names.sort_unstable();
            diagnostic = match suggest::nearest(name, names.iter().copied()) {
                Some(near) => diagnostic
                    .label(format!("did you mean `{near}`?"))
                    .help(format!("write `{near}`"))
                    .fix(name.span, near, Applicability::Unsafe),
                None if names.is_empty() => {
                    diagnostic.help(format!("there are no `{}` in this config", index.entity))
                }
                None if names.len() <= 10 => {
                    diagnostic.note(format!("the names in `{}` are `{}`", index.entity, names.join("`, `")))
                }
                None => diagnostic,
            };
        }
        self.diags.push(diagnostic);
        None
    }
}
