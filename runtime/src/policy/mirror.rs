//! `mirror`: a copy of a share of requests goes to another service, whose answers nobody waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::call::{Call, CallError, CallResponse, CallTo, Done};
use super::traffic_split::service;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::names;
use crate::model::schema::{Field, Kind, MILLIS, Record};
use crate::snapshot::ServiceId;

static PLUGIN: Descriptor = Descriptor {
    name: "mirror",
    summary: "send a copy of a share of requests to another service and drop its answers",
    doc: "\
## What it does
Sends a copy of each request, or of a share of them, to another service. The client's own request goes on as if nothing had
been copied.

## Why
A new version of a service meets the traffic of production before anybody depends on its answers.

## Example
```yaml
plugins:
  - name: mirror
    config:
      service: orders-next
      share: 10          # percent
```

## Behaviour
The copy has the method, path, query, headers and body of what the service gets, with everything that other plugins have
changed, and the name and path of its own service. It is sent from a task of its own: the client's request does not wait for
it, and whatever becomes of it shows only in the metric `gw_mirrored_requests_total`, by result: `answered`, `failed`, or
`dropped` where `max_in_flight` copies were under way already. Its target is chosen, tried again and timed out as the
service's own rules say, within `timeout` milliseconds for everything. Of the answer, 64 KiB are read so that the connection
can be used again, and forgotten.

A body is copied where its length is known beforehand and is no more than `max_body` bytes. It is then read whole before the
request goes on; with `max_body: 0` only requests without a body are copied, and none waits. Requests with longer bodies, or
of a length that is not known, are not copied (`uncopied`). Nor are WebSockets and what a plugin or the cache answers.
A mirrored service must be one that may get the request twice: the copy of an order is an order.
",
    fields: FIELDS,
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

const FIELDS: &[Field] = &[
    Field::new("service", Kind::Ref("services"), "The service that gets the copies.").required().extension(),
    Field::new("share", Kind::Num { min: 0.0, max: 100.0 }, "Percentage of requests that are copied.")
        .default("100")
        .extension(),
    Field::new(
        "max_body",
        Kind::Int { min: 0, max: 10_485_760 },
        "Bytes of the longest body that is copied; 0 copies only requests without a body.",
    )
    .default("65536")
    .extension(),
    Field::new(
        "max_in_flight",
        Kind::Int { min: 1, max: 100_000 },
        "Copies under way at the same time, of all workers; further ones are dropped.",
    )
    .default("100")
    .extension(),
    Field::new("timeout", MILLIS, "Milliseconds that a copy may take.").default("10000").extension(),
];

/// How much of an answer is read.
const ANSWER_MAX: usize = 64 * 1024;
/// Shares are counted in millionths.
const WHOLE: u64 = 1_000_000;

/// What became of copies, over all of them.
#[derive(Debug, Default)]
pub struct Counts {
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    pub dropped: AtomicU64,
    pub uncopied: AtomicU64,
}

/// See the module.
pub struct Mirror {
    to: ServiceId,
    /// In millionths.
    share: u64,
    max_body: usize,
    max_in_flight: usize,
    timeout: Duration,
    in_flight: Arc<AtomicUsize>,
    counts: Arc<Counts>,
}

/// A copy's place among those under way; dropping it makes room.
struct Place {
    in_flight: Arc<AtomicUsize>,
    counts: Arc<Counts>,
}

impl Place {
    /// Notes what came of the copy.
    fn ended(self, result: &Result<CallResponse, CallError>) {
        let answered = matches!(result, Ok(_) | Err(CallError::TooLarge));
        let count = if answered { &self.counts.answered } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is to be done about a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Ready,
    Read,
    /// It is too long, or nobody knows how long.
    Uncopied,
}

impl Policy for Mirror {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let to = service(config, cx)?;
        let spoken = cx.model.services.get(to.0 as usize).map(|s| s.protocol.value.as_str());
        if matches!(spoken, Some("grpc" | "grpcs")) {
            let message =
                "gRPC calls cannot be mirrored: their bodies have no length that is known beforehand";
            cx.report(&codes::INVALID_VALUE, config.span_of("service"), message);
            return None;
        }
        let whole = |field: &str| config.int(field).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Some(Self {
            to,
            share: (config.num("share").unwrap_or(100.0) / 100.0 * WHOLE as f64).round() as u64,
            max_body: whole("max_body"),
            max_in_flight: whole("max_in_flight"),
            timeout: Duration::from_millis(whole("timeout") as u64),
            in_flight: Arc::default(),
            counts: cx.shared.get(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if !falls_into(self.share, x.request_id.0) || x.request.fields.contains(&names::UPGRADE) {
            return Flow::Next;
        }
        match self.body(x) {
            Body::Ready => self.send(x),
            Body::Read => Flow::Await(Effect::ReadBody { limit: self.max_body }),
            Body::Uncopied => {
                self.counts.uncopied.fetch_add(1, Ordering::Relaxed);
                Flow::Next
            }
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Ok(())) => self.send(x),
            // The client's body itself is broken, so the service could not have it either.
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            _ => Flow::Next,
        }
    }
}

impl Mirror {
    fn body(&self, x: &Exchange) -> Body {
        if let Some(body) = &x.body {
            return if body.len() <= self.max_body { Body::Ready } else { Body::Uncopied };
        }
        let fields = &x.request.fields;
        if fields.contains(&names::TRANSFER_ENCODING) {
            return Body::Uncopied;
        }
        match fields.text(&names::CONTENT_LENGTH).map(|n| n.trim().parse::<usize>()) {
            Some(Ok(0)) => Body::Ready,
            Some(Ok(n)) if n <= self.max_body => Body::Read,
            Some(_) => Body::Uncopied,
            // Over HTTP/2 a body may come without a length.
            None if matches!(x.request.method.as_str(), "GET" | "HEAD" | "OPTIONS") => Body::Ready,
            None if x.request.version == crate::message::Version::H2 => Body::Uncopied,
            None => Body::Ready,
        }
    }

    fn send(&self, x: &Exchange) -> Flow {
        if self.in_flight.fetch_add(1, Ordering::AcqRel) >= self.max_in_flight {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return Flow::Next;
        }
        let place = Place { in_flight: Arc::clone(&self.in_flight), counts: Arc::clone(&self.counts) };
        Flow::Await(Effect::Later(Box::new(self.call(x)), Done::new(move |result| place.ended(&result))))
    }

    fn call(&self, x: &Exchange) -> Call {
        let own = x.service.and_then(|s| x.snapshot.services.get(s.0 as usize));
        let base = own.map_or("", |s| s.path.trim_end_matches('/'));
        let path = x.upstream.path.strip_prefix(base).filter(|p| p.starts_with('/'));
        let mut path = path.unwrap_or(&x.upstream.path).to_owned();
        if let Some(query) = &x.request.query {
            path.push('?');
            path.push_str(query);
        }
        let mut fields = x.request.fields.clone();
        for name in
            [names::HOST, names::CONTENT_LENGTH, names::TRANSFER_ENCODING, names::CONNECTION, names::EXPECT]
        {
            fields.remove(&name);
        }
        Call {
            to: CallTo::Service(self.to),
            method: x.request.method.clone(),
            path,
            fields,
            body: x.body.clone().unwrap_or_default(),
            timeout: self.timeout,
            max_body: ANSWER_MAX,
        }
    }
}

/// Whether a request is of the share. Ids of one worker follow each other; multiplied by the golden ratio they are
/// spread evenly, so that shares are exact over few requests already.
fn falls_into(share: u64, id: u128) -> bool {
    let spread = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (u128::from(spread) * u128::from(WHOLE)) >> 64 < u128::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{exchange, request};

    fn mirror(max_body: usize, max_in_flight: usize) -> Mirror {
        Mirror {
            to: ServiceId(0),
            share: WHOLE,
            max_body,
            max_in_flight,
            timeout: Duration::from_secs(1),
            in_flight: Arc::default(),
            counts: Arc::default(),
        }
    }

    fn copy_of(mirror: &Mirror, text: &str) -> Option<(Call, Done)> {
        match request(mirror, &mut exchange(text)) {
            Flow::Await(Effect::Later(call, done)) => Some((*call, done)),
            Flow::Next => None,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_is_copied_and_what_is_not() {
        for (text, max_body, want) in [
            ("GET /a?b=c\nX-A: 1", 0, Some("GET /a?b=c ")),
            ("POST /a\n\nhello", 5, Some("POST /a hello")),
            ("POST /a\n\nhello", 4, None),
            ("POST /a\nContent-Length: 0", 0, Some("POST /a ")),
            ("POST /a\nTransfer-Encoding: chunked\n\nhello", 100, None),
            ("GET /a\nUpgrade: websocket", 0, None),
        ] {
            let copy = copy_of(&mirror(max_body, 1), text).map(|(call, _)| {
                assert!(!call.fields.contains(&names::CONTENT_LENGTH), "{text}");
                format!("{} {} {}", call.method, call.path, String::from_utf8_lossy(&call.body))
            });
            assert_eq!(copy.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn copies_under_way_are_bounded_and_counted() {
        let m = mirror(0, 1);
        let first = copy_of(&m, "GET /").expect("there is room");
        assert!(copy_of(&m, "GET /").is_none());
        first.1.call(Err(CallError::Timeout));
        assert!(copy_of(&m, "GET /").is_some(), "there is room again");
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        assert_eq!((count(&m.counts.dropped), count(&m.counts.failed)), (1, 1));
    }

    #[test]
    fn shares_are_exact_and_spread() {
        for (percent, want) in [(0, 0..=0), (1, 9..=11), (10, 98..=102), (50, 498..=502), (100, 1000..=1000)]
        {
            let share = WHOLE * percent / 100;
            let hits = (7_777..8_777).filter(|id| falls_into(share, *id)).count();
            assert!(want.contains(&hits), "{percent}: {hits}");
        }
    }
}
