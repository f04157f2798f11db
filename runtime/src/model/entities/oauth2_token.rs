//! `oauth2_tokens`: access tokens that are known beforehand.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or};
use crate::model::schema::{Field, Kind, RecordField, STR, TEXT, Val, entity_fields};
use crate::model::{OAuth2Token, ids};
use crate::source::Spanned;
use crate::yaml::Node;

/// `oauth2_tokens`.
pub const FIELDS: &[Field] = entity_fields![
    Field::new(
        "credential",
        Kind::Ref("oauth2_credentials"),
        "The application that the token was issued to, by `client_id` or id; its consumer is the caller."
    ),
    Field::new(
        "service",
        Kind::Ref("services"),
        "The service that the token is good for. Without it the token is good for all services whose plugin has \
         `global_credentials`."
    ),
    Field::new("token_type", Kind::Enum(&["bearer"]), "The kind of token.").default("\"bearer\""),
    Field::new(
        "access_token",
        TEXT,
        "The token that the client sends, unique. Without it a random one is made, which nobody knows."
    )
    .secret(),
    Field::new(
        "access_token_hash",
        TEXT,
        "Instead of `access_token`: its hash, `sha256:` and 64 hexadecimal digits, as `gw token hash-key` prints it."
    )
    .extension(),
    Field::new("refresh_token", TEXT, "Read for Kong's sake; gw issues no tokens, so nothing is refreshed.").secret(),
    Field::new(
        "expires_in",
        Kind::Int { min: 0, max: 100_000_000_000 },
        "Seconds after `created_at` that the token is good for; 0 is for ever. Without `created_at` they are counted from \
         when the config is loaded."
    )
    .required(),
    Field::new("authenticated_userid", TEXT, "Who uses the application; handed on as `X-Authenticated-Userid`."),
    Field::new("scope", STR, "What the token allows, separated by spaces; handed on as `X-Authenticated-Scope`."),
    Field::new(
        "ttl",
        Kind::Int { min: 0, max: 100_000_000 },
        "Seconds after the config is loaded that the token is good for at most; 0 is no such bound."
    ),
];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, parent: Parent, index: usize) {
    let mut record = cx.reader.record(node, FIELDS, "an oauth2 token");
    let credential = cx.reference(&record, "credential", parent.credential());
    if credential.is_none() && node.get("credential").is_none_or(Node::is_null) && !node.entries().is_empty()
    {
        let message = "required field missing: `credential`";
        let help = "name the application by its `client_id`, or move the entry into `oauth2_tokens` of the application";
        cx.report(Diagnostic::new(&codes::MISSING_FIELD, node.head(), message).help(help));
    }
    if record.given("access_token") && record.given("access_token_hash") {
        let message = "`access_token` and `access_token_hash` are the same thing twice";
        cx.report(
            Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of("access_token_hash"), message)
                .also(record.span_of("access_token"), "this one is given already")
                .help("remove `access_token`, so that the file holds no secret"),
        );
    }
    if !record.given("access_token") && !record.given("access_token_hash") {
        let value = Spanned::new(Val::Str(uuid::Uuid::new_v4().simple().to_string()), record.span);
        record.fields.push(RecordField { name: "access_token", key: record.span, value, given: false });
    }
    let owner = cx.key_part(credential.as_ref(), "oauth2_credential");
    let id = id_or(&record, || ids::positional("oauth2_tokens", &owner, index));
    let service = cx.reference(&record, "service", None);
    cx.model.oauth2_tokens.push(OAuth2Token { span: node.head(), id, credential, service, record });
}
