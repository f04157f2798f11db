//! Requests to an ACME server: signed, each with a nonce of the server's (RFC 8555 section 6).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::acme::Acme;
use crate::acme::account::{Account, By};
use crate::acme::messages::{Directory, Problem};
use crate::clock;
use crate::effect::call;
use crate::exchange::Client as Nobody;
use crate::message::{FieldName, Fields, names};
use crate::policy::call::{Call, CallError, CallResponse, CallTo};
use crate::worker::context::Worker;

/// For one request.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer: a chain of certificates is far shorter.
const ANSWER_MAX: usize = 1024 * 1024;
/// How often a request is sent again whose nonce the server does not take.
const NONCES: usize = 8;

/// Why something did not come about.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For a log line: what was tried and what was said.
    pub message: String,
    /// The type of what the server holds against it, where it said so.
    pub kind: String,
    /// How long the server wants to be left alone.
    pub rest: Option<Duration>,
    /// Whether the server was there and refused, so that asking again soon is of no use.
    pub refused: bool,
}

impl Failure {
    /// Something that is not the server's refusal.
    pub fn of(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: String::new(), rest: None, refused: false }
    }

    /// What the server holds against a request.
    pub fn refused(what: &str, problem: &Problem) -> Self {
        let message = format!("{what}: {}", problem.text());
        Self { message, kind: problem.name().to_owned(), rest: None, refused: true }
    }
}

/// An answer that was no error.
pub struct Answer {
    pub body: Bytes,
    /// What was made.
    pub location: Option<String>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// The document in it.
    pub fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Failure::of(format!("{what}: the server's answer cannot be read: {e}")))
    }
}

/// One conversation with the server.
pub struct Client<'a> {
    worker: &'a Worker,
    acme: &'a Acme,
    pub directory: Directory,
    nonce: RefCell<Option<String>>,
}

impl<'a> Client<'a> {
    /// Asks the server where it does what.
    pub async fn connect(worker: &'a Worker, acme: &'a Acme) -> Result<Self, Failure> {
        let what = "the directory";
        let answer = send(worker, acme, what, "GET", &acme.server, "application/json", Bytes::new()).await?;
        let directory = judge(what, answer)?.read(what)?;
        Ok(Self { worker, acme, directory, nonce: RefCell::default() })
    }

    /// A signed request. `what` is it that is asked for, for messages.
    pub async fn post(
        &self,
        what: &str,
        url: &str,
        account: &Account,
        by: By<'_>,
        payload: Option<&Value>,
    ) -> Result<Answer, Failure> {
        for _ in 0..NONCES {
            let nonce = self.nonce(what).await?;
            let body = account.sign(url, &nonce, by, payload).map_err(Failure::of)?;
            let accept = "application/json, application/pem-certificate-chain";
            let answer = send(self.worker, self.acme, what, "POST", url, accept, body.into()).await?;
            self.remember(&answer);
            match judge(what, answer) {
                // Nonces go out of use at any time; the server has sent a new one.
                Err(failure) if failure.kind == "badNonce" => {}
                judged => return judged,
            }
        }
        Err(Failure::of(format!("{what}: the server takes none of its own nonces")))
    }

    async fn nonce(&self, what: &str) -> Result<String, Failure> {
        let known = self.nonce.borrow_mut().take();
        if let Some(nonce) = known {
            return Ok(nonce);
        }
        let url = &self.directory.new_nonce;
        let answer = send(self.worker, self.acme, what, "HEAD", url, "*/*", Bytes::new()).await?;
        self.remember(&answer);
        let nonce = self.nonce.borrow_mut().take();
        nonce.ok_or_else(|| Failure::of(format!("{what}: the server gives no nonce")))
    }

    fn remember(&self, answer: &CallResponse) {
        let nonce = answer.fields.text(&FieldName::new("Replay-Nonce"));
        // What is no nonce is not sent back (section 6.5.1).
        let fits = |n: &&str| {
            !n.is_empty()
                && n.len() <= 1024
                && n.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        *self.nonce.borrow_mut() = nonce.filter(fits).map(str::to_owned);
    }
}

async fn send(
    worker: &Worker,
    acme: &Acme,
    what: &str,
    method: &str,
    url: &str,
    accept: &str,
    body: Bytes,
) -> Result<CallResponse, Failure> {
    let endpoint = acme.endpoint(url).map_err(|e| Failure::of(format!("{what}: the URL `{url}`: {e}")))?;
    let authority = endpoint.service.authority.clone();
    let mut fields = Fields::default();
    fields.append(&FieldName::new("Accept"), accept);
    fields.append(&FieldName::new("User-Agent"), concat!("gw/", env!("CARGO_PKG_VERSION")));
    if method == "POST" {
        fields.append(&names::CONTENT_TYPE, "application/jose+json");
    }
    let path = endpoint.path.clone();
    let to = CallTo::Endpoint(Arc::new(endpoint));
    let method = method.to_owned();
    let call = Call { to, method, path, fields, body, timeout: PATIENCE, max_body: ANSWER_MAX };
    // The request that is not there: these calls are on nobody's behalf.
    let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
    let nobody = Nobody { connection: 0, connection_requests: 0, ..Nobody::plain(unknown, unknown) };
    let x = worker.exchange(&nobody);
    let answer = call::perform(worker, &x, vec![call]).await.pop().unwrap_or(Err(CallError::Broken));
    answer.map_err(|e| Failure::of(format!("{what}: `{authority}`: {e}")))
}

/// Takes what was asked for from what is held against it.
fn judge(what: &str, answer: CallResponse) -> Result<Answer, Failure> {
    let retry_after = answer.fields.text(&names::RETRY_AFTER).and_then(|t| rest(t, clock::unix_s()));
    if (200..300).contains(&answer.status) {
        let location = answer.fields.text(&names::LOCATION).map(str::to_owned);
        return Ok(Answer { body: answer.body, location, retry_after });
    }
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    let mut failure = match problem.filter(|p| !p.kind.is_empty()) {
        Some(problem) => Failure::refused(what, &problem),
        None => Failure::of(format!("{what}: the server answered {}", answer.status)),
    };
    failure.refused = (400..500).contains(&answer.status);
    failure.rest = retry_after;
    Err(failure)
}

/// `Retry-After`: seconds, or a date. At most a week.
fn rest(text: &str, now: u64) -> Option<Duration> {
    const MOST: u64 = 7 * 86_400;
    let seconds = text.trim().parse::<u64>().ok().or_else(|| {
        let at = httpdate::parse_http_date(text.trim()).ok()?;
        let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        Some(at.saturating_sub(now))
    })?;
    Some(Duration::from_secs(seconds.min(MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_how_long_to_rest_in_two_ways() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(rest(text, 784_111_777), want.map(Duration::from_secs), "{text}");
        };
        check("3", Some(3));
        check(" 120 ", Some(120));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("99999999999", Some(604_800));
        for bad in ["", "soon", "-1", "1.5"] {
            check(bad, None);
        }
    }
}
