//! The tree of one file becomes part of the model: sections of the top level, nesting, references.

use std::sync::Arc;

use super::entities::{
    self, certificate, consumer, consumer_group, credential, oauth2_token, other, plugin, route, service,
    upstream,
};
use super::read::{IGNORED, Reader};
use super::schema::Record;
use super::{CredentialKind, Model, Ref, gateway_read};
use crate::diag::{Applicability, Diagnostic, Diags, Severity, codes, suggest};
use crate::front::LoadOptions;
use crate::source::{Sources, Span, Spanned};
use crate::yaml::{Entry, Node, Value};

/// What one file is lowered with.
pub struct Lower<'s, 'd, 'm> {
    pub(super) reader: Reader<'s, 'd>,
    pub(super) model: &'m mut Model,
    pub(super) options: &'m LoadOptions,
    /// Paths of routes are of a format before 3.0.
    pub(super) migrates: bool,
    /// `_transform: false`: passwords are hashes.
    pub(super) hashed: bool,
    /// `_plugin_configs`, which plugins refer to with `_config`.
    pub(super) plugin_configs: Option<Node<'s>>,
    gateway: Option<Span>,
    /// The default ones, of the first route that gives none.
    protocols: Arc<[Spanned<String>]>,
}

/// What an entity is nested in: the index in the parent's vector of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    None,
    Service(usize),
    Route(usize),
    Consumer(usize),
    ConsumerGroup(usize),
    Upstream(usize),
    Certificate(usize),
    OAuth2Credential(usize),
}

/// Top-level keys that are not lists of entities.
const META: &[&str] = &[
    "_format_version",
    "_transform",
    "_comment",
    "_ignore",
    "_info",
    "_workspace",
    "_konnect",
    "_plugin_configs",
    "_deck",
    "gateway",
    "tests",
];

/// Top-level lists.
pub const LISTS: &[&str] = &[
    "services",
    "routes",
    "consumers",
    "consumer_groups",
    "plugins",
    "upstreams",
    "targets",
    "certificates",
    "snis",
    "ca_certificates",
    "keyauth_credentials",
    "jwt_secrets",
    "basicauth_credentials",
    "hmacauth_credentials",
    "acls",
    "oauth2_credentials",
    "vaults",
    "keys",
    "key_sets",
    "parameters",
    "workspaces",
    "filter_chains",
    "oauth2_tokens",
    "oauth2_authorization_codes",
    "acme_storage",
    "sessions",
];

impl<'s, 'd, 'm> Lower<'s, 'd, 'm> {
    /// For a file of `sources`. `gateway` is where an earlier file declared it.
    pub fn new(
        sources: &'s Sources,
        diags: &'d mut Diags,
        model: &'m mut Model,
        options: &'m LoadOptions,
        gateway: Option<Span>,
    ) -> Self {
        let reader = Reader::new(sources, diags);
        Self {
            reader,
            model,
            options,
            migrates: false,
            hashed: false,
            plugin_configs: None,
            gateway,
            protocols: Arc::default(),
        }
    }

    /// Where `gateway` was declared, by now.
    pub fn gateway(&self) -> Option<Span> {
        self.gateway
    }

    /// Lowers the file.
    pub fn file(&mut self, root: &Node<'_>) {
        let entries = match &root.value {
            Value::Mapping(entries) => entries,
            Value::Broken => return,
            _ => {
                let message =
                    "expected an object: a config is a mapping with `_format_version` and lists of entities";
                self.report(Diagnostic::new(&codes::WRONG_TYPE, root.head(), message));
                return;
            }
        };
        self.format(root);
        self.plugin_configs = root.get("_plugin_configs").map(Node::to_owned_tree);
        self.entries(entries);
        self.model.hidden.append(&mut self.reader.hidden);
    }

