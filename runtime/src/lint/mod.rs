//! Advice: what is legal in a config and yet likely a mistake or a risk. One file a lint or a family of them, each with
//! its page for `gw explain`; [`ALL`] lists them.
//!
//! Lints read the model and never change what is served.

mod facts;
mod ranking;
mod silence;

pub mod acl_groups;
pub mod acme;
pub mod cors_any_origin;
pub mod credentials_over_http;
pub mod every_request_401;
pub mod exposure;
pub mod issuer_over_http;
pub mod issues_no_tokens;
pub mod jwt_without_exp;
pub mod limit_keys;
pub mod path_looks_like_regex;
pub mod plugin_never_runs;
pub mod quotas;
pub mod redis;
pub mod route_fields;
pub mod route_order;
pub mod secret_in_clear;
pub mod trusts_everyone;
pub mod unused;
pub mod upstream_targets;
pub mod upstream_tls;
pub mod weak_hmac_secret;

pub use facts::Facts;
pub use silence::is_silenced;

use crate::diag::{Code, Diags, codes};
use crate::model::Model;
use crate::source::Sources;

/// One check; some report more than one code.
pub struct Lint {
    pub codes: &'static [&'static Code],
    /// Whether it concludes from what is *not* in the config, so that it makes sense only for one without errors.
    pub needs_whole: bool,
    run: fn(&Facts<'_>, &mut Diags),
}

const fn whole(codes: &'static [&'static Code], run: fn(&Facts<'_>, &mut Diags)) -> Lint {
    Lint { codes, needs_whole: true, run }
}

const fn local(codes: &'static [&'static Code], run: fn(&Facts<'_>, &mut Diags)) -> Lint {
    Lint { codes, needs_whole: false, run }
}

/// Every lint.
pub static ALL: &[Lint] = &[
    whole(&[&codes::EVERY_REQUEST_401], every_request_401::run),
    local(&[&codes::JWT_WITHOUT_EXP], jwt_without_exp::run),
    local(&[&codes::WEAK_HMAC_SECRET], weak_hmac_secret::run),
    local(&[&codes::SECRET_IN_CLEAR], secret_in_clear::run),
    whole(&[&codes::DUPLICATE_ROUTE, &codes::SHADOWED_ROUTE], route_order::hidden),
    local(&[&codes::PATH_LOOKS_LIKE_REGEX], path_looks_like_regex::run),
    whole(&[&codes::PREFIX_WITHOUT_BOUNDARY], route_order::boundary),
    local(&[&codes::FORGEABLE_LIMIT_KEY], limit_keys::forgeable),
    whole(&[&codes::LIMIT_WITHOUT_IDENTITY], limit_keys::unidentified),
    local(&[&codes::LIMITER_FAILS_OPEN], redis::fails_open),
    local(&[&codes::REDIS_IN_CLEAR], redis::in_clear),
    local(&[&codes::UPSTREAM_NOT_VERIFIED], upstream_tls::not_verified),
    local(&[&codes::HTTPS_ON_PORT_80], upstream_tls::port_80),
    local(&[&codes::PATH_HANDLING_IGNORED], route_fields::path_handling),
    whole(&[&codes::UNUSED_CONSUMER], unused::consumers),
    whole(&[&codes::UNUSED_UPSTREAM], unused::upstreams),
    whole(&[&codes::SERVICE_WITHOUT_ROUTE], unused::services),
    whole(&[&codes::ROUTE_WITHOUT_SERVICE], route_fields::no_service),
    local(&[&codes::TRUSTS_EVERYONE], trusts_everyone::run),
    whole(&[&codes::ROUTER_ORDER_DIFFERS], route_order::differs),
    whole(&[&codes::CREDENTIALS_OVER_HTTP], credentials_over_http::run),
    local(&[&codes::CORS_ANY_ORIGIN], cors_any_origin::run),
    whole(&[&codes::ACL_GROUP_WITHOUT_MEMBERS], acl_groups::groups),
    whole(&[&codes::UPSTREAM_WITHOUT_TARGETS], upstream_targets::no_targets),
    local(&[&codes::REGEX_PRIORITY_RANGE], route_fields::regex_priority),
    whole(&[&codes::PLUGIN_NEVER_RUNS], plugin_never_runs::run),
    whole(&[&codes::CREDENTIAL_WITHOUT_PLUGIN], unused::credentials),
    whole(&[&codes::ANONYMOUS_ADMITS_EVERYONE], acl_groups::anonymous),
    local(&[&codes::TARGET_NEVER_RECOVERS], upstream_targets::never_recovers),
    local(&[&codes::ADMIN_EXPOSED], exposure::admin),
    local(&[&codes::KEY_IN_QUERY], exposure::key_in_query),
    local(&[&codes::LIMIT_NEVER_BINDS], quotas::never_bind),
    local(&[&codes::ISSUES_NO_TOKENS], issues_no_tokens::run),
    local(&[&codes::ISSUER_OVER_HTTP], issuer_over_http::run),
    whole(&[&codes::QUOTA_LOST_ON_RESTART], quotas::lost),
    whole(&[&codes::CONSUMER_WITHOUT_PLAN], quotas::no_plan),
    whole(&[&codes::PLAN_WITHOUT_MEMBERS], quotas::no_members),
    whole(&[&codes::ACME_NAME_UNUSED], acme::unused),
    whole(&[&codes::ACME_UNPROVABLE], acme::unprovable),
];

