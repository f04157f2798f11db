//! `gateway-keys`: publishes the keys that services verify the gateway's tokens with.

use bytes::Bytes;

use super::{Cx, Descriptor, Flow, Policy, Reply, upstream_identity};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::FieldName;
use crate::model::schema::{Field, Kind, Record};

static PLUGIN: Descriptor = Descriptor {
    name: "gateway-keys",
    summary: "publish the keys that the gateway's own tokens are verified with",
    doc: "\
## What it does
Answers with the key set (RFC 7517) of all `upstream-identity` plugins of the config: public keys alone, retired ones too.

## Why
Services fetch the set as they fetch that of any issuer, and a rotation needs no change of theirs.

## Example
```yaml
routes:
  - name: keys
    paths: [/.well-known/jwks.json]
    plugins: [{ name: gateway-keys }]
```

## Behaviour
`GET` and `HEAD` are answered 200 with `application/jwk-set+json` and `Cache-Control: public, max-age`; other methods 405
with `Allow`. The upstream is not asked, so the route needs no service.
",
    fields: &[Field::new(
        "max_age",
        Kind::Int { min: 0, max: 86_400 },
        "Seconds that the set may be kept. A new key should be published, as retired, for longer than that before it signs.",
    )
    .default("300")],
    consumer_scope: false,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct GatewayKeys {
    body: Bytes,
    cache_control: String,
}

impl Policy for GatewayKeys {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let set = upstream_identity::public_keys(cx.model);
        if set["keys"].as_array().is_none_or(Vec::is_empty) {
            let message = "no `upstream-identity` plugin of this config has a `token.private_key`";
            cx.report(&codes::MISSING_ALTERNATIVE, cx.plugin.span, message);
            return None;
        }
        let max_age = config.int("max_age").unwrap_or(300);
        Some(Self { body: set.to_string().into(), cache_control: format!("public, max-age={max_age}") })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if !matches!(x.request.method.as_str(), "GET" | "HEAD") {
            let reply = Reply::error(&x.request, x.request_id, 405, "Method not allowed");
            return Flow::Reply(reply.field(FieldName::new("Allow"), "GET, HEAD"));
        }
        let reply = Reply::with_body(200, "application/jwk-set+json", self.body.clone());
        Flow::Reply(reply.field(FieldName::new("Cache-Control"), self.cache_control.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::refuses;

    #[test]
    fn a_config_without_keys_publishes_none() {
        refuses::<GatewayKeys>(json!({}), "has a `token.private_key`");
    }
}