    fn entries(&mut self, entries: &[Entry<'_>]) {
        for entry in entries {
            let (key, node) = (entry.key.as_ref(), &entry.value);
            match key {
                "gateway" => self.read_gateway(entry.key_span, node),
                "tests" => self.model.tests = self.reader.anything(node),
                key if META.contains(&key) => {
                    if let Some(field) = IGNORED.iter().find(|f| f.name == key) {
                        self.reader.ignored(field, node);
                    }
                }
                key if LISTS.contains(&key) => self.list(key, node, Parent::None, entry.key_span),
                key => {
                    self.reader.hide(node);
                    let mut diagnostic = Diagnostic::new(
                        &codes::UNKNOWN_FIELD,
                        entry.key_span,
                        format!("unknown field `{key}` at the top level"),
                    );
                    let names = || META.iter().chain(LISTS).copied();
                    if let Some(near) = suggest::nearest(key, names()) {
                        self.model.unreadable.insert(near);
                        diagnostic = diagnostic
                            .label(format!("did you mean `{near}`?"))
                            .help(format!("write `{near}`"))
                            .fix(entry.key_span, near, Applicability::Unsafe);
                    }
                    if diagnostic.fix.is_none() {
                        if key.starts_with(['x', '.']) && diagnostic.help.is_none() {
                            diagnostic =
                                diagnostic.help("put what only holds anchors into the list `_ignore`");
                        }
                        let all: Vec<_> = names().map(|n| format!("`{n}`")).collect();
                        diagnostic = diagnostic.note(format!("the keys of a config are {}", all.join(", ")));
                    }
                    self.report(diagnostic);
                }
            }
        }
    }

    fn format(&mut self, root: &Node<'_>) {
        const VERSIONS: &[&str] = &["1.1", "2.1", "3.0"];
        let hint = "the first line of a config is `_format_version: \"3.0\"`";
        match root.get("_format_version") {
            None if root
                .entries()
                .iter()
                .any(|e| suggest::nearest(&e.key, ["_format_version"]).is_some()) => {}
            None => {
                let message = "required field missing: `_format_version`";
                self.report(Diagnostic::new(&codes::MISSING_FIELD, root.head(), message).help(hint));
            }
            Some(node) => {
                let version = self.reader.one_of(node, "_format_version", VERSIONS);
                self.migrates = matches!(version.as_deref(), Some("1.1" | "2.1"));
            }
        }
        self.hashed = root.get("_transform").and_then(|n| self.reader.flag(n, "_transform")) == Some(false);
    }

    fn read_gateway(&mut self, key: Span, node: &Node<'_>) {
        if let Some(before) = self.gateway.replace(key) {
            let message = "`gateway` is declared in two files";
            self.report(
                Diagnostic::new(&codes::DUPLICATE_KEY, key, message)
                    .label("again here")
                    .also(before, "first here"),
            );
            return;
        }
        (self.model.gateway, self.model.gateway_record) = gateway_read::read(&mut self.reader, node);
    }

    /// A list of entities under `key`, at the top level or nested.
    pub(super) fn list(&mut self, key: &str, node: &Node<'_>, parent: Parent, key_span: Span) {
        let items = match &node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Mapping(entries) if entries.is_empty() => &[],
            Value::Broken => {
                self.model.unreadable.extend(LISTS.iter().find(|l| **l == key));
                return;
            }
            _ if node.is_null() => return,
            _ => {
                self.reader.hide(node);
                let mut diagnostic =
                    Diagnostic::new(&codes::WRONG_TYPE, node.head(), format!("`{key}`: expected an array"))
                        .label(format!("this is {}", node.kind()));
                if matches!(node.value, Value::Mapping(_)) {
                    diagnostic = diagnostic.help("begin every entry with `- `");
                }
                self.report(diagnostic);
                self.model.unreadable.extend(LISTS.iter().find(|l| **l == key));
                return;
            }
        };
        if let Some(why) = other::unusable(key) {
            if !items.is_empty() {
                self.reader.hide(node);
                let diagnostic = Diagnostic::new(
                    &codes::UNSUPPORTED_ENTITY,
                    key_span,
                    format!("gw does not support `{key}`"),
                )
                .help(why);
                self.unsupported(diagnostic);
            }
            return;
        }
        for (index, item) in items.iter().enumerate() {
            match key {
                "services" => service::lower(self, item),
                "routes" => route::lower(self, item, parent),
                "consumers" => consumer::lower(self, item),
                "consumer_groups" => consumer_group::lower(self, item),
                "plugins" => plugin::lower(self, item, parent),
                "upstreams" => upstream::lower(self, item),
                "targets" => upstream::lower_target(self, item, parent),
                "certificates" => certificate::lower(self, item, index),
                "snis" => certificate::lower_sni(self, item, parent),
                "ca_certificates" => certificate::lower_ca(self, item, index),
                "oauth2_tokens" => oauth2_token::lower(self, item, parent, index),
                _ => match CredentialKind::of(key) {
                    Some(kind) => credential::lower(self, item, kind, parent, index),
                    None => other::lower(self, item, key),
                },
            }
        }
    }

