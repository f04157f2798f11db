//! `traffic-split`: which of several services a route's request goes to.

use std::hash::Hasher as _;

use super::call::CallTo;
use super::when::{self, When};
use super::{Cx, Descriptor, Flow, Policy};
use crate::diag::{Diagnostic, codes, suggest};
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::model::schema::{Field, HEADER, Kind, Record, TEXT};
use crate::route::upstream_path::upstream_path;
use crate::snapshot::ServiceId;

static PLUGIN: Descriptor = Descriptor {
    name: "traffic-split",
    summary: "send some of a route's requests to other services: by version, or a share of them",
    doc: "\
## What it does
Chooses the service of a request: by rules about headers, media types, arguments of the query and consumer groups, then by
weights, for all requests of one client the same.

## Why
A new version of a service is tried on a few of its users before all of them get it, and an old one is kept for those who ask
for it, without a route for every combination.

## Example
```yaml
plugins:
  - name: traffic-split
    config:
      rules:
        - { when: { header: { accept: \"~application/vnd\\\\.shop\\\\.v1\\\\+json\" } }, service: orders-v1 }
        - { when: { query: { version: \"1\" } }, service: orders-v1 }
        - { when: { consumer_group: [testers] }, service: orders-v3 }
      split:
        - { service: orders-v3, weight: 5 }      # the canary first: those who have it keep it as its share grows
        - { service: orders-v2, weight: 95 }
      sticky: consumer
      response_header: X-Served-By
```

## Behaviour
The first rule that fits decides; then `split`, where there is one; else the request goes to the route's own service. The
path is made for the chosen service as for the route's own one. Shares are decided by a hash: of the consumer, a header, a
cookie or the client's address (`sticky`), or of nothing that lasts (`none`). The same value goes to the same service on every
gateway and after every restart; services listed first keep their clients when their weight grows. Who has no consumer or no
such header is told apart by address. With `cookie`, a client without one gets it, with a random value. Rules about headers
add those to `Vary`.

Plugins, timeouts in the log's labels and metrics stay those of the route and its own service; connecting, balancing, retries
and timeouts are those of the chosen one. Services that speak gRPC cannot be mixed with others.
",
    fields: FIELDS,
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

const FIELDS: &[Field] = &[
    Field::new("rules", Kind::List(&Kind::Record(RULE)), "Who goes where in any case; the first that fits.")
        .extension(),
    Field::new("split", Kind::List(&Kind::Record(SHARE)), "Shares of the rest.").extension(),
    Field::new(
        "sticky",
        Kind::Enum(&["none", "consumer", "header", "cookie", "ip"]),
        "By what requests belong together, so that they have one service.",
    )
    .default("\"consumer\"")
    .extension(),
    Field::new("sticky_name", TEXT, "The header or cookie.").extension(),
    Field::new("response_header", HEADER, "A header of the answer that names the service.").extension(),
];

const RULE: &[Field] = &[
    Field::new("when", Kind::Record(when::FIELDS), "Whom it is for: everything that is said must hold.")
        .extension(),
    Field::new("service", Kind::Ref("services"), "The service.").required().extension(),
];

const SHARE: &[Field] = &[
    Field::new("service", Kind::Ref("services"), "The service.").required().extension(),
    Field::new(
        "weight",
        Kind::Int { min: 0, max: 1_000_000 },
        "Its share, as part of the sum of all weights.",
    )
    .required()
    .extension(),
];

/// See the module.
pub struct TrafficSplit {
    rules: Vec<(When, ServiceId)>,
    /// Services with the sum of the weights up to and with them.
    split: Vec<(ServiceId, u64)>,
    sticky: Sticky,
    response_header: Option<FieldName>,
    vary: Option<String>,
}

enum Sticky {
    None,
    Consumer,
    Header(FieldName),
    Cookie(String),
    Ip,
}

/// What the response's turn has to say.
struct Chosen {
    service: ServiceId,
    /// For a client that has none.
    cookie: Option<String>,
}

impl Policy for TrafficSplit {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        if !cx.at_least_one_of(config, &["rules", "split"]) {
            return None;
        }
        let (mut good, mut rules, mut split, mut sum) = (true, Vec::new(), Vec::new(), 0);
        let none = Record::default();
        for rule in config.records("rules") {
            let when = When::compile(rule.record("when").unwrap_or(&none), rule.span, "a rule", cx);
            match when.zip(service(rule, cx)) {
                Some(rule) => rules.push(rule),
                None => good = false,
            }
        }
        for share in config.records("split") {
            sum += share.int("weight").and_then(|w| u64::try_from(w).ok()).unwrap_or(0);
            match service(share, cx) {
                Some(service) => split.push((service, sum)),
                None => good = false,
            }
        }
        if sum == 0 && !split.is_empty() {
            let message = "all weights are zero, so no service has a share";
            cx.report(&codes::INVALID_VALUE, config.span_of("split"), message);
            good = false;
        }
        let sticky = match (config.str("sticky"), config.str("sticky_name")) {
            (Some("header"), Some(name)) => Sticky::Header(FieldName::new(name)),
            (Some("cookie"), Some(name)) if name.bytes().all(is_token) => Sticky::Cookie(name.to_owned()),
            (Some("cookie"), Some(name)) => {
                let message = format!("`{name}` is no name for a cookie");
                cx.report(&codes::INVALID_VALUE, config.span_of("sticky_name"), message);
                return None;
            }
            (Some(word @ ("header" | "cookie")), None) => {
                let message = format!("`sticky: {word}` needs its name");
                cx.diags.push(
                    Diagnostic::new(&codes::MISSING_ALTERNATIVE, config.span_of("sticky"), message)
                        .help("add `sticky_name`"),
                );
                return None;
            }
            (Some("ip"), _) => Sticky::Ip,
            (Some("none"), _) => Sticky::None,
            _ => Sticky::Consumer,
        };
        let mut vary: Vec<&str> = Vec::new();
        for (name, _) in rules.iter().flat_map(|(when, _): &(When, _)| &when.headers) {
            if !vary.iter().any(|v| v.eq_ignore_ascii_case(name.as_str())) {
                vary.push(name.as_str());
            }
        }
        let vary = (!vary.is_empty()).then(|| vary.join(", "));
        let response_header = config.str("response_header").map(FieldName::new);
        good.then_some(Self { rules, split, sticky, response_header, vary })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let mut cookie = None;
        let by_rule = self.rules.iter().find(|(when, _)| when.fits(x)).map(|(_, service)| *service);
        let Some(service) = by_rule.or_else(|| self.share(x, &mut cookie)) else { return Flow::Next };
        if x.service != Some(service) {
            x.service = Some(service);
            let snapshot = x.snapshot.clone();
            if let Some(route) = x.route.and_then(|r| snapshot.routes.get(r.0 as usize)) {
                let base = snapshot.services[service.0 as usize].path.as_str();
                let Exchange { request, upstream, matched_len, .. } = x;
                let (strip, v1) = (route.strip_path, route.path_handling_v1);
                upstream_path(base, &request.path, *matched_len, strip, v1, &mut upstream.path);
            }
        }
        x.keep(Chosen { service, cookie });
        Flow::Next
    }

    fn response(&self, x: &mut Exchange) {
        if let Some(vary) = &self.vary {
            x.response.fields.append(&names::VARY, vary);
        }
        let Some(Chosen { service, cookie }) = x.kept::<Chosen>() else { return };
        let (service, cookie) = (*service, cookie.clone());
        if let Some(header) = &self.response_header {
            let snapshot = x.snapshot.clone();
            if let Some(service) = snapshot.services.get(service.0 as usize) {
                x.response.fields.set(header, service.name.as_deref().unwrap_or(&service.id));
            }
        }
        if let (Some(value), Sticky::Cookie(name)) = (cookie, &self.sticky) {
            let secure = if x.forwarded_scheme() == "https" { "; Secure" } else { "" };
            let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
            x.response.fields.append(&FieldName::new("Set-Cookie"), cookie);
        }
    }
}

