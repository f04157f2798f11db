//! `oauth2`: access tokens that the config itself holds.

mod place;

use std::rc::Rc;

use serde_json::{Value, json};

use self::place::{Place, Shown};
use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::key_auth::fingerprint;
use super::reply::JSON;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::{Exchange, Identity};
use crate::message::{FieldName, names};
use crate::model::schema::{Field, HEADER, Kind, Record, STR, TEXT};
use crate::snapshot::{Credential, OAuth2Token};
use crate::token::demands::{self, Scopes};

/// What the upstream is told besides [`IDENTITY_HEADERS`].
const SCOPE_HEADER: &str = "X-Authenticated-Scope";
const USER_HEADER: &str = "X-Authenticated-Userid";

/// Kong's grants. gw issues no tokens, so they turn nothing on.
pub const GRANTS: &[&str] = &[
    "enable_authorization_code",
    "enable_implicit_grant",
    "enable_client_credentials",
    "enable_password_grant",
];

const SECONDS: Kind = Kind::Num { min: 0.0, max: 1e12 };
const UNUSED: &str = "Read for Kong's sake; gw issues no tokens.";

static PLUGIN: Descriptor = Descriptor {
    name: "oauth2",
    summary: "let in callers with an access token that the config lists",
    doc: "\
## What it does
Finds the application, and so the consumer, by an access token of `oauth2_tokens`.

## Why
Long-lived tokens for machines, and tokens that another system has issued and exported, need no authorization server. Kong
keeps the tokens of this plugin in its database; a declarative config lists them. Tokens are issued by neither gw nor
the config: for that use an identity provider, with `jwt` or `oauth2-introspection` here.

## Example
```yaml
services:
  - name: orders
    url: http://orders.internal
    routes: [{ name: orders, paths: [/orders] }]
    plugins:
      - name: oauth2
        config: { scopes_all: [orders.read], hide_credentials: true }
consumers:
  - username: alice
    oauth2_credentials:
      - name: warehouse
        client_id: warehouse
        oauth2_tokens:
          - access_token: \"${WAREHOUSE_TOKEN}\"
            service: orders
            scope: orders.read
            authenticated_userid: u-17
            expires_in: 0
```

## Behaviour
The token stands in the field `auth_header_name` (`Bearer TOKEN`, `token TOKEN`, or alone), else in the argument
`access_token` of the query, else, with POST, PUT and PATCH, in the field of that name of the body (form, JSON or
multipart); the body goes before the query. It is looked up by its SHA-256; a config may hold that alone
(`access_token_hash`, see `gw token hash-key`).

A token with a `service` is good for that service alone, one without for every service whose plugin has
`global_credentials`. `expires_in` counts from the token's `created_at`; 0 is for ever.

| case | status | body |
|---|---|---|
| no token | 401 | `invalid_request`, `The access token is missing` |
| unknown, expired, or of another service | 401 | `invalid_token`, `The access token is invalid or has expired` |
| without a service, and no `global_credentials` | 401 | `invalid_token`, `The access token is global, but the current plugin is configured without 'global_credentials'` |
| lacks `scopes_any` or `scopes_all` | 403 | `insufficient_scope`, with `scope` in the challenge |
| POST to `.../oauth2/token` or `.../oauth2/authorize` where a grant is enabled | 400 | `unsupported_grant_type` or `unsupported_response_type`: gw issues no tokens |

Bodies are `{\"error\":...,\"error_description\":...}`, and 401 and 403 carry `WWW-Authenticate: Bearer` (RFC 6750). With
`anonymous` a 401 becomes that consumer.

Tells the upstream `X-Consumer-*`, `X-Credential-Identifier` (the `client_id`), `X-Authenticated-Scope` and
`X-Authenticated-Userid`, which clients cannot send. Later policies see the claims `client_id`, `scope` and `sub`.
With `hide_credentials` the upstream does not see the token.
",
    fields: &[
        Field::new("scopes", Kind::List(&TEXT), "Scopes that Kong's grants may hand out. Read for Kong's sake; to ask for scopes use `scopes_any` and `scopes_all`."),
        Field::new("mandatory_scope", Kind::Bool, "Whether Kong's grants need a scope; needs `scopes`. Read for Kong's sake.")
            .default("false"),
        Field::new("provision_key", TEXT, UNUSED).secret(),
        Field::new("token_expiration", SECONDS, UNUSED).default("7200"),
        Field::new("enable_authorization_code", Kind::Bool, UNUSED).default("false"),
        Field::new("enable_implicit_grant", Kind::Bool, UNUSED).default("false"),
        Field::new("enable_client_credentials", Kind::Bool, UNUSED).default("false"),
        Field::new("enable_password_grant", Kind::Bool, UNUSED).default("false"),
        Field::new("hide_credentials", Kind::Bool, "Whether the token is kept from the upstream.").default("false"),
        Field::new("accept_http_if_already_terminated", Kind::Bool, UNUSED).default("false"),
        ANONYMOUS,
        Field::new("global_credentials", Kind::Bool, "Whether tokens without a service are good here.").default("false"),
        Field::new("auth_header_name", HEADER, "The request field that carries the token.").default("\"authorization\""),
        Field::new("refresh_token_ttl", SECONDS, UNUSED).default("1209600"),
        Field::new("reuse_refresh_token", Kind::Bool, UNUSED).default("false"),
        Field::new("pkce", Kind::Enum(&["none", "lax", "strict"]), UNUSED).default("\"lax\""),
        Field::new("realm", STR, "What `WWW-Authenticate` names as the realm."),
        demands::SCOPES_ANY.extension(),
        demands::SCOPES_ALL.extension(),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[
        IDENTITY_HEADERS[0],
        IDENTITY_HEADERS[1],
        IDENTITY_HEADERS[2],
        IDENTITY_HEADERS[3],
        IDENTITY_HEADERS[4],
        SCOPE_HEADER,
        USER_HEADER,
    ],
};

/// See the module.
pub struct OAuth2 {
    place: Place,
    hide: bool,
    global: bool,
    scopes: Scopes,
    /// Kong would answer the endpoints of its grants here.
    grants: bool,
    challenge: String,
    anonymous: Option<Anonymous>,
    scope_header: FieldName,
    user_header: FieldName,
}

/// Why a caller is not let in: status, the `error` of RFC 6750, and its description.
struct Refusal(u16, &'static str, &'static str);

const MISSING: Refusal = Refusal(401, "invalid_request", "The access token is missing");
const INVALID: Refusal = Refusal(401, "invalid_token", "The access token is invalid or has expired");
const GLOBAL: Refusal = Refusal(
    401,
    "invalid_token",
    "The access token is global, but the current plugin is configured without 'global_credentials'",
);
const SCOPE: Refusal = Refusal(403, "insufficient_scope", "The access token lacks a scope");

impl Policy for OAuth2 {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if config.bool("mandatory_scope") && config.get("scopes").is_none() {
            let message = "`mandatory_scope` needs `scopes`: required field missing";
            cx.report(&codes::MISSING_ALTERNATIVE, config.span_of("mandatory_scope"), message);
            return None;
        }
        Some(Self {
            place: Place::new(config.str("auth_header_name").unwrap_or("authorization")),
            hide: config.bool("hide_credentials"),
            global: config.bool("global_credentials"),
            scopes: Scopes::of(config),
            grants: GRANTS.iter().any(|grant| config.bool(grant)),
            challenge: identity::challenge("Bearer", config.str("realm")),
            anonymous: Anonymous::of(config),
            scope_header: FieldName::new(SCOPE_HEADER),
            user_header: FieldName::new(USER_HEADER),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        if self.grants && x.request.method == "POST" {
            let path = x.request.path.strip_suffix('/').unwrap_or(&x.request.path);
            if path.ends_with("/oauth2/token") {
                return Flow::Reply(issues_nothing("unsupported_grant_type"));
            }
            if path.ends_with("/oauth2/authorize") {
                return Flow::Reply(issues_nothing("unsupported_response_type"));
            }
        }
        if self.place.needs_body(x) {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.authenticate(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            _ => self.authenticate(x),
        }
    }
}

impl OAuth2 {
    fn authenticate(&self, x: &mut Exchange) -> Flow {
        let token = match self.place.find(x) {
            Some(shown) => {
                if self.hide {
                    self.place.hide(x, &shown);
                }
                shown
            }
            None => return self.refuse(x, &MISSING),
        };
        let (Shown::Header(text) | Shown::Parameter(text)) = &token;
        let snapshot = x.snapshot.clone();
        let found = snapshot.credentials.oauth2.get(&fingerprint(text));
        match found.ok_or(INVALID).and_then(|token| self.judge(x, token)) {
            Ok(identity) => {
                identity::set_identity(x, identity);
                let token = found.map(|t| &t.data);
                self.tell(x, token);
                Flow::Next
            }
            Err(refusal) => self.refuse(x, &refusal),
        }
    }

    /// Whose a known token is, if it is good here and now.
    fn judge(&self, x: &Exchange, token: &Credential<OAuth2Token>) -> Result<Identity, Refusal> {
        let data = &token.data;
        match data.service {
            None if !self.global => return Err(GLOBAL),
            Some(service) if x.service != Some(service) => return Err(INVALID),
            _ => {}
        }
        if data.good_until.is_some_and(|last| x.now.unix_ms / 1000 > last) {
            return Err(INVALID);
        }
        let claims = claims(data);
        if !self.scopes.admit(Some(&claims)) {
            return Err(SCOPE);
        }
        Ok(identity::of_credential(token, data.client_id.clone(), Some(Rc::new(claims))))
    }

    /// Writes the fields that only the gateway may write.
    fn tell(&self, x: &mut Exchange, token: Option<&OAuth2Token>) {
        let mut put = |name: &FieldName, value: Option<&String>| match value {
            Some(value) => x.request.fields.set(name, value),
            None => {
                x.request.fields.remove(name);
            }
        };
        put(&self.scope_header, token.and_then(|t| t.scope.as_ref()));
        put(&self.user_header, token.and_then(|t| t.user.as_ref()));
    }

    fn refuse(&self, x: &mut Exchange, Refusal(status, error, description): &Refusal) -> Flow {
        let mut params = String::new();
        if *error != MISSING.1 {
            params = format!("error=\"{error}\", error_description=\"{description}\"");
        }
        if *status == 403 {
            let scope = self.scopes.denial().scope.unwrap_or_default().replace(['"', '\\'], "'");
            params.push_str(&format!(", scope=\"{scope}\""));
        }
        let challenge = identity::with_params(&self.challenge, &params);
        let reply = Reply::with_body(*status, JSON, body(error, description));
        // Who lacks scopes is known, so the anonymous consumer is not meant.
        let anonymous = self.anonymous.as_ref().filter(|_| *status == 401);
        if anonymous.is_some() {
            self.tell(x, None);
        }
        identity::reject(anonymous, x, reply.field(names::WWW_AUTHENTICATE, challenge))
    }
}

/// What later policies may ask of the token, by the names of RFC 9068.
fn claims(token: &OAuth2Token) -> Value {
    let mut claims = json!({"client_id": token.client_id});
    for (name, value) in [("scope", &token.scope), ("sub", &token.user)] {
        if let Some(value) = value {
            claims[name] = Value::String(value.clone());
        }
    }
    claims
}

fn body(error: &str, description: &str) -> String {
    format!("{{\"error\":\"{error}\",\"error_description\":\"{description}\"}}")
}

/// The answer of the endpoints that Kong has and gw has not (RFC 6749).
fn issues_nothing(error: &str) -> Reply {
    let reply = Reply::with_body(400, JSON, body(error, "This gateway issues no tokens"));
    reply.field(FieldName::new("Cache-Control"), "no-store")
}

#[cfg(test)]
mod tests;
