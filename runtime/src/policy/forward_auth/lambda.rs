//! The contract of AWS API Gateway's Lambda authorizers for HTTP APIs: event and answers, payload 2.0.

use serde_json::{Map, Value, json};

use super::iam::Document;
use super::text_of;
use crate::clock;
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::{FieldName, query_pairs};
use crate::model::schema::{Field, Record, TEXT};
use crate::policy::Cx;
use crate::token::json;

/// What the event says of the API.
pub const FIELDS: &[Field] = &[
    Field::new("region", TEXT, "Region in route ARNs.").default("\"us-east-1\""),
    Field::new("account_id", TEXT, "Account in route ARNs and events.").default("\"000000000000\""),
    Field::new("api_id", TEXT, "API in route ARNs and events.").default("\"gw\""),
    Field::new("stage", TEXT, "Stage in route ARNs and events.").default("\"$default\""),
];

/// Where a part of the caller's identity is.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    Header(FieldName),
    Query(String),
    RouteKey,
    ClientIp,
}

/// The settings of an authorizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    sources: Vec<Source>,
    region: String,
    account: String,
    api: String,
    stage: String,
}

impl Settings {
    /// The settings of a config.
    pub fn of(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut sources = Vec::new();
        for text in config.strings("identity_sources") {
            let Some(source) = source(&text.value) else {
                let message = format!(
                    "`{}` is no identity source; those are `$request.header.NAME`, `$request.querystring.NAME`, \
                     `$context.routeKey` and `$context.identity.sourceIp`",
                    cx.model.shown(&text)
                );
                cx.report(&codes::INVALID_VALUE, text.span, message);
                return None;
            };
            sources.push(source);
        }
        let aws = config.record("aws");
        let text = |name: &str| aws.and_then(|r| r.str(name)).unwrap_or_default().to_owned();
        Some(Self {
            sources,
            region: text("region"),
            account: text("account_id"),
            api: text("api_id"),
            stage: text("stage"),
        })
    }

    /// The parts of the caller's identity; `None` if one is missing.
    pub fn sources(&self, x: &Exchange) -> Option<Vec<String>> {
        let one = |source: &Source| {
            let found = match source {
                Source::Header(name) => {
                    let values: Vec<_> = x.request.fields.all(name).map(String::from_utf8_lossy).collect();
                    (!values.is_empty()).then(|| values.join(","))
                }
                Source::Query(name) => x.request.query_arg(name),
                Source::RouteKey => Some(route_key(x)),
                Source::ClientIp => Some(x.client.ip.to_string()),
            };
            found.filter(|text| !text.is_empty())
        };
        self.sources.iter().map(one).collect()
    }

    /// What IAM policies call the route.
    pub fn route_arn(&self, x: &Exchange) -> String {
        let Self { region, account, api, stage, .. } = self;
        let path = x.request.path.trim_start_matches('/');
        format!("arn:aws:execute-api:{region}:{account}:{api}/{stage}/{}/{path}", x.request.method)
    }

