//! `deprecation`: tell clients that what they use will go away, and when.

use jiff::Timestamp;

use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::Exchange;
use crate::message::FieldName;
use crate::model::schema::{Field, Kind, Record, Rule, TEXT};

static PLUGIN: Descriptor = Descriptor {
    name: "deprecation",
    summary: "tell clients that a route will go away, and when",
    doc: "\
## What it does
Adds the headers `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and links to what clients should read and use instead, and
answers 410 from the sunset on, if it is told to.

## Why
A version of an API can be switched off on the day that its clients have known for months; their tools read these headers.

## Example
```yaml
plugins:
  - name: deprecation
    config:
      deprecated: 2026-03-01
      sunset: 2026-12-31T23:59:59Z
      link: https://docs.example.com/v2-migration
      successor: https://api.example.com/v2/orders
      after_sunset: refuse
```

## Behaviour
`Deprecation: @1772323200` says since when, or from when, in Unix seconds; `Sunset` says it as an HTTP date. `link` becomes
`Link: <...>; rel=\"deprecation\"; type=\"text/html\"`, `successor` one with `rel=\"successor-version\"`. The headers are on
every answer of the route, errors included. A date without a time is its beginning in UTC. A sunset before the deprecation is
an error at load.

With `after_sunset: refuse` requests are answered 410 `Gone` from that moment on, before anybody is authenticated.
",
    fields: &[
        Field::new("deprecated", TEXT, "Since when or from when it is: a date, or date and time (RFC 3339).")
            .required()
            .extension(),
        Field::new("sunset", TEXT, "When it goes away, in the same form.").extension(),
        Field::new("link", Kind::Str(Rule::Url), "A page about the deprecation.").extension(),
        Field::new("successor", Kind::Str(Rule::Url), "What takes its place.").extension(),
        Field::new("after_sunset", Kind::Enum(&["serve", "refuse"]), "What becomes of requests after the sunset.")
            .default("\"serve\"")
            .extension(),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct Deprecation {
    /// Names and values, ready.
    headers: Vec<(FieldName, String)>,
    /// From when requests are refused, in ms since 1970.
    refuse_from: Option<u64>,
}

impl Policy for Deprecation {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let deprecated = moment(config, "deprecated", cx)?;
        let sunset = match config.get("sunset") {
            Some(_) => Some(moment(config, "sunset", cx)?),
            None => None,
        };
        if let Some(sunset) = sunset.filter(|s| *s < deprecated) {
            cx.diags.push(
                Diagnostic::new(
                    &codes::INVALID_VALUE,
                    config.span_of("sunset"),
                    format!("the sunset ({sunset}) comes before the deprecation"),
                )
                .also(config.span_of("deprecated"), format!("deprecated from {deprecated}"))
                .help("RFC 9745 forbids it: clients must know before it is gone"),
            );
            return None;
        }
        let refuse = config.str("after_sunset") == Some("refuse");
        if refuse && sunset.is_none() {
            cx.diags.push(
                Diagnostic::new(
                    &codes::MISSING_ALTERNATIVE,
                    config.span_of("after_sunset"),
                    "`after_sunset: refuse` without a sunset",
                )
                .help("add `sunset`"),
            );
            return None;
        }
        let mut headers = vec![(FieldName::new("Deprecation"), format!("@{}", deprecated.as_second()))];
        if let Some(sunset) = sunset {
            let seconds = u64::try_from(sunset.as_second()).unwrap_or(0);
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            headers.push((FieldName::new("Sunset"), httpdate::fmt_http_date(at)));
        }
        for (field, relation) in
            [("link", "rel=\"deprecation\"; type=\"text/html\""), ("successor", "rel=\"successor-version\"")]
        {
            if let Some(url) = config.str(field) {
                headers.push((FieldName::new("Link"), format!("<{url}>; {relation}")));
            }
        }
        let refuse_from = sunset.filter(|_| refuse).and_then(|s| u64::try_from(s.as_millisecond()).ok());
        Some(Self { headers, refuse_from })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        match self.refuse_from {
            Some(from) if x.now.unix_ms >= from => {
                Flow::Reply(Reply::error(&x.request, x.request_id, 410, "Gone"))
            }
            _ => Flow::Next,
        }
    }

    fn response(&self, x: &mut Exchange) {
        for (name, value) in &self.headers {
            x.response.fields.append(name, value);
        }
    }
}

/// A date, or a date with a time and an offset.
fn moment(config: &Record, field: &str, cx: &mut Cx<'_>) -> Option<Timestamp> {
    let text = config.str(field)?.trim();
    let whole = text.parse::<Timestamp>().ok();
    let day = || format!("{text}T00:00:00Z").parse::<Timestamp>().ok();
    let found = whole.or_else(|| if text.len() == 10 { day() } else { None });
    if found.is_none() {
        cx.diags.push(
            Diagnostic::new(&codes::INVALID_VALUE, config.span_of(field), format!("`{text}` is no date"))
                .help("write `2026-12-31` or `2026-12-31T23:59:59Z`"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Deprecation;
    use crate::policy::testing::{check, refuses};

    #[test]
    fn clients_are_told_and_refused() {
        check::<Deprecation>(
            json!({
                "deprecated": "2026-03-01", "sunset": "2096-12-31T23:59:59Z", "after_sunset": "refuse",
                "link": "https://d.test/v2", "successor": "https://a.test/v2"
            }),
            "GET /",
            "next
             < Deprecation: @1772323200
             < Sunset: Mon, 31 Dec 2096 23:59:59 GMT
             < Link: <https://d.test/v2>; rel=\"deprecation\"; type=\"text/html\", <https://a.test/v2>; rel=\"successor-version\"",
        );
        let gone = json!({"deprecated": "2020-01-01", "sunset": "2021-01-01", "after_sunset": "refuse"});
        check::<Deprecation>(gone, "GET /", "410\nbody Gone\n< Deprecation: @1577836800");
        let served = json!({"deprecated": "2020-01-01", "sunset": "2021-01-01"});
        check::<Deprecation>(served, "GET /", "next\n< Sunset: Fri, 01 Jan 2021 00:00:00 GMT");
    }

    #[test]
    fn dates_are_checked() {
        refuses::<Deprecation>(json!({"deprecated": "soon"}), "`soon` is no date");
        refuses::<Deprecation>(json!({"deprecated": "2026-01-01T10:00:00"}), "is no date");
        refuses::<Deprecation>(
            json!({"deprecated": "2026-02-01", "sunset": "2026-01-01"}),
            "comes before the deprecation",
        );
        refuses::<Deprecation>(
            json!({"deprecated": "2026-02-01", "after_sunset": "refuse"}),
            "without a sunset",
        );
    }
}
