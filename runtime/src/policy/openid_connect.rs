//! `openid-connect`: browsers log in at an OpenID provider (authorization code with PKCE) and keep a session.

mod cookie;
mod id_token;
mod session;
mod settings;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use self::cookie::Vault;
use self::session::{Login, Refreshed, Session, Stage};
use super::call::{Call, CallError, CallResponse};
use super::identity::{self, Anonymous, IDENTITY_HEADERS};
use super::verdicts::{Asking, Verdicts, Waiting};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::model::schema::Record;
use crate::provider::{Provider, Published};

static PLUGIN: Descriptor = Descriptor {
    name: "openid-connect",
    summary: "have browsers log in at an OpenID provider, and keep their sessions",
    doc: "\
## What it does
Sends a browser without a session to the OpenID provider to log in (authorization code flow with PKCE), and lets it in
with the session that comes of it.

## Why
A web application behind the gateway needs no login of its own, no library and no client secret.

## Example
```yaml
plugins:
  - name: openid-connect
    config:
      issuer: https://id.example.com
      client_id: shop
      client_secret: \"${OIDC_SECRET}\"
      redirect_uri: https://shop.example.com/oidc/callback
      session_secrets: [\"${SESSION_SECRET}\"]
      scopes: [openid, profile, offline_access]
      claims_to_headers: { sub: X-User-Id }
```
The route must lead to the path of `redirect_uri`, too.

## Behaviour
The provider's metadata and keys are fetched in the background, as `jwt` does it. A `GET` of a page (`Accept` with
`text/html`) without a session is answered 302 to the provider; any other request 401 with `WWW-Authenticate: Bearer`, as
a script can do nothing with a login page. After the login the browser is sent back to where it wanted to go.

At the callback `state` must be that of the login cookie, not older than ten minutes, and `iss`, where the provider sends
it, the issuer (RFC 9207); the ID token is verified in full: signature with the published keys, `iss`, `aud`, `azp`,
`exp`, `iat`, `nonce`, and `at_hash` where it is there. What fails there is answered 401 without a redirect, so that
nobody is sent in circles.

The session is in cookies alone, encrypted with AES-256-GCM, `HttpOnly`, `SameSite=Lax` and, over https, `Secure` with
the prefix `__Host-`. It lasts for `session_ttl`, and while the access token is good or can be refreshed. The first of
`session_secrets` encrypts and all decrypt, so a new one in front rotates them. Of requests that need the same refresh
one refreshes. These cookies are kept from the service.

`logout_path` ends the session and sends the browser to the provider's `end_session_endpoint` (RP-initiated logout) or,
where it has none, to `post_logout_redirect_uri`.

Tells the upstream what other authenticators do, `X-Credential-Identifier` being `sub`, and the headers of
`claims_to_headers`; with `forward_access_token` also `Authorization: Bearer` with the access token. A provider that does
not answer makes 503, never a refusal. With `anonymous` nobody is sent to log in but at `login_path`.
",
    fields: settings::FIELDS,
    consumer_scope: false,
    extension: true,
    identity_headers: IDENTITY_HEADERS,
};

/// How long a login may take, in seconds.
const LOGIN_MAX: u64 = 600;
/// A token is refreshed so many seconds before its end.
const EARLY: u64 = 10;
/// How long what came of a refresh is told to requests that still have the old session.
const REFRESH_TOLD: Duration = Duration::from_secs(30);
/// Longest answer of the provider, in bytes.
const ANSWER_MAX: usize = 128 * 1024;

/// See the module.
pub struct OpenIdConnect {
    provider: Arc<Provider>,
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    post: bool,
    scopes: String,
    redirect_uri: String,
    /// Paths on which the plugin itself answers.
    callback: String,
    logout: String,
    login: Option<String>,
    after_logout: Option<String>,
    vault: Vault,
    cookie: String,
    /// Attributes of cookies.
    attributes: String,
    session_ttl: u64,
    timeout: Duration,
    userinfo: bool,
    forward_access_token: bool,
    consumer_claim: Option<String>,
    claims_to_headers: Vec<(String, FieldName)>,
    anonymous: Option<Anonymous>,
    on_preflight: bool,
    refreshes: Arc<Verdicts<Refreshed>>,
}

