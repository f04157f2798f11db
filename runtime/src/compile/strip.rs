//! Which request headers clients can never set.

use crate::message::strip::StripSet;
use crate::model::Model;
use crate::policy::Step;
use crate::policy::identity::IDENTITY_HEADERS;
use crate::policy::registry::REGISTRY;

/// Headers in which gateways hand on identities, whether or not this config uses them: a service must be able to
/// trust them on every route.
const ALWAYS: &[&str] = &[
    "X-Consumer-Groups",
    "X-Authenticated-Userid",
    "X-Authenticated-User",
    "X-Authenticated-Scope",
    "X-Authenticated-Groups",
    "X-User-Id",
    "X-User",
    "X-Jwt-Claims",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-User",
];

/// What the gateway itself says to upstreams, and where a body ends. To frameworks that read `_` as `-` another spelling
/// would be a second, forged, value.
const NOT_IN_OTHER_SPELLINGS: &[&str] = &[
    "Content-Length",
    "Transfer-Encoding",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Path",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Kong-Request-Id",
];

/// The set for a config.
pub fn set(model: &Model, steps: &[Step]) -> StripSet {
    let of_steps: Vec<String> = steps.iter().flat_map(Step::sets_headers).collect();
    let names = IDENTITY_HEADERS
        .iter()
        .chain(ALWAYS)
        .chain(REGISTRY.iter().flat_map(|d| d.identity_headers))
        .copied()
        .chain(of_steps.iter().map(String::as_str))
        .chain(model.gateway.identity_headers.iter().map(String::as_str))
        .chain(model.gateway.strip_headers.iter().map(String::as_str));
    StripSet::new(names).with_aliases_of(NOT_IN_OTHER_SPELLINGS.iter().copied())
}
