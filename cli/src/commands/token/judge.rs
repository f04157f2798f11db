//! What the gateway would do with a token: its own policies, run on a request that carries the token.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gw_runtime::check::Checked;
use gw_runtime::compile;
use gw_runtime::exchange::{Client, Exchange, RequestId, SnapshotRef};
use gw_runtime::message::names;
use gw_runtime::model::Model;
use gw_runtime::policy::jwt::{ISSUER_KEYS, Jwt};
use gw_runtime::policy::{Answer, Effect, Flow, Policy as _, Reply, Step};
use gw_runtime::provider::Unavailable;
use gw_runtime::server;
use gw_runtime::snapshot::Snapshot;
use gw_runtime::token::config;
use gw_runtime::token::trace::{Check, Evidence, Outcome};

use crate::exit::{Code, WithCode};

/// Policies after `jwt` that decide by what it found out.
const AUTHORISERS: &[&str] = &["acl", "authorize"];
/// Policies that ask for something else beside the token.
const OTHERS: &[&str] = &[
    "oauth2",
    "oauth2-introspection",
    "openid-connect",
    "key-auth",
    "ldap-auth",
    "basic-auth",
    "hmac-auth",
    "mtls-auth",
    "forward-auth",
];

/// What came of it.
pub struct Judgement {
    pub route: String,
    /// Where the policy looks for tokens, in words.
    pub places: String,
    pub checks: Vec<Check>,
    /// What the gateway answers, unless it lets the request through.
    pub reply: Option<Reply>,
    /// Consumer that the request goes on as.
    pub consumer: Option<String>,
    pub anonymous: bool,
    /// Only the keys of the issuer could tell, and they were not to be asked for.
    pub undecided: bool,
    /// What the upstream is told, by the policies that ran.
    pub upstream_fields: Vec<(String, String)>,
    /// What a user should know beside it.
    pub notes: Vec<String>,
}

/// A token and how to judge it.
pub struct Question<'a> {
    pub token: &'a str,
    /// Name or id of the route, where the config has several.
    pub route: Option<&'a str>,
    /// Seconds since 1970.
    pub now: u64,
    /// Ask no issuer for its keys.
    pub offline: bool,
}

