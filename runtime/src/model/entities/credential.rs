//! Credentials: what consumers show to be known by.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or};
use crate::model::schema::{Field, Kind, Record, RecordField, Rule, TEXT, Val, entity_fields};
use crate::model::{Credential, CredentialKind, Ref, ids};
use crate::source::Spanned;
use crate::yaml::Node;

const CONSUMER: Field =
    Field::new("consumer", Kind::Ref("consumers"), "Whose credential this is, by username or id.");

/// `keyauth_credentials`.
pub const KEY_AUTH: &[Field] = entity_fields![
    CONSUMER,
    Field::new(
        "key",
        TEXT,
        "The key that the client sends, unique. Without it a random one is made, which nobody knows."
    )
    .secret(),
    Field::new(
        "key_hash",
        TEXT,
        "Instead of `key`: its hash, `sha256:` and 64 hexadecimal digits, as `gw token hash-key` prints it."
    )
    .extension(),
    Field::new(
        "ttl",
        Kind::Int { min: 0, max: 100_000_000 },
        "Seconds after the config is loaded in which the key is good; 0 is for ever."
    ),
];

/// Algorithms of JSON web tokens.
pub const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384",
    "PS512", "EdDSA",
];

/// `jwt_secrets`.
pub const JWT: &[Field] = entity_fields![
    CONSUMER,
    Field::new(
        "key",
        TEXT,
        "What the token's claim (the plugin's `key_claim_name`, normally `iss`) must be, unique. Without it a random one is made."
    ),
    Field::new(
        "secret",
        Kind::Str(Rule::Any),
        "The shared secret of HS256, HS384 and HS512. Without it a random one is made."
    )
    .secret(),
    Field::new("rsa_public_key", TEXT, "The public key as PEM, for every algorithm but HS*."),
    Field::new("algorithm", Kind::Enum(ALGORITHMS), "The algorithm that tokens must be signed with.")
        .default("\"HS256\""),
];

/// `basicauth_credentials`.
pub const BASIC_AUTH: &[Field] = entity_fields![
    CONSUMER,
    Field::new("username", TEXT, "The user name, unique.").required(),
    Field::new(
        "password",
        TEXT,
        "The password; with `_transform: false` the SHA-1 of password and consumer id in hexadecimal."
    )
    .required()
    .secret(),
];

/// `hmacauth_credentials`.
pub const HMAC_AUTH: &[Field] = entity_fields![
    CONSUMER,
    Field::new("username", TEXT, "The user name, unique.").required(),
    Field::new("secret", TEXT, "The shared secret. Without it a random one is made.").secret(),
];

/// `acls`.
pub const ACL: &[Field] = entity_fields![
    CONSUMER,
    Field::new("group", TEXT, "A group that the consumer is in, for the plugin `acl`.").required(),
];

/// `oauth2_credentials`.
pub const OAUTH2: &[Field] = entity_fields![
    CONSUMER,
    Field::new("name", TEXT, "The application's name.").required(),
    Field::new("client_id", TEXT, "The application's id, unique."),
    Field::new("client_secret", TEXT, "The application's secret.").secret(),
    Field::new("hash_secret", Kind::Bool, "Whether the secret is kept as a hash.").default("false"),
    Field::new("redirect_uris", Kind::Set(&Kind::Str(Rule::Url)), "Where users may be sent back to."),
    Field::new(
        "client_type",
        Kind::Enum(&["confidential", "public"]),
        "Whether the application can keep a secret."
    )
    .default("\"confidential\""),
];

/// Lists that may stand in an application of `oauth2_credentials`.
pub const NESTED_IN_OAUTH2: &[&str] = &["oauth2_tokens"];

impl CredentialKind {
    /// Every kind.
    pub const ALL: &[Self] =
        &[Self::KeyAuth, Self::Jwt, Self::BasicAuth, Self::HmacAuth, Self::Acl, Self::OAuth2];

