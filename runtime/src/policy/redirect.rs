//! `redirect`: send clients elsewhere.

use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, Rule};

static PLUGIN: Descriptor = Descriptor {
    name: "redirect",
    summary: "redirect requests to another address",
    doc: "\
## What it does
Answers with a redirect to a fixed location, or to the same path and query at another place.

## Why
For services that have moved.

## Example
```yaml
plugins:
  - name: redirect
    config: { status_code: 308, location: \"https://api.example.com\", keep_incoming_path: true }
```

## Behaviour
The upstream is not asked. The body is `redirecting`. With `keep_incoming_path` the path and query of the location give
way to those of the request.
",
    fields: &[
        Field::new("status_code", Kind::Int { min: 100, max: 599 }, "The status of the answer.").default("301"),
        Field::new("location", Kind::Str(Rule::Url), "Where to.").required(),
        Field::new("keep_incoming_path", Kind::Bool, "Whether path and query are the request's own.").default("false"),
    ],
    consumer_scope: true,
    extension: false,
    identity_headers: &[],
};

/// See the module.
pub struct Redirect {
    status: u16,
    /// The location; its origin alone where the path is the request's.
    location: String,
    keep_path: bool,
}

impl Policy for Redirect {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, _cx: &mut Cx<'_>) -> Option<Self> {
        let location = config.str("location")?;
        let keep_path = config.bool("keep_incoming_path");
        Some(Self {
            status: config.int("status_code").and_then(|n| u16::try_from(n).ok())?,
            location: if keep_path { origin(location) } else { location }.to_owned(),
            keep_path,
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let mut location = self.location.clone();
        if self.keep_path {
            location.push_str(&x.request.raw_path);
            if let Some(query) = &x.request.query {
                location.push('?');
                location.push_str(query);
            }
        }
        let reply = Reply { status: self.status, body: "redirecting".into(), ..Reply::default() };
        Flow::Reply(reply.field(names::LOCATION, location))
    }
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |i| i + 3);
    match url[authority..].find(['/', '?', '#']) {
        Some(end) => &url[..authority + end],
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::check;

    #[test]
    fn clients_are_sent_elsewhere() {
        let location = "https://b.test:8443/x?y=1";
        for (config, want) in [
            (
                json!({"location": location}),
                "301\nresponse redirecting\n< Location: https://b.test:8443/x?y=1",
            ),
            (
                json!({"location": location, "keep_incoming_path": true, "status_code": 308}),
                "308\n< Location: https://b.test:8443/a%20b?c=d&e",
            ),
        ] {
            check::<Redirect>(config, "GET /a%20b?c=d&e", want);
        }
        let keep = json!({"location": "http://b.test", "keep_incoming_path": true});
        check::<Redirect>(keep, "GET /", "301\n< Location: http://b.test/");
    }
}
