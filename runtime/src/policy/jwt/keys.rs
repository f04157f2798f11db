//! The keys of issuers that publish them: which are in force, and when to wait for others.

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Jwt, Verified};
use crate::diag::{Diagnostic, codes};
use crate::model::schema::Record;
use crate::policy::Cx;
use crate::policy::call::{Transport, Url};
use crate::provider::{Provider, Providers, Published, Source, Unavailable};
use crate::token::issuer::Issuer;
use crate::token::{Algorithm, Token};

/// How long a connection to an issuer may take.
const CONNECT: Duration = Duration::from_secs(3);

impl Jwt {
    /// Whether what a token was judged by is still in force.
    #[inline]
    pub(super) fn has_keys_of(&self, verified: &Verified) -> bool {
        let provider = verified.issuer.and_then(|i| self.providers.get(i)?.as_ref());
        provider.is_none_or(|p| p.generation() == verified.keys)
    }

    /// The published keys to judge a token by, and their generation; none for keys of the config. Where they are not
    /// enough and were not waited for yet, that is what to do.
    pub(super) fn keys_for(
        &self,
        issuer: Option<usize>,
        token: &Token<'_>,
        waited: Option<Result<(), Unavailable>>,
    ) -> Result<(Option<Arc<Published>>, u64), Failure> {
        let Some((i, provider)) = issuer.and_then(|i| Some((i, self.providers.get(i)?.as_ref()?))) else {
            return Ok((None, 0));
        };
        // Read first: keys that change in between are then taken for older than they are, and judged again.
        let generation = provider.generation();
        let Some(published) = provider.published() else {
            return Err(match waited {
                None => Failure::Wait(provider.want_any()),
                Some(_) => no_keys(provider),
            });
        };
        let kid = token.header.get("kid").and_then(serde_json::Value::as_str);
        if self.issuers[i].lacks_key(token, &published.keys) {
            match waited {
                // Asked too often lately, or asked for this token: what is there decides.
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(no_keys(provider)),
                None => {
                    if let Some(wanted) = provider.want_other(kid) {
                        return Err(Failure::Wait(wanted));
                    }
                }
            }
        }
        Ok((Some(published), generation))
    }
}

fn no_keys(provider: &Provider) -> Failure {
    provider.counts.unavailable.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Failure::NoKeys
}

/// The issuers of a config, and the providers of those that publish their keys.
pub fn issuers(config: &Record, cx: &mut Cx<'_>) -> Option<(Vec<Issuer>, Vec<Option<Arc<Provider>>>)> {
    let (mut issuers, mut providers) = (Vec::new(), Vec::new());
    let mut fine = true;
    for record in config.records("issuers") {
        let Some((issuer, provider)) = issuer(record, cx) else {
            fine = false;
            continue;
        };
        issuers.push(issuer);
        providers.push(provider);
    }
    fine.then_some((issuers, providers))
}

fn issuer(record: &Record, cx: &mut Cx<'_>) -> Option<(Issuer, Option<Arc<Provider>>)> {
    one_source(record, cx)?;
    let issuer = match Issuer::of(record) {
        Ok(issuer) => issuer,
        Err(problem) => {
            cx.report(&codes::INVALID_VALUE, record.span_of("jwks"), format!("`jwks`: {problem}"));
            return None;
        }
    };
    let Some(source) = issuer.source() else { return Some((issuer, None)) };
    let (field, url) = match source {
        Source::Jwks(url) => ("jwks_uri", url),
        Source::Discovery { url, .. } => ("issuer", url),
    };
    if let Err(problem) = Url::parse(url) {
        let what = if field == "issuer" { "`discovery` needs a URL as `issuer`" } else { "`jwks_uri`" };
        cx.report(&codes::INVALID_VALUE, record.span_of(field), format!("{what}: {problem}"));
        return None;
    }
    if Algorithm::ALL.iter().any(|a| a.is_symmetric() && issuer.takes(*a)) {
        let message = "`algorithms` has an HMAC, but a published key set holds no secrets";
        cx.diags.push(
            Diagnostic::new(&codes::INVALID_VALUE, record.span_of("algorithms"), message)
                .help("leave `HS256`, `HS384` and `HS512` out, or give the secret in `jwks`"),
        );
        return None;
    }
    match Transport::new(cx, true, CONNECT) {
        Ok(transport) => {
            let provider = cx.shared.get::<Providers>().get(source.clone(), transport);
            Some((issuer, Some(provider)))
        }
        Err(e) => {
            cx.report(&codes::INVALID_VALUE, record.span, format!("`gateway.tls.upstream_ca`: {e}"));
            None
        }
    }
}

/// Reports unless the keys come from exactly one place.
fn one_source(record: &Record, cx: &mut Cx<'_>) -> Option<()> {
    let given: Vec<&str> = ["jwks", "jwks_uri", "discovery"]
        .into_iter()
        .filter(|f| if *f == "discovery" { record.bool(f) } else { record.str(f).is_some() })
        .collect();
    match given[..] {
        [_] => return Some(()),
        [first, second, ..] => {
            let message = format!("`{second}` beside `{first}`: an issuer's keys come from one place");
            cx.diags.push(
                Diagnostic::new(&codes::CONFLICTING_FIELDS, record.span_of(second), message)
                    .also(record.span_of(first), "this one is given already")
                    .help(format!("remove `{first}` or `{second}`")),
            );
        }
        [] => {
            let message = "the issuer has no keys";
            cx.diags.push(
                Diagnostic::new(&codes::MISSING_ALTERNATIVE, record.span, message)
                    .help("give `jwks_uri`, `discovery: true` or `jwks`"),
            );
        }
    }
    None
}
