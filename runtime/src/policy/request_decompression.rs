//! `request-decompression`: compressed request bodies reach policies and services as they were.

use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, representation};
use crate::body::coding::{Bounds, Coding, CodingError, decode};
use crate::exchange::Exchange;
use crate::message::{FieldName, names};
use crate::model::schema::{Field, Kind, Record};
use crate::telemetry::Why;

static PLUGIN: Descriptor = Descriptor {
    name: "request-decompression",
    summary: "decode compressed request bodies, within bounds",
    doc: "\
## What it does
Decodes request bodies with a `Content-Encoding` before later policies and the service see them.

## Why
Services need not know any coding, policies can read what clients send, and bombs end at the gateway.

## Example
```yaml
plugins:
  - name: request-decompression
    config: { max_size: 1048576, max_ratio: 50 }
```

## Behaviour
The body is read whole and decoded; the service gets it without `Content-Encoding`, with the right length. A body that
becomes longer than `max_size`, or than `max_ratio` times what was sent (where that is over 64 KiB), is refused with 413
as soon as that shows, a malformed one with 400, and a coding that is not listed, or more than two of them, with 415 and an
`Accept-Encoding` that names the codings. Windows beyond 8 MiB (zstd) and 16 MiB (br) are refused.
",
    fields: &[
        Field::new(
            "algorithms",
            Kind::Set(&Kind::Enum(&["gzip", "br", "zstd", "deflate"])),
            "The codings that are decoded.",
        )
        .default(r#"["gzip","br","zstd","deflate"]"#),
        Field::new(
            "max_size",
            Kind::Int { min: 1, max: i64::MAX },
            "Longest decoded body, in bytes; at most `gateway.limits.buffered_body`.",
        )
        .default("10485760"),
        Field::new(
            "max_ratio",
            Kind::Int { min: 1, max: 1_000_000 },
            "How many times longer than what was sent a body over 64 KiB may become.",
        )
        .default("100"),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct RequestDecompression {
    codings: Vec<Coding>,
    bounds: Bounds,
}

impl Policy for RequestDecompression {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let count = |field| config.int(field).and_then(|n| usize::try_from(n).ok());
        Some(Self {
            codings: config.strings("algorithms").iter().filter_map(|t| Coding::parse(t)).collect(),
            bounds: Bounds { size: count("max_size")?, ratio: count("max_ratio")? },
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        match self.layers(x) {
            Ok(layers) if layers.is_empty() => Flow::Next,
            Ok(_) => Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body }),
            Err(reply) => Flow::Reply(reply),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        let layers = match self.layers(x) {
            Ok(layers) => layers,
            Err(reply) => return Flow::Reply(reply),
        };
        let Some(mut body) = x.body.clone().filter(|b| !b.is_empty()) else { return Flow::Next };
        let size = self.bounds.size.min(x.snapshot.gateway.limits.buffered_body);
        // The last coding was put on last.
        for coding in layers.into_iter().rev() {
            match decode(coding, &body, Bounds { size, ..self.bounds }) {
                Ok(decoded) => body = decoded.into(),
                Err(error) => {
                    let message = format!("The body's {} encoding {}", coding.name(), error.what());
                    let (status, message) = match error {
                        CodingError::TooLarge => (413, "The decoded body is too large".to_owned()),
                        _ => (400, message),
                    };
                    x.keep(Why(message.clone()));
                    return Flow::Reply(Reply::gateway_error(&x.request, x.request_id, status, &message));
                }
            }
        }
        x.body = Some(body);
        x.request.fields.remove(&names::CONTENT_ENCODING);
        representation::forget_bytes(&mut x.request.fields);
        Flow::Next
    }
}

impl RequestDecompression {
    /// The codings of the request's body in the order in which they were put on, or what to answer.
    fn layers(&self, x: &Exchange) -> Result<Vec<Coding>, Reply> {
        let layers = representation::codings(&x.request.fields);
        layers.filter(|l| l.iter().all(|c| self.codings.contains(c))).ok_or_else(|| {
            let known: Vec<_> = self.codings.iter().map(|c| c.name()).collect();
            let message = "The body's content encoding is not supported";
            Reply::gateway_error(&x.request, x.request_id, 415, message)
                .field(FieldName::new("Accept-Encoding"), known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::coding::Encoder;
    use crate::policy::testing::{exchange, policy};

    fn encode(coding: Coding, body: &[u8]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::new(coding, 5).unwrap(), Vec::new());
        encoder.push(body, &mut out).unwrap();
        encoder.finish(&mut out).unwrap();
        out
    }

    /// The status, 0 for what goes on, and the body.
    fn run(config: serde_json::Value, encoding: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let p = policy::<RequestDecompression>(&config);
        let mut x = exchange(&format!("POST /\nContent-Encoding: {encoding}\nContent-MD5: x"));
        let flow = match p.request(&mut x) {
            Flow::Await(Effect::ReadBody { .. }) => {
                x.body = Some(body.into());
                p.resume(&mut x, Answer::Body(Ok(())))
            }
            other => other,
        };
        match flow {
            Flow::Next => {
                assert_eq!(
                    x.body.is_some(),
                    !x.request.fields.contains(&names::CONTENT_ENCODING),
                    "{encoding}"
                );
                (0, x.body.map(|b| b.to_vec()).unwrap_or_default())
            }
            Flow::Reply(reply) => (reply.status, reply.body.to_vec()),
            Flow::Await(effect) => panic!("{effect:?}"),
        }
    }

    #[test]
    fn bodies_are_decoded() {
        let body = b"hello, hello, hello".to_vec();
        for coding in Coding::ALL {
            assert_eq!(run(json!({}), coding.name(), encode(coding, &body)), (0, body.clone()), "{coding:?}");
        }
        let twice = encode(Coding::Gzip, &encode(Coding::Br, &body));
        assert_eq!(run(json!({}), "br, gzip", twice), (0, body.clone()));
        assert_eq!(run(json!({}), "identity", Vec::new()), (0, Vec::new()));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        let gzip = |b: &[u8]| encode(Coding::Gzip, b);
        for (config, encoding, body, status, what) in [
            (json!({}), "gzip", b"not gzip".to_vec(), 400, "gzip encoding is malformed"),
            (json!({}), "gzip", gzip(b"hello")[..15].to_vec(), 400, "ends too early"),
            (json!({}), "compress", vec![], 415, "not supported"),
            (json!({}), "gzip, gzip, gzip", vec![], 415, "not supported"),
            (json!({"algorithms": ["br"]}), "gzip", vec![], 415, "not supported"),
            (json!({"max_size": 10}), "gzip", gzip(b"hello hello"), 413, "too large"),
            (json!({}), "gzip", gzip(&vec![0; 1 << 20]), 413, "too large"),
            (json!({}), "gzip, gzip", gzip(&gzip(&vec![0; 1 << 24])), 413, "too large"),
            (json!({}), "br", encode(Coding::Br, &vec![0; 1 << 20]), 413, "too large"),
        ] {
            let (got, text) = run(config.clone(), encoding, body);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(got == status && text.contains(what), "{config} {encoding}: {got} {text}");
        }
        assert_eq!(run(json!({"max_ratio": 2000}), "gzip", gzip(&vec![0; 1 << 20])).1.len(), 1 << 20);
    }
}
