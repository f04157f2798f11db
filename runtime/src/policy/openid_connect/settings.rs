//! The settings of `openid-connect`.

use std::time::Duration;

use super::OpenIdConnect;
use super::cookie::Vault;
use super::session::Refreshed;
use crate::diag::codes;
use crate::model::schema::{Field, HEADER, Kind, MILLIS, Record, Rule, TEXT};
use crate::policy::Cx;
use crate::policy::call::{Transport, Url};
use crate::policy::identity::{self, ANONYMOUS, Anonymous};
use crate::policy::verdicts::Stores;
use crate::provider::{Providers, Source};

/// The least length of a secret, in bytes.
const SECRET_MIN: usize = 32;

/// See the plugin's documentation.
pub const FIELDS: &[Field] = &[
    Field::new(
        "issuer",
        Kind::Str(Rule::Url),
        "The provider, exactly as its metadata and tokens name it. The metadata is at this URL with \
         `/.well-known/openid-configuration`.",
    )
    .required(),
    Field::new("client_id", TEXT, "The gateway's name at the provider.").required(),
    Field::new("client_secret", TEXT, "The gateway's secret at the provider; none for a public client.").secret(),
    Field::new(
        "client_auth",
        Kind::Enum(&["basic", "post"]),
        "Whether the secret goes into `Authorization: Basic` or into the body.",
    )
    .default("\"basic\""),
    Field::new(
        "redirect_uri",
        Kind::Str(Rule::Url),
        "Where the provider sends browsers back to, as it is registered there. Its path must be on the plugin's route.",
    )
    .required(),
    Field::new("scopes", Kind::List(&TEXT), "What is asked for; `openid` always is.").default("[\"openid\"]"),
    Field::new(
        "session_secrets",
        Kind::List(&TEXT),
        "Secrets of at least 32 bytes that encrypt sessions: the first encrypts, all decrypt.",
    )
    .required()
    .secret(),
    Field::new("session_ttl", Kind::Int { min: 60, max: 2_592_000 }, "The most seconds that a session lasts.")
        .default("43200"),
    Field::new("cookie_name", Kind::Str(Rule::HeaderName), "What the session's cookie is called.")
        .default("\"gw_session\""),
    Field::new("login_path", Kind::Str(Rule::Path), "A path at which everybody without a session is sent to log in."),
    Field::new("logout_path", Kind::Str(Rule::Path), "The path that ends a session.").default("\"/logout\""),
    Field::new(
        "post_logout_redirect_uri",
        Kind::Str(Rule::Url),
        "Where browsers go after the logout, as it is registered at the provider.",
    ),
    Field::new(
        "userinfo",
        Kind::Bool,
        "Whether the provider's user info endpoint is asked for more claims at each login.",
    )
    .default("false"),
    Field::new(
        "forward_access_token",
        Kind::Bool,
        "Whether the upstream gets the access token in `Authorization`, in place of the client's.",
    )
    .default("false"),
    Field::new("timeout", MILLIS, "How long an answer of the provider may take, in milliseconds.").default("5000"),
    Field::new(
        "consumer_claim",
        TEXT,
        "The claim that has a consumer's username or id. Who is no consumer is answered 403; without this setting a \
         session's owner is nobody's consumer.",
    ),
    Field::new(
        "claims_to_headers",
        Kind::Map(&HEADER),
        "Claims to hand to the upstream: name (dots descend into objects) to request header. Clients cannot send these \
         headers.",
    ),
    ANONYMOUS,
    Field::new("run_on_preflight", Kind::Bool, "Whether `OPTIONS` requests need a session too.").default("true"),
];

pub fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<OpenIdConnect> {
    let text = |name: &str| config.str(name).unwrap_or_default().to_owned();
    let (issuer, client_id, redirect_uri) = (text("issuer"), text("client_id"), text("redirect_uri"));
    let source = Source::discovery(&issuer);
    for (field, url) in [("issuer", source.url()), ("redirect_uri", redirect_uri.as_str())] {
        if let Err(problem) = Url::parse(url) {
            cx.report(&codes::INVALID_VALUE, config.span_of(field), format!("`{field}`: {problem}"));
            return None;
        }
    }
    let secrets = config.strings("session_secrets");
    if let Some(short) = secrets.iter().find(|s| s.value.len() < SECRET_MIN) {
        let message = format!("a session secret has fewer than {SECRET_MIN} bytes");
        cx.report(&codes::INVALID_VALUE, short.span, message);
        return None;
    }
    let secrets: Vec<String> = secrets.into_iter().map(|s| s.value).collect();
    let place = format!("{issuer}\0{client_id}\0{redirect_uri}");
    let Some(vault) = Vault::new(&secrets, place.clone()) else {
        cx.report(&codes::INVALID_VALUE, config.span_of("session_secrets"), "there is no session secret");
        return None;
    };
    let transport = match Transport::new(cx, true, Duration::from_secs(3)) {
        Ok(transport) => transport,
        Err(e) => {
            cx.report(&codes::INVALID_VALUE, config.span, format!("`gateway.tls.upstream_ca`: {e}"));
            return None;
        }
    };
    let own = Url::parse(&redirect_uri).ok()?;
    let callback = own.path.split('?').next().unwrap_or("/").to_owned();
    let mut scopes: Vec<String> = config.strings("scopes").into_iter().map(|s| s.value).collect();
    if !scopes.iter().any(|s| s == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let (prefix, secure) = if own.tls { ("__Host-", "; Secure") } else { ("", "") };
    let millis = config.int("timeout").and_then(|n| u64::try_from(n).ok()).unwrap_or(5000);
    Some(OpenIdConnect {
        provider: cx.shared.get::<Providers>().get(source, transport),
        refreshes: cx.shared.get::<Stores<Refreshed>>().get(&place),
        issuer,
        client_id,
        client_secret: config.str("client_secret").map(str::to_owned),
        post: config.str("client_auth") == Some("post"),
        scopes: scopes.join(" "),
        redirect_uri,
        callback,
        logout: text("logout_path"),
        login: config.str("login_path").map(str::to_owned),
        after_logout: config.str("post_logout_redirect_uri").map(str::to_owned),
        vault,
        cookie: format!("{prefix}{}", config.str("cookie_name").unwrap_or("gw_session")),
        attributes: format!("Path=/; HttpOnly; SameSite=Lax{secure}"),
        session_ttl: config.int("session_ttl").and_then(|n| u64::try_from(n).ok()).unwrap_or(43_200),
        timeout: Duration::from_millis(millis),
        userinfo: config.bool("userinfo"),
        forward_access_token: config.bool("forward_access_token"),
        consumer_claim: config.str("consumer_claim").map(str::to_owned),
        claims_to_headers: identity::claim_headers(config, "claims_to_headers"),
        anonymous: Anonymous::of(config),
        on_preflight: config.bool_opt("run_on_preflight").unwrap_or(true),
    })
}
