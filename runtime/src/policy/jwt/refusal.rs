//! Why a caller is not let in, and what the gateway answers (RFC 6750).

use super::Jwt;
use crate::message::names;
use crate::policy::Reply;
use crate::policy::reply::JSON;
use crate::provider::Wanted;
use crate::token::check::{Denial, Reason};

/// Why a caller is not let in.
pub enum Failure {
    NoToken,
    BadToken(Reason),
    /// Scopes that are asked for.
    Forbidden(Reason, String),
    /// Only other keys can tell.
    Wait(Wanted),
    /// Nobody can tell now whether the token is good.
    NoKeys,
}

impl Failure {
    pub fn message(text: &str) -> Self {
        Self::BadToken(Reason::Message(text.to_owned()))
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        match denial.scope {
            Some(scope) => Self::Forbidden(denial.reason, scope),
            None => Self::BadToken(denial.reason),
        }
    }
}

impl Jwt {
    /// The answer to a caller who is not let in.
    pub(super) fn refuse(&self, failure: &Failure) -> Reply {
        let (reply, challenge) = match failure {
            Failure::Forbidden(reason, scope) => {
                let challenge = self.challenge_invalid.replace("invalid_token", "insufficient_scope");
                let scope = scope.replace(['"', '\\'], "'");
                (Reply::with_body(403, JSON, reason.body()), format!("{challenge}, scope=\"{scope}\""))
            }
            Failure::Wait(_) | Failure::NoKeys => {
                let reply = Reply::exit(503, "The keys of the token's issuer are not available");
                return reply.field(names::RETRY_AFTER, "5");
            }
            Failure::NoToken => (Reply::exit(401, "Unauthorized"), self.challenge.clone()),
            Failure::BadToken(reason) => {
                let mut challenge = self.challenge_invalid.clone();
                // Kong says no more than this; with issuers, which Kong does not have, RFC 6750's reason is added.
                if !self.issuers.is_empty() {
                    let text = reason.text().replace(['"', '\\'], "'");
                    challenge.push_str(&format!(", error_description=\"{text}\""));
                }
                (Reply::with_body(401, JSON, reason.body()), challenge)
            }
        };
        reply.field(names::WWW_AUTHENTICATE, challenge)
    }
}
