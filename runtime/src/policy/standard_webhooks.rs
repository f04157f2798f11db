//! `standard-webhooks`: only let through webhooks that their sender signed.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::FieldName;
use crate::model::schema::{Field, Kind, Record, TEXT};

static PLUGIN: Descriptor = Descriptor {
    name: "standard-webhooks",
    summary: "verify the signatures of webhooks (standardwebhooks.com)",
    doc: "\
## What it does
Verifies the signature, version 1, that the sender of a webhook made over its id, time and body.

## Why
Anyone can post to a webhook's address; the service should see only what the sender it knows has sent.

## Example
```yaml
plugins:
  - name: standard-webhooks
    config: { secret_v1: \"${WEBHOOK_SECRET}\", tolerance_second: 300 }
```

## Behaviour
`webhook-id`, `webhook-timestamp` (seconds since 1970, within the tolerance of the gateway's clock) and
`webhook-signature` `v1,BASE64` must be there, the last exactly the HMAC-SHA256 of `id.timestamp.body` under the secret
as it is written. Everything else is answered with 400 `Bad request`.
",
    fields: &[
        Field::new("secret_v1", TEXT, "The secret that is shared with the sender.").required().secret(),
        Field::new("tolerance_second", Kind::Int { min: 0, max: i64::MAX }, "How old or early a webhook may be, in seconds.")
            .default("300"),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct StandardWebhooks {
    key: hmac::Key,
    /// Seconds.
    tolerance: u64,
    id: FieldName,
    timestamp: FieldName,
    signature: FieldName,
}

impl Policy for StandardWebhooks {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        Some(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, config.str("secret_v1")?.as_bytes()),
            tolerance: config.int("tolerance_second").and_then(|n| u64::try_from(n).ok())?,
            id: FieldName::new("webhook-id"),
            timestamp: FieldName::new("webhook-timestamp"),
            signature: FieldName::new("webhook-signature"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if !self.is_recent(x) || [&self.id, &self.signature].iter().any(|f| !x.request.fields.contains(f)) {
            return bad_request(x);
        }
        if x.body.is_some() {
            return self.verify(x);
        }
        Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body })
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            _ => self.verify(x),
        }
    }
}

impl StandardWebhooks {
    fn is_recent(&self, x: &Exchange) -> bool {
        let sent = x.request.fields.text(&self.timestamp).and_then(|t| t.parse::<u64>().ok());
        sent.is_some_and(|sent| sent.abs_diff(x.now.unix_ms / 1000) <= self.tolerance)
    }

    fn verify(&self, x: &Exchange) -> Flow {
        let fields = &x.request.fields;
        let get = |name| fields.get(name).unwrap_or(&[]);
        let mut context = hmac::Context::with_key(&self.key);
        for part in [get(&self.id), b".", get(&self.timestamp), b".", x.body.as_deref().unwrap_or(&[])] {
            context.update(part);
        }
        let want = format!("v1,{}", STANDARD.encode(context.sign()));
        if want.as_bytes().ct_eq(get(&self.signature)).into() { Flow::Next } else { bad_request(x) }
    }
}

fn bad_request(x: &Exchange) -> Flow {
    Flow::Reply(Reply::error(&x.request, x.request_id, 400, "Bad request"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::check;

    #[test]
    fn only_signed_webhooks_pass() {
        let now = crate::clock::unix_s();
        let sign = |signed: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
            format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
        };
        let post = |time: u64, signature: &str, body: &str| {
            format!(
                "POST /\nwebhook-id: m1\nwebhook-timestamp: {time}\nwebhook-signature: {signature}\n\n{body}"
            )
        };
        let bad = "400\nbody \"message\":\"Bad request\"";
        let good = sign(&format!("m1.{now}.{{}}"));
        for (request, want) in [
            (post(now, &good, "{}"), "next\nbody {}"),
            (post(now, &good, "{ }"), bad),
            (post(now, &format!("{good} {good}"), "{}"), bad),
            (post(now, "v1,", "{}"), bad),
            (post(now - 301, &sign(&format!("m1.{}.x", now - 301)), "x"), bad),
            (post(now + 301, &sign(&format!("m1.{}.x", now + 301)), "x"), bad),
            (post(now - 290, &sign(&format!("m1.{}.x", now - 290)), "x"), "next"),
            (format!("POST /\nwebhook-timestamp: {now}\nwebhook-signature: {good}\n\n{{}}"), bad),
            ("POST /\n\n{}".to_owned(), bad),
        ] {
            check::<StandardWebhooks>(json!({"secret_v1": "s3cret"}), &request, want);
        }
    }
}
