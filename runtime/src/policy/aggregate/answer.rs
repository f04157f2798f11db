//! From what the parts answered to the answer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::choose::Choice;
use super::merge::{self, Conflict};
use super::outcome::{self, Outcome, Why};
use super::plan::{Combine, Fallback, HeaderRule};
use super::run::Run;
use crate::exchange::Exchange;
use crate::json::{Json, Members};
use crate::message::{FieldName, Fields, names};
use crate::policy::Reply;
use crate::policy::proxy_cache::control::Directives;
use crate::policy::proxy_cache::has_tag;
use crate::policy::reply::{JSON, json_string};

/// The answer to a request whose parts are all done with.
pub fn reply(run: &mut Run, choice: &Choice, x: &Exchange) -> Reply {
    let mut document = Json::Object(Members::default());
    for at in 0..run.plan.parts.len() {
        if run.failed.is_some() {
            break;
        }
        add(run, at, &mut document);
    }
    if let Some(part) = run.failed {
        return failure(run, part, x);
    }
    choice.cut(&run.plan, &mut document);
    let mut reply = Reply::with_body(200, JSON, document.to_vec());
    headers(run, &mut reply);
    conditional(reply, x)
}

/// The answer with an entity tag, or without its body where the client has it already. What may not be kept has none.
fn conditional(mut reply: Reply, x: &Exchange) -> Reply {
    let is = |name: &FieldName, wanted: &FieldName| name == wanted;
    let cache_control = FieldName::new("Cache-Control");
    let kept = |(n, v): &(FieldName, String)| !(is(n, &cache_control) && v.contains("no-store"));
    let tagged = reply.fields.iter().any(|(n, _)| is(n, &names::ETAG));
    if !matches!(x.request.method.as_str(), "GET" | "HEAD") || tagged || !reply.fields.iter().all(kept) {
        return reply;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &reply.body);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]));
    if has_tag(&x.request.fields, &tag) {
        reply.status = 304;
        reply.body = bytes::Bytes::new();
        reply.content_type = None;
    }
    reply.field(names::ETAG, tag)
}

/// Merges a part. One that does not fit has failed, which may be the request's end or call for its fallback.
fn add(run: &mut Run, at: usize, document: &mut Json) {
    let plan = std::sync::Arc::clone(&run.plan);
    let part = &plan.parts[at];
    if run.real[at]
        && let Some(answer) = &run.answers[at]
    {
        let merged = match part.shape.apply(answer) {
            Ok(Json::Null) => {
                merge::put_null(document, &part.place.into);
                Ok(())
            }
            Ok(value) => {
                // Half a part must not stay where the rest does not fit.
                let before = (!part.required()).then(|| document.clone());
                merge::put(document, &part.place, value).map_err(|conflict| {
                    if let Some(before) = before {
                        *document = before;
                    }
                    why(&conflict)
                })
            }
            Err(what) => Err(Why::Shape(what)),
        };
        match merged {
            Ok(()) => return,
            Err(why) => run.spoil(at, why),
        }
    }
    match &part.fallback {
        Fallback::Null if is_failed(run, at) => merge::put_null(document, &part.place.into),
        Fallback::Value(value) if is_failed(run, at) => {
            let _ = merge::put(document, &part.place, value.clone());
        }
        _ => {}
    }
}

fn is_failed(run: &Run, at: usize) -> bool {
    matches!(run.outcomes[at], Some(Outcome::Failed { .. }))
}

fn why(conflict: &Conflict) -> Why {
    Why::Merge(conflict.to_string())
}

/// A problem document (RFC 9457) that names the part.
fn failure(run: &Run, at: usize, x: &Exchange) -> Reply {
    let part = &run.plan.parts[at];
    let cancelled = Why::Cancelled;
    let why = match &run.outcomes[at] {
        Some(Outcome::Failed { why, .. }) => why,
        _ => &cancelled,
    };
    let status = why.status(&part.pass_status);
    let title = match status {
        502 => "A part of the answer is not available",
        504 => "A part of the answer took too long",
        _ => "A part of the answer was refused",
    };
    let text = |t: &str| json_string(t);
    let mut parts = String::new();
    for (other, outcome) in run.plan.parts.iter().zip(&run.outcomes) {
        let state = match outcome {
            Some(Outcome::Fine { .. }) => "ok",
            Some(Outcome::Skipped) => "skipped",
            Some(Outcome::Failed { why, .. }) => why.token(),
            None => cancelled.token(),
        };
        let comma = if parts.is_empty() { "" } else { "," };
        parts.push_str(&format!("{comma}{}:{}", text(&other.name), text(state)));
    }
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":{},\"status\":{status},\"detail\":{},\"part\":{},\"error\":{},\"parts\":{{{parts}}},\
         \"request_id\":\"{}\"}}",
        text(title),
        text(&format!("part `{}` failed: {}", part.name, why.detail())),
        text(&part.name),
        text(why.token()),
        x.request_id,
    );
    let mut reply = Reply::with_body(status, "application/problem+json", body)
        .field(FieldName::new("Cache-Control"), "no-store");
    status_header(run, &mut reply);
    reply
}

