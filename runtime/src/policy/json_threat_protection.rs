//! `json-threat-protection`: JSON bodies have bounded depth, counts and lengths.

use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, media};
use crate::body::{Fault, Kind as FaultKind};
use crate::exchange::Exchange;
use crate::json::{Limits, check};
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, STR};
use crate::telemetry::Why;

/// -1 is no bound.
const BOUND: Kind = Kind::Int { min: -1, max: 2_147_483_647 };

static PLUGIN: Descriptor = Descriptor {
    name: "json-threat-protection",
    summary: "refuse JSON bodies that are nested too deeply, or too long in any way",
    doc: "\
## What it does
Reads JSON bodies once, keeping nothing of them, and refuses those that exceed a limit or are malformed.

## Why
A few kilobytes of JSON can keep a parser busy, or fill its memory; and of two members with one name, two readers may each
take another.

## Example
```yaml
plugins:
  - name: json-threat-protection
    config: { max_container_depth: 10, max_array_element_count: 1000, max_string_value_length: 10000 }
```

## Behaviour
Bodies whose type is JSON are read whole. The first excess or mistake is answered with `error_status_code` and
`error_message`, and its place (line and column); with `enforcement_mode: log_only` only the access log says so. A limit of -1 is
none. Bodies longer than `max_body_size` are refused before they are read, if they say so.
",
    fields: &[
        Field::new("max_body_size", BOUND, "Longest body, in bytes.").default("8192"),
        Field::new("max_container_depth", BOUND, "Deepest nesting of objects and arrays.").default("-1"),
        Field::new("max_object_entry_count", BOUND, "Most members of an object.").default("-1"),
        Field::new("max_object_entry_name_length", BOUND, "Longest name of a member, in bytes.").default("-1"),
        Field::new("max_array_element_count", BOUND, "Most items of an array.").default("-1"),
        Field::new("max_string_value_length", BOUND, "Longest string, in bytes.").default("-1"),
        Field::new("allow_duplicate_object_entry_name", Kind::Bool, "Whether an object may have a name twice.")
            .default("true"),
        Field::new("enforcement_mode", Kind::Enum(&["block", "log_only"]), "Whether bodies are refused, or only logged.")
            .default("\"block\""),
        Field::new("error_status_code", Kind::Int { min: 400, max: 499 }, "The status of the answer.").default("400"),
        Field::new("error_message", STR, "What the answer says before the place.").default("\"Bad Request\""),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct JsonThreatProtection {
    limits: Limits,
    size: usize,
    block: bool,
    status: u16,
    message: String,
}

impl Policy for JsonThreatProtection {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let bound =
            |field: &str| config.int(field).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        Some(Self {
            limits: Limits {
                depth: bound("max_container_depth"),
                values: usize::MAX,
                members: bound("max_object_entry_count"),
                items: bound("max_array_element_count"),
                name: bound("max_object_entry_name_length"),
                string: bound("max_string_value_length"),
                duplicates: config.bool("allow_duplicate_object_entry_name"),
            },
            size: bound("max_body_size"),
            block: config.str("enforcement_mode") == Some("block"),
            status: config.int("error_status_code").and_then(|n| u16::try_from(n).ok())?,
            message: config.str("error_message").unwrap_or_default().to_owned(),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let (media, _) = media::parse(x.request.fields.text(&names::CONTENT_TYPE).unwrap_or_default());
        if !media::is_json(&media) {
            return Flow::Next;
        }
        let held = x.snapshot.gateway.limits.buffered_body;
        let length = x.request.fields.text(&names::CONTENT_LENGTH).and_then(|n| n.parse::<usize>().ok());
        if length.is_some_and(|n| n > self.size) {
            let fault = Fault::at(b"", 0, FaultKind::Excessive, format!("longer than {} bytes", self.size));
            return self.wrong(x, &fault);
        }
        if !self.block && x.body.is_none() && length.is_none_or(|n| n > held) {
            return Flow::Next;
        }
        Flow::Await(Effect::ReadBody { limit: if self.block { held.min(self.size) } else { held } })
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        let Some(body) = x.body.clone().filter(|b| !b.is_empty()) else { return Flow::Next };
        match check(&body, &self.limits) {
            Ok(()) => Flow::Next,
            Err(fault) => self.wrong(x, &fault),
        }
    }
}

impl JsonThreatProtection {
    fn wrong(&self, x: &mut Exchange, fault: &Fault) -> Flow {
        x.keep(Why(format!("a JSON body is refused: {fault}")));
        if !self.block {
            return Flow::Next;
        }
        let message = format!("{}: {fault}", self.message);
        let reply = Reply::error(&x.request, x.request_id, self.status, &message);
        // An unread body ends the connection.
        Flow::Reply(if x.body.is_none() { reply.closing() } else { reply })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::check as expect;

    #[test]
    fn bodies_within_the_limits_pass() {
        let config = json!({"max_container_depth": 2, "max_object_entry_count": 2, "max_array_element_count": 3,
            "max_object_entry_name_length": 3, "max_string_value_length": 4, "max_body_size": 40,
            "allow_duplicate_object_entry_name": false});
        let json = "POST /\nContent-Type: application/json\n\n";
        for (body, want) in [
            ("{\"a\":[1,2,3]}", "next"),
            ("[[[1]]]", "400\nbody Bad Request: line 1, column 3: nested deeper than 2"),
            ("{\"a\":1,\"b\":2,\"c\":3}", "400\nbody more than 2 members"),
            ("[1,2,3,4]", "400\nbody more than 3 items"),
            ("{\"abcd\":1}", "400\nbody a name is longer than 3 bytes"),
            ("[\"abcde\"]", "400\nbody a string is longer than 4 bytes"),
            ("{\"a\":1,\"a\":2}", "400\nbody the object has this name already"),
            ("[1,", "400\nbody ends too early"),
            ("[                                        ]", "400\nbody longer than 40 bytes"),
            ("", "next"),
        ] {
            expect::<JsonThreatProtection>(config.clone(), &format!("{json}{body}"), want);
        }
        expect::<JsonThreatProtection>(config, "POST /\nContent-Type: text/plain\n\n[[[1]]]", "next");
        let log = json!({"max_container_depth": 1, "enforcement_mode": "log_only"});
        expect::<JsonThreatProtection>(log, &format!("{json}[[1]]"), "next\nbody [[1]]");
        let other = json!({"max_container_depth": 1, "error_status_code": 422, "error_message": "No"});
        expect::<JsonThreatProtection>(other, &format!("{json}[[1]]"), "422\nbody No: line 1, column 2");
    }
}