/// Judges a token.
pub fn judge(model: &Checked<Model>, question: &Question<'_>) -> anyhow::Result<Judgement> {
    let &Question { token, route, now, offline } = question;
    let (snapshot, _) = compile::build(model, &Arc::default());
    let snapshot = snapshot.ok_or_else(|| {
        WithCode(Code::Findings, "the config cannot be served; `gw validate` says why".to_owned())
    })?;
    let snapshot = SnapshotRef::new(Arc::new(snapshot));
    let route = choose_route(model, &snapshot, route)?;
    let (place, policy) = jwt_of(&snapshot, route).ok_or_else(|| no_policy(&snapshot, route))?;
    let mut x = request(&snapshot, token, now);
    let (mut notes, mut undecided) = (Vec::new(), false);
    let flow = match policy.request(&mut x) {
        Flow::Await(Effect::Keys(wanted)) => {
            let came = if offline {
                undecided = true;
                Err(Unavailable::Failed)
            } else {
                server::wait_for_keys(&snapshot, &wanted)?
            };
            policy.resume(&mut x, Answer::Keys(came))
        }
        flow => flow,
    };
    // By the keys that were fetched meanwhile.
    let mut explanation = policy.explain(&snapshot, token.as_bytes(), now);
    if undecided && let Some(check) = explanation.checks.iter_mut().find(|c| c.name == ISSUER_KEYS) {
        let evidence = Evidence::default();
        *check =
            Check { evidence, outcome: Outcome::Skip, note: "not fetched (`--offline`)".into(), ..*check };
    }
    let mut reply = answer(flow);
    let chain = chain_of(&x, route);
    for (order, step) in &snapshot.chains[chain].steps {
        let step = &snapshot.steps[*step as usize];
        let name = step.plugin().name;
        if OTHERS.contains(&name) {
            notes.push(format!("the route has `{name}` too, which this does not judge"));
        }
        if *order > place && AUTHORISERS.contains(&name) {
            let refusal = reply.is_none().then(|| answer(step.request(&mut x)));
            explanation.checks.push(authorised(step, &x, refusal.as_ref()));
            reply = reply.or(refusal.flatten());
        }
    }
    let anonymous = x.identity.as_ref().is_some_and(|i| i.anonymous);
    let consumer = x.consumer().map(|c| c.username.clone().unwrap_or_else(|| c.id.clone()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = x.request.fields.iter().map(|(name, value)| (text(name), text(value)));
    Ok(Judgement {
        route: label(&snapshot, route),
        places: policy.places(),
        checks: explanation.checks,
        reply,
        consumer,
        anonymous,
        undecided,
        upstream_fields: fields.filter(|(name, _)| !name.eq_ignore_ascii_case("authorization")).collect(),
        notes,
    })
}

fn choose_route(model: &Model, snapshot: &Snapshot, name: Option<&str>) -> anyhow::Result<usize> {
    let usage = |text: String| WithCode(Code::Usage, text);
    if let Some(name) = name {
        let names = || (0..snapshot.routes.len()).map(|r| format!("`{}`", label(snapshot, r)));
        let known = || names().take(12).collect::<Vec<_>>().join(", ");
        return config::route(model, name)
            .ok_or_else(|| usage(format!("there is no route `{name}`; there are {}", known())).into());
    }
    let mut judged: Vec<(*const Jwt, usize)> = Vec::new();
    for route in 0..snapshot.routes.len() {
        if let Some((_, policy)) = jwt_of(snapshot, route)
            && judged.iter().all(|(known, _)| !std::ptr::eq(*known, policy))
        {
            judged.push((policy, route));
        }
    }
    match judged[..] {
        [] => Err(usage("no route of this config has an enabled `jwt` plugin".into()).into()),
        [(_, route)] => Ok(route),
        _ => {
            let names: Vec<String> =
                judged.iter().map(|(_, route)| format!("`{}`", label(snapshot, *route))).collect();
            let text = format!(
                "this config has {} different `jwt` plugins; choose with `--route` one of {}",
                names.len(),
                names.join(", ")
            );
            Err(usage(text).into())
        }
    }
}

fn label(snapshot: &Snapshot, route: usize) -> String {
    snapshot.routes[route].labels.route.clone()
}

/// The `jwt` policy of a route, and its place in the order.
fn jwt_of(snapshot: &Snapshot, route: usize) -> Option<(u16, &Jwt)> {
    let chain = &snapshot.chains[snapshot.routes[route].chain.0 as usize];
    chain.steps.iter().find_map(|(order, step)| match &snapshot.steps[*step as usize] {
        Step::Jwt(policy) => Some((*order, &**policy)),
        _ => None,
    })
}

fn no_policy(snapshot: &Snapshot, route: usize) -> WithCode {
    let chain = &snapshot.chains[snapshot.routes[route].chain.0 as usize];
    let name = |step: &u32| snapshot.steps[*step as usize].plugin().name;
    let others: Vec<String> = chain
        .steps
        .iter()
        .map(|(_, step)| name(step))
        .filter(|name| OTHERS.contains(name))
        .map(|name| format!("`{name}`"))
        .collect();
    let route = label(snapshot, route);
    let text = match others.is_empty() {
        true => {
            format!(
                "route `{route}` has no enabled `jwt` plugin: nothing looks at the token, everyone is let in"
            )
        }
        false => format!("route `{route}` has no enabled `jwt` plugin; it asks for {}", others.join(" and ")),
    };
    WithCode(Code::Usage, text)
}

/// A request with the token in it. `jwt` is asked about the token alone, so the rest does not matter.
fn request(snapshot: &SnapshotRef, token: &str, now: u64) -> Exchange {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
    let client = Client::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), local);
    let mut x = Exchange::new(snapshot.clone(), client, RequestId(0));
    x.now.unix_ms = now.saturating_mul(1000);
    x.request.method.push_str("GET");
    x.request.path.push('/');
    x.request.raw_path.push('/');
    x.request.fields.append(&names::AUTHORIZATION, format!("Bearer {token}"));
    x
}

fn answer(flow: Flow) -> Option<Reply> {
    match flow {
        Flow::Next => None,
        Flow::Reply(reply) => Some(reply),
        Flow::Await(_) => None,
    }
}

/// The policies that run once the caller is known.
fn chain_of(x: &Exchange, route: usize) -> usize {
    let route = &x.snapshot.routes[route];
    let class = x.consumer().and_then(|c| c.class);
    let own = route.class_chains.iter().find(|(c, _)| Some(*c) == class);
    own.map_or(route.chain, |(_, chain)| *chain).0 as usize
}

fn authorised(step: &Step, x: &Exchange, refusal: Option<&Option<Reply>>) -> Check {
    let groups = x.consumer().map(|c| c.acl_groups.as_slice()).unwrap_or_default();
    let groups = if groups.is_empty() { "no groups".to_owned() } else { groups.join(", ") };
    let (actual, expected) = match step {
        Step::Acl(acl) => (groups, acl.described()),
        Step::Authorize(rule) => ("the caller".to_owned(), rule.described()),
        _ => (String::new(), String::new()),
    };
    let (outcome, note) = match refusal {
        None => (Outcome::Skip, "not reached"),
        Some(None) => (Outcome::Pass, ""),
        Some(Some(_)) => (Outcome::Fail, "the token is good, but its bearer may not do this"),
    };
    Check {
        name: step.plugin().name,
        outcome,
        evidence: Evidence { actual, expected },
        note: note.to_owned(),
    }
}