    /// The event, as JSON.
    pub fn event(&self, x: &Exchange) -> String {
        let mut headers = Map::new();
        let mut cookies = Vec::new();
        for (name, value) in x.request.fields.iter() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let value = String::from_utf8_lossy(value);
            if name == "cookie" {
                cookies.extend(value.split(';').map(|c| Value::from(c.trim())));
            }
            join(&mut headers, name, &value);
        }
        headers.insert("host".to_owned(), x.request.host.as_str().into());
        let mut query = Map::new();
        for (name, value) in query_pairs(x.request.query.as_deref().unwrap_or("")) {
            join(&mut query, name, &value.unwrap_or_default());
        }
        let captures = x.captures.iter().filter(|(n, _)| n.parse::<u32>().is_err());
        let captures: Map<String, Value> = captures.map(|(n, v)| (n.clone(), v.as_str().into())).collect();
        let host = x.request.host_name();
        let agent = x.request.fields.text(&crate::message::names::USER_AGENT).unwrap_or_default();
        let key = route_key(x);
        let ms = clock::unix_ms();
        let mut event = json!({
            "version": "2.0",
            "type": "REQUEST",
            "routeArn": self.route_arn(x),
            "identitySource": self.sources(x).unwrap_or_default(),
            "routeKey": key,
            "rawPath": x.request.raw_path,
            "rawQueryString": x.request.query.as_deref().unwrap_or(""),
            "headers": headers,
            "requestContext": {
                "accountId": self.account,
                "apiId": self.api,
                "domainName": host,
                "domainPrefix": host.split('.').next().unwrap_or_default(),
                "http": {
                    "method": x.request.method,
                    "path": x.request.path,
                    "protocol": if x.request.version == crate::message::Version::H2 { "HTTP/2.0" } else { "HTTP/1.1" },
                    "sourceIp": x.client.ip.to_string(),
                    "userAgent": agent,
                },
                "requestId": x.request_id.to_string(),
                "routeKey": key,
                "stage": self.stage,
                "time": log_time(ms),
                "timeEpoch": ms,
            },
            "stageVariables": {},
        });
        // Absent where there are none, as API Gateway has it.
        for (name, value) in [
            ("cookies", (!cookies.is_empty()).then(|| cookies.into())),
            ("queryStringParameters", (!query.is_empty()).then(|| query.into())),
            ("pathParameters", (!captures.is_empty()).then(|| captures.into())),
        ] {
            if let Some(value) = value {
                let value: Value = value;
                event[name] = value;
            }
        }
        event.to_string()
    }
}

/// Several values of one name are one text with commas.
fn join(map: &mut Map<String, Value>, name: String, value: &str) {
    let joined = match map.get(&name).and_then(Value::as_str) {
        Some(before) => format!("{before},{value}"),
        None => value.to_owned(),
    };
    map.insert(name, joined.into());
}

fn source(text: &str) -> Option<Source> {
    if let Some(name) = text.strip_prefix("$request.header.") {
        return crate::http1::scan::is_token(name.as_bytes()).then(|| Source::Header(FieldName::new(name)));
    }
    if let Some(name) = text.strip_prefix("$request.querystring.") {
        return (!name.is_empty()).then(|| Source::Query(name.to_owned()));
    }
    match text {
        "$context.routeKey" => Some(Source::RouteKey),
        "$context.identity.sourceIp" | "$context.http.sourceIp" => Some(Source::ClientIp),
        _ => None,
    }
}

/// API Gateway's `METHOD /path`; ours names the route.
fn route_key(x: &Exchange) -> String {
    let route = x.route.and_then(|r| x.snapshot.routes.get(r.0 as usize));
    match route {
        Some(route) => format!("{} {}", x.request.method, route.name.as_deref().unwrap_or(&route.id)),
        None => "$default".to_owned(),
    }
}

/// `12/Mar/2020:19:03:58 +0000`.
fn log_time(ms: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
    time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// What an authorizer answered.
#[derive(Clone, Debug)]
pub struct Answer {
    decision: Decision,
    pub principal: Option<String>,
    /// An object.
    pub context: Value,
}

#[derive(Clone, Debug)]
enum Decision {
    Simple(bool),
    Policy(Document),
}

impl Answer {
    /// Reads an answer of either form.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let answer = json::parse(body).ok()?;
        let context = match answer.get("context") {
            None | Some(Value::Null) => json!({}),
            Some(context @ Value::Object(_)) => context.clone(),
            Some(_) => return None,
        };
        let decision = match (answer.get("isAuthorized"), answer.get("policyDocument")) {
            (Some(Value::Bool(is)), None) => Decision::Simple(*is),
            (None, Some(document)) => Decision::Policy(Document::parse(document)?),
            _ => return None,
        };
        let principal = answer.get("principalId").and_then(text_of);
        if matches!(decision, Decision::Policy(_)) && principal.is_none() {
            return None;
        }
        Some(Self { decision, principal, context })
    }

    /// Whether the route with this ARN may be called.
    pub fn allows(&self, arn: &str) -> bool {
        match &self.decision {
            Decision::Simple(is) => *is,
            Decision::Policy(document) => document.allows(arn),
        }
    }

    /// Whether there is any route that may be called.
    pub fn may_allow(&self) -> bool {
        match &self.decision {
            Decision::Simple(is) => *is,
            Decision::Policy(document) => document.may_allow(),
        }
    }
}
