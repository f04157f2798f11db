//! How an authorization server is asked, and what its answer means.

use std::sync::Arc;

use bytes::Bytes;

use super::{Contract, ForwardAuth, lambda};
use crate::exchange::Exchange;
use crate::http1::write::hop_by_hop;
use crate::message::{FieldName, Fields, names, tags};
use crate::policy::Reply;
use crate::policy::call::{CallError, CallResponse, CallTo};

/// What the server has decided.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// With the headers of the consent, as far as they are used.
    Allowed(Arc<Fields>),
    /// The client's answer.
    Refused(Arc<Reply>),
    Authorizer(Arc<lambda::Answer>),
    /// The server answered with nothing that it may answer.
    Invalid,
    /// The server did not answer.
    Unknown,
}

impl Contract {
    /// Method, path, fields and body of the question.
    pub fn ask(&self, x: &Exchange, policy: &ForwardAuth) -> (String, String, Fields, Bytes) {
        let body = policy.body_max.and_then(|_| x.body.clone()).unwrap_or_default();
        let mut fields = Fields::default();
        match self {
            Self::Traefik => {
                match &policy.request_headers {
                    Some(names) => copy(x, names, &mut fields),
                    None => copy_all(x, &mut fields),
                }
                forwarded(x, policy, &mut fields);
                fields.append(&FieldName::new("X-Forwarded-Method"), &x.request.method);
                fields.append(&FieldName::new("X-Forwarded-Uri"), target(x));
                let method = if policy.body_max.is_some() { x.request.method.as_str() } else { "GET" };
                (method.to_owned(), policy.path.clone(), fields, body)
            }
            Self::Envoy => {
                copy(x, &[names::AUTHORIZATION], &mut fields);
                let more = policy.request_headers.iter().flatten().filter(|n| **n != names::AUTHORIZATION);
                copy(x, &more.cloned().collect::<Vec<_>>(), &mut fields);
                forwarded(x, policy, &mut fields);
                fields.append(&names::HOST, &x.request.host);
                let prefix = policy.path.split('?').next().unwrap_or_default().trim_end_matches('/');
                (x.request.method.clone(), format!("{prefix}{}", target(x)), fields, body)
            }
            Self::Lambda(settings) => {
                fields.append(&names::CONTENT_TYPE, "application/json");
                ("POST".to_owned(), policy.path.clone(), fields, settings.event(x).into())
            }
        }
    }

    /// What the answer means.
    pub fn read(&self, result: &Result<CallResponse, CallError>, policy: &ForwardAuth) -> Verdict {
        let Ok(answer) = result else { return Verdict::Unknown };
        let allowed = match self {
            Self::Traefik => (200..300).contains(&answer.status),
            Self::Envoy if answer.status >= 500 => return Verdict::Unknown,
            Self::Envoy => answer.status == 200,
            Self::Lambda(_) if answer.status >= 500 => return Verdict::Unknown,
            Self::Lambda(_) => {
                let read = (answer.status == 200).then(|| lambda::Answer::parse(&answer.body)).flatten();
                return read.map_or(Verdict::Invalid, |a| Verdict::Authorizer(Arc::new(a)));
            }
        };
        if !allowed {
            return Verdict::Refused(Arc::new(refusal(answer)));
        }
        let mut fields = Fields::default();
        let wanted =
            policy.response_headers.iter().chain(&policy.client_headers).chain(&policy.consumer_header);
        let mut seen: Vec<&FieldName> = Vec::new();
        for name in wanted {
            if !seen.contains(&name) {
                answer.fields.all(name).for_each(|v| fields.append(name, v));
                seen.push(name);
            }
        }
        Verdict::Allowed(Arc::new(fields))
    }
}

/// Path and query as the client sent them.
fn target(x: &Exchange) -> String {
    match &x.request.query {
        Some(query) => format!("{}?{query}", x.request.raw_path),
        None => x.request.raw_path.clone(),
    }
}

fn copy(x: &Exchange, names: &[FieldName], fields: &mut Fields) {
    for name in names.iter().filter(|n| !is_ours(n.tag(), n.as_str().as_bytes())) {
        x.request.fields.all(name).for_each(|v| fields.append(name, v));
    }
}

fn copy_all(x: &Exchange, fields: &mut Fields) {
    for (tag, name, value) in x.request.fields.iter_tagged() {
        if !is_ours(tag, name) {
            fields.push(name, value);
        }
    }
}

/// Whether only the gateway says it: what belongs to one connection, and where a request comes from.
fn is_ours(tag: u8, name: &[u8]) -> bool {
    let forwarded = |n: &[u8]| {
        n.get(..11).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded"))
            || n.eq_ignore_ascii_case(b"forwarded")
    };
    hop_by_hop(tag)
        || tag == tags::HOST
        || tag == tags::CONTENT_LENGTH
        || tag == tags::X_REAL_IP
        || forwarded(name)
}

/// Where the request comes from. A service is told by the rules of proxying.
fn forwarded(x: &Exchange, policy: &ForwardAuth, fields: &mut Fields) {
    if matches!(policy.to, CallTo::Service(_)) {
        return;
    }
    fields.append(&names::X_FORWARDED_FOR, x.client.ip.to_string());
    fields.append(&names::X_FORWARDED_PROTO, x.forwarded_scheme());
    fields.append(&names::X_FORWARDED_HOST, &x.request.host);
    fields.append(&names::X_FORWARDED_PORT, x.client.local.port().to_string());
}

/// The server's answer as the client's.
fn refusal(answer: &CallResponse) -> Reply {
    let text = |v: &[u8]| std::str::from_utf8(v).ok().map(str::to_owned);
    // An informational or successful status that is no consent must not look like the service's own answer.
    let status = if answer.status < 300 { 403 } else { answer.status };
    let mut reply = match answer.fields.get(&names::CONTENT_TYPE).and_then(text) {
        Some(kind) => Reply::with_body(status, kind, answer.body.clone()),
        None if answer.body.is_empty() => Reply::empty(status),
        None => Reply::with_body(status, "application/octet-stream", answer.body.clone()),
    };
    for (tag, name, value) in answer.fields.iter_tagged() {
        let own =
            matches!(tag, tags::CONTENT_TYPE | tags::CONTENT_LENGTH | tags::DATE | tags::SERVER | tags::VIA);
        let name = std::str::from_utf8(name).ok();
        if let (false, Some(name), Some(value)) = (own || hop_by_hop(tag), name, text(value)) {
            reply = reply.field(FieldName::new(name), value);
        }
    }
    reply
}
