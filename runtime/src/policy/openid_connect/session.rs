//! Sessions and logins, and how a session goes on.

use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::tokens::{Came, Tokens};
use super::{EARLY, OpenIdConnect, REFRESH_TOLD, cookie, id_token, unavailable};
use crate::clock;
use crate::exchange::{Exchange, Identity};
use crate::message::{FieldName, names};
use crate::policy::call::{CallError, CallResponse};
use crate::policy::verdicts::{self, Asking, Kind, Look};
use crate::policy::{Effect, Flow, Reply, identity};
use crate::token::claims;

/// What a request waits for.
pub enum Stage {
    /// Metadata, to log in and then go to this URL.
    Login(String),
    /// Metadata, to take a login's code.
    Callback,
    /// The tokens for a login's code.
    Code(Box<Login>),
    /// Keys, to verify them.
    Verify(Box<Login>, Box<Tokens>),
    Userinfo(String, Box<Session>),
    /// New tokens for this session.
    Refresh(Box<Session>),
}

/// A login that is under way, in a cookie of its own.
#[derive(Serialize, Deserialize)]
pub struct Login {
    pub state: String,
    pub nonce: String,
    /// Of PKCE.
    pub verifier: String,
    /// Where the browser wanted to go.
    pub url: String,
    /// Seconds since 1970.
    pub at: u64,
}

fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

impl Login {
    /// A new one; `None` if the system gives no random bytes.
    pub fn new(url: String, now: u64) -> Option<Self> {
        Some(Self { state: random()?, nonce: random()?, verifier: random()?, url, at: now })
    }

    /// Whether it has this state.
    pub fn is(&self, state: &str) -> bool {
        self.state.as_bytes().ct_eq(state.as_bytes()).into()
    }

    /// PKCE's challenge by `S256`.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }
}

/// A session.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// Of the ID token and of the user info.
    pub claims: Value,
    #[serde(rename = "at")]
    pub access_token: Option<String>,
    #[serde(rename = "rt")]
    pub refresh_token: Option<String>,
    #[serde(rename = "id")]
    pub id_token: Option<String>,
    /// Seconds since 1970: when it began, and until when the tokens are good.
    pub started: u64,
    pub until: u64,
}

impl Session {
    /// The session of a login.
    pub fn new(claims: Value, tokens: Tokens, now: u64) -> Self {
        let until = now + tokens.expires_in;
        let Tokens { access_token, refresh_token, id_token, .. } = tokens;
        Self { claims, access_token, refresh_token, id_token, started: now, until }
    }

    /// Adds claims; those of the ID token stay.
    pub fn add(&mut self, more: Value) {
        let (Some(claims), Value::Object(more)) = (self.claims.as_object_mut(), more) else { return };
        for (name, value) in more {
            claims.entry(name).or_insert(value);
        }
    }

    /// The same session with new tokens.
    fn with(&self, tokens: Tokens, now: u64) -> Self {
        Self {
            claims: self.claims.clone(),
            until: now + tokens.expires_in,
            access_token: tokens.access_token.or_else(|| self.access_token.clone()),
            // A provider that does not rotate gives no new one.
            refresh_token: tokens.refresh_token.or_else(|| self.refresh_token.clone()),
            id_token: tokens.id_token.or_else(|| self.id_token.clone()),
            started: self.started,
        }
    }
}

/// What came of a refresh.
#[derive(Clone)]
pub enum Refreshed {
    Session(Arc<Session>),
    /// The provider gives no more tokens: the browser must log in again.
    Ended,
    /// The provider could not be asked.
    Unknown,
}

impl OpenIdConnect {
    /// Goes on with a session, whose tokens are refreshed first if they end.
    pub(super) fn go_on(&self, x: &mut Exchange, session: Session) -> Flow {
        let now = x.now.unix_ms / 1000;
        match &session.refresh_token {
            _ if now + EARLY < session.until => self.admit(x, &session),
            Some(token) => self.refresh(x, token.clone(), session),
            None if now < session.until => self.admit(x, &session),
            None => self.nobody(x),
        }
    }

    fn refresh(&self, x: &mut Exchange, token: String, session: Session) -> Flow {
        match self.refreshes.look(verdicts::key([token.as_bytes()]), x.now.instant) {
            Look::Known(refreshed) => self.take_refreshed(x, session, refreshed),
            Look::Refuse => self.take_refreshed(x, session, Refreshed::Unknown),
            Look::Wait(waiting) => {
                let landing = waiting.landing();
                x.keep(waiting);
                x.keep(Stage::Refresh(Box::new(session)));
                Flow::Await(Effect::Landing(landing, self.timeout))
            }
            Look::Ask(asking) => {
                let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
                let published = self.provider.published();
                let Some(call) = published.and_then(|p| self.token_call(&p, &form)) else {
                    return self.take_refreshed(x, session, Refreshed::Unknown);
                };
                x.keep(asking);
                x.keep(Stage::Refresh(Box::new(session)));
                Flow::Await(Effect::Call(vec![call]))
            }
        }
    }

