//! `consumers`: those who call.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or};
use crate::model::schema::{Field, Kind, TEXT, entity_fields};
use crate::model::{Consumer, ids};
use crate::yaml::Node;

/// The fields of a consumer.
pub const FIELDS: &[Field] = entity_fields![
    Field::new(
        "username",
        TEXT,
        "The consumer's name, unique, by which plugins and credentials refer to it."
    ),
    Field::new(
        "custom_id",
        TEXT,
        "An id of another system, unique; handed to upstreams as X-Consumer-Custom-ID."
    ),
    Field::new(
        "groups",
        Kind::List(&Kind::Ref("consumer_groups")),
        "Names of the `consumer_groups` that the consumer is in. Of plugins of one name and equally specific scope, that of \
         the first group runs."
    )
    .extension(),
];

/// Lists that may stand in a consumer.
pub const NESTED: &[&str] = &[
    "plugins",
    "keyauth_credentials",
    "jwt_secrets",
    "basicauth_credentials",
    "hmacauth_credentials",
    "acls",
    "oauth2_credentials",
];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let read = cx.reader.entity(node, FIELDS, NESTED, "a consumer");
    let record = &read.record;
    let username = record.spanned_str("username");
    let custom_id = record.spanned_str("custom_id");
    let given = |field| node.get(field).is_some_and(|n| !n.is_null());
    if !given("username") && !given("custom_id") && read.misspelt.is_empty() {
        let message = "at least one of these fields must be non-empty: 'custom_id', 'username'";
        let diagnostic = Diagnostic::new(&codes::MISSING_ALTERNATIVE, node.head(), message);
        cx.report(diagnostic.help("add `username`"));
    }
    let id = id_or(record, || match (&username, &custom_id) {
        (Some(name), _) => ids::derive("consumers", name),
        (None, Some(id)) => ids::positional("consumers", id, 0),
        (None, None) => ids::positional("consumers", "", cx.model.consumers.len()),
    });
    cx.note_unreadable("consumers", node, "username", username.is_none());
    cx.model.consumers.push(Consumer {
        span: node.head(),
        id,
        username,
        custom_id,
        groups: record.strings("groups"),
    });
    cx.children(read.children, Parent::Consumer(cx.model.consumers.len() - 1));
}