impl Policy for OpenIdConnect {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        settings::compile(config, cx)
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let exempt = !self.on_preflight && x.request.method == "OPTIONS";
        if exempt || (self.anonymous.is_some() && identity::is_authenticated(x)) {
            return Flow::Next;
        }
        let path = x.request.path.as_str();
        if path == self.callback {
            return self.arrive(x);
        }
        if path == self.logout {
            return self.log_out(x);
        }
        if self.login.as_deref() == Some(path) {
            return self.log_in(x, "/".to_owned());
        }
        match self.session(x) {
            Some(session) => self.go_on(x, session),
            None => self.nobody(x),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        let Some(stage) = x.take::<Stage>() else { return unavailable() };
        match (stage, answer) {
            (Stage::Login(url), Answer::Keys(Ok(()))) => self.log_in(x, url),
            (Stage::Callback, Answer::Keys(Ok(()))) => self.arrive(x),
            (Stage::Code(login), Answer::Call(results)) => self.tokens_came(x, *login, first(results)),
            (Stage::Verify(login, tokens), Answer::Keys(Ok(()))) => self.verify(x, *login, *tokens, true),
            (Stage::Userinfo(url, session), Answer::Call(results)) => {
                self.userinfo_came(x, &url, *session, first(results))
            }
            (Stage::Refresh(session), Answer::Call(results)) => {
                let asking = x.take::<Asking<Refreshed>>();
                self.refreshed(x, *session, asking, first(results))
            }
            (Stage::Refresh(session), Answer::Landing) => {
                let came = x.take::<Waiting<Refreshed>>().and_then(|w| w.value());
                self.take_refreshed(x, *session, came.unwrap_or(Refreshed::Unknown))
            }
            _ => unavailable(),
        }
    }

    fn sets_headers(&self) -> Vec<String> {
        self.claims_to_headers.iter().map(|(_, name)| name.as_str().to_owned()).collect()
    }
}

impl OpenIdConnect {
    /// What the provider publishes, or the wait for it.
    fn published(&self, x: &mut Exchange, stage: impl FnOnce() -> Stage) -> Result<Arc<Published>, Flow> {
        self.provider.published().filter(|p| p.metadata.is_some()).ok_or_else(|| {
            x.keep(stage());
            Flow::Await(Effect::Keys(self.provider.want_any()))
        })
    }

    /// A request without a session.
    fn nobody(&self, x: &mut Exchange) -> Flow {
        if let Some(anonymous) = &self.anonymous {
            cookie::hide(&mut x.request.fields, &self.cookie);
            identity::set_claim_headers(x, &self.claims_to_headers, None);
            return anonymous.apply(x);
        }
        let html = x.request.fields.text(&names::ACCEPT).is_some_and(|a| a.contains("text/html"));
        if html && matches!(x.request.method.as_str(), "GET" | "HEAD") {
            let url = match &x.request.query {
                Some(query) => format!("{}?{query}", x.request.raw_path),
                None => x.request.raw_path.clone(),
            };
            return self.log_in(x, url);
        }
        Flow::Reply(Reply::exit(401, "Unauthorized").field(names::WWW_AUTHENTICATE, "Bearer"))
    }

