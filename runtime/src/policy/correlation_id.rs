//! `correlation-id`: one id for a request through all services.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::{Cx, Descriptor, Flow, Policy};
use crate::exchange::Exchange;
use crate::message::FieldName;
use crate::model::schema::{Field, HEADER, Kind, Record};

static PLUGIN: Descriptor = Descriptor {
    name: "correlation-id",
    summary: "give every request an id that services and logs can share",
    doc: "\
## What it does
Adds a header with a unique id to the request unless the client sent a non-empty one, and on request to the response.

## Why
A line in the log of any service can be tied to the request that caused it.

## Example
```yaml
plugins:
  - name: correlation-id
    config: { header_name: X-Correlation-Id, generator: uuid#counter, echo_downstream: true }
```

## Behaviour
Never refuses a request. With `echo_downstream` the id is on every response, also on errors of the gateway and on 404.
`uuid#counter` is a UUID of the process and a number that counts its requests; `uuid` a random UUID; `tracker`
`server_ip-port-pid-connection-request-time`.
",
    fields: &[
        Field::new("header_name", HEADER, "The header that carries the id.").default("\"Kong-Request-ID\""),
        Field::new(
            "generator",
            Kind::Enum(&["uuid", "uuid#counter", "tracker"]),
            "How a new id is made.",
        )
        .default("\"uuid#counter\""),
        Field::new("echo_downstream", Kind::Bool, "Whether the response carries the id too.").default("false"),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

enum Generator {
    Uuid,
    Counter,
    Tracker,
}

/// See the module.
pub struct CorrelationId {
    header: FieldName,
    generator: Generator,
    echo: bool,
}

/// Of the process, as its counter: one sequence, whichever worker serves.
static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().to_string());
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Policy for CorrelationId {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        Some(Self {
            header: FieldName::new(config.str("header_name")?),
            generator: match config.str("generator")? {
                "uuid" => Generator::Uuid,
                "tracker" => Generator::Tracker,
                _ => Generator::Counter,
            },
            echo: config.bool("echo_downstream"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let id = match x.request.fields.text(&self.header) {
            Some(sent) if !sent.is_empty() => sent.to_owned(),
            _ => {
                let id = self.generate(x);
                x.request.fields.set(&self.header, &id);
                id
            }
        };
        x.correlation_id = Some(id);
        Flow::Next
    }

    fn response(&self, x: &mut Exchange) {
        if self.echo
            && let Some(id) = &x.correlation_id
        {
            x.response.fields.set(&self.header, id);
        }
    }
}

impl CorrelationId {
    fn generate(&self, x: &Exchange) -> String {
        match self.generator {
            Generator::Uuid => Uuid::new_v4().to_string(),
            Generator::Counter => {
                let n = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(n);
                let mut id = String::with_capacity(PROCESS.len() + 1 + digits.len());
                id.push_str(&PROCESS);
                id.push('#');
                id.push_str(digits);
                id
            }
            Generator::Tracker => {
                static PID: LazyLock<u32> = LazyLock::new(std::process::id);
                let (c, ms) = (&x.client, x.now.unix_ms);
                format!(
                    "{}-{}-{}-{}-{}-{}.{:03}",
                    c.local.ip(),
                    c.local.port(),
                    *PID,
                    c.connection,
                    c.connection_requests,
                    ms / 1000,
                    ms % 1000
                )
            }
        }
    }
}