    /// Notes that an entity has no name because what is written there could not be read: references to it would
    /// dangle for the same cause. Without any entries the whole entity could not be read.
    pub(super) fn note_unreadable(
        &mut self,
        list: &'static str,
        node: &Node<'_>,
        field: &str,
        nameless: bool,
    ) {
        if nameless && (node.entries().is_empty() || node.get(field).is_some_and(|n| !n.is_null())) {
            self.model.unreadable.insert(list);
        }
    }

    /// The entities nested in one.
    pub(super) fn children(&mut self, children: Vec<(&'static str, &Node<'_>)>, parent: Parent) {
        for (key, node) in children {
            self.list(key, node, parent, node.head());
        }
    }

    /// The protocols of a route that are not `given` are the same for all, and so is their place, as nothing is said
    /// of it.
    pub(super) fn shared_protocols(
        &mut self,
        protocols: Vec<Spanned<String>>,
        given: bool,
    ) -> Arc<[Spanned<String>]> {
        if given {
            return protocols.into();
        }
        if self.protocols.is_empty() {
            self.protocols = protocols.into();
        }
        Arc::clone(&self.protocols)
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.reader.diags.push(diagnostic);
    }

    /// Reports what Kong can and gw cannot: an error, unless the caller can do without.
    pub(super) fn unsupported(&mut self, mut diagnostic: Diagnostic) {
        if self.options.allow_unsupported {
            diagnostic.severity = Severity::Warning;
        }
        self.report(diagnostic);
    }

    /// The reference in `field`, or the parent that the entity is nested in, which it must not name again.
    pub(super) fn reference(&mut self, record: &Record, field: &str, parent: Option<usize>) -> Option<Ref> {
        let Some(parent) = parent else {
            return record.spanned_str(field).map(Ref::Name);
        };
        if let Some(own) = record.get(field) {
            let message =
                format!("`{field}`: value must be null, because this entry stands inside its {field}");
            let span = own.key;
            self.report(
                Diagnostic::new(&codes::CONFLICTING_FIELDS, span, message).help(format!("remove `{field}`")),
            );
        }
        Some(Ref::Parent(parent))
    }

    /// The part of a derived id that a reference gives: the parent's id, or the text as written.
    pub(super) fn key_part(&self, reference: Option<&Ref>, field: &str) -> String {
        match reference {
            None => String::new(),
            Some(Ref::Name(name)) => name.value.clone(),
            Some(Ref::Parent(index)) => entities::id_of(self.model, field, *index),
        }
    }
}

impl Parent {
    pub(super) fn service(self) -> Option<usize> {
        if let Self::Service(i) = self { Some(i) } else { None }
    }
    pub(super) fn route(self) -> Option<usize> {
        if let Self::Route(i) = self { Some(i) } else { None }
    }
    pub(super) fn consumer(self) -> Option<usize> {
        if let Self::Consumer(i) = self { Some(i) } else { None }
    }
    pub(super) fn consumer_group(self) -> Option<usize> {
        if let Self::ConsumerGroup(i) = self { Some(i) } else { None }
    }
    pub(super) fn upstream(self) -> Option<usize> {
        if let Self::Upstream(i) = self { Some(i) } else { None }
    }
    pub(super) fn certificate(self) -> Option<usize> {
        if let Self::Certificate(i) = self { Some(i) } else { None }
    }
    pub(super) fn credential(self) -> Option<usize> {
        if let Self::OAuth2Credential(i) = self { Some(i) } else { None }
    }
}

/// An `id` as given, in lower case, or the derived one.
pub(super) fn id_or(record: &Record, derive: impl FnOnce() -> String) -> String {
    record.str("id").map_or_else(derive, str::to_ascii_lowercase)
}

/// A text that must be there; where it is not, that was reported and nobody will use the entity.
pub(super) fn required(record: &Record, field: &str) -> Spanned<String> {
    record.spanned_str(field).unwrap_or_else(|| Spanned::new(String::new(), record.span))
}
