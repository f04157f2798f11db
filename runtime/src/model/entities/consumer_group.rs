//! `consumer_groups`: consumers that share plugins, such as the limits of a plan.

use crate::model::lower::{Lower, Parent, id_or, required};
use crate::model::schema::{Field, Kind, Rule, entity_fields};
use crate::model::{ConsumerGroup, ids};
use crate::yaml::Node;

/// The fields of a consumer group.
pub const FIELDS: &[Field] = entity_fields![
    Field::new("name", Kind::Str(Rule::Name), "The group's name, unique.").required().extension(),
    Field::new(
        "consumers",
        Kind::List(&Kind::Ref("consumers")),
        "Usernames or ids of members; a consumer's own `groups` adds to them."
    )
    .extension(),
];

/// Lists that may stand in a consumer group.
pub const NESTED: &[&str] = &["plugins"];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let read = cx.reader.entity(node, FIELDS, NESTED, "a consumer group");
    let name = required(&read.record, "name");
    let id = id_or(&read.record, || ids::derive("consumer_groups", &name));
    let consumers = read.record.strings("consumers");
    cx.note_unreadable("consumer_groups", node, "name", name.is_empty());
    cx.model.consumer_groups.push(ConsumerGroup { span: node.head(), id, name, consumers });
    cx.children(read.children, Parent::ConsumerGroup(cx.model.consumer_groups.len() - 1));
}