/// Lints that are matters of taste or circumstance: reported only to those who ask.
static QUIET: &[&Code] = &[&codes::LIMITER_FAILS_OPEN, &codes::REDIS_IN_CLEAR, &codes::KEY_IN_QUERY];

/// Whether the code is reported only on request.
pub fn is_quiet(code: &Code) -> bool {
    QUIET.iter().any(|c| c.id == code.id)
}

/// Whether findings of this code mean something only for a config without errors.
pub fn needs_whole(code: &Code) -> bool {
    ALL.iter().any(|l| l.needs_whole && l.codes.iter().any(|c| c.id == code.id))
}

/// Runs the lints that `wanted` selects. `whole` says that the model lacks nothing that the text has.
pub fn run(model: &Model, sources: &Sources, whole: bool, wanted: &dyn Fn(&Code) -> bool) -> Diags {
    let facts = Facts::new(model, sources);
    let mut diags = Diags::new();
    for lint in ALL.iter().filter(|l| (whole || !l.needs_whole) && l.codes.iter().any(|c| wanted(c))) {
        (lint.run)(&facts, &mut diags);
    }
    diags.retain(|d| wanted(d.code));
    diags
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::diag::{Severity, has_errors};
    use crate::env::Env;
    use crate::front::{Input, LoadOptions, load};

    /// Loads a config without errors and compares what one lint finds with `LINE: beginning of the message`.
    #[track_caller]
    pub fn check(code: &'static Code, yaml: &str, want: &[&str]) -> Diags {
        let mut sources = Sources::default();
        let (model, loaded) =
            load(&mut sources, &[Input::text("t.yaml", yaml)], &Env::default(), &LoadOptions::default());
        assert!(!has_errors(&loaded), "{loaded:#?}\n{yaml}");
        let diags = run(&model, &sources, true, &|c| c.id == code.id);
        let said =
            |d: &crate::diag::Diagnostic| format!("{}: {}", sources.line_col(d.primary.span).line, d.message);
        let got: Vec<String> = diags.iter().map(said).collect();
        let same = got.len() == want.len() && got.iter().zip(want).all(|(g, w)| g.starts_with(w));
        assert!(same, "got {got:#?}\nwant {want:#?}\n{yaml}");
        diags
    }

    #[test]
    fn every_lint_is_a_warning_with_a_whole_page() {
        for code in ALL.iter().flat_map(|l| l.codes) {
            assert_eq!(code.severity, Severity::Warning, "{}", code.id);
            assert!(code.id.starts_with("GW4"), "{}", code.id);
            for heading in ["## What it does", "## Why", "## Example", "## Use instead"] {
                assert!(code.explain.contains(heading), "{}: no `{heading}`", code.id);
            }
        }
    }

    #[test]
    fn every_code_of_a_lint_is_reported_by_one() {
        for code in codes::ALL.iter().filter(|c| c.id.starts_with("GW4")) {
            let n = ALL.iter().filter(|l| l.codes.iter().any(|c| c.id == code.id)).count();
            assert_eq!(n, 1, "{}", code.id);
        }
    }
}
