//! The registry of diagnostic codes. A code is never renumbered; a retired one is not reused.

use super::{Code, Severity};
use crate::lint;

macro_rules! codes {
    ($($name:ident = $id:literal $kebab:literal $severity:ident $explain:expr;)*) => {
        $(
            #[doc = concat!($id, ": ", $kebab)]
            pub static $name: Code = Code {
                id: $id, name: $kebab, severity: Severity::$severity, explain: $explain,
            };
        )*
        /// Every code, in order of id.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    SYNTAX = "GW1001" "syntax" Error include_str!("pages/GW1001.md");
    UNKNOWN_FIELD = "GW1002" "unknown-field" Error include_str!("pages/GW1002.md");
    WRONG_TYPE = "GW1003" "wrong-type" Error include_str!("pages/GW1003.md");
    OUT_OF_RANGE = "GW1004" "out-of-range" Error include_str!("pages/GW1004.md");
    DUPLICATE_KEY = "GW1005" "duplicate-key" Error include_str!("pages/GW1005.md");
    BUDGET = "GW1006" "too-big" Error include_str!("pages/GW1006.md");
    MISSING_FIELD = "GW1007" "missing-field" Error include_str!("pages/GW1007.md");
    ENVIRONMENT = "GW1008" "environment" Error include_str!("pages/GW1008.md");
    DANGLING_REFERENCE = "GW2001" "dangling-reference" Error include_str!("pages/GW2001.md");
    DUPLICATE_ENTITY = "GW2002" "duplicate-entity" Error include_str!("pages/GW2002.md");
    NO_CONSUMER_SCOPE = "GW2003" "no-consumer-scope" Error include_str!("pages/GW2003.md");
    BAD_CERTIFICATE = "GW2004" "bad-certificate" Error include_str!("pages/GW2004.md");
    BAD_PUBLIC_KEY = "GW2005" "bad-public-key" Error include_str!("pages/GW2005.md");
    CONFLICTING_FIELDS = "GW2201" "conflicting-fields" Error include_str!("pages/GW2201.md");
    MISSING_ALTERNATIVE = "GW2202" "missing-alternative" Error include_str!("pages/GW2202.md");
    INVALID_VALUE = "GW2203" "invalid-value" Error include_str!("pages/GW2203.md");
    TEMPLATE = "GW2204" "template" Error include_str!("pages/GW2204.md");
    TEMPLATE_FAILS = "GW2205" "template-fails" Warning include_str!("pages/GW2205.md");
    NO_EFFECT = "GW2206" "no-effect" Warning include_str!("pages/GW2206.md");
    LEASE_BOUND = "GW2207" "lease-bound" Note include_str!("pages/GW2207.md");
    PART_CYCLE = "GW2211" "part-cycle" Error include_str!("pages/GW2211.md");
    MERGE_CONFLICT = "GW2212" "merge-conflict" Error include_str!("pages/GW2212.md");
    POSSIBLE_MERGE_CONFLICT = "GW2213" "possible-merge-conflict" Warning include_str!("pages/GW2213.md");
    UNSUPPORTED_PLUGIN = "GW3001" "unsupported-plugin" Error include_str!("pages/GW3001.md");
    UNKNOWN_PLUGIN = "GW3002" "unknown-plugin" Error include_str!("pages/GW3002.md");
    UNSUPPORTED_PROTOCOL = "GW3003" "unsupported-protocol" Error include_str!("pages/GW3003.md");
    UNSUPPORTED_ENTITY = "GW3004" "unsupported-entity" Error include_str!("pages/GW3004.md");
    EVERY_REQUEST_401 = "GW4001" "every-request-401" Warning lint::every_request_401::DOC;
    JWT_WITHOUT_EXP = "GW4002" "jwt-without-exp" Warning lint::jwt_without_exp::DOC;
    WEAK_HMAC_SECRET = "GW4003" "weak-hmac-secret" Warning lint::weak_hmac_secret::DOC;
    SECRET_IN_CLEAR = "GW4004" "secret-in-clear" Warning lint::secret_in_clear::DOC;
    DUPLICATE_ROUTE = "GW4005" "duplicate-route" Warning lint::route_order::DUPLICATE_DOC;
    SHADOWED_ROUTE = "GW4006" "shadowed-route" Warning lint::route_order::SHADOWED_DOC;
    PATH_LOOKS_LIKE_REGEX = "GW4007" "path-looks-like-regex" Warning lint::path_looks_like_regex::DOC;
    PREFIX_WITHOUT_BOUNDARY = "GW4008" "prefix-without-boundary" Warning lint::route_order::BOUNDARY_DOC;
    FORGEABLE_LIMIT_KEY = "GW4009" "forgeable-limit-key" Warning lint::limit_keys::FORGEABLE_DOC;
    LIMIT_WITHOUT_IDENTITY = "GW4010" "limit-without-identity" Warning lint::limit_keys::UNIDENTIFIED_DOC;
    LIMITER_FAILS_OPEN = "GW4011" "limiter-fails-open" Warning lint::redis::FAILS_OPEN_DOC;
    REDIS_IN_CLEAR = "GW4012" "redis-in-clear" Warning lint::redis::IN_CLEAR_DOC;
    UPSTREAM_NOT_VERIFIED = "GW4013" "upstream-not-verified" Warning lint::upstream_tls::NOT_VERIFIED_DOC;
    HTTPS_ON_PORT_80 = "GW4014" "https-on-port-80" Warning lint::upstream_tls::PORT_80_DOC;
    PATH_HANDLING_IGNORED = "GW4015" "path-handling-ignored" Warning lint::route_fields::PATH_HANDLING_DOC;
    UNUSED_CONSUMER = "GW4016" "unused-consumer" Warning lint::unused::CONSUMER_DOC;
    UNUSED_UPSTREAM = "GW4017" "unused-upstream" Warning lint::unused::UPSTREAM_DOC;
    SERVICE_WITHOUT_ROUTE = "GW4018" "service-without-route" Warning lint::unused::SERVICE_DOC;
    ROUTE_WITHOUT_SERVICE = "GW4019" "route-without-service" Warning lint::route_fields::NO_SERVICE_DOC;
    TRUSTS_EVERYONE = "GW4020" "trusts-everyone" Warning lint::trusts_everyone::DOC;
    ROUTER_ORDER_DIFFERS = "GW4021" "router-order-differs" Warning lint::route_order::ORDER_DOC;
    CREDENTIALS_OVER_HTTP = "GW4022" "credentials-over-http" Warning lint::credentials_over_http::DOC;
    CORS_ANY_ORIGIN = "GW4023" "cors-any-origin-with-credentials" Warning lint::cors_any_origin::DOC;
    ACL_GROUP_WITHOUT_MEMBERS = "GW4024" "acl-group-without-members" Warning lint::acl_groups::GROUP_DOC;
    UPSTREAM_WITHOUT_TARGETS = "GW4025" "upstream-without-targets" Warning lint::upstream_targets::NO_TARGETS_DOC;
    REGEX_PRIORITY_RANGE = "GW4026" "regex-priority-range" Warning lint::route_fields::REGEX_PRIORITY_DOC;
    PLUGIN_NEVER_RUNS = "GW4027" "plugin-never-runs" Warning lint::plugin_never_runs::DOC;
    CREDENTIAL_WITHOUT_PLUGIN = "GW4028" "credential-without-plugin" Warning lint::unused::CREDENTIAL_DOC;
    ANONYMOUS_ADMITS_EVERYONE = "GW4029" "anonymous-admits-everyone" Warning lint::acl_groups::ANONYMOUS_DOC;
    TARGET_NEVER_RECOVERS = "GW4030" "target-never-recovers" Warning lint::upstream_targets::NEVER_RECOVERS_DOC;
    ADMIN_EXPOSED = "GW4031" "admin-exposed" Warning lint::exposure::ADMIN_DOC;
    KEY_IN_QUERY = "GW4032" "key-in-query" Warning lint::exposure::KEY_IN_QUERY_DOC;
    ISSUES_NO_TOKENS = "GW4060" "issues-no-tokens" Warning lint::issues_no_tokens::DOC;
    ISSUER_OVER_HTTP = "GW4061" "issuer-over-http" Warning lint::issuer_over_http::DOC;
    LIMIT_NEVER_BINDS = "GW4040" "limit-never-binds" Warning lint::quotas::NEVER_BINDS_DOC;
    QUOTA_LOST_ON_RESTART = "GW4041" "quota-lost-on-restart" Warning lint::quotas::LOST_DOC;
    CONSUMER_WITHOUT_PLAN = "GW4042" "consumer-without-plan" Warning lint::quotas::NO_PLAN_DOC;
    ACME_NAME_UNUSED = "GW4050" "acme-name-unused" Warning lint::acme::UNUSED_DOC;
    ACME_UNPROVABLE = "GW4051" "acme-unprovable" Warning lint::acme::UNPROVABLE_DOC;
    PLAN_WITHOUT_MEMBERS = "GW4043" "plan-without-members" Warning lint::quotas::NO_MEMBERS_DOC;
}

/// The code with this id or name, in any case.
pub fn find(text: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|c| c.id.eq_ignore_ascii_case(text) || c.name.eq_ignore_ascii_case(text))
}
