//! Requests made beforehand, so that sending one is a copy.

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::connection::Body;
use crate::plan::{Consumer, Plan, Share, Target};
use crate::tally::NOBODY;

/// All requests of a run, and the draw among them.
pub struct Templates {
    /// By consumer (the last row is nobody) and target.
    rows: Vec<Vec<Template>>,
    /// By phase: what is drawn, and the weights summed up so far.
    mixes: Vec<Vec<(u64, Share)>>,
    seed: u64,
}

struct Template {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Body,
}

impl Templates {
    /// The requests of a plan. Each worker makes its own: shared ones would share reference counts, too.
    pub fn new(plan: &Plan) -> Self {
        let senders = plan.consumers.iter().map(Some).chain([None]);
        let row = |consumer| plan.targets.iter().map(|t| Template::new(t, consumer, plan.http2)).collect();
        let mixes = plan.phases.iter().map(|phase| {
            let mut sum = 0;
            let entry = |share: &Share| {
                sum += u64::from(share.weight);
                (sum, *share)
            };
            phase.mix.iter().map(entry).collect()
        });
        Self { rows: senders.map(row).collect(), mixes: mixes.collect(), seed: plan.seed }
    }

    /// Who sends request `index` of the run, and which target it is for.
    pub fn draw(&self, phase: usize, index: u64) -> Share {
        let mix = &self.mixes[phase];
        let total = mix[mix.len() - 1].0;
        if mix.len() == 1 {
            return mix[0].1;
        }
        let at = scramble(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % total;
        mix[mix.partition_point(|(sum, _)| *sum <= at)].1
    }

    /// A request to send.
    pub fn request(&self, share: Share) -> Request<Body> {
        let row = share.consumer.unwrap_or(self.rows.len() - 1);
        self.rows[row][share.target].request()
    }
}

/// The number of a share's consumer in samples.
pub fn consumer_number(share: Share) -> u32 {
    share.consumer.map_or(NOBODY, |c| c as u32)
}

/// The number of a share's target in samples. Plans have no more targets than that ([`Plan`]).
pub fn target_number(share: Share) -> u16 {
    u16::try_from(share.target).unwrap_or(u16::MAX)
}

impl Template {
    fn new(target: &Target, consumer: Option<&Consumer>, http2: bool) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            headers.append(name.clone(), fresh(value));
        }
        for (name, value) in consumer.iter().flat_map(|c| &c.headers) {
            headers.insert(name.clone(), fresh(value));
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("gw-bench/", env!("CARGO_PKG_VERSION"))));
        if !target.body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(target.body.len()));
        }
        let mut parts = target.uri.clone().into_parts();
        let host = headers.get(HOST).cloned();
        if http2 {
            // The authority is where HTTP/2 says what HTTP/1.1 says in Host.
            if let Some(authority) = host.as_ref().and_then(|h| h.as_bytes().try_into().ok()) {
                parts.authority = Some(authority);
            }
            headers.remove(HOST);
        } else {
            if let (None, Some(authority)) = (&host, &parts.authority)
                && let Ok(value) = HeaderValue::from_str(without_userinfo(authority.as_str()))
            {
                headers.insert(HOST, value);
            }
            parts.scheme = None;
            parts.authority = None;
        }
        // Only the scheme and the authority have changed, to another valid one or to none.
        let uri = Uri::from_parts(parts).unwrap_or_else(|_| target.uri.clone());
        let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let body = Body::new(bytes::Bytes::copy_from_slice(&target.body));
        Self { method: target.method.clone(), uri, version, headers, body }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(self.body.clone());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

/// The same value with memory of its own.
fn fresh(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}

fn without_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A permutation of 64-bit numbers whose outputs look random (the finaliser of SplitMix64).
fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Draft, Phase};
    use crate::schedule::Pace;

    fn templates(http2: bool, headers: &[(&str, &str)], weights: &[u32]) -> Templates {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let target = Target {
            name: "t".into(),
            method: Method::POST,
            uri: "http://h:81/p?q=1".parse().unwrap(),
            headers: map,
            body: "abc".into(),
        };
        let mix = weights.iter().map(|&weight| Share { consumer: Some(0), target: 0, weight });
        let mix = mix.enumerate().map(|(target, s)| Share { target, ..s }).collect();
        let consumer = Consumer {
            name: "alice".into(),
            headers: vec![(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))],
        };
        let draft = Draft {
            targets: vec![target; weights.len()],
            consumers: vec![consumer],
            phases: vec![Phase { name: "p".into(), pace: Pace::Closed, duration: None, mix }],
            requests: Some(1),
            connections: 1,
            streams: 1,
            http2,
            seed: 7,
            ..Draft::default()
        };
        Templates::new(&draft.check().unwrap())
    }

    #[test]
    fn requests_carry_what_target_and_consumer_say() {
        let t = templates(false, &[("x-a", "1")], &[1]);
        let request = t.request(t.draw(0, 0));
        assert_eq!(request.uri(), "/p?q=1");
        assert_eq!(request.headers()["host"], "h:81");
        assert_eq!(request.headers()["authorization"], "Bearer x");
        assert_eq!(request.headers()["content-length"], "3");
        assert_eq!(request.headers()["x-a"], "1");
    }

    #[test]
    fn a_given_host_wins_and_is_the_authority_of_http2() {
        let t = templates(false, &[("host", "api.example.com")], &[1]);
        assert_eq!(t.request(t.draw(0, 0)).headers()["host"], "api.example.com");
        let t = templates(true, &[("host", "api.example.com")], &[1]);
        let request = t.request(t.draw(0, 0));
        assert_eq!(request.uri(), "http://api.example.com/p?q=1");
        assert!(!request.headers().contains_key("host"));
    }

    #[test]
    fn draws_follow_their_weights_and_repeat_for_one_seed() {
        let (a, b) = (templates(false, &[], &[3, 1]), templates(false, &[], &[3, 1]));
        let picks: Vec<_> = (0..10_000).map(|i| a.draw(0, i).target).collect();
        assert!(picks.iter().enumerate().all(|(i, t)| b.draw(0, i as u64).target == *t));
        let ones = picks.iter().filter(|t| **t == 1).count();
        assert!((2300..2700).contains(&ones), "{ones}");
    }
}
