//! Errors as problem details (RFC 9457), where the config asks for them instead of Kong's bodies.

use std::fmt::Write as _;

use super::reply::{JSON, Reply, push_json_string};
use crate::exchange::RequestId;
use crate::http1::write::reason;

const PROBLEM: &str = "application/problem+json";

/// The same error as a problem. Anything that is no error of the gateway's own making stays as it is: answers that a
/// config words itself, other media types that the client prefers, gRPC.
pub fn of(mut reply: Reply, id: RequestId) -> Reply {
    if reply.status < 400 || reply.content_type.as_deref() != Some(JSON) {
        return reply;
    }
    let Some(message) = message_of(&reply.body) else { return reply };
    let kind = match reply.status {
        429 => "https://iana.org/assignments/http-problem-types#quota-exceeded",
        _ => "about:blank",
    };
    let mut body = format!("{{\"type\":\"{kind}\",\"title\":");
    push_json_string(&mut body, reason(reply.status));
    let _ = write!(body, ",\"status\":{},\"detail\":", reply.status);
    push_json_string(&mut body, &message);
    let _ = write!(body, ",\"request_id\":\"{id}\"}}");
    reply.body = body.into();
    reply.content_type = Some(PROBLEM.into());
    reply
}

/// The message of a body that has nothing else but perhaps the request's id.
fn message_of(body: &[u8]) -> Option<String> {
    let serde_json::Value::Object(mut members) = serde_json::from_slice(body).ok()? else { return None };
    let serde_json::Value::String(message) = members.remove("message")? else { return None };
    members.remove("request_id");
    members.is_empty().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RequestHead;

    #[test]
    fn only_the_gateways_own_errors_become_problems() {
        let id = RequestId(10);
        let made = of(Reply::exit(429, "API rate limit \"exceeded\""), id);
        assert_eq!(made.content_type.as_deref(), Some(PROBLEM));
        let text = "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
            \"title\":\"Too Many Requests\",\"status\":429,\"detail\":\"API rate limit \\\"exceeded\\\"\",\
            \"request_id\":\"0000000000000000000000000000000a\"}";
        assert_eq!(made.body, text);
        let made = of(Reply::error(&RequestHead::default(), id, 404, "no Route"), id);
        assert!(made.body.starts_with(b"{\"type\":\"about:blank\",\"title\":\"Not Found\""), "{made:?}");
        for other in [
            Reply::exit(200, "fine"),
            Reply::empty(503),
            Reply::with_body(503, JSON, "{\"message\":\"a\",\"more\":1}"),
            Reply::with_body(503, JSON, "{\"message\":1}"),
            Reply::with_body(503, "text/plain", "{\"message\":\"a\"}"),
        ] {
            assert_eq!(of(other.clone(), id).body, other.body, "{other:?}");
        }
    }
}