    /// Sends the browser to the provider; afterwards it is to go to `url`, a path of this site.
    fn log_in(&self, x: &mut Exchange, url: String) -> Flow {
        let published = match self.published(x, || Stage::Login(url.clone())) {
            Ok(published) => published,
            Err(flow) => return flow,
        };
        let endpoint = published.metadata.as_ref().and_then(|m| m.authorization_endpoint.as_deref());
        let safe = |e: &&str| super::call::Url::parse(e).is_ok();
        let Some(endpoint) = endpoint.filter(safe) else { return unavailable() };
        let now = x.now.unix_ms / 1000;
        // `//host` would be another site to a browser.
        let url = if url.starts_with("//") || url.starts_with("/\\") { "/".to_owned() } else { url };
        let Some(login) = Login::new(url, now) else { return unavailable() };
        let name = self.login_cookie(&login.state);
        let value = self.vault.close(&name, &login);
        let Some(cookies) =
            value.and_then(|v| cookie::set(&name, &v, &self.attributes, LOGIN_MAX, &x.request.fields))
        else {
            return Flow::Reply(Reply::exit(414, "URI too long"));
        };
        let query = tokens::query(&[
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.scopes),
            ("state", &login.state),
            ("nonce", &login.nonce),
            ("code_challenge", &login.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        redirect(&format!("{endpoint}{separator}{query}"), cookies)
    }

    fn login_cookie(&self, state: &str) -> String {
        format!("{}_login_{}", self.cookie, state.get(..8).unwrap_or_default())
    }

    /// The browser comes back from the provider.
    fn arrive(&self, x: &mut Exchange) -> Flow {
        let arg = |name: &str| x.request.query_arg(name);
        let (Some(state), code) = (arg("state"), arg("code")) else {
            return refused("The login has no state");
        };
        if !state.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return refused("The login is unknown");
        }
        let name = self.login_cookie(&state);
        let login = cookie::get(&x.request.fields, &name).and_then(|v| self.vault.open::<Login>(&name, &v));
        let now = x.now.unix_ms / 1000;
        let login = login.filter(|l| l.is(&state) && now < l.at + LOGIN_MAX);
        let Some(login) = login else { return refused("The login is unknown or took too long") };
        if arg("iss").is_some_and(|iss| iss != self.issuer) {
            return refused("The login came from another issuer");
        }
        if let Some(error) = arg("error") {
            let shown: String =
                error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
            return refused(&format!("The provider refused the login: {shown}"));
        }
        let Some(code) = code else { return refused("The login has no code") };
        let published = match self.published(x, || Stage::Callback) {
            Ok(published) => published,
            Err(flow) => return flow,
        };
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", login.verifier.as_str()),
        ];
        match self.token_call(&published, &form) {
            Some(call) => {
                x.keep(Stage::Code(Box::new(login)));
                Flow::Await(Effect::Call(vec![call]))
            }
            None => unavailable(),
        }
    }

    fn tokens_came(&self, x: &mut Exchange, login: Login, result: Result<CallResponse, CallError>) -> Flow {
        match tokens::Tokens::read(&result) {
            tokens::Came::Tokens(tokens) => self.verify(x, login, *tokens, false),
            tokens::Came::Refused => refused("The provider did not take the login's code"),
            tokens::Came::Unknown => unavailable(),
        }
    }

    fn verify(&self, x: &mut Exchange, login: Login, tokens: tokens::Tokens, waited: bool) -> Flow {
        let Some(published) = self.provider.published() else { return unavailable() };
        let Some(id_token) = tokens.id_token.as_deref() else {
            return refused("The provider gave no ID token");
        };
        let now = x.now.unix_ms / 1000;
        let expected = id_token::Expected {
            issuer: &self.issuer,
            client: &self.client_id,
            nonce: Some(&login.nonce),
            access_token: tokens.access_token.as_deref(),
            now,
        };
        let claims = match id_token::verify(id_token, &published.keys, &expected) {
            Ok(claims) => claims,
            Err(id_token::Problem::NoKey(kid)) if !waited => {
                let Some(wanted) = self.provider.want_other(kid.as_deref()) else { return unavailable() };
                x.keep(Stage::Verify(Box::new(login), Box::new(tokens)));
                return Flow::Await(Effect::Keys(wanted));
            }
            Err(id_token::Problem::NoKey(_)) => {
                return refused("The ID token is not good: its key is unknown");
            }
            Err(id_token::Problem::Bad(why)) => return refused(&format!("The ID token is not good: {why}")),
        };
        let session = Session::new(claims, tokens, now);
        let Login { url, state, .. } = login;
        for line in cookie::forget(&self.login_cookie(&state), &self.attributes, 0, &x.request.fields) {
            x.response_fields.append(&FieldName::new("Set-Cookie"), line);
        }
        let call = self.userinfo.then(|| self.userinfo_call(&published, &session)).flatten();
        match call {
            Some(call) => {
                x.keep(Stage::Userinfo(url, Box::new(session)));
                Flow::Await(Effect::Call(vec![call]))
            }
            None => self.welcome(x, &url, &session),
        }
    }

