//! `plugins`: policies, with what they are attached to.

use crate::diag::{Applicability, Diagnostic, codes, suggest};
use crate::model::lower::{Lower, Parent, id_or};
use crate::model::schema::{Field, Kind, Rule, TEXT, entity_fields};
use crate::model::{Plugin, ids};
use crate::policy::{registry, unsupported};
use crate::source::Spanned;
use crate::yaml::{Entry, Node, Value};

const PROTOCOLS: &[&str] =
    &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp", "ws", "wss"];

/// The fields of a plugin, beside `config`, whose fields are the policy's own.
pub const FIELDS: &[Field] = entity_fields![
    Field::new("name", TEXT, "Which plugin this is.").required(),
    Field::new("instance_name", Kind::Str(Rule::Name), "A name for this entry, unique."),
    Field::new("service", Kind::Ref("services"), "Only requests to this service."),
    Field::new("route", Kind::Ref("routes"), "Only requests that match this route."),
    Field::new("consumer", Kind::Ref("consumers"), "Only requests of this consumer."),
    Field::new("consumer_group", Kind::Ref("consumer_groups"), "Only requests of consumers in this group.")
        .extension(),
    Field::new(
        "protocols",
        Kind::Set(&Kind::Enum(PROTOCOLS)),
        "The protocols of requests that the plugin sees."
    )
    .default("[\"grpc\",\"grpcs\",\"http\",\"https\"]"),
    Field::new(
        "enabled",
        Kind::Bool,
        "Whether the plugin runs; a disabled one does not hide a more general one."
    )
    .default("true"),
    Field::new(
        "_config",
        TEXT,
        "The entry of `_plugin_configs` whose fields the plugin takes where `config` says nothing."
    ),
];

/// What stands in a plugin beside its fields.
pub const NESTED: &[&str] = &["config"];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, parent: Parent) {
    let read = cx.reader.entity(node, FIELDS, NESTED, "a plugin");
    let record = &read.record;
    let service = cx.reference(record, "service", parent.service());
    let route = cx.reference(record, "route", parent.route());
    let consumer = cx.reference(record, "consumer", parent.consumer());
    let consumer_group = cx.reference(record, "consumer_group", parent.consumer_group());
    let name = record.spanned_str("name");
    let Some((name, policy)) = name.as_ref().and_then(|n| Some((n.clone(), registry::find(n)?))) else {
        // Without a table nothing says which fields are secret.
        read.children.iter().for_each(|(_, config)| cx.reader.hide(config));
        name.into_iter().for_each(|name| not_here(cx, &name));
        return;
    };
    for protocol in record.strings("protocols") {
        if matches!(protocol.as_str(), "tcp" | "tls" | "tls_passthrough" | "udp")
            && policy.name != "ip-restriction"
        {
            let message =
                format!("`protocols`: expected one of: grpc, grpcs, http, https for `{}`", policy.name);
            let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, protocol.span, message);
            cx.report(diagnostic.label("this plugin sees HTTP requests only").help("leave `protocols` out"));
        }
    }
    let shared = record.spanned_str("_config");
    let own = read.children.first().map(|(_, node)| *node);
    let config = merged(cx, own, shared.as_ref(), node);
    let config = cx
        .reader
        .within("config", |r| r.record(&config, policy.fields, &format!("the plugin `{}`", policy.name)));
    let id = id_or(record, || {
        let parts = [
            (&route, "route"),
            (&service, "service"),
            (&consumer, "consumer"),
            (&consumer_group, "consumer_group"),
        ];
        let mut parts: Vec<String> = parts.iter().map(|(r, f)| cx.key_part(r.as_ref(), f)).collect();
        // Kong's key knows no group; without one it must be Kong's.
        if consumer_group.is_none() {
            parts.pop();
        }
        let parts: Vec<&str> =
            std::iter::once(name.as_str()).chain(parts.iter().map(String::as_str)).collect();
        ids::derive_cached("plugins", &parts)
    });
    cx.model.plugins.push(Plugin {
        span: node.head(),
        id,
        name,
        instance_name: record.spanned_str("instance_name"),
        service,
        route,
        consumer,
        consumer_group,
        enabled: record.bool_opt("enabled").unwrap_or(true),
        protocols: record.strings("protocols"),
        config,
    });
}

/// `config`, with the fields of the shared one where it says nothing itself.
fn merged<'a>(
    cx: &mut Lower<'_, '_, '_>,
    own: Option<&Node<'a>>,
    shared: Option<&Spanned<String>>,
    plugin: &Node<'_>,
) -> Node<'a> {
    let nothing = || Node { span: plugin.head(), value: Value::Mapping(Vec::new()) };
    let mut config = match own {
        Some(node) if !node.is_null() => node.clone(),
        _ => nothing(),
    };
    let Some(name) = shared else { return config };
    let Some(base) = cx.plugin_configs.as_ref().and_then(|c| c.get(name)) else {
        let message = format!("there is no `{}` in `_plugin_configs`", name.value);
        cx.report(Diagnostic::new(&codes::DANGLING_REFERENCE, name.span, message));
        return config;
    };
    if let Value::Mapping(entries) = &mut config.value {
        for entry in base.entries() {
            if entries.iter().all(|e| e.key != entry.key) {
                entries.push(owned(entry));
            }
        }
    }
    config
}

/// A copy that borrows nothing, so that it may stand in a tree of another file.
fn owned<'b>(entry: &Entry<'_>) -> Entry<'b> {
    Entry {
        key: entry.key.clone().into_owned().into(),
        key_span: entry.key_span,
        value: entry.value.to_owned_tree(),
    }
}

/// A plugin that gw cannot run: it is refused, because serving without it could let in whom it kept out.
fn not_here(cx: &mut Lower<'_, '_, '_>, name: &Spanned<String>) {
    let shown = cx.model.shown(name).to_owned();
    if unsupported::is_kong_plugin(name) {
        let diagnostic = Diagnostic::new(
            &codes::UNSUPPORTED_PLUGIN,
            name.span,
            format!("gw cannot run Kong's plugin `{shown}` yet"),
        );
        let diagnostic = diagnostic
            .label("not one of gw's plugins")
            .help("remove the plugin, or leave it out knowingly with `--allow-unsupported`")
            .note("a plugin may be what keeps requests out, so gw does not leave it out unasked");
        cx.unsupported(diagnostic);
        return;
    }
    let known = || registry::REGISTRY.iter().map(|d| d.name);
    let mut diagnostic = Diagnostic::new(
        &codes::UNKNOWN_PLUGIN,
        name.span,
        format!("plugin '{shown}' not enabled: there is no plugin of this name"),
    );
    if let Some(near) = suggest::nearest(name, known().chain(unsupported::KONG_PLUGINS.iter().copied())) {
        diagnostic = diagnostic.label(format!("did you mean `{near}`?")).help(format!("write `{near}`")).fix(
            name.span,
            near,
            Applicability::Unsafe,
        );
    }
    if diagnostic.fix.is_none() {
        let mut names: Vec<_> = known().map(|n| format!("`{n}`")).collect();
        names.sort_unstable();
        diagnostic = diagnostic.note(format!("gw's plugins are {}", names.join(", ")));
    }
    cx.report(diagnostic);
}