    pub(super) fn refreshed(
        &self,
        x: &mut Exchange,
        session: Session,
        asking: Option<Asking<Refreshed>>,
        result: Result<CallResponse, CallError>,
    ) -> Flow {
        let Some(asking) = asking else { return unavailable() };
        let now = x.now.unix_ms / 1000;
        let refreshed = match Tokens::read(&result) {
            Came::Tokens(tokens) => self.renewed(&session, *tokens, now),
            Came::Refused => Refreshed::Ended,
            Came::Unknown => Refreshed::Unknown,
        };
        let until = clock::monotonic() + REFRESH_TOLD;
        match &refreshed {
            Refreshed::Session(_) => asking.answer(refreshed.clone(), Some((Kind::Good, until)), 8192),
            Refreshed::Ended => asking.answer(refreshed.clone(), Some((Kind::Bad, until)), 0),
            Refreshed::Unknown => asking.fail(refreshed.clone(), clock::monotonic()),
        }
        self.take_refreshed(x, session, refreshed)
    }

    /// The session with new tokens. A new ID token must be good and of the same subject.
    fn renewed(&self, session: &Session, tokens: Tokens, now: u64) -> Refreshed {
        let mut renewed = session.with(tokens.clone(), now);
        if let Some(token) = &tokens.id_token {
            let Some(published) = self.provider.published() else { return Refreshed::Unknown };
            let expected = id_token::Expected {
                issuer: &self.issuer,
                client: &self.client_id,
                nonce: None,
                access_token: tokens.access_token.as_deref(),
                now,
            };
            match id_token::verify(token, &published.keys, &expected) {
                Ok(claims) if claims.get("sub") == session.claims.get("sub") => {
                    let before = std::mem::replace(&mut renewed.claims, claims);
                    renewed.add(before);
                }
                Ok(_) | Err(id_token::Problem::Bad(_)) => return Refreshed::Ended,
                // The access token is good all the same; the old claims stay.
                Err(id_token::Problem::NoKey(_)) => renewed.id_token.clone_from(&session.id_token),
            }
        }
        Refreshed::Session(Arc::new(renewed))
    }

    pub(super) fn take_refreshed(&self, x: &mut Exchange, session: Session, refreshed: Refreshed) -> Flow {
        let now = x.now.unix_ms / 1000;
        match refreshed {
            Refreshed::Session(renewed) => {
                let Some(cookies) = self.session_cookies(x, &renewed) else {
                    return Flow::Reply(Reply::exit(500, "The session is too large for cookies"));
                };
                for line in cookies {
                    x.response_fields.append(&FieldName::new("Set-Cookie"), line);
                }
                self.admit(x, &renewed)
            }
            Refreshed::Ended => self.nobody(x),
            Refreshed::Unknown if now < session.until => self.admit(x, &session),
            Refreshed::Unknown => unavailable(),
        }
    }

    /// Lets the session's owner in.
    fn admit(&self, x: &mut Exchange, session: &Session) -> Flow {
        let text = |name: &str| claims::find(&session.claims, name).and_then(Value::as_str);
        let consumer = match &self.consumer_claim {
            None => None,
            Some(claim) => match text(claim).and_then(|name| x.snapshot.consumer_by_name(name)) {
                Some(consumer) => Some(consumer),
                None => return Flow::Reply(Reply::exit(403, "You cannot consume this service")),
            },
        };
        let subject = text("sub").filter(|s| !s.chars().any(char::is_control));
        let identity = Identity {
            consumer,
            credential: subject.map(str::to_owned),
            credential_id: subject.map(|s| format!("{} {s}", self.issuer)),
            claims: Some(Rc::new(session.claims.clone())),
            ..Identity::default()
        };
        identity::set_claim_headers(x, &self.claims_to_headers, Some(&session.claims));
        identity::set_identity(x, identity);
        cookie::hide(&mut x.request.fields, &self.cookie);
        if let (true, Some(token)) = (self.forward_access_token, &session.access_token) {
            x.request.fields.set(&names::AUTHORIZATION, format!("Bearer {token}"));
        }
        Flow::Next
    }
}