    /// The kind whose list has this name.
    pub fn of(entity: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.entity() == entity)
    }

    /// The name of its list in a file.
    pub fn entity(self) -> &'static str {
        match self {
            Self::KeyAuth => "keyauth_credentials",
            Self::Jwt => "jwt_secrets",
            Self::BasicAuth => "basicauth_credentials",
            Self::HmacAuth => "hmacauth_credentials",
            Self::Acl => "acls",
            Self::OAuth2 => "oauth2_credentials",
        }
    }

    /// Its fields.
    pub fn fields(self) -> &'static [Field] {
        match self {
            Self::KeyAuth => KEY_AUTH,
            Self::Jwt => JWT,
            Self::BasicAuth => BASIC_AUTH,
            Self::HmacAuth => HMAC_AUTH,
            Self::Acl => ACL,
            Self::OAuth2 => OAUTH2,
        }
    }

    /// The field by which it is told from others of its kind; a group only together with its consumer.
    pub fn key_field(self) -> &'static str {
        match self {
            Self::KeyAuth | Self::Jwt => "key",
            Self::BasicAuth | Self::HmacAuth => "username",
            Self::Acl => "group",
            Self::OAuth2 => "client_id",
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::KeyAuth => "a key-auth credential",
            Self::Jwt => "a jwt secret",
            Self::BasicAuth => "a basic-auth credential",
            Self::HmacAuth => "an hmac-auth credential",
            Self::Acl => "an acl group",
            Self::OAuth2 => "an oauth2 application",
        }
    }
}

pub(in crate::model) fn lower(
    cx: &mut Lower<'_, '_, '_>,
    node: &Node<'_>,
    kind: CredentialKind,
    parent: Parent,
    index: usize,
) {
    let nested = if kind == CredentialKind::OAuth2 { NESTED_IN_OAUTH2 } else { &[] };
    let read = cx.reader.entity(node, kind.fields(), nested, kind.phrase());
    let mut record = read.record;
    let consumer = cx.reference(&record, "consumer", parent.consumer());
    if consumer.is_none() && node.get("consumer").is_none_or(Node::is_null) && !node.entries().is_empty() {
        let message = "required field missing: `consumer`";
        let help = format!("name the consumer, or move the entry into `{}` of the consumer", kind.entity());
        cx.report(Diagnostic::new(&codes::MISSING_FIELD, node.head(), message).help(help));
    }
    if kind == CredentialKind::Jwt {
        public_key(cx, node, &record);
    }
    let id = id_or(&record, || id(cx, kind, &record, consumer.as_ref(), index));
    if kind == CredentialKind::KeyAuth && record.given("key") && record.given("key_hash") {
        let message = "`key` and `key_hash` are the same thing twice";
        cx.report(
            Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of("key_hash"), message)
                .also(record.span_of("key"), "this one is given already")
                .help("remove `key`, so that the file holds no secret"),
        );
    }
    let hashed_key = record.given("key_hash");
    for field in generated(kind).iter().filter(|f| !(hashed_key && **f == "key")) {
        if node.get(field).is_none_or(Node::is_null) {
            let value = Spanned::new(Val::Str(uuid::Uuid::new_v4().simple().to_string()), record.span);
            record.fields.push(RecordField { name: field, key: record.span, value, given: false });
        }
    }
    let hashed = cx.hashed;
    cx.model.credentials.push(Credential { span: node.head(), id, consumer, kind, record, hashed });
    cx.children(read.children, Parent::OAuth2Credential(cx.model.credentials.len() - 1));
}

/// Fields that get a random value where the file gives none: nobody can show it, so the credential admits nobody.
fn generated(kind: CredentialKind) -> &'static [&'static str] {
    match kind {
        CredentialKind::KeyAuth => &["key"],
        CredentialKind::Jwt => &["key", "secret"],
        CredentialKind::HmacAuth => &["secret"],
        CredentialKind::OAuth2 => &["client_id", "client_secret"],
        CredentialKind::BasicAuth | CredentialKind::Acl => &[],
    }
}

fn id(
    cx: &Lower<'_, '_, '_>,
    kind: CredentialKind,
    record: &Record,
    consumer: Option<&Ref>,
    index: usize,
) -> String {
    let owner = cx.key_part(consumer, "consumer");
    let key = record.str(kind.key_field()).unwrap_or_default();
    match kind {
        CredentialKind::BasicAuth | CredentialKind::HmacAuth => ids::derive_cached(kind.entity(), &[key]),
        CredentialKind::Acl => ids::derive_cached(kind.entity(), &[&owner, key]),
        CredentialKind::KeyAuth | CredentialKind::Jwt | CredentialKind::OAuth2 => {
            ids::positional(kind.entity(), &owner, index)
        }
    }
}

fn public_key(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, record: &Record) {
    let algorithm = record.str("algorithm").unwrap_or("HS256");
    let given = node.get("rsa_public_key").is_some_and(|n| !n.is_null());
    if !algorithm.starts_with("HS") && !given {
        let message =
            format!("required field missing: `rsa_public_key`, because the algorithm is {algorithm}");
        let diagnostic = Diagnostic::new(&codes::MISSING_FIELD, record.span_of("algorithm"), message)
            .help("add the public key as PEM; tokens are signed with the private key, which the gateway never needs");
        cx.report(diagnostic);
    }
}
