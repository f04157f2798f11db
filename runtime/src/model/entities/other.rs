//! Entities whose shape gw knows and which it has no, or only a little, use for.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::Lower;
use crate::model::schema::{Field, Kind, Rule, STR, TEXT, entity_fields};
use crate::yaml::Node;

/// `vaults`: read by the interpolation of references, which comes before all else.
pub const VAULT: &[Field] = entity_fields![
    Field::new("name", TEXT, "The kind of vault; gw reads `env`.").required(),
    Field::new(
        "prefix",
        Kind::Str(Rule::VaultPrefix),
        "What references call the vault: `{vault://PREFIX/...}`."
    )
    .required(),
    Field::new("description", STR, "A note for people."),
    Field::new(
        "config",
        Kind::Record(&[
            Field::new("prefix", STR, "What the names of variables begin with."),
            Field::new("base64_decode", Kind::Bool, "Whether values are decoded; gw does not.")
                .default("false"),
        ]),
        "Settings of the vault."
    ),
];

/// `key_sets`.
pub const KEY_SET: &[Field] = entity_fields![Field::new("name", TEXT, "The set's name, unique.")];

/// `keys`.
pub const KEY: &[Field] = entity_fields![
    Field::new("name", TEXT, "The key's name, unique."),
    Field::new("set", Kind::Ref("key_sets"), "The set that the key is in."),
    Field::new("kid", TEXT, "The key's id in tokens.").required(),
    Field::new("jwk", TEXT, "The key as a JSON web key.").secret(),
    Field::new(
        "pem",
        Kind::Record(&[
            Field::new("private_key", TEXT, "The private key as PEM.").secret(),
            Field::new("public_key", TEXT, "The public key as PEM."),
        ]),
        "The key as PEM."
    )
    .secret(),
];

/// `parameters`, which Kong keeps for itself.
pub const PARAMETER: &[Field] = entity_fields![
    Field::new("key", TEXT, "The parameter's name.").required(),
    Field::new("value", TEXT, "The parameter's value.").required().secret(),
];

/// Why gw refuses a list, if it does.
pub(in crate::model) fn unusable(key: &str) -> Option<&'static str> {
    Some(match key {
        "filter_chains" => "gw runs no WebAssembly filters: remove them, or say what they did with plugins",
        "oauth2_authorization_codes" => "gw issues no OAuth 2 tokens: let an identity provider do that",
        "acme_storage" => "gw orders no certificates: give them in `certificates`",
        "sessions" => "gw keeps no sessions",
        _ => return None,
    })
}

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, key: &str) {
    match key {
        "vaults" => vault(cx, node),
        "key_sets" => {
            let read = cx.reader.entity(node, KEY_SET, &["keys"], "a key set");
            cx.children(read.children, crate::model::lower::Parent::None);
        }
        "keys" => key_entry(cx, node),
        "parameters" => drop(cx.reader.record(node, PARAMETER, "a parameter")),
        // Workspaces exist only as what an export leaves behind.
        _ => {}
    }
}

fn vault(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let name = node.get("name").and_then(Node::text);
    if let (Some(name), Some(at)) = (name, node.get("name"))
        && name != "env"
    {
        node.get("config").into_iter().for_each(|config| cx.reader.hide(config));
        let message = format!("gw reads no `{name}` vault");
        let diagnostic = Diagnostic::new(&codes::UNSUPPORTED_ENTITY, at.span, message);
        cx.unsupported(diagnostic.help("put the values into environment variables and write `${NAME}`"));
        return;
    }
    cx.reader.record(node, VAULT, "a vault");
}

fn key_entry(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>) {
    let record = cx.reader.record(node, KEY, "a key");
    let given = |field| node.get(field).is_some_and(|n| !n.is_null());
    if given("jwk") == given("pem") && !node.entries().is_empty() {
        let code = if given("jwk") { &codes::CONFLICTING_FIELDS } else { &codes::MISSING_ALTERNATIVE };
        let message = "exactly one of these fields must be non-empty: 'jwk', 'pem'";
        cx.report(Diagnostic::new(code, record.span_of("kid"), message));
    }
}