    fn userinfo_came(
        &self,
        x: &mut Exchange,
        url: &str,
        mut session: Session,
        result: Result<CallResponse, CallError>,
    ) -> Flow {
        match tokens::userinfo(&result, &session) {
            Some(claims) => {
                session.add(claims);
                self.welcome(x, url, &session)
            }
            None => unavailable(),
        }
    }

    /// The login is over: the browser gets its session and goes where it wanted to go.
    fn welcome(&self, x: &mut Exchange, url: &str, session: &Session) -> Flow {
        match self.session_cookies(x, session) {
            Some(cookies) => redirect(url, cookies),
            None => Flow::Reply(Reply::exit(500, "The session is too large for cookies")),
        }
    }

    fn session_cookies(&self, x: &Exchange, session: &Session) -> Option<Vec<String>> {
        let value = self.vault.close(&self.cookie, session)?;
        let rest = (session.started + self.session_ttl).saturating_sub(x.now.unix_ms / 1000);
        cookie::set(&self.cookie, &value, &self.attributes, rest, &x.request.fields)
    }

    /// The request's session, if it has not ended.
    fn session(&self, x: &Exchange) -> Option<Session> {
        let value = cookie::get(&x.request.fields, &self.cookie)?;
        let session: Session = self.vault.open(&self.cookie, &value)?;
        let now = x.now.unix_ms / 1000;
        (now < session.started + self.session_ttl).then_some(session)
    }

    fn log_out(&self, x: &mut Exchange) -> Flow {
        let session = self.session(x);
        let published = self.provider.published();
        let end = published.as_ref().and_then(|p| p.metadata.as_ref()?.end_session_endpoint.clone());
        let end = end.filter(|e| super::call::Url::parse(e).is_ok());
        let cookies = cookie::forget(&self.cookie, &self.attributes, 0, &x.request.fields);
        let to = match end {
            Some(end) => {
                let mut args = vec![("client_id", self.client_id.as_str())];
                let hint = session.as_ref().and_then(|s| s.id_token.as_deref());
                args.extend(hint.map(|hint| ("id_token_hint", hint)));
                args.extend(self.after_logout.as_deref().map(|to| ("post_logout_redirect_uri", to)));
                let separator = if end.contains('?') { '&' } else { '?' };
                format!("{end}{separator}{}", tokens::query(&args))
            }
            None => self.after_logout.clone().unwrap_or_else(|| "/".to_owned()),
        };
        redirect(&to, cookies)
    }

    fn token_call(&self, published: &Published, form: &[(&str, &str)]) -> Option<Call> {
        let url = published.metadata.as_ref()?.token_endpoint.as_deref()?;
        let endpoint = self.provider.told(url).ok()?;
        Some(tokens::call(self, endpoint, form))
    }

    fn userinfo_call(&self, published: &Published, session: &Session) -> Option<Call> {
        let url = published.metadata.as_ref()?.userinfo_endpoint.as_deref()?;
        let endpoint = self.provider.told(url).ok()?;
        Some(tokens::userinfo_call(self, endpoint, session.access_token.as_deref()?))
    }
}

fn first(mut results: Vec<Result<CallResponse, CallError>>) -> Result<CallResponse, CallError> {
    results.pop().unwrap_or(Err(CallError::Broken))
}

/// A redirect that nobody keeps.
fn redirect(to: &str, cookies: Vec<String>) -> Flow {
    let mut reply =
        Reply::empty(302).field(names::LOCATION, to).field(FieldName::new("Cache-Control"), "no-store");
    for line in cookies {
        reply = reply.field(FieldName::new("Set-Cookie"), line);
    }
    Flow::Reply(reply)
}

fn refused(message: &str) -> Flow {
    let reply = Reply::exit(401, message).field(FieldName::new("Cache-Control"), "no-store");
    Flow::Reply(reply.field(names::WWW_AUTHENTICATE, "Bearer"))
}

/// Nobody can tell who it is.
fn unavailable() -> Flow {
    Flow::Reply(Reply::exit(503, "The identity provider is not available").field(names::RETRY_AFTER, "5"))
}
