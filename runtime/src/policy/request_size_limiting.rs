//! `request-size-limiting`: how long a request's body may be.

use super::{Answer, BodyError, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record};

static PLUGIN: Descriptor = Descriptor {
    name: "request-size-limiting",
    summary: "refuse requests whose body is too long",
    doc: "\
## What it does
Refuses bodies that are longer than a limit, before the upstream sees anything of them.

## Why
To protect services that read bodies into memory.

## Example
```yaml
plugins:
  - name: request-size-limiting
    config: { allowed_payload_size: 256, size_unit: kilobytes }
```

## Behaviour
A body of exactly the limit passes. A longer one is refused with 413 `Request size limit exceeded`, or 417 where the
client asked first (`Expect: 100-continue`). A declared length is compared at once; a body of undeclared length is read
and measured, but never beyond the limit. With `require_content_length` a request that neither declares a length nor is
chunked gets 411 `A valid Content-Length header is required`, also a `GET` without a body.
",
    fields: &[
        Field::new(
            "allowed_payload_size",
            Kind::Int { min: i64::MIN, max: i64::MAX },
            "The longest body that passes, in `size_unit`.",
        )
        .default("128"),
        Field::new(
            "size_unit",
            Kind::Enum(&["megabytes", "kilobytes", "bytes"]),
            "Unit of the size; a kilobyte is 1024 bytes, a megabyte 1048576.",
        )
        .default("\"megabytes\""),
        Field::new("require_content_length", Kind::Bool, "Whether requests must declare the length of their body.")
            .default("false"),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct RequestSizeLimiting {
    /// Bytes.
    limit: u64,
    require_length: bool,
}

impl Policy for RequestSizeLimiting {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let unit = match config.str("size_unit")? {
            "bytes" => 1,
            "kilobytes" => 1 << 10,
            _ => 1 << 20,
        };
        let size = u64::try_from(config.int("allowed_payload_size")?).unwrap_or(0);
        Some(Self { limit: size.saturating_mul(unit), require_length: config.bool("require_content_length") })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let declared =
            x.request.fields.text(&names::CONTENT_LENGTH).and_then(|t| t.trim().parse::<u64>().ok());
        match declared {
            Some(length) if length > self.limit => Flow::Reply(exceeded(x)),
            Some(_) => Flow::Next,
            None => {
                let chunked = x.request.fields.contains(&names::TRANSFER_ENCODING);
                if self.require_length && !chunked {
                    let message = "A valid Content-Length header is required";
                    return Flow::Reply(Reply::error(&x.request, x.request_id, 411, message));
                }
                Flow::Await(Effect::ReadBody { limit: usize::try_from(self.limit).unwrap_or(usize::MAX) })
            }
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Err(BodyError::TooLarge)) => Flow::Reply(exceeded(x).closing()),
            _ => Flow::Next,
        }
    }
}

fn exceeded(x: &Exchange) -> Reply {
    let asked_first =
        x.request.fields.text(&names::EXPECT).is_some_and(|e| e.eq_ignore_ascii_case("100-continue"));
    let status = if asked_first { 417 } else { 413 };
    Reply::error(&x.request, x.request_id, status, "Request size limit exceeded")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::check;

    #[test]
    fn longer_bodies_are_refused() {
        let too_long = "413\nbody Request size limit exceeded";
        for (size, unit, length, want) in [
            (2, "bytes", 2, "next"),
            (2, "bytes", 3, too_long),
            (0, "bytes", 1, too_long),
            (2, "kilobytes", 2048, "next"),
            (2, "kilobytes", 2049, too_long),
            (2, "megabytes", 2_097_152, "next"),
            (2, "megabytes", 2_097_153, too_long),
        ] {
            let config = json!({"allowed_payload_size": size, "size_unit": unit});
            check::<RequestSizeLimiting>(config, &format!("POST /\nContent-Length: {length}"), want);
        }
        let ten = json!({"allowed_payload_size": 10, "size_unit": "bytes"});
        let first = "POST /\nExpect: 100-continue\n\n0123456789";
        check::<RequestSizeLimiting>(ten.clone(), first, "next");
        check::<RequestSizeLimiting>(
            ten.clone(),
            &format!("{first}a"),
            "417\nbody Request size limit exceeded",
        );
        check::<RequestSizeLimiting>(ten.clone(), "POST /\nTransfer-Encoding: chunked\n\n0123456789", "next");
        check::<RequestSizeLimiting>(ten, "POST /\nTransfer-Encoding: chunked\n\n0123456789a", too_long);
    }

    #[test]
    fn a_length_may_be_required() {
        let config = json!({"allowed_payload_size": 1, "size_unit": "bytes", "require_content_length": true});
        let required = "411\nbody A valid Content-Length header is required";
        check::<RequestSizeLimiting>(config.clone(), "GET /", required);
        check::<RequestSizeLimiting>(config.clone(), "GET /\nContent-Length: 0", "next");
        check::<RequestSizeLimiting>(config, "POST /\nTransfer-Encoding: chunked\n\na", "next");
    }
}
