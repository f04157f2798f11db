//! `POST /config`: a config handed in over HTTP takes the place of the files', all or nothing.
//!
//! It is not written anywhere: a restart begins with the files again. Whoever may hand in a config can send all traffic
//! elsewhere, so it is taken from this machine only, and never from a web page that a browser on it shows.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use super::{json, message};

/// Largest config that is taken.
const SIZE_MAX: usize = 32 * 1024 * 1024;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A config on its way to whoever can compile it.
pub struct Submission {
    /// YAML or JSON.
    pub text: String,
    /// Do nothing if it is the one in force (`?check_hash=1`).
    pub check_hash: bool,
    pub reply: oneshot::Sender<Outcome>,
}

/// What became of it.
pub enum Outcome {
    InForce {
        generation: u64,
        hash: String,
    },
    /// It is the one in force already.
    Unchanged,
    /// It has errors; the JSON document that lists them.
    Refused(serde_json::Value),
    /// It could not be put in force for a reason outside it.
    Failed(String),
}

/// Answers `POST /config`.
pub(super) async fn accept(
    request: Request<Incoming>,
    peer: SocketAddr,
    submissions: &mpsc::Sender<Submission>,
) -> Response<Full<Bytes>> {
    if !peer.ip().to_canonical().is_loopback() {
        return message(StatusCode::FORBIDDEN, "a config is taken from this machine only");
    }
    if request.headers().contains_key(header::ORIGIN) {
        return message(StatusCode::FORBIDDEN, "a config is not taken from a web page");
    }
    let query = request.uri().query().unwrap_or("");
    let check_hash = query.split('&').any(|p| matches!(p, "check_hash=1" | "check_hash=true"));
    let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), SIZE_MAX).collect());
    let text = match body.await {
        Ok(Ok(body)) => match String::from_utf8(body.to_bytes().into()) {
            Ok(text) => text,
            Err(_) => return message(StatusCode::BAD_REQUEST, "the config is not UTF-8"),
        },
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "the config is larger than 32 MiB");
        }
        Ok(Err(_)) => return message(StatusCode::BAD_REQUEST, "the config broke off"),
        Err(_) => return message(StatusCode::REQUEST_TIMEOUT, "the config did not come in time"),
    };
    let (reply, outcome) = oneshot::channel();
    let sent = submissions.send(Submission { text, check_hash, reply }).await;
    match (sent, outcome.await) {
        (Ok(()), Ok(outcome)) => outcome.response(),
        _ => message(StatusCode::SERVICE_UNAVAILABLE, "the gateway is draining"),
    }
}

impl Outcome {
    fn response(self) -> Response<Full<Bytes>> {
        match self {
            Self::InForce { generation, hash } => {
                let body = serde_json::json!({ "generation": generation, "hash": hash });
                json(StatusCode::CREATED, format!("{body:#}\n"))
            }
            Self::Unchanged => json(StatusCode::NOT_MODIFIED, String::new()),
            Self::Refused(report) => json(StatusCode::BAD_REQUEST, format!("{report:#}\n")),
            Self::Failed(why) => {
                let body = serde_json::json!({ "message": why });
                json(StatusCode::BAD_REQUEST, format!("{body:#}\n"))
            }
        }
    }
}