fn status_header(run: &Run, reply: &mut Reply) {
    if let Some(name) = &run.plan.status_header {
        reply.fields.push((name.clone(), outcome::header(&run.plan, &run.outcomes, &run.old, &run.cached)));
    }
}

fn headers(run: &Run, reply: &mut Reply) {
    let plan = &run.plan;
    for rule in &plan.response_headers {
        for value in values(rule, &run.fields) {
            reply.fields.push((rule.name.clone(), value));
        }
    }
    let ruled = |name: &FieldName| plan.response_headers.iter().any(|r| r.name == *name);
    let cache_control = FieldName::new("Cache-Control");
    if !ruled(&cache_control)
        && let Some(value) = caching(run)
    {
        reply.fields.push((cache_control, value));
    }
    if !ruled(&names::VARY) {
        let vary = vary(run);
        if !vary.is_empty() {
            reply.fields.push((names::VARY, vary));
        }
    }
    status_header(run, reply);
}

fn values(rule: &HeaderRule, fields: &[Fields]) -> Vec<String> {
    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
    let mut all: Vec<String> =
        rule.from.iter().flat_map(|part| fields[*part].all(&rule.name).map(text)).collect();
    let number = |v: &String| v.trim().parse::<f64>().ok();
    let by_number =
        |a: &String, b: &String| number(a).partial_cmp(&number(b)).unwrap_or(std::cmp::Ordering::Equal);
    let chosen = match rule.combine {
        Combine::Append => return all,
        // A header that stands twice in one part's answer stays with all its lines.
        Combine::First => rule.from.iter().find(|p| fields[**p].contains(&rule.name)),
        Combine::Last => rule.from.iter().rfind(|p| fields[**p].contains(&rule.name)),
        Combine::Min | Combine::Max => {
            all.retain(|v| number(v).is_some());
            let one = match rule.combine {
                Combine::Min => all.into_iter().min_by(by_number),
                _ => all.into_iter().max_by(by_number),
            };
            return one.into_iter().collect();
        }
    };
    chosen.map(|part| fields[*part].all(&rule.name).map(text).collect()).unwrap_or_default()
}

/// The strictest of what the parts say of caching: nothing where one of them says nothing.
fn caching(run: &Run) -> Option<String> {
    let (mut least, mut private, mut no_cache) = (u64::MAX, false, false);
    let mut silent = false;
    for (at, outcome) in run.outcomes.iter().enumerate() {
        match outcome {
            Some(Outcome::Skipped) => continue,
            Some(Outcome::Fine { .. }) => {}
            // What is missing may be there a moment later.
            _ => return Some("no-store".to_owned()),
        }
        let said = Directives::of(&run.fields[at]);
        if said.has("no-store") {
            return Some("no-store".to_owned());
        }
        private |= said.has("private");
        no_cache |= said.has("no-cache");
        let age =
            run.fields[at].text(&FieldName::new("Age")).and_then(|a| a.trim().parse().ok()).unwrap_or(0);
        match said.seconds("max-age") {
            Some(seconds) => least = least.min(seconds.saturating_sub(age)),
            None => silent = true,
        }
    }
    let mut said = Vec::new();
    if private {
        said.push("private".to_owned());
    }
    if no_cache {
        said.push("no-cache".to_owned());
    }
    if !silent && least < u64::MAX {
        said.push(format!("max-age={least}"));
    }
    (!said.is_empty()).then(|| said.join(", "))
}

/// Every header that the answer depends on: those of the parts that are forwarded, and those of variants.
fn vary(run: &Run) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let name = name.trim();
        if !name.is_empty() && !all.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            all.push(name.to_owned());
        }
    };
    run.plan.vary.iter().for_each(|n| add(n.as_str()));
    for (part, fields) in run.plan.parts.iter().zip(&run.fields) {
        for value in fields.all(&names::VARY) {
            let value = String::from_utf8_lossy(value);
            // What a service would answer to other headers matters only if clients can send them.
            let forwarded = |n: &&str| {
                n.trim() == "*" || part.forward.iter().any(|f| f.as_str().eq_ignore_ascii_case(n.trim()))
            };
            value.split(',').filter(forwarded).for_each(&mut add);
        }
    }
    all.join(", ")
}