impl TrafficSplit {
    /// The service whose share the request falls into.
    fn share(&self, x: &Exchange, cookie: &mut Option<String>) -> Option<ServiceId> {
        let sum = self.split.last()?.1;
        let request = x.request_id.hex();
        let of_client = || x.client.ip.to_string().into_bytes();
        let key: Vec<u8> = match &self.sticky {
            Sticky::None => request.to_vec(),
            Sticky::Ip => of_client(),
            Sticky::Consumer => x.consumer().map_or_else(of_client, |c| c.id.clone().into_bytes()),
            Sticky::Header(name) => x.request.fields.get(name).map_or_else(of_client, <[u8]>::to_vec),
            Sticky::Cookie(name) => match read_cookie(x, name) {
                Some(value) => value.into_bytes(),
                None => {
                    // What is shown must say nothing of the request's id.
                    let value = format!("{:016x}", hash(&request));
                    let key = value.clone().into_bytes();
                    *cookie = Some(value);
                    key
                }
            },
        };
        let point = (u128::from(hash(&key)) * u128::from(sum)) >> 64;
        self.split.iter().find(|(_, upto)| point < u128::from(*upto)).map(|(service, _)| *service)
    }
}

/// The same on every machine and in every version: clients must not change sides with an upgrade. FNV-1a, whose bits
/// are mixed once more because the high ones decide.
fn hash(key: &[u8]) -> u64 {
    struct Fnv(u64);
    impl std::hash::Hasher for Fnv {
        fn finish(&self) -> u64 {
            let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            mixed ^ (mixed >> 33)
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.write(key);
    fnv.finish()
}

fn read_cookie(x: &Exchange, name: &str) -> Option<String> {
    let cookie = names::COOKIE;
    let all = x.request.fields.all(&cookie);
    let found = all.filter_map(|line| std::str::from_utf8(line).ok()).flat_map(|line| line.split(';'));
    let mut values = found.filter_map(|pair| pair.trim().split_once('=')).filter(|(n, _)| *n == name);
    values.next().map(|(_, value)| value.to_owned()).filter(|v| !v.is_empty())
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The service that the field `service` names; one that does not exist is reported.
pub(super) fn service(record: &Record, cx: &mut Cx<'_>) -> Option<ServiceId> {
    let name = record.spanned_str("service")?;
    let model = cx.model;
    if let Some(CallTo::Service(id)) = CallTo::service(model, &name) {
        return Some(id);
    }
    let mut diagnostic = Diagnostic::new(
        &codes::DANGLING_REFERENCE,
        name.span,
        format!("there is no service `{}`", model.shown(&name)),
    );
    let names = model.services.iter().filter_map(|s| s.name.as_ref()).map(|n| n.as_str());
    if let Some(near) = suggest::nearest(&name, names) {
        diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
    }
    // Where services could not be read the reference may be right.
    if !model.unreadable.contains("services") {
        cx.diags.push(diagnostic);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[u64]) -> TrafficSplit {
        let mut sum = 0;
        let mut add = |w: &u64| {
            sum += w;
            sum
        };
        TrafficSplit {
            rules: Vec::new(),
            split: weights.iter().enumerate().map(|(i, w)| (ServiceId(i as u32), add(w))).collect(),
            sticky: Sticky::Header(FieldName::new("X-User")),
            response_header: None,
            vary: None,
        }
    }

    /// Which service each of many users gets.
    fn users(weights: &[u64]) -> Vec<u32> {
        let split = split(weights);
        let one = |n: u32| {
            let x = crate::policy::testing::exchange(&format!("GET /\nX-User: user-{n}"));
            split.share(&x, &mut None).expect("a share").0
        };
        (0..2000).map(one).collect()
    }

    #[test]
    fn shares_are_as_the_weights_say_and_nobody_leaves_a_canary_that_grows() {
        let count = |all: &[u32], service| all.iter().filter(|s| **s == service).count();
        let (small, large) = (users(&[10, 90]), users(&[30, 70]));
        assert!((140..=260).contains(&count(&small, 0)), "{}", count(&small, 0));
        assert!((520..=680).contains(&count(&large, 0)), "{}", count(&large, 0));
        assert!(small.iter().zip(&large).all(|(a, b)| *a != 0 || *b == 0), "who had the canary keeps it");
        assert_eq!(count(&users(&[0, 1]), 0), 0);
        assert_eq!(count(&users(&[1, 0]), 1), 0);
        assert_eq!(users(&[10, 90])[..16], small[..16], "the same client, the same service");
        assert_eq!(hash(b"user-1"), 0x41a2_fca5_c684_01c5, "for ever");
    }

    #[test]
    fn cookies_are_given_once() {
        let mut split = split(&[1, 1]);
        split.sticky = Sticky::Cookie("side".to_owned());
        let mut x = crate::policy::testing::exchange("GET /");
        x.snapshot =
            crate::exchange::SnapshotRef::new(std::sync::Arc::new(crate::snapshot::Snapshot::default()));
        let mut cookie = None;
        let first = split.share(&x, &mut cookie);
        let value = cookie.expect("a new client gets one");
        let again = crate::policy::testing::exchange(&format!("GET /\nCookie: a=b; side={value}"));
        let mut cookie = None;
        assert_eq!(split.share(&again, &mut cookie), first);
        assert_eq!(cookie, None);
    }
}
