//! What may be there only once: names, ids, keys of credentials, targets of an upstream, plugins of one place.

use std::hash::Hash;

use ahash::{AHashMap, AHashSet};

use super::{Links, Scope};
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::rules::is_socket;
use crate::model::{CredentialKind, Model};
use crate::source::{Span, Spanned};

pub(super) fn check(model: &Model, links: &Links, diags: &mut Diags) {
    let mut c = Check { model, diags, reported: AHashSet::new() };
    c.names("services", "name", model.services.iter().map(|e| e.name.as_ref()));
    c.names("routes", "name", model.routes.iter().map(|e| e.name.as_ref()));
    c.names("consumers", "username", model.consumers.iter().map(|e| e.username.as_ref()));
    c.names("consumers", "custom_id", model.consumers.iter().map(|e| e.custom_id.as_ref()));
    c.names("consumer_groups", "name", model.consumer_groups.iter().map(|e| Some(&e.name)));
    c.names("upstreams", "name", model.upstreams.iter().map(|e| Some(&e.name)));
    c.names("snis", "name", model.snis.iter().map(|e| Some(&e.name)));
    c.names("plugins", "instance_name", model.plugins.iter().map(|e| e.instance_name.as_ref()));
    c.targets(links);
    c.plugins(links);
    c.credentials(links);
    c.oauth2_tokens();
    // After the names: an id that was derived from one is the same cause.
    c.ids("services", model.services.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("routes", model.routes.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("consumers", model.consumers.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("consumer_groups", model.consumer_groups.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("upstreams", model.upstreams.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("targets", model.targets.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("plugins", model.plugins.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("certificates", model.certificates.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("ca_certificates", model.ca_certificates.iter().map(|e| (e.id.as_str(), e.span)));
    c.ids("oauth2_tokens", model.oauth2_tokens.iter().map(|e| (e.id.as_str(), e.span)));
    for kind in CredentialKind::ALL {
        let of_kind = model.credentials.iter().filter(|e| e.kind == *kind);
        c.ids(kind.entity(), of_kind.map(|e| (e.id.as_str(), e.span)));
    }
}

struct Check<'m, 'd> {
    model: &'m Model,
    diags: &'d mut Diags,
    /// Entities, by list and place, whose name or key was reported.
    reported: AHashSet<(&'static str, Span)>,
}

/// Pairs of a later entry and the first one with the same key.
fn repeated<K: Eq + Hash>(keys: impl Iterator<Item = Option<(K, Span)>>) -> Vec<(usize, Span, Span)> {
    let mut first: AHashMap<K, Span> = AHashMap::new();
    let mut again = Vec::new();
    for (i, key) in keys.enumerate() {
        let Some((key, span)) = key else { continue };
        match first.get(&key) {
            Some(&before) => again.push((i, span, before)),
            None => {
                first.insert(key, span);
            }
        }
    }
    again
}

impl<'m> Check<'m, '_> {
    fn report(&mut self, what: &str, span: Span, before: Span, help: &str) {
        let message = format!("uniqueness violation: {what} already declared");
        self.diags.push(
            Diagnostic::new(&codes::DUPLICATE_ENTITY, span, message)
                .label("declared again here")
                .also(before, "first declared here")
                .help(help),
        );
    }

    fn names(
        &mut self,
        entity: &'static str,
        field: &str,
        names: impl Iterator<Item = Option<&'m Spanned<String>>>,
    ) {
        let names: Vec<_> = names.collect();
        let keys = names.iter().map(|n| n.filter(|n| !n.is_empty()).map(|n| (n.value.as_str(), n.span)));
        for (i, span, before) in repeated(keys) {
            let shown = names[i].map_or("", |n| self.model.shown(n));
            let what = format!("'{entity}' entity with {field} set to '{shown}'");
            self.report(&what, span, before, &format!("give each its own `{field}`"));
            let spans: Option<Span> = match (entity, field) {
                ("services", _) => self.model.services.get(i).map(|e| e.span),
                ("routes", _) => self.model.routes.get(i).map(|e| e.span),
                ("consumers", _) => self.model.consumers.get(i).map(|e| e.span),
                ("consumer_groups", _) => self.model.consumer_groups.get(i).map(|e| e.span),
                ("upstreams", _) => self.model.upstreams.get(i).map(|e| e.span),
                ("plugins", _) => self.model.plugins.get(i).map(|e| e.span),
                _ => None,
            };
            self.reported.extend(spans.map(|s| (entity, s)));
        }
    }

    fn ids(&mut self, entity: &'static str, ids: impl Iterator<Item = (&'m str, Span)>) {
        let ids: Vec<_> = ids.collect();
        for (i, span, before) in repeated(ids.iter().map(|id| Some(*id))) {
            if self.reported.contains(&(entity, span)) {
                continue;
            }
            let what = format!("'{entity}' entity with primary key set to '{}'", ids[i].0);
            self.report(&what, span, before, "give each its own `id`, or none at all");
        }
    }

    fn targets(&mut self, links: &Links) {
        let model = self.model;
        let keys = model.targets.iter().zip(&links.target_upstream).map(|(t, upstream)| {
            let known = *upstream != usize::MAX && !t.host.is_empty();
            let host = || match is_socket(&t.host) {
                true => t.host.value.clone(),
                false => t.host.to_ascii_lowercase(),
            };
            known.then(|| ((*upstream, host(), t.port), t.host.span))
        });
        for (i, span, before) in repeated(keys) {
            let target = &model.targets[i];
            let what = format!(
                "'targets' entity with target set to '{}' port {} in this upstream",
                model.shown(&target.host),
                target.port
            );
            self.report(&what, span, before, "to send a target more requests, raise its `weight`");
            self.reported.insert(("targets", target.span));
        }
    }

    fn plugins(&mut self, links: &Links) {
        let model = self.model;
        let dangling = |i: usize| {
            let (p, s) = (&model.plugins[i], &links.plugin_scope[i]);
            (p.route.is_some() && s.route.is_none())
                || (p.service.is_some() && s.service.is_none())
                || (p.consumer.is_some() && s.consumer.is_none())
                || (p.consumer_group.is_some() && s.consumer_group.is_none())
        };
        let keys =
            model.plugins.iter().zip(&links.plugin_scope).enumerate().map(|(i, (p, scope))| {
                (!dangling(i)).then_some(((p.name.value.as_str(), *scope), p.name.span))
            });
        for (i, span, before) in repeated(keys) {
            let plugin = &model.plugins[i];
            let place = place(&links.plugin_scope[i]);
            let what =
                format!("'plugins' entity with name set to '{}' and {place}", model.shown(&plugin.name));
            self.report(&what, span, before, "plugins do not stack: of one plugin one config applies to a request, so put all into one entry");
            self.reported.insert(("plugins", plugin.span));
        }
    }

    fn credentials(&mut self, links: &Links) {
        let model = self.model;
        for kind in CredentialKind::ALL {
            let field = kind.key_field();
            let keys = model.credentials.iter().zip(&links.credential_consumer).map(|(c, consumer)| {
                // The key of a group is the group together with its member.
                let owner = if *kind == CredentialKind::Acl { *consumer } else { 0 };
                let key = c.record.get(field).filter(|f| f.given).and(c.record.str(field));
                key.filter(|_| c.kind == *kind).map(|key| ((owner, key), c.record.span_of(field)))
            });
            for (i, span, before) in repeated(keys) {
                let credential = &model.credentials[i];
                let is_secret = kind.fields().iter().any(|f| f.name == field && f.secret);
                let value = credential.record.spanned_str(field).unwrap_or_default();
                let shown = if is_secret { "the same value" } else { &format!("'{}'", model.shown(&value)) };
                let what = format!("'{}' entity with {field} set to {shown}", kind.entity());
                self.report(
                    &what,
                    span,
                    before,
                    "two consumers cannot be told apart by one credential; remove one",
                );
                self.reported.insert((kind.entity(), credential.span));
            }
        }
    }

    fn oauth2_tokens(&mut self) {
        let tokens = &self.model.oauth2_tokens;
        let keys = tokens.iter().map(|t| {
            let key = t.record.get("access_token").filter(|f| f.given).and(t.record.str("access_token"));
            key.map(|key| (key, t.record.span_of("access_token")))
        });
        for (i, span, before) in repeated(keys) {
            let what = "'oauth2_tokens' entity with access_token set to the same value";
            self.report(what, span, before, "two callers cannot be told apart by one token; remove one");
            self.reported.insert(("oauth2_tokens", tokens[i].span));
        }
    }
}

fn place(scope: &Scope) -> String {
    let parts: Vec<&str> = [
        (scope.route.is_some(), "this route"),
        (scope.service.is_some(), "this service"),
        (scope.consumer.is_some(), "this consumer"),
        (scope.consumer_group.is_some(), "this consumer group"),
    ]
    .iter()
    .filter_map(|(set, name)| set.then_some(*name))
    .collect();
    if parts.is_empty() { "no scope".to_owned() } else { parts.join(" and ") }
}
