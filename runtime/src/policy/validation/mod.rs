//! What the policies that validate messages share: schemas from a config, values from parameters, and answers that say
//! what is wrong and where, but never with which value.

pub mod document;
pub mod openapi;
pub mod params;
pub mod paths;

use std::fmt::Write as _;

use jsonschema::{Draft, PatternOptions, ValidationError, ValidationOptions, Validator};
use serde_json::{Value, json};

use super::Reply;
use crate::exchange::Exchange;
use crate::telemetry::Why;

/// Most faults that an answer lists.
const LISTED: usize = 10;
/// Most bytes of one fault's description.
const LONGEST: usize = 300;
/// How hard a pattern that needs look-around may be tried, per match.
const BACKTRACKS: usize = 50_000;

/// Something that is not as a schema wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `body`, `query`, `header`, `path` or `cookie`.
    pub part: &'static str,
    /// The parameter, if it is one.
    pub name: Option<String>,
    /// Where in the value: a JSON pointer.
    pub pointer: String,
    pub detail: String,
}

/// Makes a validator that never fetches anything.
///
/// # Errors
/// The schema is none, or refers to what is not in it.
pub fn validator(schema: &Value, draft: Option<Draft>) -> Result<Validator, ValidationError<'static>> {
    let mut options = jsonschema::options().offline().should_validate_formats(true);
    if let Some(draft) = draft {
        options = options.with_draft(draft);
    }
    build(options, schema)
}

/// Makes a validator whose patterns run in linear time; only those that cannot are tried, with a bound.
///
/// # Errors
/// The schema is none.
fn build(options: ValidationOptions<'_>, schema: &Value) -> Result<Validator, ValidationError<'static>> {
    let linear = options.clone().with_pattern_options(PatternOptions::regex()).build(schema);
    linear.or_else(|_| {
        let bounded = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS);
        options.with_pattern_options(bounded).build(schema)
    })
}

/// What is wrong with a value, without the value itself.
pub fn findings(
    validator: &Validator,
    value: &Value,
    part: &'static str,
    name: Option<&str>,
) -> Vec<Finding> {
    let finding = |error: ValidationError<'_>| {
        let mut detail = error.masked().to_string();
        if detail.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|i| detail.is_char_boundary(*i)).unwrap_or(0);
            detail.truncate(end);
            detail.push('…');
        }
        Finding { part, name: name.map(str::to_owned), pointer: error.instance_path().to_string(), detail }
    };
    validator.iter_errors(value).take(LISTED).map(finding).collect()
}

/// An answer that lists findings, as a problem document (RFC 9457).
pub fn problem(x: &mut Exchange, status: u16, title: &str, findings: &[Finding]) -> Reply {
    x.keep(Why(summary(title, findings)));
    let errors: Vec<Value> = findings
        .iter()
        .take(LISTED)
        .map(|f| {
            let mut error = json!({ "in": f.part });
            if let Some(name) = &f.name {
                error["name"] = json!(name);
            }
            if f.part == "body" || !f.pointer.is_empty() {
                error["pointer"] = json!(f.pointer);
            }
            error["detail"] = json!(f.detail);
            error
        })
        .collect();
    let mut body = json!({ "type": "about:blank", "title": title, "status": status });
    if let Some(first) = findings.first() {
        body["detail"] = json!(describe(first));
        body["errors"] = json!(errors);
    }
    body["request_id"] = json!(x.request_id.to_string());
    Reply::with_body(status, "application/problem+json", body.to_string())
}

/// One line for the log.
pub fn summary(title: &str, findings: &[Finding]) -> String {
    let mut line = title.to_owned();
    for finding in findings.iter().take(3) {
        let _ = write!(line, "; {}", describe(finding));
    }
    line
}

fn describe(f: &Finding) -> String {
    let mut place = f.part.to_owned();
    if let Some(name) = &f.name {
        let _ = write!(place, " `{name}`");
    }
    if !f.pointer.is_empty() {
        let _ = write!(place, " at `{}`", f.pointer);
    }
    format!("{place}: {}", f.detail)
}

/// The JSON value of a body, read strictly and within bounds.
///
/// # Errors
/// It is malformed, or nested too deeply; a finding says where.
pub fn body_value(body: &[u8], limits: &crate::json::Limits) -> Result<Value, Finding> {
    let finding = |detail: String| Finding { part: "body", name: None, pointer: String::new(), detail };
    crate::json::check(body, limits).map_err(|fault| finding(fault.to_string()))?;
    serde_json::from_slice(body).map_err(|e| finding(e.to_string()))
}

/// What becomes of a response with these findings: it passes, is logged, or is answered 502.
///
/// # Errors
/// The answer in its place.
pub fn judge_response(
    x: &mut Exchange,
    body: Vec<u8>,
    wrong: &[Finding],
    enforce: bool,
) -> Result<Vec<u8>, Reply> {
    if wrong.is_empty() {
        return Ok(body);
    }
    let title = "The service's response is not as the schema says";
    if !enforce {
        x.keep(Why(summary(title, wrong)));
        return Ok(body);
    }
    // The log has the particulars; the client learns whose mistake it is.
    let reply = problem(x, 502, title, &[]);
    x.keep(Why(summary(title, wrong)));
    Err(reply)
}
