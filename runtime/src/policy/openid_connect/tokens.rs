//! Questions to the provider's endpoints, and their answers.

use std::sync::Arc;

use serde_json::Value;

use super::session::Session;
use super::{ANSWER_MAX, OpenIdConnect};
use crate::message::{Fields, names};
use crate::policy::call::{Call, CallError, CallResponse, CallTo, Endpoint};
use crate::policy::oauth2_introspection::{basic, form_encode};
use crate::token::json;

/// What counts where the provider does not say how long a token is good, in seconds.
const LIFE: u64 = 300;
const LIFE_MAX: u64 = 30 * 86_400;

/// What a token endpoint gave.
#[derive(Clone)]
pub struct Tokens {
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    pub id_token: Option<String>,
    /// Seconds.
    pub expires_in: u64,
}

/// What came of asking for tokens.
pub enum Came {
    Tokens(Box<Tokens>),
    /// The provider does not take what it was shown.
    Refused,
    /// The provider could not say, or does not know the gateway.
    Unknown,
}

impl Tokens {
    /// Reads an answer (RFC 6749 5).
    pub fn read(result: &Result<CallResponse, CallError>) -> Came {
        let Ok(answer) = result else { return Came::Unknown };
        let Ok(body) = json::parse(&answer.body) else { return Came::Unknown };
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        if answer.status != 200 {
            let refused = answer.status == 400 && text("error").is_some_and(|e| e == "invalid_grant");
            return if refused { Came::Refused } else { Came::Unknown };
        }
        // The token goes into a header field.
        let sound = |t: &String| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic());
        let access_token = text("access_token").filter(sound);
        let bearer = text("token_type").is_none_or(|t| t.eq_ignore_ascii_case("bearer"));
        if access_token.is_none() || !bearer {
            return Came::Unknown;
        }
        Came::Tokens(Box::new(Self {
            access_token,
            refresh_token: text("refresh_token"),
            id_token: text("id_token"),
            expires_in: body.get("expires_in").and_then(Value::as_u64).unwrap_or(LIFE).min(LIFE_MAX),
        }))
    }
}

/// Arguments as a query or a form.
pub fn query(args: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in args {
        if !out.is_empty() {
            out.push('&');
        }
        form_encode(&mut out, name.as_bytes());
        out.push('=');
        form_encode(&mut out, value.as_bytes());
    }
    out
}

/// A question to the token endpoint, with the client's proof.
pub fn call(policy: &OpenIdConnect, endpoint: Endpoint, form: &[(&str, &str)]) -> Call {
    let mut body = query(form);
    let mut fields = Fields::default();
    fields.append(&names::CONTENT_TYPE, "application/x-www-form-urlencoded");
    fields.append(&names::ACCEPT, "application/json");
    match &policy.client_secret {
        Some(secret) if !policy.post => {
            fields.append(&names::AUTHORIZATION, basic(&policy.client_id, secret))
        }
        secret => {
            let mut more = vec![("client_id", policy.client_id.as_str())];
            more.extend(secret.as_deref().map(|s| ("client_secret", s)));
            body = format!("{body}&{}", query(&more));
        }
    }
    to(policy, endpoint, "POST", fields, body)
}

/// A question to the user info endpoint.
pub fn userinfo_call(policy: &OpenIdConnect, endpoint: Endpoint, token: &str) -> Call {
    let mut fields = Fields::default();
    fields.append(&names::ACCEPT, "application/json");
    fields.append(&names::AUTHORIZATION, format!("Bearer {token}"));
    to(policy, endpoint, "GET", fields, String::new())
}

fn to(policy: &OpenIdConnect, endpoint: Endpoint, method: &str, fields: Fields, body: String) -> Call {
    let path = endpoint.path.clone();
    Call {
        to: CallTo::Endpoint(Arc::new(endpoint)),
        method: method.to_owned(),
        path,
        fields,
        body: body.into(),
        timeout: policy.timeout,
        max_body: ANSWER_MAX,
    }
}

/// The user info of the session's own subject.
pub fn userinfo(result: &Result<CallResponse, CallError>, session: &Session) -> Option<Value> {
    let answer = result.as_ref().ok().filter(|a| a.status == 200)?;
    let claims = json::parse(&answer.body).ok().filter(Value::is_object)?;
    (claims.get("sub") == session.claims.get("sub")).then_some(claims)
}
